"""An HTTP proxy before an S3 emulator that fails as object stores do.

    python -m tests.support.fault_proxy --upstream 127.0.0.1:5000 --listen 127.0.0.1:0 --seed 6

It speaks HTTP/1.1 with the client and opens one connection a request to the emulator. Which request
meets which fault follows from the seed and the request's number; bursts and outages go by time.
Faults, each with its share of requests:

* ``slow_down``: 503 SlowDown, the request does not reach the store. In a burst nearly all do.
* ``error``: 500 InternalError, likewise.
* ``reset``: the connection is reset before the request reaches the store.
* ``lost``: the store does what it is asked, and the answer is lost: the connection is reset.
* ``truncated``: half of the answer's body, then the connection ends.
* ``slow``: the answer's body comes in dribbles over some seconds.
* ``stall``: nothing comes for longer than clients wait, then the connection is reset.
* ``outage``: for some seconds, every connection is reset at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message><RequestId>0</RequestId></Error>"
)
INTERNAL = SLOW_DOWN.replace(b"SlowDown", b"InternalError")


@dataclass
class FaultPlan:
    """Which faults, how often.

    Attributes:
        shares: Share of requests by fault, outside bursts.
        burst_every_s: Seconds between the ends and beginnings of 503 bursts, on average; 0 = none.
        burst_s: Longest burst.
        outage_every_s: Seconds between outages, on average; 0 = none.
        outage_s: Longest outage.
        slow_s: How long a slow body takes.
        stall_s: How long a stall lasts.
    """

    seed: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    burst_every_s: float = 0.0
    burst_s: float = 10.0
    outage_every_s: float = 0.0
    outage_s: float = 20.0
    slow_s: float = 4.0
    stall_s: float = 75.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._times = random.Random(self.seed + 1)
        now = time.monotonic()
        self._next = {
            "burst": now + self._wait(self.burst_every_s),
            "outage": now + self._wait(self.outage_every_s),
        }
        self._until = {"burst": 0.0, "outage": 0.0}

    def choose(self) -> str | None:
        """The fault of the next request."""
        for kind, interval_s, longest_s in (
            ("outage", self.outage_every_s, self.outage_s),
            ("burst", self.burst_every_s, self.burst_s),
        ):
            now = time.monotonic()
            if now >= self._next[kind]:
                self._until[kind] = now + self._times.uniform(0.2, 1.0) * longest_s
                self._next[kind] = self._until[kind] + self._wait(interval_s)
            if now < self._until[kind]:
                if kind == "outage":
                    return "outage"
                if self._random.random() < 0.9:
                    return "slow_down"
        at = self._random.random()
        for fault, share in self.shares.items():
            if at < share:
                return fault
            at -= share
        return None

    def _wait(self, interval_s: float) -> float:
        return self._times.expovariate(1 / interval_s) if interval_s else float("inf")


def soak_plan(seed: int) -> FaultPlan:
    """A bad day: one request in fourteen, a burst a minute, an outage every seven."""
    return FaultPlan(
        seed,
        shares={
            "slow_down": 0.02,
            "error": 0.01,
            "reset": 0.01,
            "lost": 0.01,
            "truncated": 0.01,
            "slow": 0.01,
            "stall": 0.0005,
        },
        burst_every_s=75.0,
        burst_s=12.0,
        outage_every_s=400.0,
        outage_s=25.0,
    )


class FaultProxy:
    """The proxy; `start` runs it in a thread of its own.

    Attributes:
        counts: Requests by the fault they met; ``none`` for those let through.
    """

    def __init__(self, upstream: tuple[str, int], plan: FaultPlan) -> None:
        self.upstream = upstream
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self.port = 0

    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        """Listen; the port is in `port` afterwards."""
        server = await asyncio.start_server(self._client, host, port, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def start(self) -> str:
        """Listen in a thread; the URL."""
        ready = threading.Event()

        def run() -> None:
            async def main() -> None:
                server = await self.serve()
                ready.set()
                async with server:
                    await server.serve_forever()

            asyncio.run(main())

        threading.Thread(target=run, daemon=True).start()
        assert ready.wait(10)
        return f"http://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection can be used for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        fault = self.plan.choose()
        self.counts[fault or "none"] += 1
        if fault in ("outage", "reset"):
            return False
        if headers.get(b"expect", b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, headers)
        if fault == "stall":
            await asyncio.sleep(self.plan.stall_s)
            return False
        if fault in ("slow_down", "error"):
            status, text = (
                (b"503 Slow Down", SLOW_DOWN) if fault == "slow_down" else (b"500 Error", INTERNAL)
            )
            if lines[0].startswith(b"HEAD"):
                text = b""
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s"
                % (status, len(text), text)
            )
            await writer.drain()
            return True
        kept = [line for line in lines[1:] if _name(line) not in (b"connection", b"expect")]
        answer = await self._ask(b"\r\n".join([lines[0], *kept, b"Connection: close"]), body)
        if fault == "lost":
            return False
        return await self._answer(writer, answer, fault, lines[0].startswith(b"HEAD"))

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            writer.write(head + b"\r\n\r\n" + body)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, answer: bytes, fault: str | None, is_head: bool
    ) -> bool:
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        kept = [line for line in lines if _name(line) != b"connection"]
        whole = is_head or b"content-length" in map(_name, lines)
        ending = [] if whole else [b"Connection: close"]
        writer.write(b"\r\n".join([*kept, *ending]) + b"\r\n\r\n")
        if fault == "truncated" and len(body) > 1:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        if fault == "slow":
            for at in range(10):
                part = body[at * len(body) // 10 : (at + 1) * len(body) // 10]
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(self.plan.slow_s / 10)
        else:
            writer.write(body)
        await writer.drain()
        return whole


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].strip().lower()


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    """The body as it came on the wire."""
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        parts = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            parts.append(line)
            if not size:
                while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                    parts.append(trailer)
                return b"".join([*parts, b"\r\n"])
            parts.append(await reader.readexactly(size + 2))
    return await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def _main(args: argparse.Namespace) -> None:
    host, port = args.upstream.split(":")
    plan = soak_plan(args.seed) if args.seed >= 0 else FaultPlan()
    proxy = FaultProxy((host, int(port)), plan)
    listen, port = args.listen.split(":")
    server = await proxy.serve(listen, int(port))
    print(proxy.port, flush=True)
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    async with server:
        while not end.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), 5.0)
            Path(args.counts).write_text(json.dumps(proxy.counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--seed", type=int, default=0, help="below 0: no faults")
    parser.add_argument("--counts", required=True, help="file for the counts of faults")
    asyncio.run(_main(parser.parse_args()))
    sys.exit(0)
