"""The virtual environment in .venv, made from dev/requirements.txt and made again when that changes.

Standard library only, and nothing that an older Python could not read: this runs first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Installer = Callable[[Sequence[str], tuple[int, ...]], None]

PYTHON = (3, 13)
ROOT = Path(__file__).resolve().parent.parent


class InstallError(Exception):
    """An installer failed; the message is its whole output."""


def wrong_version(version: tuple[int, ...]) -> str | None:
    """What to tell a person who runs this under the interpreter `version`; None when it is the right one."""
    if version[:2] == PYTHON:
        return None
    wanted, got = (".".join(str(part) for part in parts) for parts in (PYTHON, version[:3]))
    return f"python3 -m dev needs Python {wanted}, and this is {got}: start it with a python{wanted}"


def stamp_of(*files: Path) -> str:
    """One line that differs when the content of `files` or the version of this interpreter does."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return f"{platform.python_version()} {digest.hexdigest()}\n"


def is_current(directory: Path, stamp: str) -> bool:
    """Whether an install of `stamp` into `directory` went through to its end."""
    try:
        return (directory / "stamp").read_text(encoding="utf-8") == stamp
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def locked(file: Path) -> Iterator[tuple[int, ...]]:
    """Hold `file` for one process at a time; yields what a child must inherit (pass_fds) to hold it as well.

    A child that outlives a killed parent thus keeps the next one waiting. Without fcntl nothing is held.
    """
    if sys.platform == "win32":
        yield ()
        return
    with file.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield (handle.fileno(),)


def install(command: Sequence[str], inherited: tuple[int, ...], cwd: Path = ROOT) -> None:
    """Run an installer without a word; raises InstallError with all it said when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=inherited,
        check=False,
    )
    if done.returncode:
        raise InstallError(done.stdout.decode(errors="replace").rstrip())


def interpreter(venv: Path) -> Path:
    """The Python of a virtual environment."""
    return venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make(venv: Path, requirements: Path, install: Installer = install) -> None:
    """Bring `venv` to what `requirements` pins, from nothing, unless it is there; raises InstallError."""
    with locked(requirements) as inherited:
        stamp = stamp_of(requirements)
        if is_current(venv, stamp):
            return
        print(f"making {venv.name} from {requirements.relative_to(venv.parent)}, about a minute", flush=True)
        (venv / "stamp").unlink(missing_ok=True)
        install([sys.executable, "-m", "venv", "--clear", str(venv)], inherited)
        pip = [str(interpreter(venv)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        pip.append(
            "--no-compile"
        )  # what is imported is compiled then; the rest would take longer than all else
        install([*pip, "--no-deps", "--require-hashes", "-r", str(requirements)], inherited)
        (venv / "stamp").write_text(stamp, encoding="utf-8")


def enter(arguments: Sequence[str]) -> None:
    """Return inside .venv and in the project's root, starting `python -m dev` anew when this is not it.

    Raises InstallError.
    """
    venv = ROOT / ".venv"
    make(venv, ROOT / "dev" / "requirements.txt")
    os.chdir(ROOT)
    # .venv is made without bytecode: were none kept, each of a thousand processes would compile all anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if Path(sys.prefix).resolve() == venv:
        return
    command = [str(interpreter(venv)), "-m", "dev", *arguments]
    sys.stdout.flush()
    if sys.platform == "win32":
        raise SystemExit(subprocess.call(command))
    os.execv(command[0], command)  # noqa: S606 - no shell is meant


def clear(directory: Path) -> None:
    """Make `directory` exist and be empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
