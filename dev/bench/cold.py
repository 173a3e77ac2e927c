"""How long a new process takes to its first answer."""

import http.client
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from zipfile import ZipFile

from dev.azurite import Azurite
from dev.bench.figures import Spread, ratio, spread
from dev.bench.hosts import FUNCTION, NOOP, PATH, listening, make_app, settings_of, starting
from dev.bench.report import Section, Table
from dev.environment import ROOT
from dev.package import PACKAGES, build
from dev.simulator import Simulator

GOAL = 1.5
"""So many times longer than a bare app's may the first answer take that is found in storage."""

TIMER = "SnapshotTimer"
BARE, STORED, FETCHED = "bare app", "answer found in storage", "answer fetched from Partner Center"
LIBRARY, MODULES = "import azure.functions", "import both function modules"

METHOD = """\
From the start of a process of the local host to the end of its first answer: with one async function that \
does nothing, and with the whole app, which finds a fresh answer in the shared blob, or finds none, makes \
the container, signs in and asks Partner Center. Once from the source tree, once from the deployment \
package. All bytecode is there before the first round that counts. The local host is in these figures, on \
both sides; the last table has the imports alone, in a process with nothing else in it."""

_IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"

type _Case = Callable[[], float]
"""Does it once; the seconds that it took."""

type _Done = dict[str, list[float]]


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on cold starts."""
    warming, rounds = (0, 1) if quick else (1, 7)
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = settings_of(azurite, simulator)
        groups: dict[str, dict[str, _Case]] = {
            "from the source tree": _source(directory, settings),
            "from the package": _package(directory, settings),
            "imports": {
                LIBRARY: partial(_import, "azure.functions", settings),
                MODULES: partial(_import, f"{FUNCTION}, {TIMER}", settings),
            },
        }
        done: dict[str, _Done] = {title: {name: [] for name in cases} for title, cases in groups.items()}
        for number in range(warming + rounds):
            for title, cases in groups.items():
                for name, case in cases.items():
                    seconds = case()
                    if number >= warming:
                        done[title][name].append(seconds)
    tables = [Table(_rows(each), title) for title, each in done.items()]
    found = {title: _times(each, STORED).median for title, each in done.items() if STORED in each}
    said = " and ".join(f"{times:.2f} times {title}" for title, times in found.items())
    reading = (
        f"Beside a bare app the first answer that is found in storage takes {said}; the goal, at most {GOAL}"
        f" times, is {'kept' if max(found.values()) <= GOAL else 'missed'}. Both function modules take"
        f" {_times(done['imports'], MODULES).median:.2f} times as long to import as azure.functions alone."
    )
    return Section("How long does a cold start take?", METHOD, tables, reading)


def _source(directory: Path, settings: Mapping[str, str]) -> dict[str, _Case]:
    bare = make_app(directory / "bare")
    return _starts(bare, make_app(directory / "app", ("shared", FUNCTION, TIMER), ()), settings)


def _package(directory: Path, settings: Mapping[str, str]) -> dict[str, _Case]:
    """The same from the zip that is deployed; what only the local host needs still comes from .venv."""
    archive, app = directory / "app.zip", directory / "package"
    build(archive)
    with ZipFile(archive) as entries:
        entries.extractall(app)
    return _starts(directory / "bare", app, {**settings, "PYTHONPATH": str(app / PACKAGES)})


def _starts(bare: Path, app: Path, settings: Mapping[str, str]) -> dict[str, _Case]:
    """Fresh answers are stored when the first round, which does not count, has fetched one."""

    def fetched() -> float:
        nobodys = {"USAGE_CACHE_CONTAINER": f"cache-{uuid.uuid4().hex}"}
        return _first_answer(app, {**settings, **nobodys}, PATH)

    return {
        BARE: partial(_first_answer, bare, settings, f"/{NOOP}"),
        STORED: partial(_first_answer, app, settings, PATH),
        FETCHED: fetched,
    }


def _first_answer(root: Path, settings: Mapping[str, str], path: str) -> float:
    """Seconds from the start of a host; raises RuntimeError for an answer other than 200."""
    began = time.perf_counter()
    with starting(root, settings) as process:
        connection = http.client.HTTPConnection(listening(process).removeprefix("http://"), timeout=60)
        connection.request("GET", path)
        with connection.getresponse() as answer:
            answer.read()
            seconds = time.perf_counter() - began
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"the first answer is {answer.status}")
    return seconds


def _import(names: str, settings: Mapping[str, str]) -> float:
    """Seconds of an import, as the process itself has measured them."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(names)],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _times(done: _Done, case: str) -> Spread:
    """How many times the first case's."""
    return ratio(done[case], next(iter(done.values())))


def _rows(done: _Done) -> list[dict[str, str]]:
    first = next(iter(done))
    return [
        {
            "case": case,
            f"times {first}": f"{_times(done, case):.2f}",
            "beyond it ms": f"{1000 * (spread(found).median - spread(done[first]).median):.0f}",
            "ms": f"{1000 * spread(found).median:.0f}",
        }
        for case, found in done.items()
    ]
