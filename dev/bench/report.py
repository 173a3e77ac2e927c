"""What the benchmarks found, on the terminal and as docs/benchmarks.md."""

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from tabulate import tabulate

from dev.environment import ROOT
from dev.npm import lock_file

PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = "python3 -m dev bench"
PACKAGES = ("azure-functions", "azure-functions-runtime-v1", "requests-cache", "cachecontrol")

INTRODUCTION = f"""\
`{COMMAND}` measures all of this anew and writes this page; `{COMMAND} --quick` only shows that it works.

What is around the app is simulated, all on one machine, load included: Partner Center, the sign-in and the \
vault by `dev/simulator` over TLS, Blob Storage by Azurite in memory, the Functions host by `dev/host.py` \
around Microsoft's own runtime. There is no network in between: whatever waits for one takes longer in Azure.

The cases of a table take turns, round by round, so that whatever else the machine does strikes all of them. \
A figure is the median of the rounds, with the lowest and the highest in brackets. A ratio compares two \
cases of the same round, and says more about another machine than what has a unit.
"""


@dataclass(frozen=True)
class Table:
    """Rows by column, and what sets this table apart from the others of its section, if there are more."""

    rows: Sequence[Mapping[str, str]]
    title: str = ""

    def text(self, style: str) -> str:
        """As text in one of tabulate's styles: names to the left, figures to the right."""
        sides = ["left", *["right"] * (len(self.rows[0]) - 1)]
        table = tabulate(self.rows, headers="keys", tablefmt=style, colalign=sides, disable_numparse=True)
        return f"{self.title}:\n\n{table}" if self.title else table


@dataclass(frozen=True)
class Section:
    """A question, how it was put, the figures, and what they say."""

    question: str
    method: str
    tables: Sequence[Table]
    reading: str

    def text(self, style: str, mark: str = "") -> str:
        """The whole section."""
        tables = (table.text(style) for table in self.tables)
        return "\n\n".join([mark + self.question, self.method, *tables, self.reading])


def machine() -> dict[str, str]:
    """What measures, and how busy it is before it begins."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": _processor(),
        "cores": str(psutil.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before it began": f"{psutil.getloadavg()[0]:.1f}",
        "system": _system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "Azurite": _azurite(),
    }


def markdown(known: Mapping[str, str], sections: Iterable[Section]) -> str:
    """The page."""
    rows = [{"measured on": name, "": value} for name, value in known.items()]
    head = [
        "# Benchmarks",
        INTRODUCTION.rstrip(),
        tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True),
    ]
    return "\n\n".join([*head, *(section.text("github", "## ") for section in sections)]) + "\n"


def _processor() -> str:
    """Its name where Linux tells it, else what kind it is."""
    known = Path("/proc/cpuinfo")
    said = known.read_text(encoding="utf-8") if known.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", said, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _system() -> str:
    try:
        return f"{platform.system()}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _azurite() -> str:
    lock = json.loads(lock_file("azurite").read_text(encoding="utf-8"))
    pinned: str = lock["packages"]["node_modules/azurite"]["version"]
    return pinned
