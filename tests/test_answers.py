import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from dev.simulator import Delivery, Exchange, Fault, Service, Simulator, World
from shared.answers import Result
from shared.app import App
from shared.blobs import PATIENT, QUICK, Container
from shared.client import PartnerCenterClient
from shared.clock import Clock
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    NotCachedError,
    StorageError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.fleet import Fleet
from shared.fleet_blob import CLAIM_LIFE
from shared.freshness import NO_DIRECTIVES, Decision, RequestDirectives, is_usable
from shared.held import Answer, Shared
from shared.http import respond
from shared.known import Known
from shared.outcome import Source
from shared.refresh import LONGEST_WAIT
from shared.replies import Fetched
from shared.settings import Freshness, Settings
from tests.conftest import ManualClock, events, partner_of, share
from tests.threads import PATIENCE, settle, unanswered

OLD = Answer(b'{"totalCost":1}', datetime.min.replace(tzinfo=UTC), str(uuid.uuid4()), str(uuid.uuid4()))
NEW = b'{"totalCost":2}'
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
STALE, OLD_BUT_USABLE = 1.5 * HOUR, 3 * HOUR
SLACK = PATIENCE * SECOND  # a busy machine's, in what is aged by storage's clock
NO_CACHE, ONLY_IF_CACHED = RequestDirectives(no_cache=True), RequestDirectives(only_if_cached=True)


@dataclass
class Instances:
    """A fleet on one storage, and the world around it. A process's hands move by hand, storage's do not."""

    environ: dict[str, str]
    world: World
    clock: ManualClock
    fleet: Fleet

    def start(self, clock: ManualClock | None = None) -> App:
        """One more instance; its waits are short and move no hands."""
        hands = (clock or self.clock).clock()
        return App(self.environ, replace(hands, sleep=lambda _: time.sleep(0.01)))

    def clock_off_by(self, skew: timedelta) -> ManualClock:
        """Hands of its own for an instance whose clock is wrong."""
        return ManualClock(self.clock.instant + skew)

    def calls(self) -> list[Exchange]:
        return [each for each in self.world.exchanges if each.service is Service.PARTNER_CENTER]

    def unanswered(self) -> AbstractContextManager[threading.Event]:
        """Partner Center answers nobody until the end; the event is set when it is asked."""
        return unanswered(self.world, Service.PARTNER_CENTER)

    def slow_down(self) -> None:
        """Partner Center takes its time, so that many may ask meanwhile."""
        self.world.delay = 0.3
        self.world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=Delivery.LATE)

    def refuse_for_an_hour(self) -> None:
        refusal = Fault(Service.PARTNER_CENTER, 429, headers={"retry-after": "3600"}, times=1)
        self.world.faults[Service.PARTNER_CENTER] = refusal

    def during_the_call(self, then: Callable[[], object]) -> None:
        """Something happens while an instance asks Partner Center."""

        def observe(exchange: Exchange) -> None:
            if exchange.service is Service.PARTNER_CENTER:
                then()

        self.world.observer = observe

    def store(self, age: timedelta, body: bytes = OLD.body) -> Answer:
        """An answer that the fleet has had for some time."""
        answer = replace(OLD, body=body, fetched_at=self.fleet.read().at - age)
        share(self.fleet, answer)
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


class Storage:
    """What is done with containers, in order; nothing while it is down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.is_down = False
        self.goes_on = threading.Event()
        """While it is cleared, storage takes its time."""
        self.goes_on.set()
        for name in ("read", "write", "list"):
            monkeypatch.setattr(Container, name, self._watched(name, getattr(Container, name)))

    def _watched(self, name: str, original: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            self.done.append(name)
            self.goes_on.wait(PATIENCE)
            if self.is_down:
                raise StorageError("down")
            return original(*arguments, **options)

        return operation


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(monkeypatch)


async def get(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return await app.get_usage_summary(directives, str(uuid.uuid4()))


def ask(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return asyncio.run(get(app, directives))


def body(result: Result) -> bytes | None:
    return None if result.answer is None else result.answer.body


def how(result: Result) -> str:
    """Its Cache-Status."""
    response = respond(result, str(uuid.uuid4()), HOUR)
    return response.headers["Cache-Status"].removeprefix("usage-summary; ")


def test_the_first_caller_fetches_the_second_is_a_hit_and_other_instances_ask_nobody(
    instances: Instances,
) -> None:
    app = instances.start()
    first = ask(app)
    asked = len(instances.world.exchanges)
    second, third = ask(app), ask(instances.start())
    assert (first.decision, first.source, first.error) == (Decision.FETCH_MISSING, Source.FETCHED, None)
    assert (second.source, second.answer, second.is_plain_hit) == (Source.STORED, first.answer, True)
    assert (third.source, third.answer, third.is_plain_hit) == (Source.STORED, first.answer, True)
    assert ask(instances.start(), ONLY_IF_CACHED).is_plain_hit
    assert len(instances.world.exchanges) == asked
    assert instances.world.bom
    assert body(first) == instances.world.document
    (call,) = instances.calls()
    assert first.answer is not None
    assert first.answer.correlation_id == call.headers["ms-correlationid"]
    assert first.answer.request_id == call.headers["ms-requestid"]


def test_32_callers_share_one_call_and_two_who_leave_harm_nobody(instances: Instances) -> None:
    app = instances.start()

    async def crowd() -> list[Result | BaseException]:
        with instances.unanswered() as asked:
            tasks = [asyncio.create_task(get(app)) for _ in range(32)]
            assert await asyncio.to_thread(asked.wait, PATIENCE)
            tasks[0].cancel()
            tasks[9].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = [result for result in asyncio.run(crowd()) if isinstance(result, Result)]
    assert [body(result) for result in results] == [instances.world.document] * 30
    assert {result.source for result in results} == {Source.COLLAPSED}  # the one who asked has left
    assert len(instances.calls()) == 1


def test_a_refresh_goes_on_when_every_caller_has_left(instances: Instances) -> None:
    app = instances.start()

    async def leave() -> None:
        with instances.unanswered() as asked:
            caller = asyncio.create_task(get(app))
            assert await asyncio.to_thread(asked.wait, PATIENCE)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller

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


def test_a_stale_answer_is_served_at_once_while_one_refresh_runs_behind_it(
    instances: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app = instances.start()
    first = ask(app)
    instances.world.document = NEW
    instances.clock.advance(hours=1)
    with instances.unanswered():
        both = (ask(app), ask(app))
    for stale in both:
        assert (stale.decision, stale.source) == (Decision.SERVE_AND_REFRESH, Source.STORED)
        assert (stale.answer, stale.age, stale.error) == (first.answer, HOUR, None)
    settle()
    assert len(instances.calls()) == 2
    assert len(events(caplog, "usage_summary.refreshed")) == 1  # a thread that belongs to nobody has no log
    fresh = ask(app)
    assert len(events(caplog, "usage_summary.refreshed")) == 2
    assert (fresh.decision, fresh.source, body(fresh)) == (Decision.SERVE, Source.STORED, NEW)
    assert fresh.answer is not None
    assert fresh.answer.correlation_id == instances.calls()[-1].headers["ms-correlationid"]


def test_an_instance_serves_its_older_copy_once_more_then_the_newer_one(instances: Instances) -> None:
    old = instances.store(STALE)
    one, other = instances.start(), instances.start()
    assert ask(one, ONLY_IF_CACHED).answer == old
    assert ask(other, NO_CACHE).source is Source.FETCHED
    assert ask(one).answer == old
    settle()
    assert body(ask(one)) == instances.world.document
    assert len(instances.calls()) == 1


def test_a_failure_is_kept_beside_the_usable_answer_and_nobody_asks_again(instances: Instances) -> None:
    old = instances.store(OLD_BUT_USABLE)
    instances.world.choose("forbidden")
    app = instances.start()
    failed = ask(app)
    assert failed.source is Source.FETCHED
    assert how(failed).startswith("fwd=stale; fwd-status=403; ttl=-")
    assert how(ask(app)).startswith("hit; ttl=-")
    for result in (failed, ask(app), ask(instances.start()), ask(app, NO_CACHE)):
        assert (result.answer, type(result.error)) == (old, UpstreamRefusedError)
        assert OLD_BUT_USABLE <= result.age < OLD_BUT_USABLE + SLACK
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


FAILURES: dict[str, tuple[type[UsageSummaryError], tuple[int, int], str]] = {
    "down": (UpstreamUnavailableError, (10, 18), "one"),
    "throttled": (UpstreamUnavailableError, (20, 20), "other"),
    "forbidden": (UpstreamRefusedError, (10, 18), "one"),
    "html": (UpstreamInvalidError, (10, 18), "other"),
    "consent-revoked": (ConsentRequiredError, (50, 57), "one"),
    "secret-expired": (ConfigurationError, (50, 57), "other"),
}


@pytest.mark.parametrize("scenario", FAILURES)
def test_after_a_failure_nobody_asks_until_the_back_off_is_over_and_then_all_recover(
    instances: Instances, scenario: str
) -> None:
    kind, (shortest, longest), first = FAILURES[scenario]
    one, other = instances.start(), instances.start()
    instances.world.choose(scenario)
    failed = ask(one)
    asked = len(instances.world.exchanges)
    assert failed.retry_after is not None
    assert shortest * SECOND <= failed.retry_after <= longest * SECOND
    for result in (failed, ask(one), ask(other), ask(instances.start())):
        assert (type(result.error), result.answer) == (kind, None)
        assert result.decision is Decision.FETCH_MISSING
        assert result.source is (Source.FETCHED if result is failed else Source.STORED)
        assert str(result.error) == str(failed.error)
        assert result.retry_after is not None
        assert timedelta() < result.retry_after <= (longest + 2) * SECOND
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
    app = instances.start()

    async def both() -> tuple[Result, bool, Result]:
        with instances.unanswered() as asked:
            plain = asyncio.create_task(get(app))
            assert await asyncio.to_thread(asked.wait, PATIENCE)
            cached = await get(app, ONLY_IF_CACHED)
            was_fetched = plain.done()
        return cached, was_fetched, await plain

    cached, was_fetched, plain = asyncio.run(both())
    assert body(plain) == instances.world.document
    assert respond(cached, str(uuid.uuid4()), HOUR).status in {200, 504}
    assert (type(cached.error), was_fetched) == (NotCachedError, False)


def test_a_caller_beside_one_who_wants_a_stored_answer_only_gets_a_fetched_one(instances: Instances) -> None:
    app = instances.start()

    async def both() -> tuple[Result, Result]:
        return await asyncio.gather(get(app, ONLY_IF_CACHED), get(app))

    cached, plain = asyncio.run(both())
    assert isinstance(cached.error, NotCachedError)
    assert (cached.decision, cached.error.message) == (
        Decision.REFUSE,
        "nothing is stored that the request allows",
    )
    assert (plain.error, body(plain)) == (None, instances.world.document)


def test_only_if_cached_looks_for_a_younger_shared_answer_before_it_is_refused(instances: Instances) -> None:
    young_enough = RequestDirectives(only_if_cached=True, max_age=40 * SECOND)
    instances.store(50 * SECOND)
    app = instances.start()
    assert isinstance(ask(app, young_enough).error, NotCachedError)  # below the floor as well
    assert ask(app, ONLY_IF_CACHED).is_plain_hit
    younger = instances.store(5 * SECOND, NEW)
    assert ask(app, young_enough).answer == younger
    assert isinstance(ask(app, replace(young_enough, no_cache=True)).error, NotCachedError)
    assert not instances.calls()


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


async def one_joins_another(app: App, joining: RequestDirectives) -> tuple[Result, Result]:
    """A caller, and one more who finds a refresh under way."""
    return await asyncio.gather(get(app), get(app, joining))


def test_who_joins_a_refresh_that_finds_what_is_not_enough_for_him_begins_another(
    instances: Instances,
) -> None:
    old = instances.store(2 * MINUTE)
    one, other = asyncio.run(one_joins_another(instances.start(), NO_CACHE))
    assert (one.source, one.answer, one.error) == (Source.STORED, old, None)
    assert (other.decision, other.source) == (Decision.FETCH_REQUESTED, Source.FETCHED)
    assert body(other) == instances.world.document
    assert len(instances.calls()) == 1


def test_who_joins_one_refresh_after_another_waits_no_longer_than_the_longest_wait(
    instances: Instances, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances.store(2 * MINUTE)
    app = instances.start()
    adopt, pauses = Known.adopt, [LONGEST_WAIT.total_seconds() + 1]

    def late(known: Known, shared: Shared) -> None:
        adopt(known, shared)
        instances.clock.advance(seconds=pauses.pop() if pauses else 0)

    with monkeypatch.context() as patch:
        patch.setattr(Known, "adopt", late)
        result = asyncio.run(one_joins_another(app, NO_CACHE))[1]
    assert result.error is not None
    assert result.error.message == "the refresh has not ended in time"
    assert storage.done


def test_who_joins_a_refresh_that_is_content_with_an_older_answer_looks_no_second_time(
    instances: Instances, storage: Storage
) -> None:
    old = instances.store(OLD_BUT_USABLE)
    assert instances.fleet.claim(instances.fleet.read(), "living")
    looks = len(storage.done)
    for result in asyncio.run(one_joins_another(instances.start(), NO_DIRECTIVES)):
        assert (result.source, result.answer, result.error) == (Source.STORED, old, None)
    assert len(storage.done) == looks + 1


@pytest.mark.parametrize("age", [STALE, OLD_BUT_USABLE])
def test_while_a_living_owner_asks_others_serve_what_they_have(instances: Instances, age: timedelta) -> None:
    old = instances.store(age)
    assert instances.fleet.claim(instances.fleet.read(), "living")
    result = ask(instances.start())
    assert (result.source, result.answer, result.error) == (Source.STORED, old, None)
    assert result.decision is (Decision.SERVE_AND_REFRESH if age == STALE else Decision.FETCH_STALE)
    assert not instances.calls()


def test_a_new_process_gives_the_stale_answer_that_it_finds_and_refreshes_it_behind_that(
    instances: Instances,
) -> None:
    old, correlation_id = instances.store(STALE), str(uuid.uuid4())
    app = instances.start()
    result = asyncio.run(app.get_usage_summary(NO_DIRECTIVES, correlation_id))
    assert (result.decision, result.source, result.answer) == (Decision.SERVE_AND_REFRESH, Source.STORED, old)
    settle()
    (call,) = instances.calls()
    assert call.headers["ms-correlationid"] == correlation_id
    assert body(ask(app)) == instances.world.document


def test_a_late_leader_adopts_the_newer_answer_that_it_finds(
    instances: Instances, caplog: pytest.LogCaptureFixture
) -> None:
    instances.during_the_call(lambda: instances.store(-5 * SECOND))
    result = ask(instances.start())
    assert (body(result), instances.fleet.read().answer) == (OLD.body, result.answer)
    assert len(events(caplog, "usage_summary.claim_lost")) == 1


@pytest.mark.parametrize("skew", [10 * MINUTE, -10 * MINUTE])
def test_ages_and_instants_are_of_the_clock_of_storage(instances: Instances, skew: timedelta) -> None:
    one, other = instances.clock_off_by(skew), instances.clock_off_by(-skew)
    fetched = ask(instances.start(one))
    found = ask(instances.start(other))
    assert fetched.answer is not None
    assert found.answer == fetched.answer
    assert abs(fetched.answer.fetched_at - instances.clock.instant) < SLACK
    assert timedelta() <= found.age < SLACK
    instances.store(1000 * SECOND)
    assert 1000 * SECOND <= ask(instances.start(one)).age < 1000 * SECOND + SLACK


@pytest.mark.parametrize("age", [STALE, OLD_BUT_USABLE])
def test_a_leader_that_was_overtaken_before_it_failed_serves_the_newer_answer_at_once(
    instances: Instances, age: timedelta
) -> None:
    instances.store(age)
    app = instances.start()
    ask(app, ONLY_IF_CACHED)
    instances.refuse_for_an_hour()
    instances.during_the_call(lambda: instances.store(timedelta(), NEW))
    ask(app)
    settle()
    result = ask(app)
    assert (result.is_plain_hit, body(result), len(instances.calls())) == (True, NEW, 1)
    instances.clock.advance(seconds=65)
    assert ask(app, NO_CACHE).source is Source.FETCHED


@pytest.mark.parametrize("age", [STALE, OLD_BUT_USABLE])
@pytest.mark.parametrize("is_back_off_lost", [False, True])
def test_at_rest_a_process_looks_every_5_seconds_for_what_others_fetched_while_it_serves_what_it_has(
    instances: Instances, storage: Storage, age: timedelta, *, is_back_off_lost: bool
) -> None:
    old = instances.store(age)
    app = instances.start()
    ask(app, ONLY_IF_CACHED)
    instances.refuse_for_an_hour()
    instances.during_the_call(lambda: setattr(storage, "is_down", is_back_off_lost))
    ask(app)
    settle()
    storage.is_down = False
    newer = instances.store(timedelta(), NEW)
    before = len(storage.done)
    for seconds, looks in ((4.9, 0), (0.1, 1)):
        instances.clock.advance(seconds=seconds)
        assert ask(app).answer == old
        settle()
        assert len(storage.done) == before + looks
    result = ask(app)
    assert (result.is_plain_hit, result.answer, len(instances.calls())) == (True, newer, 1)


def test_a_process_rests_after_a_failure_though_storage_is_down(
    instances: Instances, storage: Storage
) -> None:
    app = instances.start()
    storage.is_down = True
    instances.world.choose("forbidden")
    for _ in range(2):
        assert isinstance(ask(app).error, UpstreamRefusedError)
        instances.clock.advance(seconds=6)
    assert len(instances.calls()) == 1
    instances.world.choose("healthy")
    instances.clock.advance(seconds=7)
    assert body(ask(app)) == instances.world.document


@pytest.mark.parametrize("skew", [10 * MINUTE, timedelta(), -10 * MINUTE])
def test_after_an_outage_of_storage_the_newer_answer_of_another_is_adopted_and_the_floor_holds(
    instances: Instances, storage: Storage, skew: timedelta
) -> None:
    clock = instances.clock_off_by(skew)
    app = instances.start(clock)
    storage.is_down = True
    assert body(ask(app)) == instances.world.document
    storage.is_down = False
    instances.world.document = NEW
    assert body(ask(instances.start())) == NEW
    clock.advance(seconds=61)
    result = ask(app, NO_CACHE)
    assert (result.source, body(result), len(instances.calls())) == (Source.STORED, NEW, 2)
    assert result.age < SLACK


@pytest.mark.parametrize("skew", [10 * MINUTE, timedelta(), -10 * MINUTE])
def test_after_an_outage_of_storage_an_older_answer_replaces_nothing(
    instances: Instances, storage: Storage, skew: timedelta
) -> None:
    instances.environ |= {"USAGE_CACHE_FRESH_SECONDS": "60", "USAGE_CACHE_MIN_REFRESH_SECONDS": "1"}
    instances.store(5 * MINUTE)
    clock = instances.clock_off_by(skew)
    app = instances.start(clock)
    storage.is_down = True
    ask(app)
    storage.is_down = False
    assert instances.fleet.claim(instances.fleet.read(), "living")
    clock.advance(seconds=120)
    for _ in range(2):
        result = ask(app)
        settle()
        assert (body(result), result.age) == (instances.world.document, 120 * SECOND)
    assert len(instances.calls()) == 1


async def crowd_who_want_what_is_stored(app: App) -> list[Result]:
    return await asyncio.gather(*(get(app, ONLY_IF_CACHED) for _ in range(200)))


def test_200_who_want_what_is_stored_share_a_look_at_storage(instances: Instances, storage: Storage) -> None:
    async def ask_while_it_takes_its_time(app: App) -> list[Result]:
        storage.goes_on.clear()
        crowd = [asyncio.create_task(get(app, ONLY_IF_CACHED)) for _ in range(200)]
        await asyncio.sleep(0)  # each has begun, and waits
        storage.goes_on.set()
        return await asyncio.gather(*crowd)

    results = asyncio.run(ask_while_it_takes_its_time(instances.start()))
    assert {type(result.error) for result in results} == {NotCachedError}
    assert storage.done.count("read") == 1


def test_while_storage_hangs_200_who_want_what_is_stored_wait_for_one_time_out(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.app.QUICK", 0.5 * SECOND)
    with socket.create_server(("127.0.0.1", 0), backlog=500) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        hanging = f"AccountName=a;AccountKey=a2V5;BlobEndpoint={address}"
        app = App({**environ, "AzureWebJobsStorage": hanging}, Clock())
        results = asyncio.run(crowd_who_want_what_is_stored(app))
        silent.settimeout(0)
        looks = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                looks += 1
    assert 1 <= looks <= 8  # one, and on a busy machine another for those who come late; each is tried again
    assert {type(result.error) for result in results} == {NotCachedError}


def test_who_wants_what_is_stored_waits_no_longer_than_the_longest_wait(
    instances: Instances, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = instances.start()
    storage.goes_on.clear()
    with monkeypatch.context() as patch:
        patch.setattr("shared.answers.LONGEST_WAIT", 0.1 * SECOND)
        assert isinstance(ask(app, ONLY_IF_CACHED).error, NotCachedError)
    assert "look" in {thread.name for thread in threading.enumerate()}
    storage.goes_on.set()


def test_who_wants_what_is_stored_says_in_the_log_that_storage_fails(
    instances: Instances, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.is_down = True
    assert isinstance(ask(instances.start(), ONLY_IF_CACHED).error, NotCachedError)
    (line,) = events(caplog, "usage_summary.not_shared")
    assert (line["error"], line["message"]) == ("StorageError", "down")


CANNOT_START = "this process can start no thread"


@pytest.mark.parametrize(
    ("age", "error"), [(None, CANNOT_START), (STALE, None), (OLD_BUT_USABLE, CANNOT_START)]
)
def test_when_no_thread_can_be_started_what_is_stored_is_served_and_others_are_told(
    instances: Instances, monkeypatch: pytest.MonkeyPatch, age: timedelta | None, error: str | None
) -> None:
    old = instances.store(age) if age else None
    app = instances.start()
    ask(app, ONLY_IF_CACHED)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(f"can't start {thread.name}")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        result, cached = ask(app), ask(app, ONLY_IF_CACHED)
    assert (result.answer, result.error and result.error.message) == (old, error)
    assert isinstance(result.error, UpstreamUnavailableError | None)
    assert (cached.answer, type(cached.error)) == (old, type(None) if old else NotCachedError)
    ask(app)
    settle()
    assert body(ask(app)) == instances.world.document


@pytest.mark.parametrize("age", [None, STALE, OLD_BUT_USABLE])
def test_a_refresh_that_asked_nobody_gives_the_claim_back_and_nobody_rests(
    instances: Instances,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    age: timedelta | None,
) -> None:
    old = instances.store(age) if age else None
    app, start = instances.start(), threading.Timer.start

    def refuse(timer: threading.Timer) -> None:
        if timer.interval > QUICK.total_seconds():  # that of a call; storage's still find a thread
            raise RuntimeError("can't start new thread")
        start(timer)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", refuse)
        result = ask(app)
        settle()
        ask(app, ONLY_IF_CACHED)
    shared = instances.fleet.read()
    assert (shared.answer, shared.failure, shared.keep_away) == (old, None, timedelta())
    assert (result.answer, result.source, instances.world.exchanges) == (old, Source.STORED, [])
    response = respond(result, str(uuid.uuid4()), HOUR)
    assert (response.status, response.headers.get("Retry-After")) == ((200, None) if old else (503, "1"))
    (line,) = events(caplog, "usage_summary.refresh_failed")
    assert (line["message"], "nextAttemptInSeconds" in line) == (CANNOT_START, False)
    assert events(caplog, "usage_summary.not_shared") == []
    ask(app)
    settle()
    assert body(ask(app)) == instances.world.document
    assert len(instances.calls()) == 1


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_leader_that_lost_its_claim_before_it_failed_looks_for_the_newer_answer(
    instances: Instances, monkeypatch: pytest.MonkeyPatch, *, is_asked: bool
) -> None:
    def overtaken(*_: object) -> Fetched:
        instances.store(timedelta(), NEW)
        raise UpstreamTimeoutError("late", asked=is_asked)

    monkeypatch.setattr(PartnerCenterClient, "get_usage_summary", overtaken)
    app = instances.start()
    result = ask(app)
    assert (body(result), body(ask(app, ONLY_IF_CACHED))) == (NEW, NEW)


@pytest.mark.parametrize("reading", [1, 2, 3, 5, 6, 7])  # at the 4th the client begins to count its time
def test_a_process_stopped_past_its_claim_asks_nobody(
    instances: Instances, monkeypatch: pytest.MonkeyPatch, reading: int
) -> None:
    claim, clock, jumps = Fleet.claim, instances.clock, list[float]()

    def watched(fleet: Fleet, shared: Shared, owner: str) -> Shared | None:
        claimed = claim(fleet, shared, owner)
        jumps.extend([0.0] * (reading - 1) + [70.0])
        return claimed

    def monotonic() -> float:
        clock.advance(seconds=jumps.pop(0) if jumps else 0)
        return clock.instant.timestamp()

    monkeypatch.setattr(Fleet, "claim", watched)
    app = App(instances.environ, Clock(lambda: clock.instant, monotonic, lambda _: clock.advance(seconds=9)))
    assert ask(app).error is not None
    assert instances.calls() == []


def test_after_a_defect_the_claim_is_given_back_and_all_keep_away_for_a_while(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Fetched:
        raise ValueError("canary")

    with monkeypatch.context() as patch:
        patch.setattr(PartnerCenterClient, "get_usage_summary", broken)
        failed = ask(instances.start())
    shared, other = instances.fleet.read(), ask(instances.start())
    for error in (failed.error, shared.failure, other.error):
        assert isinstance(error, UpstreamUnavailableError)
        assert error.message.startswith("a defect: ValueError at test_answers.py:")
        assert "canary" not in str(error)
    assert shared.keep_away <= 20 * SECOND
    assert instances.calls() == []


def test_a_refresh_that_ends_after_a_later_one_does_not_replace_its_answer(
    instances: Instances, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, fetched, goes_on = PartnerCenterClient.get_usage_summary, threading.Event(), threading.Event()

    def held(client: PartnerCenterClient, correlation_id: str, time_allowed: timedelta) -> Fetched:
        answer = original(client, correlation_id, time_allowed)
        if not fetched.is_set():  # the first
            fetched.set()
            goes_on.wait(PATIENCE)
        return answer

    monkeypatch.setattr(PartnerCenterClient, "get_usage_summary", held)
    storage.is_down = True
    app = instances.start()

    async def both() -> tuple[Result, bool]:
        first = asyncio.create_task(get(app))
        assert await asyncio.to_thread(fetched.wait, PATIENCE)
        instances.world.document = NEW
        instances.clock.advance(seconds=131)
        second, was_over = await get(app), first.done()
        goes_on.set()
        await first
        return second, was_over

    second, was_over = asyncio.run(both())
    settle()
    assert (body(second), body(ask(app)), was_over) == (NEW, NEW, False)


@pytest.mark.parametrize(
    ("age", "directives", "reason"),
    [(OLD_BUT_USABLE, NO_DIRECTIVES, "stale"), (10 * MINUTE, NO_CACHE, "request")],
)
def test_a_new_process_says_why_it_asks_though_there_is_a_shared_answer(
    instances: Instances, age: timedelta, directives: RequestDirectives, reason: str
) -> None:
    instances.store(age)
    assert how(ask(instances.start(), directives)) == f"fwd={reason}; fwd-status=200; stored"


@pytest.mark.parametrize("is_down", [False, True])
def test_a_claim_outlives_the_time_for_asking_and_two_operations_on_storage(
    instances: Instances, storage: Storage, monkeypatch: pytest.MonkeyPatch, *, is_down: bool
) -> None:
    allowed: list[timedelta] = []
    original = PartnerCenterClient.get_usage_summary

    def watched(client: PartnerCenterClient, correlation_id: str, time_allowed: timedelta) -> Fetched:
        allowed.append(time_allowed)
        return original(client, correlation_id, time_allowed)

    monkeypatch.setattr(PartnerCenterClient, "get_usage_summary", watched)
    storage.is_down = is_down
    ask(instances.start())
    assert 45 * SECOND <= allowed[0] <= 50 * SECOND
    assert allowed[0] + 2 * QUICK < CLAIM_LIFE


def test_whoever_waits_for_another_instance_is_told_after_a_minute_when_to_come_again(
    instances: Instances,
) -> None:
    assert abs(LONGEST_WAIT - MINUTE) <= 5 * SECOND
    assert instances.fleet.claim(instances.fleet.read(), "living")
    clock, began = instances.clock, instances.clock.instant
    app = App(instances.environ, replace(clock.clock(), sleep=lambda _: clock.advance(seconds=9)))
    result = ask(app)
    assert (type(result.error), instances.calls()) == (UpstreamUnavailableError, [])
    assert MINUTE <= clock.instant - began <= LONGEST_WAIT + 10 * SECOND
    assert result.retry_after is not None
    assert timedelta() < result.retry_after <= CLAIM_LIFE


@pytest.mark.parametrize("age", [None, OLD_BUT_USABLE])
def test_a_caller_waits_no_longer_than_the_longest_wait_and_the_refresh_goes_on(
    instances: Instances, monkeypatch: pytest.MonkeyPatch, age: timedelta | None
) -> None:
    old = instances.store(age) if age else None
    app = instances.start()
    ask(app, ONLY_IF_CACHED)
    with monkeypatch.context() as patch, instances.unanswered():
        patch.setattr("shared.answers.LONGEST_WAIT", 0.1 * SECOND)
        result = ask(app)
    assert isinstance(result.error, UpstreamTimeoutError)
    assert result.error.message == "the refresh has not ended in time"
    assert (result.source, result.answer) == (Source.FETCHED, old)
    settle()
    assert ask(app).is_plain_hit
    assert len(instances.calls()) == 1


@pytest.mark.parametrize(
    ("kind", "shortest", "longest"), [(ConsentRequiredError, 50, 57), (UpstreamTimeoutError, 10, 18)]
)
def test_processes_do_not_all_come_again_at_the_same_instant(
    instances: Instances,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[UsageSummaryError],
    shortest: int,
    longest: int,
) -> None:
    def fail(*_: object) -> Fetched:
        raise kind("")

    monkeypatch.setattr(PartnerCenterClient, "get_usage_summary", fail)
    storage.is_down = True
    waits = [(ask(instances.start()).retry_after or HOUR).total_seconds() for _ in range(20)]
    assert shortest <= min(waits) < max(waits) <= longest
    assert max(waits) - min(waits) > 1


def test_that_there_is_no_usage_data_is_kept_for_the_freshness_period(instances: Instances) -> None:
    instances.world.choose("no-usage-data")
    app = instances.start()
    ask(app)
    for minutes, calls in ((59, 1), (1.1, 2)):
        instances.clock.advance(minutes=minutes)
        result = ask(app)
        settle()
        assert result.answer is not None
        assert result.answer.no_usage_data is not None
        assert len(instances.calls()) == calls


def test_the_age_counts_from_the_sending_of_the_call(instances: Instances) -> None:
    instances.during_the_call(lambda: instances.clock.advance(seconds=30))
    assert ask(instances.start()).age == 30 * SECOND


def test_what_expires_while_a_caller_waits_is_not_served(
    instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances.environ["USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS"] = "0"
    instances.store(HOUR + DAY - SLACK)
    assert instances.fleet.claim(instances.fleet.read(), "living")
    what_happens: list[Callable[[], object]] = [
        lambda: instances.clock.advance(seconds=PATIENCE),
        lambda: instances.store(timedelta(), NEW),
    ]

    def then(age: timedelta, policy: Freshness) -> bool:
        usable = is_usable(age, policy)
        if threading.current_thread().name == "refresh" and what_happens:
            what_happens.pop(0)()
        return usable

    monkeypatch.setattr("shared.known.is_usable", then)
    result = ask(instances.start())
    assert (body(result), result.error, instances.calls()) == (NEW, None, [])
