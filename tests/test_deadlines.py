import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import requests
import trustme

from dev.simulator import Simulator
from shared.deadlines import retry_after, session_for
from shared.errors import ConfigurationError, UpstreamTimeoutError, UpstreamUnavailableError

type Talk = Callable[[socket.socket], None]

ALLOWED = timedelta(seconds=0.2)
AMPLE = timedelta(minutes=10)
SLACK = 30.0  # seconds; a busy machine's


@contextmanager
def peer(talk: Talk) -> Iterator[str]:
    """`host:port` of a server that talks so to each caller, in a thread of its own."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                talk(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def saying(start: bytes, drip: bytes = b"", pause: float = 0.02) -> Talk:
    """Send the start at once, after that the drip byte by byte, again and again, or nothing more."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(start)
        while drip:
            for byte in drip:
                connection.sendall(bytes([byte]))
                threading.Event().wait(pause)
        while connection.recv(65536):
            pass

    return talk


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nobody listens, and nobody else may begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def answering(body: bytes) -> Talk:
    return saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@contextmanager
def ending_within(allowed: timedelta) -> Iterator[None]:
    """Whatever happens inside ends when its time is over, neither sooner nor later."""
    began = time.monotonic()
    yield
    elapsed = time.monotonic() - began
    assert allowed.total_seconds() - 0.05 <= elapsed <= allowed.total_seconds() + SLACK


OK = b"HTTP/1.1 200 OK\r\n"
PEERS = {
    "says nothing": saying(b""),
    "breaks off in the headers": saying(OK + b"Content-Le"),
    "drips headers": saying(OK, b"X-Drip: drop\r\n"),
    "drips one endless header": saying(OK + b"X-Drip: ", b"o"),
    "drips interim answers": saying(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drips a body": saying(OK + b"Content-Length: 1000\r\n\r\n", b"o"),
    "drips a chunked body": saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\no\r\n"),
    "drips chunk sizes": saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "drips a body without a length": saying(OK + b"\r\n", b"o"),
    "breaks off in a body without a length": saying(OK + b'\r\n{"totalCost": 1}'),
}


def test_where_no_thread_can_watch_the_time_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Timer, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    with (
        pytest.raises(UpstreamUnavailableError, match=r"^this process can start no thread$"),
        session_for(AMPLE, None),
    ):
        pytest.fail("there is no session")


@pytest.mark.parametrize("name", PEERS)
def test_an_exchange_ends_at_the_deadline_when_the_peer(name: str) -> None:
    with (
        peer(PEERS[name]) as address,
        ending_within(ALLOWED),
        pytest.raises(UpstreamTimeoutError),
        session_for(ALLOWED, None) as session,
    ):
        session.get(f"http://{address}/", timeout=None)


@pytest.mark.parametrize(
    "talk",
    [
        saying(b""),
        saying(b"\x16\x03\x03\x40\x00"),
        saying(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"o"),
    ],
    ids=["silent", "begun", "dripping"],
)
def test_a_tls_handshake_that_never_ends_ends_at_the_deadline(talk: Talk) -> None:
    with (
        peer(talk) as address,
        ending_within(ALLOWED),
        pytest.raises(UpstreamTimeoutError),
        session_for(ALLOWED, None) as session,
    ):
        session.get(f"https://{address}/", timeout=None)


def test_a_proxy_that_never_connects_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(saying(b"", b"HTTP/1.1 200 OK\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with (
            ending_within(ALLOWED),
            pytest.raises(UpstreamTimeoutError),
            session_for(ALLOWED, None) as session,
        ):
            session.get("https://partner-center.invalid/", timeout=None)


def test_all_exchanges_of_a_session_share_one_deadline() -> None:
    with peer(answering(b"quick")) as quick, peer(saying(b"")) as silent:

        def errand() -> None:
            with session_for(ALLOWED, None) as session:
                assert session.get(f"http://{quick}/", timeout=None).content == b"quick"
                session.get(f"http://{silent}/", timeout=None)

        with ending_within(ALLOWED), pytest.raises(UpstreamTimeoutError):
            errand()


def test_a_connection_opened_after_the_deadline_ends_at_once() -> None:
    def errand(address: str) -> None:
        with session_for(ALLOWED, None) as session:
            for _ in range(2):
                with suppress(requests.RequestException):
                    session.get(f"http://{address}/", timeout=None)

    with peer(saying(b"")) as address, ending_within(ALLOWED), pytest.raises(UpstreamTimeoutError):
        errand(address)


def test_what_a_library_makes_of_the_deadline_is_a_timeout() -> None:
    def errand(address: str) -> None:
        with session_for(ALLOWED, None) as session:
            try:
                session.get(f"http://{address}/", timeout=None)
            except requests.RequestException as error:
                raise KeyError("as a library might") from error

    with peer(saying(b"")) as address, pytest.raises(UpstreamTimeoutError):
        errand(address)


def test_a_time_out_of_a_single_call_is_a_timeout() -> None:
    with (
        peer(saying(b"")) as address,
        pytest.raises(UpstreamTimeoutError),
        session_for(AMPLE, None) as session,
    ):
        session.get(f"http://{address}/", timeout=0.1)


@pytest.mark.parametrize(
    "talk",
    [
        saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda connection: connection.close(),
        lambda connection: connection.sendall(OK + b"Content-Length: 9\r\n\r\nhalf"),
        lambda connection: connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
    ],
    ids=["another protocol", "closes", "half a body", "broken chunks"],
)
def test_an_answer_that_is_none_is_unavailable_and_takes_no_time(talk: Talk) -> None:
    with (
        peer(talk) as address,
        ending_within(timedelta()),
        pytest.raises(UpstreamUnavailableError),
        session_for(AMPLE, None) as session,
    ):
        session.get(f"http://{address}/", timeout=None)


def test_a_closed_port_is_unavailable_and_the_message_holds_no_address() -> None:
    with (
        refusing() as address,
        ending_within(timedelta()),
        pytest.raises(UpstreamUnavailableError) as refused,
        session_for(AMPLE, None) as session,
    ):
        session.get(f"http://{address}/?sig=secret", timeout=None)
    assert refused.value.message == "the connection failed (ConnectionError)"


@pytest.mark.parametrize("error", [ConfigurationError("ours"), KeyError("a defect")])
def test_what_is_no_failure_of_the_connection_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, session_for(AMPLE, None):
        raise error
    assert raised.value is error


def test_the_session_follows_the_ca_bundle_and_no_other(simulator: Simulator, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(str(foreign))
    address = f"{simulator.url}/simulator/scenarios"
    with session_for(AMPLE, simulator.ca_bundle) as session:
        assert session.get(address, timeout=5).status_code == 200
    for bundle in (str(foreign), None):
        with pytest.raises(UpstreamUnavailableError), session_for(AMPLE, bundle) as session:
            session.get(address, timeout=5)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_of_the_environment_does_not_replace_the_given_one(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    foreign = tmp_path / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(str(foreign))
    monkeypatch.setenv(name, str(foreign))
    with session_for(AMPLE, simulator.ca_bundle) as session:
        assert session.get(f"{simulator.url}/simulator/scenarios", timeout=5).status_code == 200


def test_a_session_that_ended_leaves_no_timer_behind() -> None:
    with peer(answering(b"quick")) as address, session_for(AMPLE, None) as session:
        session.get(f"http://{address}/", timeout=5)
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


def test_a_session_whose_time_is_over_is_of_no_use_however_quick_the_peer() -> None:
    def errand(address: str) -> None:
        with session_for(timedelta(), None) as session:
            threading.Event().wait(0.05)
            session.get(f"http://{address}/", timeout=5)

    with peer(answering(b"quick")) as address, pytest.raises(UpstreamTimeoutError):
        errand(address)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "9" * 30}, 3600),
        ({"Retry-After": "Sat, 21 Nov 2026 08:00:30 GMT", "Date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 30),
        ({"Retry-After": "Sat, 21 Nov 2026 07:00:00 GMT", "Date": "Sat, 21 Nov 2026 08:00:00 GMT"}, 0),
        ({"Retry-After": "Mon, 20 Nov 2000 19:12:08 GMT"}, 0),
        ({"Retry-After": "Mon, 20 Nov 9999 19:12:08 GMT"}, 3600),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_an_hour_at_most(headers: dict[str, str], seconds: int) -> None:
    assert retry_after(headers) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-1", "1.5", "Mon, 20 Nov 1995 19:12:08 +99999999999999", "Mon, 99 Nov 1995 99:99:99"],
)
def test_a_retry_after_that_is_nonsense_counts_as_absent(text: str) -> None:
    assert retry_after({"Retry-After": text}) is None
