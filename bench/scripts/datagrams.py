#!/usr/bin/python3
"""socketserver.UDPServer as an echo.  datagrams.py PORT"""
import socket
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        line, sock = self.request
        sock.sendto(line, self.client_address)


server = socketserver.UDPServer(("127.0.0.1", int(sys.argv[1])), Echo)
server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
server.serve_forever()
