"""A WSGI application for gunicorn: tells its pid; at /wait it stops half-way until the gate opens."""

import os
import socket

# Where the tests say, it waits until it may start: it connects, and goes on at end of file.
if "START" in os.environ:
    with socket.socket(socket.AF_UNIX) as start:
        start.connect(os.environ["START"])
        start.recv(1)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        with socket.socket(socket.AF_UNIX) as gate:
            gate.connect(os.environ["GATE"])
            gate.recv(1)
    body = f"pid {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
