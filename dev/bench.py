"""Benchmarks that anyone can repeat: python3 -m dev bench.

Rounds of the cases are interleaved, so that whatever else the machine does strikes all of them; ratios say
more than rates.
"""

import asyncio
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from tabulate import tabulate

from dev.azurite import Azurite
from dev.children import child
from dev.environment import ROOT
from dev.run import environment
from dev.simulator import Simulator
from dev.simulator.world import DOCUMENT

CONNECTIONS = 1, 32
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n")
_NOOP = """\
import azure.functions as func

BODY, HEADERS, TYPE = {response}


async def main(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(BODY, headers=HEADERS, mimetype=TYPE)
"""
# What the hit costs by its size alone: as many headers, and a body as long.
_SAME = {
    **dict.fromkeys(("ms-correlationid", "ms-requestid"), "5ac39d30-6a4c-4b7e-8f0c-0a6a3a5f6a0e"),
    "etag": '"f47d39b8022d0c02b3e0aaf54cc1266e"',
    "cache-control": "private, max-age=3600",
    "age": "12",
    "cache-status": "usage-summary; hit; ttl=3588",
    "x-content-type-options": "nosniff",
    "content-type": "application/json; charset=utf-8",
}
_NOOPS = {"noop": (b"{}", {}, "application/json"), "same": (b"x" * len(DOCUMENT), _SAME, "")}


def _bindings(route: str) -> dict[str, object]:
    trigger = {
        "type": "httpTrigger",
        "direction": "in",
        "name": "req",
        "route": route,
        "authLevel": "function",
        "methods": ["get"],
    }
    return {
        "scriptFile": "__init__.py",
        "bindings": [trigger, {"type": "http", "direction": "out", "name": "$return"}],
    }


@dataclass(frozen=True)
class Round:
    """What one case did in one round: requests a second, and seconds that a request took."""

    rate: float
    seconds: list[float]


def bench(*, quick: bool) -> int:
    """Run the benchmarks and print their tables; returns the exit code."""
    rounds, seconds = (3, 0.5) if quick else (9, 1.5)
    with tempfile.TemporaryDirectory() as directory, _host(Path(directory)) as url:
        etag = asyncio.run(_entity_tag(url + "/api/v1/usagesummary"))
        cases = {
            "no-op function": _request(url + "/api/noop"),
            "no-op, same response": _request(url + "/api/same"),
            "hit": _request(url + "/api/v1/usagesummary"),
            "304": _request(url + "/api/v1/usagesummary", f"If-None-Match: {etag}\r\n"),
        }
        for connections in CONNECTIONS:
            done: dict[str, list[Round]] = {name: [] for name in cases}
            for _ in range(rounds + 1):
                for name, request in cases.items():
                    done[name].append(asyncio.run(_load(url, request, connections, seconds)))
            print(f"\n{connections} connection{'s' * (connections > 1)}, {rounds} rounds of {seconds} s each")
            print(_table({name: each[1:] for name, each in done.items()}))  # the first warms up
    return 0


def _table(done: dict[str, list[Round]]) -> str:
    bare = [each.rate for each in next(iter(done.values()))]
    rows = []
    for name, rounds in done.items():
        ratios = [each.rate / rate for each, rate in zip(rounds, bare, strict=True)]
        taken = sorted(second for each in rounds for second in each.seconds)
        rows.append(
            {
                "case": name,
                "of no-op": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "requests/s": statistics.median(each.rate for each in rounds),
                "p50 ms": 1000 * taken[len(taken) // 2],
                "p99 ms": 1000 * taken[len(taken) * 99 // 100],
            }
        )
    return tabulate(rows, headers="keys", floatfmt=("", ".2f", ".2f", ".2f", ".0f", ".2f", ".2f"))


@contextmanager
def _host(directory: Path) -> Iterator[str]:
    """The local host with the app and, in the same process, async functions that do nothing."""
    for name in ("host.json", "shared", "GetUsageSummary"):
        (directory / name).symlink_to(ROOT / name)
    for name, response in _NOOPS.items():
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text(_NOOP.format(response=repr(response)))
        (directory / name / "function.json").write_text(json.dumps(_bindings(name)))
    command = [
        sys.executable,
        "-m",
        "dev.host",
        "--port",
        "0",
        "--root",
        str(directory),
        "--environment-only",
    ]
    with (
        Azurite() as azurite,
        Simulator() as simulator,
        child([*command, "--until-eof"], environment(azurite, simulator)) as host,
    ):
        for line in host.stdout or ():
            if line.startswith("listening on "):
                yield line.removeprefix("listening on ").strip()
                return
        raise RuntimeError("the local host did not start")


def _request(url: str, headers: str = "") -> bytes:
    parts = urlsplit(url)
    return f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n".encode()


async def _load(url: str, request: bytes, connections: int, seconds: float) -> Round:
    """Send a request again and again over so many connections."""
    ends, taken = perf_counter() + seconds, list[float]()

    async def send() -> None:
        reader, writer = await _connect(url)
        while (began := perf_counter()) < ends:
            writer.write(request)
            await _answer(reader)
            taken.append(perf_counter() - began)
        writer.close()
        await writer.wait_closed()

    began = perf_counter()
    await asyncio.gather(*(send() for _ in range(connections)))
    return Round(len(taken) / (perf_counter() - began), taken)


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


async def _entity_tag(url: str) -> str:
    """The entity tag of a first answer."""
    reader, writer = await _connect(url)
    writer.write(_request(url))
    head = await _answer(reader)
    writer.close()
    await writer.wait_closed()
    return head.partition(b"etag: ")[2].partition(b"\r\n")[0].decode()
