"""The pinned requirements, compiled from the one list in pyproject.toml; no index host is written down."""

import sys
from pathlib import Path

from dev import npm
from dev.environment import ROOT, install

FILES = (
    Path("requirements.txt"),
    Path("dev/requirements.txt"),
    Path("dev/report/requirements.txt"),
    Path("dev/infra-requirements.txt"),
    Path("dev/proofs-requirements.txt"),
)


def compile_into(directory: Path, *, upgrade: bool = False) -> None:
    """Write the files in `directory`, which has a pyproject.toml; the pins they have stay while they fit.

    Raises InstallError, with what uv said.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--system-certs"]
    command += ["--universal", "--python-version", "3.13", "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url"]
    command += ["--upgrade"] if upgrade else []
    ours, everything, reports, infrastructure, proofs = (str(file) for file in FILES)
    app = "pyproject.toml"
    install([*command, app, "-o", ours], (), cwd=directory)
    install([*command, app, "--group", "dev", "-c", ours, "-o", everything], (), cwd=directory)
    install([*command, "--no-deps", "--group", "report", "-o", reports], (), cwd=directory)
    install([*command, "--group", "infra", "-o", infrastructure], (), cwd=directory)
    install([*command, "--group", "proofs", "-c", everything, "-o", proofs], (), cwd=directory)


def lock(*, upgrade: bool) -> int:
    """Compile the files in place, and renew what comes from npm with `upgrade`; returns the exit code."""
    compile_into(ROOT, upgrade=upgrade)
    written = [ROOT / file for file in FILES]
    if upgrade:
        written += [npm.upgrade(name) for name in npm.NAMES]
    print("written: " + ", ".join(str(file.relative_to(ROOT)) for file in written))
    return 0
