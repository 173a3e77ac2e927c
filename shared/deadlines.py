"""HTTP exchanges that end at one instant, whatever the other side does, and when to come again.

The time-outs of requests are per socket operation: a peer that drips a byte a second is never timed out.
Here a timer shuts down every socket of a session when its time is over.
"""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from shared.errors import UpstreamTimeoutError, UpstreamUnavailableError, UsageSummaryError
from shared.hints import hint

if TYPE_CHECKING:
    from azure.core.pipeline.transport import RequestsTransport

CONNECT_TIMEOUT = 5.0  # seconds; a reachable host needs less than one
_LONGEST_RETRY_AFTER = timedelta(hours=1)


@contextmanager
def translated(who: str) -> Iterator[None]:
    """Raise UpstreamUnavailableError for what MSAL and the SDK raise over nonsense: anything.

    It is not chained: such an exception may hold the answer, and the answer a token.
    """
    try:
        yield
    except (UsageSummaryError, requests.RequestException):
        raise
    except Exception as error:  # noqa: BLE001  # see above
        name = type(error).__name__
        kind = " ".join(map(str, filter(None, (name, getattr(error, "status_code", None)))))
        headers = getattr(getattr(error, "response", None), "headers", {})
        raise UpstreamUnavailableError(
            f"{who} failed or makes no sense ({kind})", retry_after=retry_after(headers), hint=hint(name)
        ) from None


@contextmanager
def session_for(duration: timedelta, ca_bundle: str | None) -> Iterator[requests.Session]:
    """A session for one errand, all of which ends within `duration`; it follows the CA bundle, if any.

    Raises UpstreamTimeoutError when the time was over, whatever exception or half an answer came of that,
    and UpstreamUnavailableError for any other failure of the connection, or when no timer can be started.
    """
    adapter = _AbortableAdapter()
    timer = threading.Timer(duration.total_seconds(), adapter.abort)
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no thread to be had
        raise UpstreamUnavailableError("this process can start no thread", asked=False) from None
    try:
        with Session() as session:
            session.time_allowed = duration
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            session.verify = ca_bundle or True
            yield session
    except Exception as error:
        if adapter.aborted or isinstance(error, requests.ReadTimeout):
            raise UpstreamTimeoutError("no answer within the time allowed") from error
        if isinstance(error, requests.RequestException):
            raise UpstreamUnavailableError(f"the connection failed ({type(error).__name__})") from error
        raise
    finally:
        timer.cancel()
        adapter.forget()
    if adapter.aborted:  # a body without a length ends early and looks whole
        raise UpstreamTimeoutError("no answer within the time allowed")


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Seconds or a date, at most an hour; nonsense counts as absent (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), _LONGEST_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(text)
        since = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        wait = until.replace(tzinfo=UTC) - since.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(wait, timedelta()), _LONGEST_RETRY_AFTER)


def azure_transport(
    session: requests.Session, connect_timeout: float = CONNECT_TIMEOUT, read_timeout: float = 20.0
) -> "RequestsTransport":
    """The transport of an Azure SDK client that shares a session's deadline; time-outs in seconds."""
    from azure.core.pipeline.transport import RequestsTransport

    return RequestsTransport(
        session=session,
        session_owner=False,
        connection_timeout=connect_timeout,
        read_timeout=read_timeout,
        connection_verify=session.verify,
    )


class Session(requests.Session):
    """The session of one errand, and how long that may take."""

    time_allowed: timedelta

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401, D102  # its
        kwargs.setdefault("verify", self.verify)  # else the environment goes before the session
        return super().request(*args, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> None:  # as Session has it
        """Nobody follows a redirect; requests would parse its address and read its body all the same."""


class _AbortableAdapter(HTTPAdapter):
    """Knows every socket that it opened; retries nothing by itself."""

    def __init__(self) -> None:
        self.aborted = False
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self._connections: list[HTTPConnection] = []
        self._responses: list[requests.Response] = []
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as HTTPAdapter has it
        super().init_poolmanager(*args, **kwargs)
        self._watch_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:  # noqa: ANN401  # the same
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        self._watch_pools(manager)
        return manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401  # the same
        response = super().send(*args, **kwargs)
        self._responses.append(response)
        return response

    def abort(self) -> None:
        """End every connection, open or yet to come."""
        with self._lock:
            self.aborted = True
            for handle in self._handles:
                _shut_down(handle)

    def forget(self) -> None:
        """Close all that has a socket; urllib3 waits for garbage collection, which an exception puts off."""
        with self._lock:
            for response in self._responses:
                response.close()
            for connection in self._connections:
                connection.close()
            for handle in self._handles:
                handle.close()
            for kept in (self._responses, self._connections, self._handles):
                kept.clear()

    def _watch_pools(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {
            scheme: self._watched(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }

    def _watched(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        adapter = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc, name-defined]  # a class only known here
            def _new_conn(self) -> socket.socket:
                opened: socket.socket = super()._new_conn()
                adapter._watch(self, opened)  # the adapter's own inner class
                return opened

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    def _watch(self, connection: HTTPConnection, opened: socket.socket) -> None:
        """Keep a second handle: TLS takes the first one over before its handshake."""
        with self._lock:
            handle = opened.dup()
            self._connections.append(connection)
            self._handles.append(handle)
            if self.aborted:
                _shut_down(handle)


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # the peer was faster
        handle.shutdown(socket.SHUT_RDWR)
