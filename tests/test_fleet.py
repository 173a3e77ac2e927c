import socket
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient

from dev.azurite import Azurite
from shared.blobs import QUICK, Container, open_container
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
from shared.fleet import CLAIM_LIFE, Answer, Fleet, Shared
from shared.settings import Settings, StorageConnection, read_settings

BLOB = "usagesummary"
JSON = "application/json; charset=utf-8"
BODY = '{"totalCost":120.5682999999995904716,"resourceName":"Северное сияние"}'.encode()
REQUEST, CORRELATION = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47", "0d9f1f0e-3c5e-4a55-9d0a-6a4f3f1f2b11"
NO_DATA = UpstreamReply(404, "3000", REQUEST)
SENT = datetime(2026, 11, 21, 8, 0, 1, 250_000, tzinfo=UTC)
ANSWER = Answer(BODY, SENT, REQUEST, CORRELATION)
NEWER = replace(ANSWER, body=b'{"totalCost":7}', fetched_at=SENT + timedelta(hours=1), request_id=CORRELATION)


@pytest.fixture
def settings() -> Settings:
    """None of the simulated world: there is no upstream here."""
    return read_settings(
        {
            "PARTNER_CENTER_TENANT_ID": REQUEST,
            "PARTNER_CENTER_CLIENT_ID": REQUEST,
            "PARTNER_CENTER_CLIENT_SECRET": "secret",
            "PARTNER_CENTER_REFRESH_TOKEN": "token",
            "USAGE_STORAGE": "UseDevelopmentStorage=true",
        }
    )


@pytest.fixture
def fleet(container: Container) -> Fleet:
    return Fleet(container)


def claimed(fleet: Fleet, owner: str = "me") -> tuple[Shared, str]:
    shared = fleet.read()
    etag = fleet.claim(shared, owner)
    assert etag is not None
    return shared, etag


def published(fleet: Fleet, answer: Answer = ANSWER) -> Shared:
    _, etag = claimed(fleet)
    assert fleet.publish(answer, etag)
    return fleet.read()


def test_before_the_first_answer_nothing_is_shared_and_nobody_has_the_claim(fleet: Fleet) -> None:
    shared = fleet.read()
    assert (shared.etag, shared.answer, shared.owner, shared.is_claimed) == (None, None, None, False)
    assert abs(shared.at - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize("answer", [ANSWER, replace(ANSWER, body=b"", no_usage_data=NO_DATA)])
def test_a_published_answer_is_read_back_as_it_was_and_the_claim_is_free(
    fleet: Fleet, answer: Answer
) -> None:
    shared = published(fleet, answer)
    assert shared.answer == answer
    assert (shared.owner, shared.until, shared.failure, shared.is_claimed) == (None, None, None, False)


def test_the_entity_tag_is_strong_and_that_of_the_bytes() -> None:
    assert ANSWER.etag == replace(NEWER, body=BODY).etag != NEWER.etag
    assert ANSWER.etag[0] == ANSWER.etag[-1] == '"'


@pytest.mark.parametrize("is_cold", [True, False])
def test_of_many_who_read_the_same_one_gets_the_claim(
    fleet: Fleet, container: Container, *, is_cold: bool
) -> None:
    shared = fleet.read() if is_cold else published(fleet)
    start = Barrier(8)

    def claim(owner: int) -> str | None:
        start.wait()
        return Fleet(container).claim(shared, f"owner{owner}")

    with ThreadPoolExecutor(8) as pool:
        etags = list(pool.map(claim, range(8)))
    won = [owner for owner, etag in enumerate(etags) if etag is not None]
    now = fleet.read()
    assert len(won) == 1
    assert (now.owner, now.etag) == (f"owner{won[0]}", etags[won[0]])
    assert now.answer == shared.answer


def test_a_claim_holds_for_its_life_by_the_clock_of_storage(fleet: Fleet) -> None:
    shared, _ = claimed(fleet)
    now = fleet.read()
    assert now.until == shared.at + CLAIM_LIFE
    assert now.is_claimed
    assert CLAIM_LIFE - timedelta(seconds=5) < now.left <= CLAIM_LIFE


def test_a_dead_owners_claim_is_free_after_its_life(fleet: Fleet) -> None:
    shared = fleet.read()
    dead = replace(shared, at=shared.at - CLAIM_LIFE - timedelta(seconds=1))
    assert fleet.claim(dead, "dead")
    left = fleet.read()
    assert (left.owner, left.is_claimed) == ("dead", False)
    assert fleet.claim(left, "next")
    assert fleet.read().owner == "next"


def test_a_late_publisher_is_refused_and_the_newest_answer_stays(fleet: Fleet) -> None:
    _, late = claimed(fleet, "paused")
    other = fleet.claim(fleet.read(), "other")
    assert other is not None
    assert fleet.publish(NEWER, other)
    assert not fleet.publish(ANSWER, late)
    assert fleet.read().answer == NEWER


@pytest.mark.parametrize("is_cold", [True, False])
def test_a_claim_whose_response_was_lost_is_recognised_by_its_owner_alone(
    fleet: Fleet, *, is_cold: bool
) -> None:
    shared = fleet.read() if is_cold else published(fleet)
    etag = fleet.claim(shared, "me")
    assert etag is not None
    assert fleet.claim(shared, "me") == etag
    assert fleet.claim(shared, "you") is None


def test_a_publication_whose_response_was_lost_is_recognised(fleet: Fleet) -> None:
    _, etag = claimed(fleet)
    assert fleet.publish(ANSWER, etag)
    assert fleet.publish(ANSWER, etag)


class Overtaken(RequestsTransport):  # type: ignore[misc]  # the SDK's, lazily typed
    """A connection on which somebody else writes as soon as the first response is there."""

    def __init__(self, overtake: Callable[[], object]) -> None:
        super().__init__()
        self._left = [overtake]

    def send(self, request: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the SDK's
        response = super().send(request, **kwargs)
        while self._left:
            self._left.pop()()
        return response


def test_a_reader_overtaken_by_the_first_publication_gets_all_of_it_or_the_claim(azurite: Azurite) -> None:
    name = f"test-{uuid.uuid4().hex}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        fleet = Fleet(Container(client))
        _, etag = claimed(fleet)
        transport = Overtaken(lambda: fleet.publish(ANSWER, etag))
        with ContainerClient.from_connection_string(
            azurite.connection_string, name, transport=transport
        ) as overtaken:
            seen = Fleet(Container(overtaken)).read()
            assert seen.answer == ANSWER or (seen.answer is None and seen.is_claimed)
        assert fleet.read().answer == ANSWER


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
    shared, etag = claimed(fleet)
    until = shared.at + timedelta(seconds=20)
    fleet.back_off(shared, etag, kind('sie sagt "nein", är så', reply=reply), until)
    now = fleet.read()
    assert type(now.failure) is kind
    assert now.failure is not None
    assert (now.failure.message, now.failure.reply) == ('sie sagt "nein", är så', reply)
    assert (now.is_claimed, now.until, now.owner, now.answer) == (True, until, None, ANSWER)


def test_after_a_back_off_the_next_one_claims_and_the_failure_is_forgotten(fleet: Fleet) -> None:
    shared, etag = claimed(fleet)
    fleet.back_off(shared, etag, UpstreamInvalidError("x" * 9000), shared.at - timedelta(seconds=1))
    assert not fleet.read().is_claimed
    claimed(fleet, "next")
    now = fleet.read()
    assert (now.owner, now.failure, now.is_claimed) == ("next", None, True)


def test_a_late_back_off_is_no_harm_to_the_newer_answer(fleet: Fleet) -> None:
    shared, late = claimed(fleet, "paused")
    other = fleet.claim(fleet.read(), "other")
    assert other is not None
    assert fleet.publish(NEWER, other)
    fleet.back_off(shared, late, UpstreamTimeoutError("late"), shared.at + timedelta(seconds=20))
    now = fleet.read()
    assert (now.answer, now.failure, now.is_claimed) == (NEWER, None, False)


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
    "an unknown failure": (BODY, {**UNTIL, "failure": '["NoSuchError", "", null]'}),
    "a failure that is a duration": (BODY, {**UNTIL, "failure": '["timedelta", "", null]'}),
    "a failure that is a reply": (BODY, {**UNTIL, "failure": '["UpstreamReply", "", null]'}),
    "a failure that is a list": (BODY, {**UNTIL, "failure": '[["StorageError"], "", null]'}),
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
    container.write(BLOB, content, JSON, replacing=None, metadata=metadata)
    shared = fleet.read()
    assert (shared.answer, shared.failure, shared.is_claimed) == (None, None, False)
    assert published(fleet).answer == ANSWER


def closed_port(settings: Settings) -> Container:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connection = f"AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:{port}/a"
    return open_container("cache", StorageConnection(connection_string=connection), QUICK, settings)


CALLS: dict[str, Callable[[Fleet], object]] = {
    "read": lambda fleet: fleet.read(),
    "first claim": lambda fleet: fleet.claim(Shared(None, SENT), "me"),
    "claim": lambda fleet: fleet.claim(Shared('"0x1"', SENT), "me"),
    "publish": lambda fleet: fleet.publish(ANSWER, '"0x1"'),
    "back off": lambda fleet: fleet.back_off(Shared(None, SENT), '"0x1"', UpstreamTimeoutError(""), SENT),
}


@pytest.mark.parametrize("call", CALLS)
def test_storage_that_is_down_is_a_storage_error(settings: Settings, call: str) -> None:
    with pytest.raises(StorageError):
        CALLS[call](Fleet(closed_port(settings)))
