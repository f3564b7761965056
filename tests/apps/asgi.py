"""An ASGI application for uvicorn: tells its pid; at /wait it stops half-way until the gate opens."""

import asyncio
import os
import socket

# Where the tests say, it waits until it may start: it connects, and goes on at end of file.
if "START" in os.environ:
    with socket.socket(socket.AF_UNIX) as start:
        start.connect(os.environ["START"])
        start.recv(1)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/wait":
        reader, writer = await asyncio.open_unix_connection(os.environ["GATE"])
        await reader.read()
        writer.close()
    body = f"pid {os.getpid()}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
