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
SO_RCVBUFFORCE = 33
server.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
server.serve_forever()
