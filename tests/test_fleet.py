from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from shared.blob import Blob, Reading
from shared.blobs import QUICK, Container
from shared.clock import Clock
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    StorageError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.fleet import Fleet
from shared.fleet_blob import CLAIM_LIFE, back_off_of, blob_name, claim_of, content_of, read_shared
from shared.held import CLOCK_GRAIN, Answer, Shared
from shared.settings import StorageConnection
from tests.conftest import ManualClock
from tests.memory import Memory
from tests.test_deadlines import refusing
from tests.threads import PATIENCE

PARTNER = "https://api.example 0001"
JSON = "application/json; charset=utf-8"
BODY = '{"totalCost":120.5682999999995904716,"resourceName":"Северное сияние"}'.encode()
REQUEST, CORRELATION = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47", "0d9f1f0e-3c5e-4a55-9d0a-6a4f3f1f2b11"
NO_DATA = UpstreamReply(404, "3000", REQUEST)
SENT = datetime(2026, 11, 21, 8, 0, 1, 250_000, tzinfo=UTC)
ANSWER = Answer(BODY, SENT, REQUEST, CORRELATION)
NEWER = replace(ANSWER, body=b'{"totalCost":7}', fetched_at=SENT + timedelta(hours=1), request_id=CORRELATION)


@pytest.fixture
def fleet(container: Container) -> Fleet:
    return Fleet(container, PARTNER, Clock())


def claimed(fleet: Fleet, owner: str = "me") -> Shared:
    claim = fleet.claim(fleet.read(), owner)
    assert claim is not None
    return claim


def published(fleet: Fleet, answer: Answer = ANSWER) -> Shared:
    assert fleet.publish(claimed(fleet), answer)
    return fleet.read()


def test_the_blob_of_a_partner_has_the_same_name_in_every_version() -> None:
    assert blob_name(PARTNER) == "usagesummary-27098a8326b15309"


def test_before_the_first_answer_nothing_is_shared_and_nobody_has_the_claim(fleet: Fleet) -> None:
    shared = fleet.read()
    assert (shared.etag, shared.answer, shared.keep_away) == (None, None, timedelta())
    assert abs(shared.at - datetime.now(UTC)) < timedelta(seconds=PATIENCE)


@pytest.mark.parametrize("answer", [ANSWER, replace(ANSWER, body=b"", no_usage_data=NO_DATA)])
def test_a_published_answer_is_read_back_as_it_was_and_the_claim_is_free(
    fleet: Fleet, answer: Answer
) -> None:
    shared = published(fleet, answer)
    assert shared.answer == answer
    assert (shared.failure, shared.keep_away) == (None, timedelta())


def test_the_entity_tag_is_strong_and_that_of_the_bytes() -> None:
    assert ANSWER.etag == replace(NEWER, body=BODY).etag != NEWER.etag
    assert ANSWER.etag[0] == ANSWER.etag[-1] == '"'


@pytest.mark.parametrize("is_cold", [True, False])
def test_of_many_who_read_the_same_one_gets_the_claim(
    fleet: Fleet, container: Container, *, is_cold: bool
) -> None:
    shared = fleet.read() if is_cold else published(fleet)
    start = Barrier(8)

    def claim(owner: int) -> Shared | None:
        start.wait()
        return Fleet(container, PARTNER, Clock()).claim(shared, f"owner{owner}")

    with ThreadPoolExecutor(8) as pool:
        won = [each for each in pool.map(claim, range(8)) if each is not None]
    now = fleet.read()
    assert [each.etag for each in won] == [now.etag]
    assert now.answer == shared.answer


def test_a_claim_holds_for_its_life_by_the_clock_of_storage(fleet: Fleet) -> None:
    claim = claimed(fleet)
    now = fleet.read()
    assert now.instant(now.until) == claim.at + CLAIM_LIFE
    assert CLAIM_LIFE - timedelta(seconds=PATIENCE) < now.keep_away <= CLAIM_LIFE


def test_a_dead_owners_claim_is_free_after_its_life(fleet: Fleet) -> None:
    shared = fleet.read()
    dead = replace(shared, at=shared.at - CLAIM_LIFE - timedelta(seconds=1))
    assert fleet.claim(dead, "dead")
    left = fleet.read()
    assert not left.keep_away
    assert fleet.claim(left, "next")
    assert fleet.read().keep_away


def test_a_late_publisher_is_refused_and_the_newest_answer_stays(fleet: Fleet) -> None:
    late = claimed(fleet, "paused")
    assert fleet.publish(claimed(fleet, "other"), NEWER)
    assert not fleet.publish(late, ANSWER)
    assert fleet.read().answer == NEWER


@pytest.mark.parametrize("is_cold", [True, False])
def test_a_claim_whose_response_was_lost_is_recognised_by_its_owner_alone(
    fleet: Fleet, *, is_cold: bool
) -> None:
    shared = fleet.read() if is_cold else published(fleet)
    claim = fleet.claim(shared, "me")
    assert claim is not None
    assert fleet.claim(shared, "me") == claim
    assert fleet.claim(shared, "you") is None


def test_a_publication_whose_response_was_lost_is_recognised(fleet: Fleet) -> None:
    claim = claimed(fleet)
    assert fleet.publish(claim, ANSWER)
    assert fleet.publish(claim, ANSWER)


class Overtaken(ContainerClient):
    """Somebody else writes between the two requests in which the SDK would read an empty blob."""

    overtake: Callable[[], object]

    def download_blob(self, blob: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        read = super().download_blob(blob, **kwargs)
        type(self).overtake()
        return read


def test_a_reader_overtaken_by_the_first_publication_gets_all_of_it_or_the_claim(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed(fleet)
    overtakes = [lambda: fleet.publish(claim, ANSWER)]
    Overtaken.overtake = staticmethod(lambda: overtakes.pop()() if overtakes else None)
    monkeypatch.setattr("azure.storage.blob.ContainerClient", Overtaken)
    seen = fleet.read()
    assert seen.answer == ANSWER or (seen.answer is None and seen.keep_away)
    assert fleet.read().answer == ANSWER


def test_a_reading_that_took_too_long_to_tell_the_time_is_done_again(manual_clock: ManualClock) -> None:
    container = Memory(lambda: manual_clock.instant)
    fleet, stops = Fleet(container, PARTNER, manual_clock.clock()), [7.0, 7.0]
    fleet.publish(claimed(fleet), replace(ANSWER, fetched_at=manual_clock.instant))
    container.after = lambda _: manual_clock.advance(seconds=stops.pop(0) if stops else 6)
    shared = fleet.read()
    assert stops == []
    assert shared.instant(manual_clock.instant.timestamp()) == manual_clock.instant - timedelta(seconds=6)
    assert shared.answer is not None


@pytest.mark.parametrize("reply", [None, UpstreamReply(429, "2000", REQUEST), UpstreamReply(503)])
@pytest.mark.parametrize(
    "kind",
    [
        ConfigurationError,
        ConsentRequiredError,
        UpstreamRefusedError,
        UpstreamInvalidError,
        UpstreamUnavailableError,
        UpstreamTimeoutError,
    ],
)
def test_a_failure_is_shared_with_its_class_its_words_and_its_reply(
    fleet: Fleet, kind: type[UsageSummaryError], reply: UpstreamReply | None
) -> None:
    published(fleet)
    claim = claimed(fleet)
    fleet.back_off(claim, kind('sie sagt "nein", är så', reply=reply, hint="Så."), claim.read + 20)
    now = fleet.read()
    assert type(now.failure) is kind
    assert now.failure is not None
    assert (now.failure.message, now.failure.hint) == ('sie sagt "nein", är så', "Så.")
    assert now.failure.reply == reply
    assert now.instant(now.until) == claim.instant(claim.read + 20) + CLOCK_GRAIN
    assert (bool(now.keep_away), now.answer) == (True, ANSWER)


def test_of_a_failure_without_a_hint_that_says_much_the_beginning_is_shared(fleet: Fleet) -> None:
    claim = claimed(fleet)
    fleet.back_off(claim, UpstreamInvalidError("x" * 9000), claim.read + 20)
    failure = fleet.read().failure
    assert failure is not None
    assert (failure.message, failure.hint) == ("x" * 1000, None)


def test_after_a_back_off_the_next_one_claims_and_the_failure_is_forgotten(fleet: Fleet) -> None:
    claim = claimed(fleet)
    fleet.back_off(claim, UpstreamInvalidError("x" * 9000), claim.read - 2)
    assert not fleet.read().keep_away
    claimed(fleet, "next")
    now = fleet.read()
    assert (now.failure, bool(now.keep_away)) == (None, True)


@pytest.mark.parametrize("is_cold", [True, False])
def test_a_claim_that_is_given_back_is_free_at_once_unless_it_was_lost(
    fleet: Fleet, *, is_cold: bool
) -> None:
    stored = None if is_cold else published(fleet).answer
    assert fleet.release(claimed(fleet))
    now = fleet.read()
    assert (now.answer, now.failure, now.keep_away) == (stored, None, timedelta())
    late = claimed(fleet, "paused")
    assert fleet.publish(claimed(fleet, "other"), NEWER)
    assert not fleet.release(late)
    assert fleet.read().answer == NEWER


def test_a_late_back_off_is_no_harm_to_the_newer_answer(fleet: Fleet) -> None:
    late = claimed(fleet, "paused")
    assert fleet.publish(claimed(fleet, "other"), NEWER)
    fleet.back_off(late, UpstreamTimeoutError("late"), late.read + 20)
    now = fleet.read()
    assert (now.answer, now.failure, now.keep_away) == (NEWER, None, timedelta())


INSTANT = "2026-11-21T08:00:00.000+00:00"
WHO = {"requestid": REQUEST, "correlationid": CORRELATION}
WHEN = {"fetched": INSTANT, **WHO}
UNTIL = {"until": INSTANT}
DAMAGES: dict[str, tuple[bytes, dict[str, str]]] = {
    "no metadata": (b"garbage", {}),
    "no instant": (BODY, {"fetched": "yesterday", **WHO}),
    "no zone": (BODY, {"fetched": "2026-11-21T08:00:00", **WHO}),
    "no request id": (BODY, {"fetched": INSTANT, "correlationid": CORRELATION}),
    "no correlation id": (BODY, {"fetched": INSTANT, "requestid": REQUEST}),
    "no reply": (b"", {**WHEN, "nousagedata": "null"}),
    "half a reply": (b"", {**WHEN, "nousagedata": "[404]"}),
    "no JSON in a reply": (b"", {**WHEN, "nousagedata": "{"}),
    "no instant in a claim": (BODY, {"until": "soon"}),
    "no JSON in a failure": (BODY, {**UNTIL, "failure": "{"}),
    "no list in a failure": (BODY, {**UNTIL, "failure": "7"}),
    "an unknown failure": (BODY, {**UNTIL, "failure": '["NoSuchError", "", null, null]'}),
    "a failure that is a duration": (BODY, {**UNTIL, "failure": '["timedelta", "", null, null]'}),
    "a failure that is a reply": (BODY, {**UNTIL, "failure": '["UpstreamReply", "", null, null]'}),
    "a failure that is a list": (BODY, {**UNTIL, "failure": '[["StorageError"], "", null, null]'}),
    "no body": (b"", WHEN),
    "half a body": (BODY[:-9], WHEN),
    "a page for a body": (b"<html></html>", WHEN),
    "a body that is no usage summary": (b'{"customersOverBudget":2}', WHEN),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_counts_as_absent_and_is_written_over(
    fleet: Fleet, container: Container, damage: str
) -> None:
    content, metadata = DAMAGES[damage]
    container.write(blob_name(PARTNER), content, JSON, replacing=None, metadata=metadata)
    shared = fleet.read()
    assert (shared.answer, shared.failure, shared.keep_away) == (None, None, timedelta())
    assert published(fleet).answer == ANSWER


CALLS: dict[str, Callable[[Fleet], object]] = {
    "read": lambda fleet: fleet.read(),
    "first claim": lambda fleet: fleet.claim(Shared(0, SENT), "me"),
    "claim": lambda fleet: fleet.claim(Shared(0, SENT, '"0x1"'), "me"),
    "publish": lambda fleet: fleet.publish(Shared(0, SENT, '"0x1"'), ANSWER),
    "back off": lambda fleet: fleet.back_off(Shared(0, SENT, '"0x1"'), UpstreamTimeoutError(""), 20),
}


@pytest.mark.parametrize("call", CALLS)
def test_storage_that_is_down_is_a_storage_error(call: str) -> None:
    with refusing() as address:
        connection = f"AccountName=a;AccountKey=a2V5;BlobEndpoint=http://{address}/a"
        closed = Container("cache", StorageConnection(connection_string=connection), QUICK, None)
        with pytest.raises(StorageError):
            CALLS[call](Fleet(closed, PARTNER, Clock()))


def test_a_claim_and_a_back_off_are_written_as_every_version_reads_them() -> None:
    shared = Shared(1000.0, SENT.replace(microsecond=0))
    assert claim_of("me", shared) == {"owner": "me", "until": "2026-11-21T08:01:06.000+00:00"}
    error = UpstreamRefusedError("no", reply=NO_DATA, hint="Do.")
    assert back_off_of(error, SENT) == {
        "until": "2026-11-21T08:00:02.250+00:00",
        "failure": f'["UpstreamRefusedError", "no", [404, "3000", "{REQUEST}"], "Do."]',
    }


def test_the_latest_instants_that_are_no_damage_are_taken() -> None:
    at = datetime(2026, 11, 21, 8, tzinfo=UTC)
    body, metadata = content_of(replace(ANSWER, fetched_at=at + timedelta(minutes=5)))
    until = {"owner": "me", "until": (at + CLAIM_LIFE + CLOCK_GRAIN).isoformat()}
    shared = read_shared(Reading(Blob(body, '"1"', {**metadata, **until}, None), at), 1000.0)
    assert shared.answer is not None
    assert (shared.until, shared.instant(shared.until)) == (1066.0, at + CLAIM_LIFE + CLOCK_GRAIN)


def test_partners_do_not_share(container: Container, fleet: Fleet) -> None:
    published(fleet)
    assert Fleet(container, "https://api.example 0002", Clock()).read().etag is None


@pytest.mark.parametrize(
    ("metadata", "damage"),
    [
        ({"until": "2999-01-01T00:00:00+00:00", "owner": "x"}, "a claim for ever"),
        ({**WHEN, "fetched": "2999-01-01T00:00:00+00:00"}, "an answer of tomorrow"),
        (
            {**UNTIL, "failure": '["UpstreamRefusedError", "", [403, "no number", "x"], null]'},
            "a code that is none",
        ),
        ({**UNTIL, "failure": '["StorageError", "", null, null]'}, "a failure that no caller may see"),
    ],
)
def test_what_nobody_wrote_keeps_nobody_away(
    fleet: Fleet, container: Container, metadata: dict[str, str], damage: str
) -> None:
    container.write(blob_name(PARTNER), BODY, JSON, replacing=None, metadata=metadata)
    shared = fleet.read()
    assert (shared.answer, shared.failure, shared.keep_away) == (None, None, timedelta()), damage


@pytest.mark.parametrize("late", [timedelta(seconds=20), timedelta(minutes=50)])
def test_a_claim_that_ends_later_than_any_can_is_nobodys(fleet: Fleet, late: timedelta) -> None:
    shared = fleet.read()
    assert fleet.claim(replace(shared, at=shared.at + late), "dead")
    left = fleet.read()
    assert not left.keep_away
    assert fleet.claim(left, "next")


@pytest.mark.parametrize(("hours", "is_kept"), [(1, True), (2, False)])
def test_a_back_off_may_last_as_long_as_the_longest_retry_after(
    fleet: Fleet, hours: int, *, is_kept: bool
) -> None:
    claim = claimed(fleet)
    fleet.back_off(claim, UpstreamTimeoutError(""), claim.read + hours * 3600)
    assert bool(fleet.read().keep_away) is is_kept


def rewrite(container: Container, **changed: str) -> None:
    """Another version of the app has written some metadata otherwise."""
    blob = container.read(blob_name(PARTNER)).blob
    assert blob is not None
    metadata = {**blob.metadata, **changed}
    container.write(blob_name(PARTNER), blob.content, JSON, replacing=blob.etag, metadata=metadata)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ('["ANewError", "words", null, null]', "words"),
        ('["UpstreamTimeoutError", "words", null, null, "more"]', "another instance could not refresh"),
        ('["UpstreamRefusedError", "", [403, "text", "x"], null]', "another instance could not refresh"),
        ('{"kind": "ANewError"}', "another instance could not refresh"),
        ("a new error", "another instance could not refresh"),
    ],
)
def test_a_failure_that_only_another_version_knows_keeps_the_answer_and_the_back_off(
    fleet: Fleet, container: Container, failure: str, message: str
) -> None:
    published(fleet)
    claim = claimed(fleet)
    fleet.back_off(claim, UpstreamTimeoutError("late"), claim.read + 600)
    rewrite(container, failure=failure, colour="green")
    now = fleet.read()
    assert (now.answer, type(now.failure)) == (ANSWER, UpstreamUnavailableError)
    assert str(now.failure) == message
    assert now.instant(now.until) == claim.instant(claim.read + 600) + CLOCK_GRAIN


def test_what_is_damaged_leaves_the_rest_as_it_was(fleet: Fleet, container: Container) -> None:
    published(fleet)
    claim = claimed(fleet)
    fleet.back_off(claim, UpstreamTimeoutError("late"), claim.read + 600)
    rewrite(container, digest="of another body")
    now = fleet.read()
    assert (now.answer, type(now.failure), bool(now.keep_away)) == (None, UpstreamTimeoutError, True)
    published(fleet)
    rewrite(container, until="soon", owner="me")
    now = fleet.read()
    assert (now.answer, now.failure, now.keep_away) == (ANSWER, None, timedelta())
