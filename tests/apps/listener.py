"""An HTTP server that tells its pid, on an inherited descriptor, in the way that is named: what Python
brings along, and frameworks that are told the socket. At SIGTERM it finishes what it has in hand, where
the framework can. Exit status 77 where the framework is missing.

    listener.py WAY [FD]
"""

import os
import signal
import socket
import socketserver
import sys
import threading


def answer():
    body = f"pid {os.getpid()}\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def wsgi(environ, start_response):
    body = f"pid {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        self.wfile.write(answer())


def at_sigterm(stop):
    """For a server whose loop waits until `stop` is done: in a thread."""
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())


def until_sigterm():
    """For asyncio: an event."""
    import asyncio

    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    return event


def by_accept(listener):
    while True:
        connection, _ = listener.accept()
        Handler(connection, None, None)
        connection.close()


def by_select(listener):
    import select

    hears, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    while True:
        if hears in select.select([hears, listener], [], [])[0]:
            return
        connection, _ = listener.accept()
        Handler(connection, None, None)
        connection.close()


def serve(server, listener):
    """A server of socketserver."""
    server.socket.close()
    server.socket = listener
    at_sigterm(server.shutdown)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


def by_socketserver(listener):
    class Server(socketserver.ThreadingTCPServer):
        address_family = listener.family

    serve(Server(None, Handler, bind_and_activate=False), listener)


def by_http(listener):
    import http.server

    class Request(http.server.BaseHTTPRequestHandler):
        # A unix client has no address.
        address_string = lambda self: "-"
        log_message = lambda *_: None

        def do_GET(self):
            body = f"pid {os.getpid()}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = False

    serve(Server(None, Request, bind_and_activate=False), listener)


def by_wsgiref(listener):
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    class Request(WSGIRequestHandler):
        address_string = lambda self: "-"
        log_message = lambda *_: None

        def get_environ(self):
            self.client_address = ("-", 0)
            return super().get_environ()

    server = WSGIServer(None, Request, bind_and_activate=False)
    server.server_name, server.server_port = "localhost", 80
    server.setup_environ()
    server.set_app(wsgi)
    serve(server, listener)


def by_asyncio(listener):
    import asyncio

    async def main():
        at_work = set()

        async def handle(reader, writer):
            at_work.add(asyncio.current_task())
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer())
                await writer.drain()
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                at_work.discard(asyncio.current_task())

        server = await asyncio.start_server(handle, sock=listener)
        await until_sigterm().wait()
        server.close()
        # What was accepted in this turn has no task yet.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while at_work:
            await asyncio.wait(at_work)

    asyncio.run(main())


def by_uvloop(listener):
    import uvloop

    uvloop.install()
    by_asyncio(listener)


def by_trio(listener):
    import trio

    async def handle(stream):
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.receive_some()
            if not more:
                return
            head += more
        await stream.send_all(answer())

    async def main():
        held = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as handlers, trio.open_nursery() as accepts:
            accepts.start_soon(lambda: trio.serve_listeners(handle, [held], handler_nursery=handlers))
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            accepts.cancel_scope.cancel()

    trio.run(main)


def by_gevent(listener):
    import gevent
    from gevent.pywsgi import WSGIServer
    from gevent import socket as gevent_socket

    listener = gevent_socket.socket(fileno=listener.detach())
    server = WSGIServer(listener, wsgi, log=None)
    gevent.signal_handler(signal.SIGTERM, server.stop, 10)
    server.serve_forever()


def by_eventlet(listener):
    import eventlet
    import eventlet.wsgi
    from eventlet.greenio import GreenSocket

    pool = eventlet.GreenPool()
    main = eventlet.spawn(
        eventlet.wsgi.server, GreenSocket(listener), wsgi, log_output=False, custom_pool=pool)
    hub = eventlet.hubs.get_hub()
    signal.signal(signal.SIGTERM, lambda *_: hub.schedule_call_global(0, main.kill, eventlet.StopServe()))
    try:
        main.wait()
    except eventlet.StopServe:
        pass
    pool.waitall()


def by_waitress(listener):
    import waitress

    waitress.serve(wsgi, sockets=[listener], _quiet=True)


def by_cheroot(_listener):
    """It takes descriptor 3 by itself, where LISTEN_PID is set."""
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", 0), wsgi)
    at_sigterm(server.stop)
    server.start()


def by_werkzeug(listener):
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Request(WSGIRequestHandler):
        log = lambda *_: None

    server = make_server("127.0.0.1", 1, wsgi, threaded=True, fd=listener.fileno(), request_handler=Request)
    server.daemon_threads = False
    at_sigterm(server.shutdown)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


def by_tornado(listener):
    import asyncio
    import tornado.httpserver
    import tornado.wsgi

    async def main():
        server = tornado.httpserver.HTTPServer(tornado.wsgi.WSGIContainer(wsgi))
        listener.setblocking(False)
        server.add_sockets([listener])
        await until_sigterm().wait()
        server.stop()
        while server._connections:
            await asyncio.sleep(0.01)

    asyncio.run(main())


def by_aiohttp(listener):
    from aiohttp import web

    async def handle(request):
        return web.Response(text=f"pid {os.getpid()}\n")

    app = web.Application()
    app.router.add_get("/", handle)
    web.run_app(app, sock=listener, print=None)


def by_sanic(listener):
    from sanic import Sanic
    from sanic.response import text

    app = Sanic("listener")
    app.get("/")(lambda request: text(f"pid {os.getpid()}\n"))
    app.run(sock=listener, single_process=True, motd=False, access_log=False)


def by_twisted(listener):
    from twisted.internet import reactor
    from twisted.web import resource, server

    class Page(resource.Resource):
        isLeaf = True

        def render_GET(self, request):
            at_work.add(request)
            request.notifyFinish().addBoth(lambda _: at_work.discard(request))
            return f"pid {os.getpid()}\n".encode()

    at_work = set()
    listener.setblocking(False)
    port = reactor.adoptStreamPort(listener.fileno(), listener.family, server.Site(Page()))

    def leave():
        # Connections whose request has not been read are among the readers.
        others = [one for one in reactor.getReaders() if type(one).__name__ == "Server"]
        if at_work or others:
            reactor.callLater(0.01, leave)
        else:
            reactor.stop()

    def stop(*_):
        # Only the reactor stops to read it: close(2) of the port would take the path of a unix socket.
        reactor.removeReader(port)
        leave()

    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop))
    reactor.run(installSignalHandlers=False)


def by_pyftpdlib(listener):
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    listener.setblocking(False)
    server = FTPServer(listener, FTPHandler)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    while not stop:
        server.serve_forever(timeout=0.1, blocking=False, handle_exit=False)


def by_aiosmtpd(listener):
    import asyncio
    from aiosmtpd.handlers import Sink
    from aiosmtpd.smtp import SMTP

    serve_protocol(listener, lambda: SMTP(Sink(), hostname="localhost"))


async def until_idle(server):
    """Until the last connection of this server of asyncio has ended."""
    import asyncio

    # What was accepted in this turn is not counted yet.
    await asyncio.sleep(0.05)
    while server._active_count:
        await asyncio.sleep(0.01)


def serve_protocol(listener, factory):
    import asyncio

    async def main():
        server = await asyncio.get_running_loop().create_server(factory, sock=listener)
        await until_sigterm().wait()
        server.close()
        await until_idle(server)

    asyncio.run(main())


def by_asyncssh(listener):
    import asyncio
    import asyncssh

    async def main():
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(sock=listener, server_host_keys=[key])
        await until_sigterm().wait()
        server.close()
        await until_idle(server._server)

    asyncio.run(main())


def by_websockets(listener):
    import asyncio
    from websockets.asyncio.server import serve

    async def main():
        async with serve(lambda connection: connection.wait_closed(), sock=listener) as server:
            await until_sigterm().wait()
            server.close(close_connections=False)
            await until_idle(server.server)

    asyncio.run(main())


def by_grpclib(listener):
    import asyncio
    from grpclib.server import Server

    async def main():
        server = Server([])
        await server.start(sock=listener)
        await until_sigterm().wait()
        # Its own close() ends the connections as well.
        server._server.close()
        await until_idle(server._server)

    asyncio.run(main())


def by_bjoern(listener):
    import bjoern

    listener.setblocking(False)
    bjoern.server_run(listener, wsgi)


def by_picows(listener):
    import asyncio
    from picows import WSListener, ws_create_server

    async def main():
        server = await ws_create_server(lambda _: WSListener(), sock=listener)
        await until_sigterm().wait()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def by_zmq(listener):
    import zmq

    context = zmq.Context()
    replies = context.socket(zmq.REP)
    replies.setsockopt(zmq.USE_FD, listener.detach())
    replies.bind("tcp://127.0.0.1:1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        replies.recv()
        replies.send(f"pid {os.getpid()}".encode())


def by_flipflop(_listener):
    """It takes descriptor 0, as FastCGI has it."""
    from flipflop import WSGIServer

    WSGIServer(wsgi).run()


def by_dnslib(listener):
    import dnslib.server
    from dnslib import A, QTYPE, RR

    class Resolver:
        def resolve(self, request, handler):
            reply = request.reply()
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("192.0.2.1")))
            return reply

    datagrams = listener.type == socket.SOCK_DGRAM
    kind = socketserver.ThreadingUDPServer if datagrams else socketserver.ThreadingTCPServer
    server = kind(None, dnslib.server.DNSHandler, bind_and_activate=False)
    server.resolver = Resolver()
    server.logger = dnslib.server.DNSLogger("-", logf=lambda _: None)
    serve(server, listener)


def by_udp(listener):
    class Echo(socketserver.DatagramRequestHandler):
        def handle(self):
            self.wfile.write(b"pid " + self.rfile.read())

    serve(socketserver.ThreadingUDPServer(None, Echo, bind_and_activate=False), listener)


def by_soup(listener):
    import gi

    gi.require_version("Soup", "3.0")
    from gi.repository import Gio, GLib, Soup

    def handle(server, message, *_):
        message.set_status(200, None)
        message.get_response_headers().replace("Connection", "close")
        message.set_response("text/plain", Soup.MemoryUse.COPY, f"pid {os.getpid()}\n".encode())

    server = Soup.Server()
    server.add_handler("/", handle)
    server.listen_socket(Gio.Socket.new_from_fd(listener.detach()), 0)
    loop = GLib.MainLoop()

    def stop():
        # It cannot stop to accept and go on with those that it has accepted.
        loop.quit()

    GLib.unix_signal_add(GLib.PRIORITY_LOW, signal.SIGTERM, stop)
    loop.run()


if "START" in os.environ:
    with socket.socket(socket.AF_UNIX) as start:
        start.connect(os.environ["START"])
        start.recv(1)
try:
    fd = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    globals()["by_" + sys.argv[1]](socket.socket(fileno=fd))
except ImportError:
    sys.exit(77)
