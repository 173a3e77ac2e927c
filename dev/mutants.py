"""Mutants of the app's code, and which of them no test notices: python3 -m dev mutants.

What is mutated, and which tests look, is in pyproject.toml. Results are kept in mutants/: a second run tries
only code that has changed since. After a change to tests, delete that directory.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tabulate import tabulate

from dev.audit import VENV
from dev.environment import ROOT, make

DOCUMENT = ROOT / "docs" / "mutants.md"

_REQUIREMENTS = ROOT / "dev" / "proofs-requirements.txt"
_REASONS = ROOT / "dev" / "survivors.toml"
_SURVIVED = {0, 5, 33}  # no test failed, or there is none
_KILLED = {1, 24, -24, 36, 152, 255}  # a test failed, or did not end
_NOT_TRIED = {None, 2, 34}
_INTRODUCTION = """\
# Mutants

Each mutant is the app with one thing changed: a comparison turned, a number off by one, a word of a message
spoilt. A test must fail. Written by `python3 -m dev mutants` with mutmut, over the pure modules and those
that decide; what is changed, and which tests look, is in `pyproject.toml`.
"""


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test notices: where it is, what a line was and has become, and why that may be."""

    where: str
    was: str
    becomes: str
    why: str


def mutants(names: Sequence[str]) -> int:
    """Try all mutants, or those of these names, and write the document; returns the exit code.

    The code is 1 while a survivor is not explained or a verdict is none, mutmut's own where it could not
    begin. Raises InstallError.
    """
    make(VENV, _REQUIREMENTS)
    packages = sysconfig.get_path("purelib", vars={"base": str(VENV)})
    environ = os.environ | {"PYTHONPATH": packages}
    command = [sys.executable, "-m", "mutmut"]
    code = subprocess.run([*command, "run", *names], cwd=ROOT, env=environ, check=False).returncode
    if code != 0:  # the tests fail without a mutant; survivors make it no other
        return code
    verdicts = _verdicts()
    strange = {name: code for name, code in verdicts.items() if code not in _KILLED | _SURVIVED}
    if strange:
        print(f"no verdicts, since pytest itself failed: {strange}")
        return 1
    survivors = list(_survivors(verdicts, environ))
    DOCUMENT.write_text(_document(verdicts, survivors), encoding="utf-8")
    unexplained = [each for each in survivors if not each.why]
    print(
        f"{len(survivors)} survivors, {len(unexplained)} of them not explained: {DOCUMENT.relative_to(ROOT)}"
    )
    return int(bool(unexplained))


def _verdicts() -> dict[str, int]:
    """The exit codes of the tests by mutant."""
    files = sorted((ROOT / "mutants" / "shared").glob("*.meta"))
    found = [json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"] for file in files]
    return {name: code for each in found for name, code in each.items() if code not in _NOT_TRIED}


def _survivors(verdicts: dict[str, int], environ: dict[str, str]) -> Iterator[Survivor]:
    explained = tomllib.loads(_REASONS.read_text(encoding="utf-8"))["survivor"]
    reasons = {(each["where"], each["becomes"]): each["why"] for each in explained}
    for name, code in verdicts.items():
        if code in _SURVIVED:
            was, becomes = _change(name, environ)
            where = re.sub(r"(?<=\.)x_|xǁ|__mutmut_\d+", "", name).replace("ǁ", ".")
            yield Survivor(where, was, becomes, reasons.get((where, becomes), ""))


def _change(name: str, environ: dict[str, str]) -> tuple[str, str]:
    """What a mutant has changed: the line as it was, and as it is."""
    command = [sys.executable, "-m", "mutmut", "show", name]
    shown = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    lines = [line for line in shown.stdout.splitlines() if not line.startswith(("+++", "---"))]
    was, becomes = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in ("-", "+")
    )
    return was, becomes


def _document(verdicts: dict[str, int], survivors: list[Survivor]) -> str:
    tried = Counter(_module(name) for name in verdicts)
    lived = Counter(_module(each.where) for each in survivors)
    counts = [(module, count, lived[module]) for module, count in sorted(tried.items())]
    rows = [
        {"module": module, "mutants": count, "survivors": left, "killed": f"{100 * (1 - left / count):.1f} %"}
        for module, count, left in (*counts, ("all", tried.total(), lived.total()))
    ]
    table = tabulate(rows, headers="keys", tablefmt="github")
    listed = "\n".join(
        f"- `{each.where}`\n  - was `{each.was}`\n  - is `{each.becomes}`\n  - {each.why or 'not explained'}"
        for each in sorted(survivors, key=lambda each: (each.where, each.becomes))
    )
    tried_on = f"Tried last on {datetime.now(UTC):%Y-%m-%d}."
    return f"{_INTRODUCTION}\n{tried_on}\n\n{table}\n\n## Survivors\n\n{listed}\n"


def _module(name: str) -> str:
    return Path(name.split(".")[1]).name
