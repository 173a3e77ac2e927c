"""A proxy before Azurite, one for each instance: counts requests, tells another time, fails and forbids."""

import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum, auto
from io import BufferedReader
from itertools import count
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from dev.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from tests.clients import blob_service

CREATED = 201
_IDLE_CONNECTIONS = 8
_MODIFIERS = {"PUT", "POST", "DELETE", "PATCH"}


class Fault(Enum):
    """What becomes of a request."""

    NONE = auto()
    DROP = auto()
    """The connection closes before the service hears of it."""
    LOSE = auto()
    """The service does it, and the connection closes without an answer."""
    HANG = auto()
    """The service does not hear of it, and the connection stays open until the instance leaves."""
    ERROR_500 = auto()
    ERROR_503 = auto()
    NO_KEY = auto()
    ARCHIVED = auto()
    CHANGED = auto()
    """Somebody else wrote first, it says."""
    DIE = auto()
    """Dropped, and so is all that follows: for storage, the instance behind this proxy has been killed."""


_REFUSALS = {
    Fault.ERROR_500: (500, "InternalError"),
    Fault.ERROR_503: (503, "ServerBusy"),
    Fault.NO_KEY: (403, "AuthenticationFailed"),
    Fault.ARCHIVED: (409, "BlobArchived"),
    Fault.CHANGED: (412, "ConditionNotMet"),
}


class Policy(Enum):
    """What a container forbids."""

    IMMUTABLE = auto()
    """Changes and deletes of blobs that are there; each may be created."""
    CREATE_ONLY = auto()
    """The same, by a role that may only create and read blobs."""


@dataclass(slots=True)
class Request:
    """What an instance asked of storage, and what came of it."""

    method: str
    container: str
    blob: str
    comp: str
    at: datetime
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    done: int | None = None
    """The service's status; None where it heard nothing."""
    etag: str = ""
    """Of what the service did."""
    answered: int | None = None
    """The status that the instance saw, if any."""
    fault: Fault = Fault.NONE

    @property
    def kind(self) -> tuple[str, str, str]:
        """Which operation it is, without the name of the blob."""
        return self.method, self.container, self.comp

    @property
    def created(self) -> bool:
        """Whether a blob came of it, the answer lost or not."""
        return self.done == CREATED and self.method == "PUT" and bool(self.blob)


type Plan = Callable[[Request, int], Fault]
"""Decides on a request, given its number, from 1 on, since the plan was made."""


def no_faults(_: Request, __: int) -> Fault:
    return Fault.NONE


def failing(fault: Fault, first: int, times: int = 1) -> Plan:
    """A plan that fails so many requests from that number on."""
    return lambda _, number: fault if first <= number < first + times else Fault.NONE


def failing_writes(fault: Fault, container: str, first: int = 1, times: int = 1) -> Plan:
    """The same of a container's blobs: so many writes from that number on."""
    numbers = count(1)

    def plan(request: Request, _: int) -> Fault:
        is_write = bool(request.blob) and request.kind == ("PUT", container, "")
        return fault if is_write and first <= next(numbers) < first + times else Fault.NONE

    return plan


def before(moment: int, others: Callable[[], object]) -> Plan:
    """A plan that fails nothing: just before the request of that number others do something elsewhere."""

    def plan(_: Request, number: int) -> Fault:
        if number == moment:
            others()
        return Fault.NONE

    return plan


class StorageProxy:
    """Listens while the context lasts. `now` is storage's clock, as its Date header tells it."""

    def __init__(self, azurite: Azurite, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.requests: list[Request] = []
        self.policies: dict[str, Policy] = {}
        self._azurite = azurite
        self._stack = ExitStack()
        self._now = now
        self._lock = threading.Lock()
        self._plan: Plan = no_faults
        self._number = 0
        self._dead = False
        self._idle: deque[_Connection] = deque()
        self._threads: set[threading.Thread] = set()
        self._open: set[socket.socket] = set()

    @property
    def connection_string(self) -> str:
        """The account with its well-known key."""
        host, port = self._listener.getsockname()
        account = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}"
        endpoint = f"http://{host}:{port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={endpoint};"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def follow(self, plan: Plan = no_faults) -> None:
        """From now on requests fare as planned; who was dead lives again."""
        with self._lock:
            self._plan, self._number, self._dead = plan, 0, False

    def __enter__(self) -> Self:
        url = urlsplit(self._azurite.url)
        self._address = url.hostname or "", url.port or 0
        self._service = self._stack.enter_context(blob_service(self._azurite.connection_string))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._accepting = threading.Thread(target=self._accept, name="storage-proxy", daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            threads = list(self._threads)
            for client in self._open:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        while self._idle:
            self._idle.pop().close()
        self._stack.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="storage-proxy", daemon=True)
            with self._lock:
                self._threads.add(thread)
                self._open.add(client)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        """One connection of an instance, until either side closes it."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with closing(client), client.makefile("rb") as incoming, suppress(ConnectionError):
                while (asked := _Message.read(incoming)) is not None:
                    answer = self._answer(asked, incoming)
                    if answer is None:
                        return
                    client.sendall(answer)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                self._open.discard(client)

    def _answer(self, asked: "_Message", incoming: BufferedReader) -> bytes | None:
        """What the instance gets to see; None closes the connection."""
        request = _request_of(asked, self._now())
        with self._lock:
            self._number += 1
            fault = Fault.DROP if self._dead else self._plan(request, self._number)
            self._dead |= fault is Fault.DIE
            request.fault = fault
            self.requests.append(request)
        match fault:
            case Fault.DROP | Fault.DIE:
                return None
            case Fault.HANG:
                incoming.read()  # until the instance leaves
                return None
            case Fault.LOSE | Fault.NONE:
                refused = self._forbidden(request)
                if refused is not None:
                    return None if fault is Fault.LOSE else self._refuse(request, *refused)
                answer = self._forward(asked, request)
                request.done, request.etag = int(answer.first.split()[1]), answer.header("etag")
                if fault is Fault.LOSE:
                    return None
                request.answered = request.done
                return answer.encode(date=format_datetime(self._now(), usegmt=True))
            case _:
                return self._refuse(request, *_REFUSALS[fault])

    def _forbidden(self, request: Request) -> tuple[int, str] | None:
        """How a policy answers a request that is against it."""
        policy = self.policies.get(request.container)
        if policy is None or request.method not in _MODIFIERS:
            return None
        if not request.comp and request.method == "PUT" and request.blob:
            blob = self._service.get_blob_client(request.container, request.blob)
            if not blob.exists():
                return None
        elif policy is Policy.IMMUTABLE and not request.blob and request.method == "PUT":
            return None  # making the container
        if policy is Policy.IMMUTABLE:
            return 409, "BlobImmutableDueToPolicy"
        return 403, "AuthorizationPermissionMismatch"

    def _refuse(self, request: Request, status: int, code: str) -> bytes:
        request.answered = status
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'
        )
        headers = [("Content-Type", "application/xml"), ("x-ms-error-code", code), ("Date", "")]
        answer = _Message(
            f"HTTP/1.1 {status} No", headers, b"" if request.method == "HEAD" else text.encode()
        )
        return answer.encode(date=format_datetime(self._now(), usegmt=True))

    def _forward(self, asked: "_Message", request: Request) -> "_Message":
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self._address)
        if connection.is_stale:
            connection.close()
            connection = _Connection(self._address)
        try:
            answer = connection.exchange(asked.encode(), is_head=request.method == "HEAD")
        except OSError:
            connection.close()
            raise
        if len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


@dataclass(slots=True)
class _Message:
    """A request or a response: its first line, its headers, its body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @classmethod
    def read(cls, source: BufferedReader, *, is_head: bool = False) -> Self | None:
        """The next message; None where the other side has closed."""
        first = source.readline()
        if not first:
            return None
        message = cls(first.decode("latin-1").rstrip("\r\n"), [])
        while (line := source.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            message.headers.append((name, value.strip()))
        if is_head:
            return message
        if message.header("transfer-encoding") == "chunked":
            message.body = b"".join(_chunks(source))
        else:
            message.body = source.read(int(message.header("content-length") or 0))
        return message

    def header(self, wanted: str) -> str:
        return next((value for name, value in self.headers if name.lower() == wanted), "")

    def encode(self, date: str | None = None) -> bytes:
        """As it goes over the wire; with another date, where there is one in it."""
        lines = [self.first]
        for name, value in self.headers:
            match name.lower():
                case "transfer-encoding" | "connection" | "keep-alive":
                    continue
                case "content-length" if self.body:
                    continue
                case "date" if date is not None:
                    lines.append(f"{name}: {date}")
                case _:
                    lines.append(f"{name}: {value}")
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        elif not self.header("content-length") and " 204 " not in self.first and " 304 " not in self.first:
            lines.append("Content-Length: 0")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class _Connection:
    """One to Azurite, which closes those that nobody uses."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = self._socket.makefile("rb")

    @property
    def is_stale(self) -> bool:
        """Whether it has been closed: nothing else comes unasked."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable)

    def exchange(self, asked: bytes, *, is_head: bool) -> _Message:
        self._socket.sendall(asked)
        answer = _Message.read(self._incoming, is_head=is_head)
        if answer is None:
            raise ConnectionError("Azurite has closed the connection")
        return answer

    def close(self) -> None:
        self._incoming.close()
        self._socket.close()


def _chunks(source: BufferedReader) -> list[bytes]:
    chunks = []
    while size := int(source.readline().split(b";")[0], 16):
        chunks.append(source.read(size))
        source.readline()
    source.readline()
    return chunks


def _request_of(asked: _Message, at: datetime) -> Request:
    method, target, _ = asked.first.split(" ")
    url = urlsplit(target)
    path = unquote(url.path).removeprefix(f"/{ACCOUNT}/")
    container, _, blob = path.partition("/")
    comp = parse_qs(url.query).get("comp", [""])[0]
    headers = {name.lower(): value for name, value in asked.headers}
    return Request(method, container, blob, comp, at, headers, asked.body)
