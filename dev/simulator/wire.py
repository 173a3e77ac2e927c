"""What a service sends instead of its own answer, and how an answer breaks on its way."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from dev.simulator.world import World

JSON = "application/json; charset=utf-8"


class Service(StrEnum):
    """The services that share the one address."""

    ENTRA = "entra"
    PARTNER_CENTER = "partner-center"
    KEY_VAULT = "key-vault"
    IDENTITY = "identity"


class Delivery(Enum):
    """How an answer reaches the client."""

    WHOLE = auto()
    LATE = auto()  # after World.delay
    NEVER = auto()  # the connection stays open until the client leaves
    DRIPPING = auto()  # one byte every World.drip seconds
    HALF = auto()  # Content-Length promises twice as much, then the connection closes
    RESET = auto()  # TCP RST instead of an answer


@dataclass
class Fault:
    """What a service does instead of its own work.

    With a status it answers that and does nothing else; without one it does its work and only the delivery
    suffers. times counts down, None is for ever; method narrows it to calls of that method.
    """

    service: Service
    status: int | None = None
    body: Callable[["World"], bytes] = field(default=lambda _: b"")
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": JSON})
    delivery: Delivery = Delivery.WHOLE
    times: int | None = None
    method: str | None = None


async def deliver(
    response: Response, delivery: Delivery, world: "World", connection: tuple[Scope, Receive, Send]
) -> None:
    """Send the response as chosen. A wait ends as soon as the client leaves or the server stops."""
    scope, receive, send = connection
    match delivery:
        case Delivery.WHOLE:
            await response(scope, receive, send)
        case Delivery.LATE:
            if not await _left(receive, world.delay):
                await response(scope, receive, send)
        case Delivery.NEVER:
            await _left(receive)
        case Delivery.RESET:
            transport = _transport(scope)
            # A linger of 0 s makes close() send RST instead of FIN: socket(7), SO_LINGER.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
            await _left(receive)
        case Delivery.HALF:
            await _start(response, send)
            await _part(send, bytes(response.body)[: len(response.body) // 2])
            _transport(scope).close()
            await _left(receive)
        case Delivery.DRIPPING:
            await _start(response, send)
            for byte in bytes(response.body):
                if await _left(receive, world.drip):
                    return
                await _part(send, bytes([byte]))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        case _:
            assert_never(delivery)


async def _start(response: Response, send: Send) -> None:
    await send(
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
    )


async def _part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive, seconds: float | None = None) -> bool:
    """Whether the client left within that time; None waits until it does."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


def _transport(scope: Scope) -> asyncio.WriteTransport:
    transport = scope["extensions"]["simulator"]["transport"]
    if not isinstance(transport, asyncio.WriteTransport):
        raise TypeError(f"no connection to break: {transport!r}")
    return transport
