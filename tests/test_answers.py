import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from dev.simulator import Delivery, Exchange, Fault, Service, Simulator, World
from shared.answers import Result
from shared.app import App
from shared.blobs import PATIENT, Container
from shared.clock import Clock
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    NotCachedError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.fleet import CLAIM_LIFE, Answer, Fleet
from shared.freshness import NO_DIRECTIVES, Decision, RequestDirectives
from shared.http import respond
from shared.refreshes import Source
from shared.settings import Settings
from tests.conftest import ManualClock, events, partner_of

OLD = Answer(b'{"totalCost":1}', datetime.min.replace(tzinfo=UTC), str(uuid.uuid4()), str(uuid.uuid4()))
NEW = b'{"totalCost":2}'
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
STALE, OLD_BUT_USABLE = 1.5 * HOUR, 3 * HOUR
NO_CACHE, ONLY_IF_CACHED = RequestDirectives(no_cache=True), RequestDirectives(only_if_cached=True)


@dataclass
class Instances:
    """A fleet on one storage, and the world around it. A process's hands move by hand, storage's do not."""

    environ: dict[str, str]
    world: World
    clock: ManualClock
    fleet: Fleet

    def start(self, skew: timedelta | None = None) -> App:
        """One more instance, with hands of its own if they are off; its waits are short and move no hands."""
        clock = self.clock if skew is None else ManualClock(self.clock.instant + skew)
        return App(self.environ, replace(clock.clock(), sleep=lambda _: time.sleep(0.01)))

    def calls(self) -> list[Exchange]:
        return [each for each in self.world.exchanges if each.service is Service.PARTNER_CENTER]

    def slow_down(self) -> None:
        self.world.delay = 0.3
        self.world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=Delivery.LATE)

    def store(self, age: timedelta) -> Answer:
        """An answer that the fleet has had for some time."""
        shared = self.fleet.read()
        answer = replace(OLD, fetched_at=shared.at - age)
        claim = self.fleet.claim(shared, "before")
        assert claim is not None
        assert self.fleet.publish(claim, answer)
        return answer

    def end_back_off(self) -> None:
        """Storage's clock has gone on until asking is allowed again."""
        shared = self.fleet.read()
        assert shared.failure is not None
        self.fleet.back_off(shared, shared.failure, shared.read - 2)


@pytest.fixture
def instances(environ: dict[str, str], settings: Settings, simulator: Simulator) -> Iterator[Instances]:
    cache = Container(settings.cache_container, settings.cache_storage, PATIENT, None)
    fleet = Fleet(cache, partner_of(environ), Clock())
    yield Instances(environ, simulator.world, ManualClock(datetime.now(UTC)), fleet)
    settle()


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(10)


async def get(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return await app.get_usage_summary(directives, str(uuid.uuid4()))


def ask(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return asyncio.run(get(app, directives))


def body(result: Result) -> bytes | None:
    return None if result.answer is None else result.answer.body


def test_the_first_caller_fetches_the_second_is_a_hit_and_other_instances_ask_nobody(
    instances: Instances,
) -> None:
    app = instances.start()
    first = ask(app)
    asked = len(instances.world.exchanges)
    second, third = ask(app), ask(instances.start())
    assert (first.decision, first.source, first.error) == (Decision.FETCH_MISSING, Source.FETCHED, None)
    assert (second.source, second.answer, second.is_plain_hit) == (Source.STORED, first.answer, True)
    assert (third.source, third.answer, third.error) == (Source.STORED, first.answer, None)
    assert len(instances.world.exchanges) == asked
    assert instances.world.bom
    assert body(first) == instances.world.document
    (call,) = instances.calls()
    assert first.answer is not None
    assert first.answer.correlation_id == call.headers["ms-correlationid"]
    assert first.answer.request_id == call.headers["ms-requestid"]


def test_32_callers_share_one_call_and_two_who_leave_harm_nobody(instances: Instances) -> None:
    instances.slow_down()
    app = instances.start()

    async def crowd() -> list[Result | BaseException]:
        tasks = [asyncio.create_task(get(app)) for _ in range(32)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks[9].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    bodies = [body(result) for result in asyncio.run(crowd()) if isinstance(result, Result)]
    assert bodies == [instances.world.document] * 30
    assert len(instances.calls()) == 1


def test_a_refresh_goes_on_when_every_caller_has_left(instances: Instances) -> None:
    instances.slow_down()
    app = instances.start()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(get(app), 0.1)

    asyncio.run(leave())
    settle()
    assert ask(app).is_plain_hit
    assert len(instances.calls()) == 1


@pytest.mark.parametrize("age", [None, OLD_BUT_USABLE, 9 * DAY])
def test_many_instances_ask_once_between_them(instances: Instances, age: timedelta | None) -> None:
    old = instances.store(age).body if age else None
    instances.slow_down()
    apps = [instances.start() for _ in range(4)]

    async def crowd() -> list[Result]:
        return await asyncio.gather(*(get(app) for app in apps * 8))

    results = asyncio.run(crowd())
    assert len(instances.calls()) == 1
    assert all(result.error is None for result in results)
    assert {result.source for result in results if body(result) != old} >= {Source.FETCHED}
    if age != OLD_BUT_USABLE:
        assert {body(result) for result in results} == {instances.world.document}


def test_a_stale_answer_is_served_at_once_while_one_refresh_runs_behind_it(instances: Instances) -> None:
    app = instances.start()
    first = ask(app)
    instances.world.document = NEW
    instances.slow_down()
    instances.clock.advance(hours=1)
    for stale in (ask(app), ask(app)):
        assert (stale.decision, stale.source) == (Decision.SERVE_AND_REFRESH, Source.STORED)
        assert (stale.answer, stale.age, stale.error) == (first.answer, HOUR, None)
    settle()
    assert len(instances.calls()) == 2
    fresh = ask(app)
    assert (fresh.decision, fresh.source, body(fresh)) == (Decision.SERVE, Source.STORED, NEW)


def test_an_instance_serves_its_older_copy_once_more_then_the_newer_one(instances: Instances) -> None:
    old = instances.store(STALE)
    one, other = instances.start(), instances.start()
    assert ask(one, ONLY_IF_CACHED).answer == old
    assert ask(other, NO_CACHE).source is Source.FETCHED
    assert body(ask(one)) in {old.body, instances.world.document}
    settle()
    assert body(ask(one)) == instances.world.document
    assert len(instances.calls()) == 1


def test_a_failure_is_kept_beside_the_usable_answer_and_nobody_asks_again(instances: Instances) -> None:
    old = instances.store(OLD_BUT_USABLE)
    instances.world.choose("forbidden")
    app = instances.start()
    failed = ask(app)
    assert failed.source is Source.FETCHED
    for result in (failed, ask(app), ask(instances.start()), ask(app, NO_CACHE)):
        assert (result.answer, type(result.error)) == (old, UpstreamRefusedError)
        assert OLD_BUT_USABLE <= result.age < OLD_BUT_USABLE + 5 * SECOND
    assert len(instances.calls()) == 1


@pytest.mark.parametrize("left", [MINUTE, timedelta()])
def test_a_stored_answer_stands_in_until_fresh_and_stale_if_error_are_over(
    instances: Instances, left: timedelta
) -> None:
    instances.store(HOUR + DAY - left)
    instances.world.choose("down")
    result = ask(instances.start())
    assert isinstance(result.error, UpstreamUnavailableError)
    assert (result.answer is not None) == bool(left)


FAILURES: dict[str, tuple[type[UsageSummaryError], int, str]] = {
    "down": (UpstreamUnavailableError, 20, "one"),
    "throttled": (UpstreamUnavailableError, 22, "other"),
    "forbidden": (UpstreamRefusedError, 20, "one"),
    "html": (UpstreamInvalidError, 20, "other"),
    "consent-revoked": (ConsentRequiredError, 60, "one"),
    "secret-expired": (ConfigurationError, 60, "other"),
}


@pytest.mark.parametrize("scenario", FAILURES)
def test_after_a_failure_nobody_asks_until_the_back_off_is_over_and_then_all_recover(
    instances: Instances, scenario: str
) -> None:
    kind, at_most, first = FAILURES[scenario]
    one, other = instances.start(), instances.start()
    instances.world.choose(scenario)
    failed = ask(one)
    asked = len(instances.world.exchanges)
    assert failed.retry_after is not None
    for result in (failed, ask(one), ask(other), ask(instances.start())):
        assert (type(result.error), result.answer) == (kind, None)
        assert str(result.error) == str(failed.error)
        assert result.retry_after is not None
        assert timedelta() < result.retry_after <= at_most * SECOND
    if scenario == "throttled":
        assert failed.retry_after == 20 * SECOND
    instances.world.choose("healthy")
    instances.clock.advance(seconds=failed.retry_after.total_seconds() - 0.1)
    assert type(ask(one).error) is kind
    assert len(instances.world.exchanges) == asked
    instances.clock.advance(seconds=2.1)  # storage's instants are whole seconds
    instances.end_back_off()
    recovered, adopted = (ask(app) for app in ((one, other) if first == "one" else (other, one)))
    assert (recovered.error, recovered.source) == (None, Source.FETCHED)
    assert body(recovered) == instances.world.document
    assert (adopted.error, adopted.source, adopted.answer) == (None, Source.STORED, recovered.answer)


def test_only_if_cached_does_not_wait_for_the_fetch_of_another_caller(instances: Instances) -> None:
    instances.slow_down()
    app = instances.start()

    async def both() -> tuple[Result, bool, Result]:
        plain = asyncio.create_task(get(app))
        await asyncio.sleep(0.05)
        cached = await get(app, ONLY_IF_CACHED)
        return cached, plain.done(), await plain

    cached, was_fetched, plain = asyncio.run(both())
    assert body(plain) == instances.world.document
    assert respond(cached, str(uuid.uuid4()), HOUR, if_none_match=None, is_head=False).status in {200, 504}
    assert (type(cached.error), was_fetched) == (NotCachedError, False)


def test_a_caller_beside_one_who_wants_a_stored_answer_only_gets_a_fetched_one(instances: Instances) -> None:
    app = instances.start()

    async def both() -> tuple[Result, Result]:
        return await asyncio.gather(get(app, ONLY_IF_CACHED), get(app))

    cached, plain = asyncio.run(both())
    assert isinstance(cached.error, NotCachedError)
    assert (plain.error, body(plain)) == (None, instances.world.document)


def test_no_cache_is_a_hit_below_the_floor_and_a_fetch_above_it(instances: Instances) -> None:
    one, other = instances.start(), instances.start()
    ask(one)
    instances.clock.advance(seconds=59)
    assert ask(one, NO_CACHE).source is Source.STORED
    assert ask(other, NO_CACHE).source is Source.STORED
    assert len(instances.calls()) == 1
    instances.clock.advance(seconds=1)
    fetched = ask(one, NO_CACHE)
    assert (fetched.decision, fetched.source) == (Decision.FETCH_REQUESTED, Source.FETCHED)
    assert len(instances.calls()) == 2


@pytest.mark.parametrize("status", [404, 400])
def test_no_usage_data_replaces_an_older_document_and_is_shared(instances: Instances, status: int) -> None:
    instances.store(OLD_BUT_USABLE)
    instances.world.choose("no-usage-data" if status == 404 else "no-usage-data-400")
    app = instances.start()
    for result in (ask(app), ask(app), ask(instances.start())):
        assert result.error is None
        assert result.answer is not None
        reply = UpstreamReply(status, "3000", instances.calls()[0].headers["ms-requestid"])
        assert result.answer.no_usage_data == reply
    assert len(instances.calls()) == 1
    instances.world.choose("healthy")
    instances.clock.advance(hours=2)
    assert body(ask(app)) == instances.world.document


def test_the_claim_of_a_dead_owner_is_taken_over_after_its_life(instances: Instances) -> None:
    shared = instances.fleet.read()
    assert instances.fleet.claim(replace(shared, at=shared.at - CLAIM_LIFE), "dead")
    assert body(ask(instances.start())) == instances.world.document


@pytest.mark.parametrize("age", [STALE, OLD_BUT_USABLE])
def test_while_a_living_owner_asks_others_serve_what_they_have(instances: Instances, age: timedelta) -> None:
    old = instances.store(age)
    assert instances.fleet.claim(instances.fleet.read(), "living")
    result = ask(instances.start())
    assert (result.source, result.answer, result.error) == (Source.STORED, old, None)
    assert not instances.calls()


def test_a_late_leader_adopts_the_newer_answer_that_it_finds(
    instances: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    def overtake(exchange: Exchange) -> None:
        if exchange.service is Service.PARTNER_CENTER:
            instances.store(-5 * SECOND)

    instances.world.observer = overtake
    result = ask(instances.start())
    assert (body(result), instances.fleet.read().answer) == (OLD.body, result.answer)
    assert len(events(caplog, "usage_summary.claim_lost")) == 1


@pytest.mark.parametrize("skew", [10 * MINUTE, -10 * MINUTE])
def test_ages_and_instants_are_of_the_clock_of_storage(instances: Instances, skew: timedelta) -> None:
    fetched = ask(instances.start(skew))
    found = ask(instances.start(-skew))
    assert fetched.answer is not None
    assert found.answer == fetched.answer
    assert abs(fetched.answer.fetched_at - instances.clock.instant) < 5 * SECOND
    assert timedelta() <= found.age < 5 * SECOND
    instances.store(1000 * SECOND)
    assert 1000 * SECOND <= ask(instances.start(skew)).age < 1005 * SECOND
