#!/usr/bin/python3
"""socketserver.ForkingTCPServer: a process for each client.  forking.py PORT"""
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        line = self.request.recv(4096)
        if line:
            self.request.sendall(line)


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 4096  # 5 unless said
    max_children = 12000  # 40 unless said


Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
