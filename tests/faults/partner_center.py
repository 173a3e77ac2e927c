"""Faults of Partner Center, and of the way to it."""

import gzip
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import trustme

from dev.simulator.world import BOM
from shared.app import App
from shared.problems import Response
from tests.faults.acts import (
    PC,
    Scenario,
    answers,
    as_always,
    consents_again,
    hurried,
    says,
    shows,
    talks,
)
from tests.faults.case import (
    CONSENT,
    FINE,
    INVALID,
    NO_DATA,
    REFUSED,
    TIMEOUT,
    UNAVAILABLE,
    Case,
    Effect,
    Recovery,
    Seen,
    fails,
    told,
)
from tests.faults.scene import NEW, TOTAL, Certificates, Scene
from tests.test_deadlines import saying

FIELD = Path(__file__).parent.parent / "field" / "partner-center"
GATE = "PARTNER_CENTER_BASE_URL"
OK = b"HTTP/1.1 200 OK\r\n"
PACKED = gzip.compress(NEW)
ENDLESS_HEADER = saying(OK + b"X: ", b"o")


def takes_40_seconds(scene: Scene) -> None:
    scene.during_the_call(lambda: scene.clock.advance(seconds=40))


def names_a_date(scene: Scene) -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    answers(PC, 429, retry_after=text)(scene)


def has_no_address(scene: Scene) -> None:
    scene.gate.open()
    scene.fail_connections(socket.gaierror(socket.EAI_NONAME, "unknown"), scene.gate.port)


def leaves_without_a_word(connection: socket.socket) -> None:
    connection.recv(65536)


def once(scene: Scene, app: App) -> Response:
    """What cannot change within seconds is asked for once in a refresh."""
    response = scene.ask(app)
    assert len(scene.calls()) == 1
    return response


def good(certificates: Certificates) -> trustme.LeafCert:
    return certificates.good


def total(text: bytes) -> bytes:
    return NEW.replace(TOTAL, text)


def has_none(status: int) -> Effect:
    """There is no usage data, which replaces what is stored."""
    seen = Seen(NO_DATA, upstream=status, number=3000)
    return Effect(seen, seen, AS_AN_ANSWER)


DOWN, SLOW = fails(UNAVAILABLE), fails(TIMEOUT)
NO_SUMMARY = fails(INVALID, 200)
AS_AN_ANSWER = Recovery(3600, "an answer like others, asked for again after {} s", behind=True)
AFTER_A_MINUTE = Recovery(62, "by itself, within {} s", retry_after=60)  # storage's clock is coarse
IN_THE_END = Recovery(100, "by itself, within {} s", tries=5)  # a token is not given up for one refusal

PARTNER_CENTER = [
    Case("answers 500", answers(PC, 500), fails(UNAVAILABLE, 500)),
    Case("answers 502", answers(PC, 502), fails(UNAVAILABLE, 502)),
    Case("answers 503", Scenario("down"), fails(UNAVAILABLE, 503)),
    Case("answers 504", answers(PC, 504), fails(UNAVAILABLE, 504)),
    Case("answers 503 once", Scenario("flaky"), FINE),
    Case(
        "answers 429 with 20 s as Retry-After",
        Scenario("throttled"),
        fails(UNAVAILABLE, 429, recovery=told(20)),
    ),
    Case("answers 429 with a date as Retry-After", names_a_date, fails(UNAVAILABLE, 429, recovery=told(40))),
    Case(
        "answers 429 with an absurd Retry-After",
        answers(PC, 429, retry_after="9" * 30),
        fails(UNAVAILABLE, 429, recovery=told(3600)),
    ),
    Case(
        "answers 429 without a Retry-After",
        answers(PC, 429, (FIELD / "429-without-retry-after.json").read_bytes()),
        fails(UNAVAILABLE, 429, recovery=AFTER_A_MINUTE),
        ask=once,
    ),
    Case(
        "answers 429 with a Retry-After that makes no sense",
        answers(PC, 429, retry_after="soon"),
        fails(UNAVAILABLE, 429, recovery=AFTER_A_MINUTE),
        ask=once,
    ),
    Case("answers 400 with code 2000", Scenario("bad-request"), fails(REFUSED, 400, 2000)),
    Case("answers 401 to one access token", Scenario("unauthorized-once"), FINE),
    Case("answers 401 to every access token", Scenario("unauthorized"), fails(REFUSED, 401)),
    Case(
        "misses MFA: 401 with code 900421",
        Scenario("mfa-missing"),
        fails(CONSENT, 401, 900421),
        consents_again,
    ),
    Case("answers 403", Scenario("forbidden"), fails(REFUSED, 403, 900308)),
    Case("finds no role of the person: 403", Scenario("role-missing"), fails(REFUSED, 403, 900308)),
    Case("is given tokens of no person: 403", Scenario("app-only"), fails(REFUSED, 403, 900329, IN_THE_END)),
    Case("answers 404 with code 1000", Scenario("not-found"), fails(REFUSED, 404, 1000)),
    Case("has no usage data: 404 with code 3000", Scenario("no-usage-data"), has_none(404)),
    Case("has no usage data: 400 with code 3000", Scenario("no-usage-data-400"), has_none(400)),
    Case("answers 408", answers(PC, 408), fails(REFUSED, 408)),
    Case("answers 409", answers(PC, 409), fails(REFUSED, 409)),
    Case("redirects to another host", Scenario("redirect"), fails(REFUSED, 302)),
    Case("redirects to no address", answers(PC, 302, location="https://[::1"), fails(REFUSED, 302)),
    Case("answers with a page", Scenario("html"), NO_SUMMARY, ask=once),
    Case("answers with nothing", says(b""), NO_SUMMARY, ask=once),
    Case("answers 204", answers(PC, 204), fails(INVALID, 204), ask=once),
    Case("answers with null", says(b"null"), NO_SUMMARY, ask=once),
    Case(
        "answers with an empty list",
        says((FIELD / "turn-empty-list.json").read_bytes()),
        NO_SUMMARY,
        ask=once,
    ),
    Case("breaks off in mid-document", Scenario("half-document"), NO_SUMMARY),
    Case("answers with 2 MiB", Scenario("huge"), NO_SUMMARY, ask=once),
    Case("answers with damaged gzip", says(PACKED[:-9] + bytes(9), content_encoding="gzip"), NO_SUMMARY),
    Case("answers with broken JSON", says(NEW[:-1]), NO_SUMMARY),
    Case("answers with two byte-order marks", says(BOM + BOM + NEW), NO_SUMMARY),
    Case("says that the total is NaN", says(total(b"NaN")), NO_SUMMARY),
    Case("says that the total is 1e999", says(total(b"1e999")), NO_SUMMARY),
    Case("says no total", Scenario("no-total"), NO_SUMMARY),
    Case("answers with another object", Scenario("wrong-object"), NO_SUMMARY),
    Case("answers late", Scenario("slow"), FINE),
    Case("answers after 40 s", takes_40_seconds, FINE),
    Case("never answers", hurried("client", Scenario("hanging")), SLOW),
    Case("drips an answer", hurried("client", Scenario("dripping")), SLOW),
    Case("drips headers without an end", hurried("client", shows(good, ENDLESS_HEADER)), SLOW, gate=GATE),
    Case("resets the connection", Scenario("connection-reset"), DOWN),
    Case("closes the connection before the status line", shows(good, leaves_without_a_word), DOWN, gate=GATE),
    Case("refuses the connection", as_always, DOWN, gate=GATE),
    Case("has a name that no resolver knows", has_no_address, DOWN, gate=GATE),
    Case("shows a certificate of another CA", shows(lambda each: each.foreign, saying(b"")), DOWN, gate=GATE),
    Case("shows an expired certificate", shows(lambda each: each.expired, saying(b"")), DOWN, gate=GATE),
    Case("never ends the TLS handshake", hurried("client", talks(saying(b""))), SLOW, gate=GATE),
]
