"""A client that loads a host: one request again and again, over some connections, all in one thread."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import urlsplit

from dev.bench.figures import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n")


@dataclass(frozen=True)
class Round:
    """What one case did in one round: requests a second, and seconds that a request took."""

    rate: float
    seconds: list[float]

    @property
    def p50(self) -> float:
        """Seconds within which half of the requests were answered."""
        return percentile(self.seconds, 50)

    @property
    def p99(self) -> float:
        """The same of 99 in a hundred."""
        return percentile(self.seconds, 99)


type Case = Callable[[int, float], Awaitable[Round]]
"""Loads a host over so many connections for so many seconds."""

type Done = dict[str, list[Round]]
"""The rounds of each case."""


def take_turns(
    cases: Mapping[str, Case], connections: int, rounds: int, seconds: float, *, warming: int = 1
) -> Done:
    """So many rounds, each of all cases in turn; before them come some that only warm up."""

    async def run() -> Done:
        done: Done = {name: [] for name in cases}
        for _ in range(warming + rounds):
            for name, case in cases.items():
                done[name].append(await case(connections, seconds))
        return {name: found[warming:] for name, found in done.items()}

    return asyncio.run(run())


def title(connections: int, rounds: int, seconds: float) -> str:
    """What a table of such rounds is called."""
    times = "1 round" if rounds == 1 else f"{rounds} rounds"
    return f"{connections} connection{'s' * (connections > 1)}, {times} of {seconds} s"


def request(url: str, headers: str = "") -> bytes:
    """A GET; each of the headers ends with its line."""
    parts = urlsplit(url)
    return f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode()


async def load(url: str, asked: bytes, connections: int, seconds: float) -> Round:
    """Send a request again and again over so many connections."""
    ends, taken = perf_counter() + seconds, list[float]()

    async def send() -> None:
        reader, writer = await _connect(url)
        while (began := perf_counter()) < ends:
            writer.write(asked)
            await _answer(reader)
            taken.append(perf_counter() - began)
        writer.close()
        await writer.wait_closed()

    began = perf_counter()
    await asyncio.gather(*(send() for _ in range(connections)))
    return Round(len(taken) / (perf_counter() - began), taken)


async def ask(url: str, headers: str = "") -> bytes:
    """The head of one answer, over a connection of its own."""
    reader, writer = await _connect(url)
    writer.write(request(url, headers))
    head = await _answer(reader)
    writer.close()
    await writer.wait_closed()
    return head


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer to its end; its head, read as far as must be. Raises RuntimeError for no success."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length:
        await reader.readexactly(int(length[1]))
    if head[9:12] not in {b"200", b"304"}:
        raise RuntimeError(head[:80])
    return head
