"""A terminal at which an operator runs python3 -m ops, and the browser beside it."""

import io
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dev.simulator import Exchange, SecretVersion, Service, Simulator, World
from dev.simulator.world import SECRET_NAME
from ops.__main__ import main
from tests.threads import PATIENCE

ROOT = Path(__file__).parent.parent
SIGN_IN = re.compile(r"^https://\S+/authorize\?\S+$", re.MULTILINE)

type Browse = Callable[[str], str | None]
"""What a person does with the sign-in's address; a text that comes back is pasted into the terminal."""


class Done(NamedTuple):
    """A command that has ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """The one JSON object that --json prints."""
        assert self.out.count("\n") == 1
        document = json.loads(self.out, parse_float=str)
        assert isinstance(document, dict)
        return document


class _Screen(io.StringIO):
    """What is printed; somebody looks for the sign-in's address meanwhile."""

    def __init__(self, look: Callable[[str], None]) -> None:
        super().__init__()
        self._look = look

    def write(self, text: str) -> int:
        written = super().write(text)
        for url in SIGN_IN.findall(self.getvalue()):
            self._look(url)
        return written


@dataclass
class Terminal:
    """Environment, working directory and operator; commands run in this process, or as true processes."""

    simulator: Simulator
    environ: dict[str, str]
    directory: Path
    port: int

    @property
    def world(self) -> World:
        return self.simulator.world

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        browse: Browse | None = None,
        changed: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command in this process, with settings changed or, by an empty value, left out."""
        arguments = (*arguments, "--port", str(self.port)) if "consent" in arguments else arguments
        reading, writing = os.pipe()
        signed_in: list[Future[None]] = []
        with (
            ThreadPoolExecutor(1) as person,
            os.fdopen(writing, "w") as keyboard,
            os.fdopen(reading) as entered,
        ):
            keyboard.write(stdin)
            keyboard.flush()

            def visit(url: str) -> None:
                pasted = browse(url) if browse else None
                if pasted:
                    print(pasted, file=keyboard, flush=True)

            def look(url: str) -> None:
                if browse and not signed_in:
                    signed_in.append(person.submit(visit, url))

            out, err = _Screen(look), _Screen(look)
            if browse is None:
                keyboard.close()
            with (
                _environment(self._with(changed or {})),
                _standard_input(entered),
                redirect_stdout(out),
                redirect_stderr(err),
            ):
                code = main(arguments)
                for each in signed_in:
                    each.result()
                keyboard.close()
                for thread in threading.enumerate():
                    if thread.name == "paste":
                        thread.join(PATIENCE)
        assert self.world.canary not in out.getvalue() + err.getvalue()  # every secret holds it
        return Done(code, out.getvalue(), err.getvalue())

    def consent(
        self,
        *arguments: str,
        browse: Browse | None = None,
        stdin: str = "",
        changed: Mapping[str, str] | None = None,
    ) -> Done:
        """Run consent --no-browser; a person visits its address."""
        browse = browse or self.visit
        return self.run("consent", "--no-browser", *arguments, browse=browse, stdin=stdin, changed=changed)

    def spawn(self, *arguments: str, **changed: str) -> "subprocess.Popen[str]":
        """Start a true process, its input and output piped."""
        return subprocess.Popen(
            [sys.executable, "-m", "ops", *arguments],
            env=self._with(changed) | {"PYTHONPATH": str(ROOT)},
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def visit(self, url: str) -> None:
        """Sign in, and follow the redirection to the port."""
        self.open(self.location(url))

    def location(self, url: str) -> str:
        """Sign in, and take the address of the last page instead of going there."""
        response = self.open(url)
        location = response.getheader("Location", "")
        assert location.startswith(f"http://localhost:{self.port}/?"), response.status
        return location

    def open(self, url: str, body: bytes | None = None) -> HTTPResponse:
        """A browser's GET or POST; it logs nothing and follows nothing."""
        parts = urlsplit(url)
        tls = ssl.create_default_context(cafile=self.simulator.ca_bundle)
        connection = (
            HTTPSConnection(parts.netloc, context=tls, timeout=PATIENCE)
            if parts.scheme == "https"
            else HTTPConnection(parts.netloc, timeout=PATIENCE)
        )
        with closing(connection):
            connection.request("GET" if body is None else "POST", f"{parts.path or '/'}?{parts.query}", body)
            response = connection.getresponse()
            response.read()
        return response

    @property
    def federated(self) -> dict[str, str]:
        """What changes for an app that signs in by its managed identity."""
        identity = self.world.managed_identity_client_id
        return {"PARTNER_CENTER_CLIENT_SECRET": "", "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY": identity}

    @property
    def versions(self) -> list[SecretVersion]:
        """What is stored, oldest first."""
        return self.world.secrets.get(SECRET_NAME, [])

    def crossed(self) -> list[str]:
        """What crossed the wire since the last look, without Key Vault's challenges and Entra's discovery."""
        seen = [
            _name(each) for each in self.world.exchanges if each.status != 401 or "key" not in each.service
        ]
        self.world.exchanges.clear()
        return [each for each in seen if not each.endswith("openid-configuration")]

    def redemptions(self) -> list[dict[str, str]]:
        """The forms that Entra's token endpoint was sent."""
        return [each.form for each in self.world.exchanges if each.form]

    def _with(self, changed: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in {**self.environ, **changed}.items() if value}


def _name(exchange: Exchange) -> str:
    service = "" if exchange.service is Service.ENTRA else f"{exchange.service} "
    return f"{service}{exchange.method} {exchange.path.strip('/').rpartition('/')[2]}"


def free_port() -> int:
    """A port that nobody listens on, below those that a system gives to connections."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@contextmanager
def _environment(environ: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _standard_input(entered: io.TextIOBase | Any) -> Iterator[None]:  # noqa: ANN401  # typeshed's TextIO
    before, sys.stdin = sys.stdin, entered
    try:
        yield
    finally:
        sys.stdin = before
