"""A relay before a service, which does to a connection what no HTTP server does."""

import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import trustme

type Talk = Callable[[socket.socket], None]


class Gate:
    """Has a port of its own while the context lasts, which refuses connections until the gate is opened."""

    def __init__(self, port: int) -> None:
        self._talk: Talk | None = None
        self._port = port
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def open(self, talk: Talk | None = None) -> None:
        """From now on take connections, and talk so on each or, by default, relay to the service."""
        self._talk = talk
        if self._thread is None:
            self._server.server_activate()
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="gate")
            self._thread.start()

    def __enter__(self) -> Self:
        gate = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    (gate._talk or gate._relay)(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.server_bind()  # who is bound and does not listen refuses
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _relay(self, caller: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as service:
            other = {caller: service, service: caller}
            while True:
                for each in select.select([*other], [], [])[0]:
                    data = each.recv(65536)
                    if not data:
                        return
                    other[each].sendall(data)


def behind_tls(certificate: trustme.LeafCert, talk: Talk) -> Talk:
    """Show this certificate, and talk so to whoever trusts it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def shake_hands_first(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as private:
            talk(private)

    return shake_hands_first
