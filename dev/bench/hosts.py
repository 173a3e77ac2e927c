"""The local host with the app, beside functions that do nothing, or with nothing else."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.azurite import Azurite
from dev.children import child
from dev.environment import ROOT
from dev.run import environment
from dev.simulator import Simulator
from dev.simulator.world import DOCUMENT

FUNCTION = "GetUsageSummary"
PATH = "/v1/usagesummary"
_READ_PAUSE = 0.02  # seconds; a pipe holds more than a host logs in that time

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
NOOP, SAME = "noop", "same"
_RESPONSES = {NOOP: (b"{}", {}, "application/json"), SAME: (b"x" * len(DOCUMENT), _SAME, "")}
_BINDINGS = [
    {"type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "function", "methods": ["get"]},
    {"type": "http", "direction": "out", "name": "$return"},
]


@dataclass(frozen=True)
class Host:
    """A running host: its address, and its process."""

    url: str
    process: subprocess.Popen[str]

    @property
    def hit(self) -> str:
        """Where the usage summary is."""
        return self.url + PATH


def make_app(root: Path, own: Iterable[str] = (), noops: Iterable[str] = (NOOP,)) -> Path:
    """Make an app in `root`, which comes back: these folders of the product, these functions that do nothing.

    Such a function's path is its name.
    """
    root.mkdir(exist_ok=True)
    for name in ("host.json", *own):
        (root / name).symlink_to(ROOT / name)
    for name in noops:
        (root / name).mkdir()
        (root / name / "__init__.py").write_text(_NOOP.format(response=repr(_RESPONSES[name])))
        (root / name / "function.json").write_text(
            json.dumps({"scriptFile": "__init__.py", "bindings": _BINDINGS})
        )
    return root


def settings_of(azurite: Azurite, simulator: Simulator, **own: str) -> dict[str, str]:
    """A host's settings: the world's, these, and for the rest the defaults, whatever the person has set."""
    world = environment(azurite, simulator).items()
    return {name: value for name, value in world if not name.startswith("USAGE_CACHE_")} | {
        "SNAPSHOT_SCHEDULE": "0 0 0 1 1 *",  # no timer while it is measured
        **own,
    }


@contextmanager
def host(root: Path, settings: Mapping[str, str]) -> Iterator[Host]:
    """The local host with an app; what it logs is read, and thrown away."""
    with starting(root, settings) as process:
        url = listening(process)
        threading.Thread(target=_drain, args=(process,), daemon=True).start()
        yield Host(url, process)


@contextmanager
def starting(root: Path, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The same, just begun."""
    command = [sys.executable, "-m", "dev.host", "--port", "0", "--root", str(root), "--environment-only"]
    with child([*command, "--until-eof"], settings) as process:
        yield process


def listening(process: subprocess.Popen[str]) -> str:
    """The address of a host that has begun, once it listens. Raises RuntimeError with all it said."""
    said = []
    for line in process.stdout or ():
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
        said.append(line)
    raise RuntimeError(f"the local host did not start: {''.join(said)}")


def _drain(process: subprocess.Popen[str]) -> None:
    """Read to the end, seldom and much at once, so that whoever measures here is not interrupted."""
    if process.stdout:
        while os.read(process.stdout.fileno(), 1 << 16):
            time.sleep(_READ_PAUSE)
