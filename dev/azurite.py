"""Azurite, Microsoft's blob service for one machine: installed on first use, a child, all in memory."""

import re
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from dev import npm
from dev.children import child
from dev.ports import PortError

# The account that every emulator has: learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# Ends with its standard input, that is: with its parent.
ENDS_WITH_PARENT = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"
START_SECONDS = 60.0


class AzuriteError(Exception):
    """Azurite cannot be started; the message says why."""


def ensure_installed() -> Path:
    """Azurite's blob server, installed if need be; raises InstallError."""
    return npm.ensure_installed("azurite") / "azurite" / "dist" / "src" / "blob" / "main.js"


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
        command = [npm.NODE, "--import", ENDS_WITH_PARENT, str(server), "--blobHost", "127.0.0.1"]
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
