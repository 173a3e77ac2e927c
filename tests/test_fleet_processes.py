"""One answer for a fleet of real processes, which are killed, stopped and started anew, with wrong clocks."""

import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest

from dev.azurite import Azurite
from dev.simulator import Delivery, Fault, Service, Simulator, World
from shared.app import App
from shared.clock import Clock
from shared.freshness import NO_DIRECTIVES
from shared.http import respond
from shared.problems import Response
from tests.conftest import ManualClock, delete_shared_answer
from tests.fleet_worker import Reply
from tests.processes import Calls, Fleet, Idle, eventually
from tests.threads import PATIENCE, settle

TICK = 1.0  # seconds: by these storage's clock goes
HALF_AN_HOUR, STALE, OLD_BUT_USABLE, EXPIRED = (timedelta(hours=hours) for hours in (0.5, 1.5, 3, 240))
FETCHED = "fwd-status=200; stored"
ATTEMPTS = 4  # of one refresh
STEPS = ["claimed", "fetching", "fetched", "published"]

type StartFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def idle() -> Iterator[Idle]:
    processes = Idle()
    yield processes
    for process in processes:
        process.end()


@pytest.fixture
def fleet_of(
    idle: Idle, environ: dict[str, str], azurite: Azurite, simulator: Simulator
) -> Iterator[StartFleet]:
    """Some processes with a container and settings of their own."""
    calls = Calls()
    simulator.world.observer = calls
    with ExitStack() as stack:

        def start(count: int, **settings: str) -> Fleet:
            processes = idle.take(count)
            stack.callback(idle.take_back, processes)
            own = {"USAGE_CACHE_CONTAINER": f"cache-{uuid.uuid4().hex[:12]}", **settings}
            fleet = Fleet([*processes], {**environ, **own}, azurite, simulator.world, calls)
            fleet.start()
            return fleet

        yield start


def is_aged(reply: Reply, age: timedelta) -> bool:
    """As exactly as storage tells the time."""
    return reply.age is not None and -TICK <= reply.age - age.total_seconds() < PATIENCE


def expire_cold(fleet: Fleet, *, is_gone: bool) -> None:
    """Nothing usable is left; 4 callers come to each process."""
    before = len(fleet.calls)
    if is_gone:
        delete_shared_answer(fleet.azurite, fleet.environ)
    else:
        fleet.let_age(EXPIRED)
    fleet.start()
    body = fleet.new_document()

    replies = fleet.get()

    assert len(fleet.calls) == before + 1
    assert {(reply.status, reply.body) for reply in replies} == {(200, body)}
    assert sum(FETCHED in reply.how for reply in replies) == 1
    assert fleet.stored.content == body.encode()


def expire_stale(fleet: Fleet) -> tuple[list[Reply], list[Reply]]:
    """All hold an answer that has become stale; what callers saw then, and what they see once it is over."""
    before, old = len(fleet.calls), fleet.stored.content.decode()
    fleet.let_age(STALE)
    fleet.start()
    assert {reply.body for reply in fleet.get(1, "only-if-cached")} == {old}
    body = fleet.new_document()

    with fleet.everybodys_calls.unanswered():
        stale = fleet.get()

    assert {(reply.status, reply.body, reply.is_stale) for reply in stale} == {(200, old, True)}
    fleet.until_all_serve(body)
    hits = fleet.get()
    assert {(reply.status, reply.body, reply.is_hit) for reply in hits} == {(200, body, True)}
    assert len(fleet.calls) == before + 1
    return stale, hits


def test_of_8_processes_and_32_callers_one_asks_at_each_of_20_cold_expiries(fleet_of: StartFleet) -> None:
    fleet = fleet_of(8)
    fleet.get()
    for number in range(20):
        expire_cold(fleet, is_gone=number % 2 == 0)


def test_of_8_processes_and_32_callers_one_asks_at_each_of_20_stale_expiries_and_nobody_waits(
    fleet_of: StartFleet,
) -> None:
    fleet = fleet_of(8)
    fleet.get()
    for _ in range(20):
        expire_stale(fleet)


def test_clocks_10_minutes_apart_either_way_change_nothing(fleet_of: StartFleet) -> None:
    fleet = fleet_of(8)
    fleet.clocks_are_off_by = timedelta(minutes=10)
    fleet.start()
    fleet.get()
    for is_gone in (True, False):
        expire_cold(fleet, is_gone=is_gone)
        stale, hits = expire_stale(fleet)
        for replies, age in ((stale, STALE), (hits, timedelta())):
            assert all(is_aged(reply, age) for reply in replies)


def two_fleets(fleet_of: StartFleet, **options: object) -> tuple[Fleet, Fleet, str]:
    """One with nothing, one with a stale answer, and that."""
    cold, stale = fleet_of(4), fleet_of(4)
    old = stale.store(STALE, **trap(options, "stale"))
    cold.start(**trap(options, "cold"))
    return cold, stale, old


def trap(options: dict[str, object], name: str) -> dict[str, object]:
    return {"trap": {**options, "mark": f"{options['mark']}-{name}"}} if options else {}


def pid_in(mark: Path) -> int:
    """Of the process that left this mark where the trap was."""
    eventually(lambda: mark.exists() and mark.read_text().endswith("\n"))
    return int(mark.read_text())


@pytest.mark.parametrize("step", STEPS)
def test_when_the_leader_is_killed_the_others_recover_at_the_end_of_its_claim(
    fleet_of: StartFleet, simulator: Simulator, tmp_path: Path, step: str
) -> None:
    mark = tmp_path / "dead"
    in_fetch = step == "fetching"
    options = {} if in_fetch else {"step": step, "number": signal.SIGKILL, "mark": str(mark)}
    cold, stale, old = two_fleets(fleet_of, **options)
    if in_fetch:
        never = Fault(Service.PARTNER_CENTER, delivery=Delivery.NEVER, times=2)
        simulator.world.faults[Service.PARTNER_CENTER] = never
    body = cold.new_document()

    for fleet in (cold, stale):
        fleet.tell("get", callers=4)
    for fleet, name in ((cold, "cold"), (stale, "stale")):
        if in_fetch:
            leader = fleet.first_caller()
            fleet.of(leader).send(signal.SIGKILL)
            fleet.bury(leader)
        else:
            fleet.bury(pid_in(Path(f"{mark}-{name}")))
    at_once = stale.replies()
    for fleet in (cold, stale):
        fleet.end_claim()
    meanwhile = stale.until_all_serve(body)
    waited = cold.replies()

    assert {(reply.status, reply.body, reply.is_stale) for reply in at_once} == {(200, old, True)}
    assert {(reply.status, reply.body) for reply in meanwhile} <= {(200, old), (200, body)}
    assert all(reply.is_stale or reply.is_hit for reply in meanwhile)
    assert {(reply.status, reply.body) for reply in waited} == {(200, body)}
    assert max(reply.seconds for reply in waited) < PATIENCE  # which is less than the time for a refresh
    for fleet in (cold, stale):
        fleet.until_all_serve(body)
        calls = fleet.calls
        assert len(calls) == (2 if step in {"fetching", "fetched"} else 1)
        assert len({call.pid for call in calls}) == len(calls)
        assert fleet.stored.content == body.encode()


def test_a_leader_stopped_past_its_claim_is_refused_when_it_goes_on_and_the_newest_answer_stays(
    fleet_of: StartFleet, tmp_path: Path
) -> None:
    mark = tmp_path / "stopped"
    cold, stale, old = two_fleets(fleet_of, step="fetched", number=signal.SIGSTOP, mark=str(mark))
    late = cold.new_document()
    stopped = {}
    for fleet, name in ((cold, "cold"), (stale, "stale")):
        fleet.tell("get", callers=4)
        process = stopped[name] = fleet.of(pid_in(Path(f"{mark}-{name}")))
        fleet.processes.remove(process)
        fleet.dead.add(process.pid)
    newest = cold.new_document()

    assert {reply.body for reply in stale.replies()} == {old}
    for fleet in (cold, stale):
        fleet.end_claim()
    stale.until_all_serve(newest)
    assert {(reply.status, reply.body) for reply in cold.replies()} == {(200, newest)}
    for process in stopped.values():
        process.send(signal.SIGCONT)
    assert {reply["body"] for reply in stopped["cold"].hear()} == {newest}
    assert {reply["body"] for reply in stopped["stale"].hear()} == {old}

    for fleet, name in ((cold, "cold"), (stale, "stale")):
        stopped[name].ask("settle")
        assert fleet.stored.content == newest.encode()
        fleet.processes.append(stopped[name])
        replies = fleet.get()
        assert {(reply.status, reply.body, reply.is_hit) for reply in replies} == {(200, newest, True)}
        assert [call.pid == stopped[name].pid for call in fleet.calls] == [True, False]
    assert late != newest


@pytest.mark.parametrize("age", [STALE, OLD_BUT_USABLE])
def test_when_throttled_nobody_asks_again_nor_does_a_new_process_and_callers_are_answered(
    fleet_of: StartFleet, simulator: Simulator, age: timedelta
) -> None:
    fleet = fleet_of(8)
    newcomer = fleet.processes.pop()
    old = fleet.store(age)
    simulator.world.choose("throttled")

    def answers() -> set[tuple[int, str]]:
        fleet.ask("settle")
        return {(reply.status, reply.body) for reply in fleet.get()}

    assert answers() == {(200, old)}
    eventually(lambda: "failure" in fleet.stored.metadata)
    fleet.processes.append(newcomer)
    assert answers() == {(200, old)}
    fleet.ask("skip", seconds=19)
    assert answers() == {(200, old)}
    fleet.start()
    assert {reply.status for reply in fleet.get(1, "only-if-cached")} == {200}
    assert answers() == {(200, old)}
    fleet.ask("skip", seconds=21)  # what each process remembers is over, what the fleet shares is not
    assert answers() == {(200, old)}
    fleet.ask("settle")
    assert len(fleet.calls) == 1

    simulator.world.choose("healthy")
    body = fleet.new_document()
    fleet.end_back_off()
    fleet.ask("skip", seconds=21)
    fleet.until_all_serve(body)
    assert len(fleet.calls) == 2


def test_when_throttled_with_nothing_stored_all_are_told_when_to_come_again(
    fleet_of: StartFleet, simulator: Simulator
) -> None:
    fleet = fleet_of(8)
    simulator.world.choose("throttled")
    newcomer = fleet.processes.pop()

    replies = fleet.get()
    fleet.processes.append(newcomer)
    replies += fleet.get()
    fleet.start()
    replies += fleet.get()

    assert len(fleet.calls) == 1
    for reply in replies:
        assert (reply.status, json.loads(reply.body)["code"]) == (503, "upstream-unavailable")
        assert json.loads(reply.body)["upstreamStatus"] == 429
        assert reply.retry_after is not None
        assert 20 - PATIENCE / 2 < reply.retry_after <= 20 + 2 * TICK


def test_a_short_throttling_is_waited_out_by_the_leader_alone(
    fleet_of: StartFleet, simulator: Simulator
) -> None:
    fleet = fleet_of(4)
    old = fleet.store(STALE)
    throttled = Fault(Service.PARTNER_CENTER, 429, headers={"retry-after": "3"}, times=1)
    simulator.world.faults[Service.PARTNER_CENTER] = throttled
    body = fleet.new_document()

    seen = fleet.until_all_serve(body)

    assert {(reply.status, reply.body) for reply in seen} == {(200, old), (200, body)}
    assert all(reply.is_hit or reply.is_stale for reply in seen)
    first, second = fleet.calls
    assert first.pid == second.pid
    assert second.second - first.second >= 3


@pytest.mark.nightly
def test_for_20_seconds_of_throttling_nobody_asks(fleet_of: StartFleet, simulator: Simulator) -> None:
    fleet = fleet_of(8)
    old = fleet.store(STALE)
    simulator.world.choose("throttled")
    storms = fleet.ask("storm", callers=2, seconds=23, cache_controls=["", "no-cache"])
    assert {answer for storm in storms for answer in storm["seen"]} == {f"200 {old}"}
    assert len(fleet.calls) >= 2
    assert all(later.second - first.second >= 20 for first, later in pairwise(fleet.calls))


FLOOR = 2  # seconds


def test_a_storm_of_callers_who_want_it_newer_causes_no_more_calls_than_the_floor_allows(
    fleet_of: StartFleet,
) -> None:
    fleet = fleet_of(8, USAGE_CACHE_MIN_REFRESH_SECONDS=str(FLOOR))
    body = fleet.new_document()
    wanted = ["no-cache", "max-age=0", "min-fresh=3600", "no-cache, max-age=0, min-fresh=99999999999"]

    storms = []
    while len(fleet.calls) < 3:
        storms += fleet.ask("storm", callers=2, seconds=FLOOR, cache_controls=wanted)

    sent = sorted(second for seconds in fleet.ask("sent") for second in seconds)
    assert {answer for storm in storms for answer in storm["seen"]} == {f"200 {body}"}
    assert len(sent) == len(fleet.calls)
    assert all(later - first >= FLOOR for first, later in pairwise(sent))


@pytest.mark.parametrize("when", ["idle", "fetching"])
def test_when_the_container_is_deleted_the_fleet_makes_it_anew_and_callers_do_not_notice(
    fleet_of: StartFleet, simulator: Simulator, when: str
) -> None:
    fleet = fleet_of(8)
    old = fleet.store(HALF_AN_HOUR)
    if when == "fetching":
        simulator.world.delay = 0.5
        simulator.world.faults[Service.PARTNER_CENTER] = Fault(
            Service.PARTNER_CENTER, delivery=Delivery.LATE, times=1
        )
    else:
        fleet.delete_container()
    assert {(reply.body, reply.is_hit) for reply in fleet.get()} == {(old, True)}
    body = fleet.new_document()
    fleet.ask("skip", seconds=3600)

    stale = fleet.get()
    if when == "fetching":
        fleet.first_caller()
        fleet.delete_container()
    meanwhile = fleet.until_all_serve(body)

    assert {(reply.status, reply.body, reply.is_stale) for reply in stale} == {(200, old, True)}
    assert {reply.body for reply in meanwhile} <= {old, body}
    assert len(fleet.calls) == 1 if when == "idle" else 1 <= len(fleet.calls) <= 2
    assert fleet.stored.content == body.encode()


def test_a_new_process_finds_the_shared_answer_and_asks_nobody(fleet_of: StartFleet) -> None:
    fleet = fleet_of(8)
    body = fleet.store(HALF_AN_HOUR)
    fleet.start()
    asked = len(fleet.world.exchanges)

    replies = fleet.get()

    assert {(reply.status, reply.body, reply.is_hit) for reply in replies} == {(200, body, True)}
    assert all(is_aged(reply, HALF_AN_HOUR) for reply in replies)
    assert len(fleet.world.exchanges) == asked


def test_processes_with_other_settings_share_the_answer_each_by_its_own(fleet_of: StartFleet) -> None:
    fleet = fleet_of(3)
    old = fleet.store(STALE)
    hour, day, minute = fleet.processes
    for process, fresh in ((hour, 3600), (day, 86400), (minute, 60)):
        window = 3600 if process is hour else 0
        settings = {
            "USAGE_CACHE_FRESH_SECONDS": str(fresh),
            "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": str(window),
        }
        process.ask("start", environ=fleet.environ | settings)
    body = fleet.new_document()

    (in_day,) = (Reply(**reply) for reply in day.ask("get"))
    assert (in_day.body, in_day.is_hit, in_day.cache_control) == (old, True, "private, max-age=86400")
    assert not fleet.calls
    (in_minute,) = (Reply(**reply) for reply in minute.ask("get"))
    assert (in_minute.body, in_minute.cache_control) == (body, "private, max-age=60")
    (in_hour,) = (Reply(**reply) for reply in hour.ask("get"))
    assert (in_hour.body, in_hour.is_hit, in_hour.cache_control) == (body, True, "private, max-age=3600")
    assert len(fleet.calls) == 1


def test_callers_of_an_upstream_slower_than_the_freshness_period_wait_for_one_call_and_not_again(
    fleet_of: StartFleet, simulator: Simulator
) -> None:
    fleet = fleet_of(
        4,
        USAGE_CACHE_FRESH_SECONDS="1",
        USAGE_CACHE_MIN_REFRESH_SECONDS="1",
        USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS="0",
        USAGE_CACHE_STALE_IF_ERROR_SECONDS="0",
    )
    simulator.world.delay = 2.0
    simulator.world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=Delivery.LATE)
    body = fleet.new_document()

    replies = fleet.get()
    assert {(reply.status, reply.body) for reply in replies} == {(200, body)}
    assert len(fleet.calls) == 1

    began = time.monotonic()
    storms = fleet.ask("storm", callers=4, seconds=3, cache_controls=["", "no-cache"])
    assert {answer for storm in storms for answer in storm["seen"]} == {f"200 {body}"}
    assert len(fleet.calls) <= 2 + (time.monotonic() - began) / simulator.world.delay
    assert all(later.second - first.second >= simulator.world.delay for first, later in pairwise(fleet.calls))


async def get(app: App) -> Response:
    correlation_id = str(uuid.uuid4())
    result = await app.get_usage_summary(NO_DIRECTIVES, correlation_id)
    return respond(result, correlation_id, app.freshness.fresh)


def upstream_calls(world: World) -> int:
    return sum(exchange.service is Service.PARTNER_CENTER for exchange in world.exchanges)


def test_while_the_upstream_is_down_all_are_answered_to_the_second_and_attempts_are_bounded(
    environ: dict[str, str], azurite: Azurite, simulator: Simulator, manual_clock: ManualClock
) -> None:
    world, fleet = simulator.world, Fleet([], environ, azurite, simulator.world, Calls())
    app = App(environ, replace(manual_clock.clock(), sleep=lambda _: None))
    began = manual_clock.instant

    def callers() -> tuple[set[HTTPStatus], int]:
        """What those who come now get, and how many calls of Partner Center they cause."""
        before = upstream_calls(world)
        responses = [asyncio.run(get(app)) for _ in range(3)]
        settle()  # a look at storage behind them must not see what the test does next
        for response in responses:
            if response.status == HTTPStatus.OK:
                assert int(response.headers["Age"]) == (manual_clock.instant - began) // timedelta(seconds=1)
                assert response.body == world.document
        return {response.status for response in responses}, upstream_calls(world) - before

    def back_off_ends() -> None:
        fleet.end_back_off()
        manual_clock.advance(seconds=20)

    assert callers() == ({HTTPStatus.OK}, 1)
    world.choose("down")
    manual_clock.advance(hours=2)
    end = timedelta(hours=1 + 24)
    assert callers() == ({HTTPStatus.OK}, ATTEMPTS)
    while manual_clock.instant - began < end - timedelta(hours=3):
        manual_clock.advance(seconds=9)
        assert callers() == ({HTTPStatus.OK}, 0), "the shortest back-off is 10 seconds"
        manual_clock.advance(hours=2)
        back_off_ends()
        assert callers() == ({HTTPStatus.OK}, ATTEMPTS)
    back_off_ends()
    manual_clock.instant = began + end - timedelta(seconds=1)
    assert callers() == ({HTTPStatus.OK}, ATTEMPTS)
    manual_clock.advance(seconds=1)
    assert callers() == ({HTTPStatus.SERVICE_UNAVAILABLE}, 0)
    back_off_ends()
    assert callers() == ({HTTPStatus.SERVICE_UNAVAILABLE}, ATTEMPTS)
    problem = asyncio.run(get(app))
    assert json.loads(problem.body)["code"] == "upstream-unavailable"
    assert json.loads(problem.body)["upstreamStatus"] == HTTPStatus.SERVICE_UNAVAILABLE
    assert 1 <= int(problem.headers["Retry-After"]) <= 20
    world.choose("healthy")
    back_off_ends()
    assert asyncio.run(get(app)).status == HTTPStatus.OK


async def work_of_a_hit(app: App) -> int:
    """How many functions this thread calls until it has a hit; the least of some, for others wake up too."""
    called = 0

    def profile(_: FrameType, event: str, __: object) -> None:
        nonlocal called
        called += event == "call"

    found = []
    for _ in range(50):
        called = 0
        sys.setprofile(profile)
        try:
            response = await asyncio.create_task(get(app))
        finally:
            sys.setprofile(None)
        assert response.headers["Cache-Status"].startswith("usage-summary; hit; ttl=3")
        found.append(called)
    return min(found)


@pytest.mark.parametrize("leaving", [0, 100])
def test_while_200_wait_a_hit_costs_what_it_did_and_those_who_leave_do_not_end_the_refresh(
    environ: dict[str, str], simulator: Simulator, leaving: int
) -> None:
    world, calls = simulator.world, Calls()
    warm = App({**environ, "USAGE_CACHE_CONTAINER": f"cache-{uuid.uuid4().hex[:12]}"}, Clock())
    cold = App(environ, Clock())

    async def crowd() -> tuple[list[Response], int, int]:
        assert (await get(warm)).status == HTTPStatus.OK
        at_rest = await work_of_a_hit(warm)
        world.exchanges.clear()
        world.observer = calls
        with calls.unanswered():
            waiters = [asyncio.create_task(get(cold)) for _ in range(200)]
            await asyncio.sleep(0)
            for waiter in waiters[:leaving]:
                waiter.cancel()
            beside = await work_of_a_hit(warm)
            assert not any(waiter.done() for waiter in waiters[leaving:])
        responses = await asyncio.wait_for(asyncio.gather(*waiters[leaving:]), PATIENCE)
        assert all(waiter.cancelled() for waiter in waiters[:leaving])
        return responses, at_rest, beside

    responses, at_rest, beside = asyncio.run(crowd())

    assert {(response.status, response.body) for response in responses} == {(HTTPStatus.OK, world.document)}
    assert len(responses) == 200 - leaving
    assert upstream_calls(world) == 1
    assert beside <= 1.1 * at_rest


def test_when_all_200_who_wait_leave_the_refresh_goes_on(
    environ: dict[str, str], simulator: Simulator
) -> None:
    world = simulator.world
    world.delay = 0.5
    world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=Delivery.LATE)
    app = App(environ, Clock())

    async def leave() -> None:
        waiters = [asyncio.create_task(get(app)) for _ in range(200)]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)

    asyncio.run(leave())

    eventually(lambda: upstream_calls(world) == 1)
    response = asyncio.run(get(app))
    assert (response.status, response.body) == (HTTPStatus.OK, world.document)
    assert upstream_calls(world) == 1
