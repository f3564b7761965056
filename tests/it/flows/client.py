"""Many QUIC connections, each with one stream on which it asks without a pause, and goes on only when it was
answered by the process that has answered it first. For each line on stdin: how many connections were answered
once more since the line came, and how many answers there were in all."""

import asyncio
import os
import ssl
import sys

from contextlib import AsyncExitStack

from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration

PORT, COUNT, PATIENCE, PAUSE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), 0.05


class Connection:
    answers = 0

    def __init__(self):
        self.answered = asyncio.Event()

    async def open(self, stack):
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["test"], verify_mode=ssl.CERT_NONE, idle_timeout=600
        )
        client = connect("127.0.0.1", PORT, configuration=configuration)
        client = await stack.enter_async_context(client)
        self.reader, self.writer = await client.create_stream()
        self.task = asyncio.create_task(self.run())

    async def run(self):
        first = None
        while True:
            self.writer.write(b"?")
            pid = await self.reader.readline()
            first = first or pid
            if not pid or pid != first:
                return
            self.answers += 1
            self.answered.set()
            await asyncio.sleep(PAUSE)

    async def goes_on(self):
        # The answer that is under way may have been on its way already.
        for _ in range(2):
            self.answered.clear()
            try:
                await asyncio.wait_for(self.answered.wait(), PATIENCE)
            except asyncio.TimeoutError:
                return False
        return True


async def main():
    loop = asyncio.get_running_loop()
    connections = [Connection() for _ in range(COUNT)]
    async with AsyncExitStack() as stack:
        for connection in connections:
            await connection.open(stack)
        while await loop.run_in_executor(None, sys.stdin.readline):
            kept = await asyncio.gather(*(connection.goes_on() for connection in connections))
            print(sum(kept), sum(connection.answers for connection in connections), flush=True)
        os._exit(0)


asyncio.run(main())
