"""The pins of what is deployed: known vulnerabilities and licences: python3 -m dev audit."""

import json
import os
import re
import subprocess
import sys
from typing import Any

from tabulate import tabulate

from dev.environment import ROOT, interpreter, make

DOCUMENT = ROOT / "docs" / "dependencies.md"
VENV = ROOT / ".venv-proofs"

_REQUIREMENTS = ROOT / "dev" / "proofs-requirements.txt"
_DEPLOYED = ROOT / "requirements.txt"
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(.*)", re.MULTILINE)
_NO_CONNECTION = re.compile(r"requests\.exceptions\.|could not connect", re.IGNORECASE)
_TABLE = re.compile(r"^\| package .*?(?=^$|\Z)", re.DOTALL | re.MULTILINE)


class _ToolError(Exception):
    """A tool did not do its work; the message is all that it said."""


def pins() -> dict[str, str]:
    """The versions of what is deployed, by name; what only Windows would need is left out."""
    text = _DEPLOYED.read_text(encoding="utf-8")
    return {name: version for name, version, marker in _PIN.findall(text) if "win32" not in marker}


def audit() -> int:
    """Print what is known against each pin, and write the table of licences; returns the exit code.

    The code is 1 when a vulnerability is known, or a tool fails. Where nobody answers for a package, that is
    said, and is no failure. Raises InstallError.
    """
    make(VENV, _REQUIREMENTS)
    try:
        known, licences = _vulnerabilities(), _licences()
    except _ToolError as error:
        print(error, file=sys.stderr)
        return 1
    rows = [
        {"package": name, "version": version, "licence": licences[name], "known": known[name]}
        for name, version in pins().items()
    ]
    print(tabulate(rows, headers="keys"))
    table = [{key: row[key] for key in ("package", "version", "licence")} for row in rows]
    text = DOCUMENT.read_text(encoding="utf-8")
    markdown = tabulate(table, headers="keys", tablefmt="github")
    DOCUMENT.write_text(_TABLE.sub(lambda _: f"{markdown}\n", text), encoding="utf-8")
    return int(any(row["known"].startswith("VULNERABLE") for row in rows))


def _vulnerabilities() -> dict[str, str]:
    """What PyPI knows of each pin; "nothing", or why it was not asked."""
    try:
        found = _json("pip_audit", "-r", str(_DEPLOYED), "--require-hashes", "--disable-pip", "-f", "json")
    except _ToolError as error:
        if not _NO_CONNECTION.search(str(error)):
            raise
        return dict.fromkeys(pins(), "skipped: nobody answers")
    return {each["name"]: _said(each) for each in found["dependencies"]}


def _said(dependency: dict[str, Any]) -> str:
    if "skip_reason" in dependency:
        return "skipped: the index has no advisories"
    ids = [each["id"] for each in dependency["vulns"]]
    return f"VULNERABLE: {', '.join(ids)}" if ids else "nothing"


def _licences() -> dict[str, str]:
    found = _json("piplicenses", "--python", sys.executable, "--format=json", "--from=mixed")
    return {each["Name"].lower().replace("_", "-"): " ".join(each["License"].split()) for each in found}


def _json(module: str, *arguments: str) -> Any:  # noqa: ANN401  # whatever it prints
    """What a tool prints; raises _ToolError, with all that it said, where that is no JSON."""
    done = subprocess.run(
        [interpreter(VENV), "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        check=False,
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise _ToolError((done.stderr + done.stdout).decode(errors="replace").rstrip()) from None


def listed() -> dict[str, str]:
    """The versions in the document's table, by name."""
    cells = re.findall(r"^\| (\S+) +\| (\S+) +\|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: version for name, version in cells if name != "package"}
