"""A worker in Python: takes its listeners by name, reports readiness, drains at SIGTERM."""

import os
import selectors
import signal
import socket
import sys
import threading


def inherited():
    # Another pid: the variables were meant for a process above this one.
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("no listener was inherited; start it from listend")
    # A name may come twice: `localhost:8080` is two sockets.
    names = os.environ["LISTEN_FDNAMES"].split(":")
    return [(socket.socket(fileno=fd), name) for fd, name in enumerate(names, start=3)]


def notify(state):
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(state, "\0" + path[1:] if path[0] == "@" else path)


def answer(client, name):
    body = f"{name}: hello from pid {os.getpid()}\n"
    try:
        with client:
            client.settimeout(10)  # a silent client must not hold up the drain
            with client.makefile("rwb") as stream:
                while line := stream.readline(65536):
                    if line == b"\r\n":
                        stream.write(
                            b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
                            b"Content-Length: %d\r\n\r\n%s" % (len(body), body.encode())
                        )
                        return
    except OSError:
        pass  # the client has gone


# Python runs a signal handler only between two instructions of its own, so a signal just before
# select() would be noticed too late. The byte in the pipe cannot be missed.
wake, waker = socket.socketpair()
waker.setblocking(False)
signal.set_wakeup_fd(waker.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)

selector = selectors.DefaultSelector()
selector.register(wake, selectors.EVENT_READ)
for listener, name in inherited():
    # All instances wake up for a client, and all but one find that it has been taken. A blocking
    # accept() would then hang, also at SIGTERM.
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, name)
notify(b"READY=1")

while True:
    for key, _ in selector.select():
        if key.fileobj is wake:
            sys.exit()  # waits for the threads; who is in the queue is for other instances
        try:
            client, _ = key.fileobj.accept()
        except OSError:
            continue  # taken by another instance, or gone
        threading.Thread(target=answer, args=(client, key.data)).start()
