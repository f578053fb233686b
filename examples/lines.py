#!/usr/bin/python3
"""A line server: says who the client is, then answers each line with its number and the line turned round."""

import os
import sys

print("hello", os.environ.get("TCPREMOTEIP", "neighbour"), flush=True)
for number, line in enumerate(sys.stdin, 1):
    word = line.rstrip("\r\n")
    if word == "quit":
        break
    # A client waits for its answer before it says more.
    print(number, word[::-1], flush=True)
print("bye", flush=True)
