"""Ports of this machine, all on 127.0.0.1."""

import errno
import socket
import sys


class PortError(Exception):
    """A port is taken; the message names it and the option that chooses another."""

    def __init__(self, port: int, option: str) -> None:
        super().__init__(f"port {port} is in use; choose another with {option}")


def port_number(text: str) -> int:
    """A port from the command line, 0 for any free one; raises ValueError."""
    port = int(text)
    if not 0 <= port <= 65535:  # noqa: PLR2004 - TCP's
        raise ValueError(text)
    return port


def listen(port: int, option: str = "--port") -> socket.socket:
    """A listening socket, 0 for any free port; raises PortError when it is taken."""
    held = socket.socket()
    if sys.platform != "win32":
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio leaves it off for given sockets
    try:
        held.bind(("127.0.0.1", port))
        held.listen()
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortError(port, option) from error
    return held
