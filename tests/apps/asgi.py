"""An ASGI application for uvicorn: tells its pid; at /wait it stops half-way until the gate opens."""

import asyncio
import os


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
