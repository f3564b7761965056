"""An HTTP server on descriptor 3 that tells its pid, in the way that is named: what Python brings
along, and frameworks that are told the socket. Exit status 77 where the framework is missing."""

import os
import socket
import socketserver
import sys


def answer():
    body = f"pid {os.getpid()}\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"pid {os.getpid()}\n".encode()]


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(answer())


def by_accept(listener):
    while True:
        connection, _ = listener.accept()
        Handler(connection, None, None)
        connection.close()


def by_socketserver(listener):
    server = socketserver.TCPServer(None, Handler, bind_and_activate=False)
    server.socket = listener
    server.serve_forever()


def by_asyncio(listener):
    import asyncio

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


def by_uvloop(listener):
    import uvloop

    uvloop.install()
    by_asyncio(listener)


def by_gevent(listener):
    from gevent.pywsgi import WSGIServer
    from gevent import socket as gevent_socket

    listener = gevent_socket.socket(fileno=listener.detach())
    WSGIServer(listener, wsgi, log=None).serve_forever()


def by_waitress(listener):
    import waitress

    waitress.serve(wsgi, sockets=[listener], _quiet=True)


def by_tornado(listener):
    import asyncio
    import tornado.httpserver
    import tornado.wsgi

    async def main():
        server = tornado.httpserver.HTTPServer(tornado.wsgi.WSGIContainer(wsgi))
        listener.setblocking(False)
        server.add_sockets([listener])
        await asyncio.Event().wait()

    asyncio.run(main())


def by_aiohttp(listener):
    from aiohttp import web

    async def handle(request):
        return web.Response(text=f"pid {os.getpid()}\n")

    app = web.Application()
    app.router.add_get("/", handle)
    web.run_app(app, sock=listener, print=None)


if "START" in os.environ:
    with socket.socket(socket.AF_UNIX) as start:
        start.connect(os.environ["START"])
        start.recv(1)
try:
    globals()["by_" + sys.argv[1]](socket.socket(fileno=3))
except ImportError:
    sys.exit(77)
