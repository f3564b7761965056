"""A QUIC server on the inherited socket, that answers with its pid. SIGTERM ends it at once."""

import asyncio
import os
import signal
import socket
import sys

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived


class Answers(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, b"%d\n" % os.getpid())
            self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["test"], idle_timeout=600)
    configuration.load_cert_chain(sys.argv[1], sys.argv[2])
    inherited = socket.socket(fileno=3)
    inherited.setblocking(False)
    loop = asyncio.get_running_loop()

    def server():
        return QuicServer(configuration=configuration, create_protocol=Answers)

    await loop.create_datagram_endpoint(server, sock=inherited)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    told = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect("\0" + told[1:] if told[0] == "@" else told)
        notify.send(b"READY=1")
    await stopped.wait()
    os._exit(0)


asyncio.run(main())
