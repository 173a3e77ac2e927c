import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
import requests

from dev.simulator import SCENARIOS, Delivery, Exchange, Fault, Service, Simulator, World
from dev.simulator.world import BOM, DOCUMENT, SECRET_NAME
from shared.auth import AppUserCredential
from shared.client import PartnerCenterClient
from shared.deadlines import session_for
from shared.errors import (
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.replies import Fetched
from shared.settings import GivenRefreshToken, Settings
from tests.conftest import ManualClock, events
from tests.test_deadlines import peer
from tests.threads import PATIENCE

ID = "6f1f1a0e-4a55-4d0c-9e61-0a6a3c3b9d01"
BUDGET = timedelta(seconds=50)
FIELD = Path(__file__).parent / "field"
PC = Service.PARTNER_CENTER
ENTRA_TWICE = [("entra", 200), ("entra", 200)]  # discovery, token
DOWN, REFUSED = Fault(PC, 503), Fault(PC, 401)
RESET, NEVER, HALF = (Fault(PC, delivery=each) for each in (Delivery.RESET, Delivery.NEVER, Delivery.HALF))

GOOD = {"healthy": 1, "bom": 1, "no-bom": 1, "slow": 1, "flaky": 2, "unauthorized-once": 2}  # calls
NO_DATA = {"no-usage-data": 404, "no-usage-data-400": 400}
BAD: dict[str, tuple[type[UsageSummaryError], int | None, str | None, int]] = {
    # scenario: error, status, code, calls
    "throttled": (UpstreamUnavailableError, 429, None, 1),
    "down": (UpstreamUnavailableError, 503, None, 4),
    "connection-reset": (UpstreamUnavailableError, None, None, 4),
    "half-document": (UpstreamInvalidError, 200, None, 4),
    **dict.fromkeys(("html", "wrong-object", "no-total", "huge"), (UpstreamInvalidError, 200, None, 1)),
    "redirect": (UpstreamRefusedError, 302, None, 1),
    "forbidden": (UpstreamRefusedError, 403, "900308", 1),
    "app-only": (UpstreamRefusedError, 403, "900329", 1),
    "not-found": (UpstreamRefusedError, 404, "1000", 1),
    "bad-request": (UpstreamRefusedError, 400, "2000", 1),
    "unauthorized": (UpstreamRefusedError, 401, None, 2),
    "mfa-missing": (ConsentRequiredError, 401, "900421", 1),
}


@pytest.fixture
def world(simulator: Simulator) -> World:
    return simulator.world


@pytest.fixture
def direct(settings: Settings, world: World) -> Settings:
    """Settings with the refresh token itself: of sign-in, only Entra is left on the wire."""
    return replace(settings, refresh_token=GivenRefreshToken(world.secrets[SECRET_NAME][-1].value))


@pytest.fixture
def client(direct: Settings, manual_clock: ManualClock) -> PartnerCenterClient:
    return client_of(direct, manual_clock)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.client.ATTEMPT_TIME", timedelta(seconds=1))  # for a busy machine's TLS


OF_PARTNER_CENTER = {name for name, each in SCENARIOS.items() if each.fault and each.fault.service is PC}


SLOW = {"hanging", "dripping"}  # end by time, in tests/test_faults.py


def client_of(settings: Settings, clock: ManualClock, sign_in: Settings | None = None) -> PartnerCenterClient:
    credential = AppUserCredential(sign_in or settings, clock.clock())
    return PartnerCenterClient(settings, credential, clock.clock())


def calls(world: World) -> list[Exchange]:
    return [exchange for exchange in world.exchanges if exchange.service is PC]


def crossed(world: World) -> list[tuple[str, int | None]]:
    return [(exchange.service.value, exchange.status) for exchange in world.exchanges]


def ids(world: World) -> list[str]:
    return [call.headers["ms-requestid"] for call in calls(world)]


def in_turn(world: World, *faults: Fault | None) -> None:
    """Each call of Partner Center meets the next of these; None is a good answer, as is every later one."""
    queue = list(faults)

    def prepare() -> None:
        fault = queue.pop(0) if queue else None
        world.faults = {PC: replace(fault)} if fault else {}

    world.observer = lambda exchange: prepare() if exchange.service is PC else None
    prepare()


def failing(client: PartnerCenterClient) -> UsageSummaryError:
    with pytest.raises(UsageSummaryError) as raised:
        client.get_usage_summary(ID, BUDGET)
    return raised.value


REFUSED_WITH: list[tuple[int, object, type[UsageSummaryError], str]] = [
    (401, 900421, ConsentRequiredError, "MFA"),
    (401, 10001, ConsentRequiredError, "MFA"),
    (401, None, UpstreamRefusedError, "API access"),
    (401, 400, UpstreamRefusedError, "API access"),
    (401, 800001, UpstreamRefusedError, "API access"),
    (401, 900420, UpstreamRefusedError, "PARTNER_CENTER_CLOUD"),
    (403, None, UpstreamRefusedError, "Admin agent"),
    (403, 2032, UpstreamRefusedError, "Admin agent"),
    (403, 900150, UpstreamRefusedError, "Admin agent"),
    (403, "900308", UpstreamRefusedError, "Admin agent"),
    (403, 900309, UpstreamRefusedError, "Conditional Access"),
    (403, 900329, UpstreamRefusedError, "for no person"),
    (403, 900124, UpstreamRefusedError, "Microsoft Partner Agreement"),
    (403, 900149, UpstreamRefusedError, "Cloud Solution Provider"),
    (403, 90000, UpstreamRefusedError, "sign-in log"),
    (403, 99999999, UpstreamRefusedError, "Admin agent"),
    (404, 1000, UpstreamRefusedError, "PARTNER_CENTER_TENANT_ID"),
    (404, 60003, UpstreamRefusedError, "PARTNER_CENTER_TENANT_ID"),
    (404, 99999999, UpstreamRefusedError, "PARTNER_CENTER_TENANT_ID"),
]


@pytest.mark.parametrize(("status", "code", "kind", "word"), REFUSED_WITH)
def test_a_refusal_comes_with_what_the_operator_does(
    client: PartnerCenterClient,
    world: World,
    status: int,
    code: object,
    kind: type[UsageSummaryError],
    word: str,
) -> None:
    body = json.dumps({"code": code, "description": "…", "data": [], "source": "PartnerFD"}) if code else ""
    world.faults[PC] = Fault(PC, status, lambda _: body.encode())
    error = failing(client)
    assert (type(error), error.reply and error.reply.status) == (kind, status)
    assert word in (error.hint or "")


def test_whether_the_token_has_mfa_is_known_where_that_is_asked(
    direct: Settings, client: PartnerCenterClient, manual_clock: ManualClock, world: World
) -> None:
    assert client.get_usage_summary(ID, BUDGET).is_mfa_compliant is None
    assert "validatemfa" not in calls(world)[0].headers
    credential = AppUserCredential(direct, manual_clock.clock())
    asking = PartnerCenterClient(direct, credential, manual_clock.clock(), validate_mfa=True)
    assert asking.get_usage_summary(ID, BUDGET).is_mfa_compliant is True


def test_the_first_call_signs_in_and_later_ones_do_not(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock
) -> None:
    first, second = client.get_usage_summary(ID, BUDGET), client.get_usage_summary(ID, BUDGET)
    assert crossed(world) == [*ENTRA_TWICE, ("partner-center", 200), ("partner-center", 200)]
    assert first == Fetched(DOCUMENT, None, ids(world)[0], ID, manual_clock.instant.timestamp())
    assert first.request_id != second.request_id == ids(world)[1]


def test_the_request_carries_what_partner_center_asks_for(client: PartnerCenterClient, world: World) -> None:
    client.get_usage_summary(ID, BUDGET)
    call = calls(world)[0]
    assert (call.method, call.path, call.query) == ("GET", "/v1/usagesummary", {})
    token = call.headers["authorization"].removeprefix("Bearer ")
    assert world.claims(token)["aud"] == "https://api.partnercenter.microsoft.com"
    assert call.headers["accept"] == "application/json"
    assert (call.headers["ms-contract-version"], call.headers["ms-correlationid"]) == ("v1", ID)
    assert call.headers["ms-partnercenter-application"] == "partner-center-usage-summary"
    assert str(UUID(call.headers["ms-requestid"])) == call.headers["ms-requestid"] != ID
    assert "cookie" not in call.headers
    assert world.complaints == []


@pytest.mark.parametrize("faults", [[NEVER, RESET], [RESET, DOWN, RESET], [NEVER, REFUSED], [HALF]])
@pytest.mark.usefixtures("_impatient")
def test_a_request_id_is_used_again_where_no_answer_came_and_only_there(
    client: PartnerCenterClient, world: World, faults: list[Fault]
) -> None:
    in_turn(world, *faults)
    assert client.get_usage_summary(ID, BUDGET).request_id == ids(world)[-1]
    is_same = [one == another for one, another in pairwise(ids(world))]
    assert is_same == [fault in (NEVER, RESET) for fault in faults]
    assert {call.headers["ms-correlationid"] for call in calls(world)} == {ID}


@pytest.mark.parametrize("scenario", GOOD)
def test_a_scenario_that_ends_well_gives_the_document_without_its_mark(
    client: PartnerCenterClient, world: World, scenario: str
) -> None:
    world.delay = 0.05
    world.choose(scenario)
    fetched = client.get_usage_summary(ID, BUDGET)
    assert (fetched.body, fetched.request_id) == (DOCUMENT, ids(world)[GOOD[scenario] - 1])


@pytest.mark.parametrize("scenario", NO_DATA)
def test_no_usage_data_is_an_answer(client: PartnerCenterClient, world: World, scenario: str) -> None:
    world.choose(scenario)
    fetched = client.get_usage_summary(ID, BUDGET)
    assert (fetched.body, len(calls(world))) == (b"", 1)
    assert fetched.no_usage_data == UpstreamReply(NO_DATA[scenario], "3000", ids(world)[0])


@pytest.mark.parametrize("body", [b'{"code":"3000"}', BOM + b'{"code":3000,"description":"Other"}'])
def test_no_usage_data_goes_by_the_code_of_400_and_404_alone(
    client: PartnerCenterClient, world: World, body: bytes
) -> None:
    in_turn(world, *(Fault(PC, status, lambda _: body) for status in (404, 400, 403)))
    assert None not in [client.get_usage_summary(ID, BUDGET).no_usage_data for _ in range(2)]
    assert isinstance(failing(client), UpstreamRefusedError)


@pytest.mark.parametrize(
    "scenario", sorted(BAD.keys() | OF_PARTNER_CENTER - GOOD.keys() - NO_DATA.keys() - SLOW)
)
def test_a_scenario_that_ends_badly_is_the_error_of_the_table(
    client: PartnerCenterClient, world: World, scenario: str
) -> None:
    world.choose(scenario)
    error = failing(client)
    kind, status, code, number = BAD[scenario]
    assert type(error) is kind
    assert len(calls(world)) == number
    assert error.reply == (status and UpstreamReply(status, code, ids(world)[-1]))


@pytest.mark.parametrize("body", [b"[3]", b'{"code":null}', b'{"code":{"a":1}}', b"[" * 60_000, b"\xff", b""])
def test_an_error_body_without_a_code_has_none(
    client: PartnerCenterClient, world: World, body: bytes
) -> None:
    in_turn(world, Fault(PC, 404, lambda _: body))
    assert failing(client).reply == UpstreamReply(404, None, ids(world)[0])


def test_a_refused_token_is_renewed_once_and_the_call_repeated_once(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock
) -> None:
    client.get_usage_summary(ID, BUDGET)
    world.exchanges.clear()
    world.withdraw_access_tokens()
    client.get_usage_summary(ID, BUDGET)
    assert crossed(world) == [("partner-center", 401), *ENTRA_TWICE, ("partner-center", 200)]
    assert len({call.headers["authorization"] for call in calls(world)}) == 2
    assert sum(manual_clock.slept) == 0


@pytest.mark.parametrize(("scenario", "status"), [("mfa-missing", 401), ("app-only", 403)])
def test_a_better_consent_is_used_without_a_restart(
    settings: Settings, world: World, manual_clock: ManualClock, scenario: str, status: int
) -> None:
    client = client_of(settings, manual_clock)
    world.choose(scenario)
    failing(client)
    if status == 403:  # which token is no good shows in the next minute: redemptions are not for each call
        failing(client)
        manual_clock.advance(seconds=61)
        failing(client)
        world.app_only = False
    assert crossed(world).count(("entra", 200)) == 2
    world.consent()
    assert client.get_usage_summary(ID, BUDGET).body == DOCUMENT


def test_a_redirect_is_followed_nowhere(
    client: PartnerCenterClient, world: World, simulator: Simulator
) -> None:
    for status in (301, 302, 303, 307, 308):
        world.faults[PC] = Fault(PC, status, headers={"location": f"{simulator.url}/v1/customers"})
        assert isinstance(failing(client), UpstreamRefusedError)
    assert [call.path for call in calls(world)] == ["/v1/usagesummary"] * 5


@pytest.mark.parametrize("location", ["https://[::1", "//[", "http://a\xe9/", ""])
def test_a_redirect_to_no_address_is_a_refusal_too(
    client: PartnerCenterClient, world: World, location: str
) -> None:
    world.faults[PC] = Fault(PC, 302, headers={"location": location})
    error = failing(client)
    assert isinstance(error, UpstreamRefusedError)
    assert error.reply is not None
    assert error.reply.status == 302


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("20", 20), ("86400", 3600), ("9" * 30, 3600), (timedelta(seconds=20), 20), (timedelta(9999), 3600)],
)
def test_a_long_retry_after_is_carried_and_not_waited_for(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock, asked: str | timedelta, seconds: int
) -> None:
    for status in (429, 503):
        began = time.monotonic()
        text = asked if isinstance(asked, str) else format_datetime(datetime.now(UTC) + asked, usegmt=True)
        in_turn(world, Fault(PC, status, headers={"retry-after": text}))
        retry_after = failing(client).retry_after or timedelta()
        passed = time.monotonic() - began
        assert -2 - passed <= retry_after.total_seconds() - seconds <= 2  # the server's Date is a little old
    assert manual_clock.slept == []


def test_a_short_retry_after_is_waited_for(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock
) -> None:
    in_turn(world, Fault(PC, 429, headers={"retry-after": "4"}))
    assert client.get_usage_summary(ID, BUDGET).body == DOCUMENT
    assert manual_clock.slept == [4]


NONSENSE = ["soon", "-1", "1.5", "", "Sat, 99 Nov 2026 08:00:00 GMT", "Sat"]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_retry_after_that_makes_no_sense_is_none(
    client: PartnerCenterClient, world: World, text: str
) -> None:
    world.faults[PC] = Fault(PC, 503, headers={"retry-after": text})
    assert failing(client).retry_after is None
    assert len(calls(world)) == 4


@pytest.mark.parametrize("text", [None, *NONSENSE])
def test_a_429_that_names_no_time_counts_as_one_of_a_minute_and_is_asked_for_once(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock, text: str | None
) -> None:
    body = (FIELD / "partner-center" / "429-without-retry-after.json").read_bytes()
    world.faults[PC] = Fault(PC, 429, lambda _: body, {} if text is None else {"retry-after": text})
    error = failing(client)
    assert isinstance(error, UpstreamUnavailableError)
    assert (error.retry_after, len(calls(world))) == (timedelta(minutes=1), 1)
    assert manual_clock.slept == []


NO_DOCUMENTS = {
    "an empty list": (200, (FIELD / "partner-center" / "turn-empty-list.json").read_bytes()),
    "an empty body": (200, b""),
    "null": (200, b"null"),
    "no content": (204, b""),
    "broken JSON": (200, DOCUMENT[:-1]),
}


@pytest.mark.parametrize("what", NO_DOCUMENTS)
def test_a_whole_answer_that_is_no_document_is_asked_for_once(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock, what: str
) -> None:
    status, body = NO_DOCUMENTS[what]
    world.faults[PC] = Fault(PC, status, lambda _: body)
    error = failing(client)
    assert (type(error), len(calls(world))) == (UpstreamInvalidError, 1)
    assert error.reply == UpstreamReply(status, None, ids(world)[0])
    assert manual_clock.slept == []


PAGE = b"<html>Too busy</html>" * 20
PACKED = gzip.compress(PAGE, mtime=0)
LENGTH, CHUNKED, GZIP = (
    b"Content-Length: %d\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
)
ENDS: dict[str, tuple[bytes, bytes, int]] = {
    # headers, body, calls
    "before its length": (LENGTH % 500, b"[" * 499, 4),
    "before its first byte": (LENGTH % 500, b"", 4),
    "amid a chunk": (CHUNKED, b"5\r\n[]", 4),
    "before the last chunk": (CHUNKED, b"2\r\n[]\r\n", 4),
    "before the first chunk": (CHUNKED, b"", 4),
    "amid gzip, before its length": (GZIP + LENGTH % len(PACKED), PACKED[:-12], 4),
    "without a length, amid JSON": (b"", DOCUMENT[:-1], 4),
    "without a length, before its first byte": (b"", b"", 4),
    "with its length": (LENGTH % len(PAGE), PAGE, 1),
    "with its length, amid JSON": (LENGTH % (len(DOCUMENT) - 1), DOCUMENT[:-1], 1),
    "with the last chunk": (CHUNKED, b"2\r\n[]\r\n0\r\n\r\n", 1),
    "with its length, and is no gzip": (GZIP + LENGTH % len(PAGE), PAGE, 1),
    "without a length, after JSON": (b"", b"[]", 1),
    "without a length, after JSON with a mark": (b"", BOM + b"null", 1),
}


@pytest.mark.parametrize("how", ENDS)
def test_an_answer_that_broke_off_is_asked_for_again_and_a_whole_one_is_not(
    direct: Settings, manual_clock: ManualClock, how: str
) -> None:
    headers, body, number = ENDS[how]
    asked = list[bytes]()

    def talk(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body)

    with peer(talk) as address:
        there = replace(direct, cloud=replace(direct.cloud, base_url=f"http://{address}"))
        error = failing(client_of(there, manual_clock, sign_in=direct))
    assert (type(error), len(asked)) == (UpstreamInvalidError, number)


def test_waits_double_with_jitter_and_each_failure_is_a_line(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    world.choose("down")
    failing(client)
    pairs = zip(manual_clock.slept, (0.5, 1, 2), strict=True)
    assert all(longest / 2 <= wait <= longest for wait, longest in pairs)
    lines = events(caplog, "upstream.attempt_failed")
    assert [(line["attempt"], line["requestId"]) for line in lines] == list(enumerate(ids(world), 1))
    assert all(line["correlationId"] == ID and line["msCv"] and line["msServerId"] for line in lines)


def test_a_sign_in_that_fails_is_a_line_of_its_own_and_no_attempt_at_partner_center(
    client: PartnerCenterClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.choose("entra-down")
    error = failing(client)
    lines = events(caplog, "sign_in.failed")
    assert [(line["attempt"], line["correlationId"]) for line in lines] == [
        (each, ID) for each in range(1, 5)
    ]
    assert {(line["error"], line["message"]) for line in lines} == {(type(error).__name__, error.message)}
    assert "requestId" not in caplog.text
    assert events(caplog, "upstream.attempt_failed") == []


@pytest.mark.parametrize("case", [("down", 20, 3), ("down", 26, 2), ("down", 52, 1), ("entra-down", 26, 2)])
def test_no_attempt_begins_that_cannot_end_within_the_budget(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock, case: tuple[str, int, int]
) -> None:
    scenario, seconds, number = case
    failed: list[datetime] = []

    def take_long(exchange: Exchange) -> None:
        if exchange.status == 503:
            failed.append(manual_clock.instant)
            manual_clock.advance(seconds=seconds)

    world.choose(scenario)
    began, world.observer = manual_clock.instant, take_long
    assert isinstance(failing(client), UpstreamUnavailableError)
    assert (len(failed), failed[-1] < began + BUDGET) == (number, True)


@pytest.mark.parametrize("header", [b"Content-Length: 2097152", b"Transfer-Encoding: chunked", b"X: none"])
@pytest.mark.parametrize(("status", "kind"), [(b"200", UpstreamInvalidError), (b"302", UpstreamRefusedError)])
def test_an_answer_of_2_mib_is_refused_before_all_of_it_came(
    direct: Settings, manual_clock: ManualClock, header: bytes, status: bytes, kind: type[UsageSummaryError]
) -> None:
    left = threading.Event()
    part = b"%x\r\n%s\r\n" % (65536, b" " * 65536) if b"chunked" in header else b" " * 65536

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 %s Said\r\nLocation: https://elsewhere.example\r\n%s\r\n\r\n" % (status, header)
        connection.sendall(head + part * 20)
        try:
            connection.recv(65536)
        finally:
            left.set()  # with 12 parts unsent

    with peer(talk) as address:
        there = replace(direct, cloud=replace(direct.cloud, base_url=f"http://{address}"))
        error = failing(client_of(there, manual_clock, sign_in=direct))
        assert left.wait(PATIENCE)
    assert type(error) is kind
    assert error.message in {"the answer is larger than 1 MiB", "Partner Center answered 302"}


def test_a_packed_answer_is_unpacked_as_far_as_it_may_go(client: PartnerCenterClient, world: World) -> None:
    documents = [gzip.compress(BOM + DOCUMENT), gzip.compress(b" " * 10 * 1024 * 1024), b"nonsense"]
    world.faults[PC] = Fault(PC, 200, lambda _: documents[0], {"content-encoding": "gzip"})
    assert client.get_usage_summary(ID, BUDGET).body == DOCUMENT
    for message in ("the answer is larger than 1 MiB", "the answer is not JSON in UTF-8"):
        documents.pop(0)
        assert failing(client).message == message


def test_a_netrc_does_not_replace_the_authorization(
    client: PartnerCenterClient, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert client.get_usage_summary(ID, BUDGET).body == DOCUMENT
    authorizations = [each.headers.get("authorization", "none").split(" ")[0] for each in world.exchanges]
    assert authorizations == ["none", "none", "Bearer"]


def test_no_call_leaves_when_the_sign_in_took_all_the_time(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock
) -> None:
    world.observer = lambda exchange: manual_clock.advance(seconds=51 * (exchange.method == "POST"))
    error = failing(client)
    assert (type(error), error.asked) == (UpstreamTimeoutError, True)
    assert crossed(world) == ENTRA_TWICE


def test_without_any_time_nobody_is_asked(
    client: PartnerCenterClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UpstreamTimeoutError) as raised:
        client.get_usage_summary(ID, timedelta())
    assert (raised.value.asked, world.exchanges) == (False, [])
    assert events(caplog, "sign_in.failed") + events(caplog, "upstream.attempt_failed") == []


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on no deadline can be kept, since that takes a thread."""

    def refuse(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Timer, "start", refuse)


@pytest.mark.parametrize("is_signed_in", [False, True])
def test_without_a_thread_nobody_is_asked_and_no_request_id_is_said(
    client: PartnerCenterClient,
    world: World,
    caplog: pytest.LogCaptureFixture,
    no_thread: Callable[[], None],
    *,
    is_signed_in: bool,
) -> None:
    if is_signed_in:
        client.get_usage_summary(ID, BUDGET)
    asked = len(world.exchanges)
    no_thread()
    error = failing(client)
    assert (type(error), error.asked, len(world.exchanges)) == (UpstreamUnavailableError, False, asked)
    assert len(events(caplog, "upstream.attempt_failed" if is_signed_in else "sign_in.failed")) == 4
    assert "requestId" not in caplog.text


@pytest.mark.parametrize("first", [DOWN, REFUSED, None])
def test_a_refresh_that_asked_once_has_asked_though_then_there_is_no_thread(
    client: PartnerCenterClient, world: World, no_thread: Callable[[], None], first: Fault | None
) -> None:
    """Partner Center, which failed or refused the token; or Entra alone, for the first token."""

    def observe(exchange: Exchange) -> None:
        if exchange.service is PC or (first is None and exchange.method == "POST"):
            no_thread()

    world.faults = {PC: replace(first)} if first else {}
    world.observer = observe
    error = failing(client)
    assert (error.message, error.asked) == ("this process can start no thread", True)


def test_a_refresh_that_asked_once_has_asked_though_then_there_is_no_time(
    direct: Settings, world: World, manual_clock: ManualClock
) -> None:
    clock = replace(manual_clock.clock(), sleep=lambda _: manual_clock.advance(seconds=60))
    client = PartnerCenterClient(direct, AppUserCredential(direct, clock), clock)
    client.get_usage_summary(ID, BUDGET)
    in_turn(world, DOWN)
    error = failing(client)
    assert (type(error), error.asked, len(calls(world))) == (UpstreamTimeoutError, True, 2)


def test_the_instant_is_that_at_which_the_answered_call_was_sent(
    client: PartnerCenterClient, world: World, manual_clock: ManualClock
) -> None:
    sent: list[float] = []

    def take_long(exchange: Exchange) -> None:
        if exchange.service is PC:
            sent.append(manual_clock.instant.timestamp())
            manual_clock.advance(seconds=20)

    world.observer = take_long
    world.faults[PC] = replace(DOWN, times=1)
    assert client.get_usage_summary(ID, BUDGET).sent == sent[1] > sent[0] + 20


def test_an_attempt_may_take_40_seconds(client: PartnerCenterClient, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[timedelta] = []

    def watched(duration: timedelta, ca_bundle: str | None) -> AbstractContextManager[requests.Session]:
        allowed.append(duration)
        return session_for(duration, ca_bundle)

    monkeypatch.setattr("shared.client.session_for", watched)
    client.get_usage_summary(ID, BUDGET)
    assert timedelta(seconds=40) < allowed[0] <= BUDGET
