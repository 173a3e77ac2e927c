"""Benchmarks that anyone can repeat: python3 -m dev bench.

Rounds of the cases are interleaved, so that whatever else the machine does strikes all of them; ratios say
more than rates.
"""

import asyncio
import json
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

CONNECTIONS = 1, 32
_NOOP = """\
import azure.functions as func


async def main(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(b"{}", mimetype="application/json")
"""
_BINDINGS = {
    "scriptFile": "__init__.py",
    "bindings": [
        {
            "type": "httpTrigger",
            "direction": "in",
            "name": "req",
            "route": "noop",
            "authLevel": "function",
            "methods": ["get"],
        },
        {"type": "http", "direction": "out", "name": "$return"},
    ],
}


@dataclass(frozen=True)
class Round:
    """What one case did in one round: requests a second, and seconds that a request took."""

    rate: float
    seconds: list[float]


def bench(*, quick: bool) -> int:
    """Run the benchmarks and print their tables; returns the exit code."""
    rounds, seconds = (3, 0.5) if quick else (15, 2.0)
    with tempfile.TemporaryDirectory() as directory, _host(Path(directory)) as url:
        etag = asyncio.run(_entity_tag(url + "/api/v1/usagesummary"))
        cases = {
            "no-op function": _request(url + "/api/noop"),
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
    """The local host with the app and, in the same process, an async function that does nothing."""
    for name in ("host.json", "shared", "GetUsageSummary"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "Noop").mkdir()
    (directory / "Noop" / "__init__.py").write_text(_NOOP)
    (directory / "Noop" / "function.json").write_text(json.dumps(_BINDINGS))
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


async def _answer(reader: asyncio.StreamReader) -> dict[str, str]:
    """Read one answer to its end; its headers. Raises RuntimeError when it is no success."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    if status.split()[1] not in {"200", "304"}:
        raise RuntimeError(status)
    return headers


async def _entity_tag(url: str) -> str:
    """The entity tag of a first answer."""
    reader, writer = await _connect(url)
    writer.write(_request(url))
    headers = await _answer(reader)
    writer.close()
    await writer.wait_closed()
    return headers["etag"]
