"""Everything about the code that can be checked without running it."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dev import lock, queries
from dev.environment import ROOT, InstallError, interpreter, make

TOOLS = {
    "format": ["-m", "ruff", "format", "--check"],
    "lint": ["-m", "ruff", "check"],
    "arrows": ["-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-logo"],
    "types": ["-m", "mypy"],
}


def complaint_of(arguments: list[str], venv: Path | None = None) -> str:
    """What a tool of this environment or another has to say against the code; empty when nothing."""
    done = subprocess.run(
        [interpreter(venv) if venv else sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return (done.stdout.strip() or f"exit code {done.returncode}") if done.returncode else ""


def unlocked() -> str:
    """What the pinned requirements would be changed into by `dev lock`; empty when they would stay."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in (Path("pyproject.toml"), *lock.FILES):
            (copy / file).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
        try:
            lock.compile_into(copy)
        except InstallError as error:
            return str(error)
        differing = [
            str(file) for file in lock.FILES if (ROOT / file).read_bytes() != (copy / file).read_bytes()
        ]
    return (
        f"{' and '.join(differing)}: not what pyproject.toml asks for; python3 -m dev lock"
        if differing
        else ""
    )


def insecure() -> str:
    """What checkov says of the Bicep, in an environment of its own: it has a hundred packages."""
    venv = ROOT / ".venv-infra"
    make(venv, ROOT / "dev" / "infra-requirements.txt")
    return complaint_of(["-m", "checkov.main", "--config-file", "infra/.checkov.yaml", "-d", "infra"], venv)


def check() -> int:
    """Run every check and print a line of verdict for each; returns the exit code. Raises InstallError."""
    complaints = {name: complaint_of(arguments) for name, arguments in TOOLS.items()}
    complaints["queries"] = "\n".join(queries.complaints(queries.all_queries()))
    complaints["requirements"] = unlocked()
    complaints["infrastructure"] = insecure()
    for name, complaint in complaints.items():
        if complaint:
            print(complaint)
        print(f"{name}: {'failed' if complaint else 'ok'}", flush=True)
    return int(any(complaints.values()))
