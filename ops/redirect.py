"""The answer of a sign-in: what Entra makes the browser send to a loopback port, or its address, pasted.

MSAL's own receiver knows no pasted address, and no GET, which is what an address is.
"""

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from shared.errors import ConfigurationError, UpstreamTimeoutError

_LONGEST_BODY = 64 * 1024
_PAGE = "<!DOCTYPE html><title>python3 -m ops consent</title><p>{}"


class Redirect:
    """Waits for the answer that has the state of this sign-in; any other is refused."""

    def __init__(self, state: str) -> None:
        self._answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._state = state

    def wait(self, time_allowed: timedelta, *, paste: bool) -> dict[str, str]:
        """The fields of the answer. Raises UpstreamTimeoutError when nobody signs in."""
        if paste:
            threading.Thread(target=self._read_pasted, name="paste", daemon=True).start()
        try:
            return self._answers.get(timeout=time_allowed.total_seconds())
        except queue.Empty:
            raise UpstreamTimeoutError(f"nobody signed in within {time_allowed}") from None

    def offer(self, fields: dict[str, str]) -> bool:
        """Take an answer, if it is of this sign-in."""
        is_ours = fields.get("state") == self._state and bool({"code", "error"} & fields.keys())
        if is_ours:
            self._answers.put(fields)
        return is_ours

    def _read_pasted(self) -> None:
        for line in sys.stdin:
            _, _, query = line.strip().partition("?")
            if line.strip() and not self.offer(dict(parse_qsl(query))):
                print("That is not the address of this sign-in's last page.", file=sys.stderr)


@contextmanager
def listening(port: int, state: str) -> Iterator[Redirect]:
    """Take answers with that state on a port of 127.0.0.1. Raises ConfigurationError when it is in use."""
    redirect = Redirect(state)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._take(self.path.partition("?")[2])

        def do_POST(self) -> None:
            text = self.headers.get("Content-Length", "")
            length = min(int(text), _LONGEST_BODY) if text.isascii() and text.isdigit() else 0
            self._take(self.rfile.read(length).decode("utf-8", "replace"))

        def _take(self, text: str) -> None:
            is_ours = redirect.offer(dict(parse_qsl(text)))
            words = (
                "The terminal says the rest; you may close this page."
                if is_ours
                else "This is no answer of the sign-in."
            )
            body = _PAGE.format(words).encode()
            self.send_response(HTTPStatus.OK if is_ours else HTTPStatus.BAD_REQUEST)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """The code is in the line."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be had ({error.strerror}); choose another with --port"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="redirect", daemon=True)
        thread.start()
        try:
            yield redirect
        finally:
            server.shutdown()
