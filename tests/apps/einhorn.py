"""A worker of einhorn: serves HTTP at the sockets of EINHORN_FD_*, says that it is up as clients in Python do,
and at SIGUSR2 stops accepting, answers what it has accepted, and ends."""

import json
import os
import selectors
import signal
import socket


def acknowledge():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.connect(os.environ["EINHORN_SOCK_PATH"])
        said = {"command": "worker:ack", "pid": os.getpid()}
        control.sendall(json.dumps(said).encode() + b"\n")


def serve(connection):
    connection.setblocking(True)
    with connection, connection.makefile("rb") as request:
        while request.readline().strip():
            pass
        body = f"pid {os.getpid()}\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())


assert os.getppid() == int(os.environ["EINHORN_MASTER_PID"])
count = int(os.environ["EINHORN_FD_COUNT"])
# SIGUSR2 makes one end readable.
stopping, told = socket.socketpair()
told.setblocking(False)
signal.set_wakeup_fd(told.fileno())
signal.signal(signal.SIGUSR2, lambda *_: None)
selector = selectors.DefaultSelector()
selector.register(stopping, selectors.EVENT_READ)
for number in range(count):
    listener = socket.socket(fileno=int(os.environ[f"EINHORN_FD_{number}"]))
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
acknowledge()
while True:
    ready = [key.fileobj for key, _ in selector.select()]
    if stopping in ready:
        break
    for listener in ready:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # Another instance was faster.
        serve(connection)
