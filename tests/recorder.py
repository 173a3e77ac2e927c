"""A server that writes down the head of each request: the proxy of a network, or the platform's endpoint."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

type Answer = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]


def tunnels_only(_: BaseHTTPRequestHandler) -> tuple[int, bytes]:
    return 502, b"{}"


class Recorder:
    """Has a port of 127.0.0.1 while the context lasts; tunnels to this machine, and answers all else so."""

    def __init__(self, answer: Answer = tunnels_only) -> None:
        self.heads: list[str] = []
        """Request line and headers of each request, also of those for a tunnel."""
        self.tunnels: list[str] = []
        """The targets of all tunnels that were asked for."""
        self._answer = answer
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.heads.append(f"{self.requestline}\n{self.headers}")
                status, body = recorder._answer(self)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815  # the server's names

            def do_CONNECT(self) -> None:
                recorder.heads.append(f"{self.requestline}\n{self.headers}")
                recorder.tunnels.append(self.path)
                with suppress(OSError):
                    recorder._tunnel(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # all have ended when the server closes

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="recorder")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for each in [*self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def _tunnel(self, handler: BaseHTTPRequestHandler) -> None:
        host, _, port = handler.path.rpartition(":")
        if host != "127.0.0.1":
            handler.send_error(502)
            return
        with socket.create_connection((host, int(port))) as service:
            handler.send_response(200)
            handler.end_headers()
            other = {handler.connection: service, service: handler.connection}
            self._open |= {*other}
            try:
                while data := (ready := select.select([*other], [], [])[0][0]).recv(65536):
                    other[ready].sendall(data)
            finally:
                self._open -= {*other}
                handler.close_connection = True
