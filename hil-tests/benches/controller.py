"""A line controller in Python, for comparison: asyncio, one commit for all that waits. Keeps results in the SQLite
file that it is given, or nothing."""

import asyncio
import sqlite3
import sys

import grpc
from factory.station.v1 import line_controller_pb2 as messages
from factory.station.v1 import line_controller_pb2_grpc as services


class Store:
    """Keeps batches in one transaction each; all that wait together."""

    def __init__(self, file):
        self.waiting = []
        self.database = None
        if file:
            self.database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = FULL")
            self.database.execute(
                "CREATE TABLE results (station TEXT, sequence INTEGER, serial TEXT, outcome INTEGER, message BLOB,"
                " UNIQUE (station, sequence))"
            )
            self.wake = asyncio.Event()
            self.writer = asyncio.create_task(self.write())

    async def keep(self, rows):
        if self.database:
            done = asyncio.get_running_loop().create_future()
            self.waiting.append((rows, done))
            self.wake.set()
            await done

    async def write(self):
        while True:
            await self.wake.wait()
            self.wake.clear()
            taken, self.waiting = self.waiting, []
            await asyncio.to_thread(self.commit, [row for rows, _ in taken for row in rows])
            for _, done in taken:
                done.set_result(None)

    def commit(self, rows):
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
        self.database.execute("COMMIT")


class LineController(services.LineControllerServicer):
    def __init__(self, store):
        self.store = store

    async def ReportResults(self, reports, context):
        come = asyncio.Queue()

        async def read():
            async for report in reports:
                come.put_nowait(report)
            come.put_nowait(None)

        reading = asyncio.create_task(read())
        while (report := await come.get()) is not None:
            batch = [report]
            while not come.empty() and (report := come.get_nowait()) is not None:
                batch.append(report)
            rows = [(r.station, r.sequence, r.unit.serial, r.unit.outcome, r.unit.SerializeToString()) for r in batch]
            await self.store.keep(rows)
            yield messages.ReportResultsResponse(acknowledged_sequence=batch[-1].sequence)
        await reading


async def main(file):
    server = grpc.aio.server()
    services.add_LineControllerServicer_to_server(LineController(Store(file)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ""))
