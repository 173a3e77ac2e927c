"""Faults of what instances share and of the instance itself: storage, clocks, processes."""

import asyncio
import errno
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dev.simulator import Delivery
from shared.app import App
from shared.blobs import QUICK
from shared.errors import StorageError
from shared.freshness import RequestDirectives
from shared.problems import Response
from tests.faults.acts import PC, Act, Scenario, as_always, delivers, hurried, together
from tests.faults.case import (
    FETCHED,
    FINE,
    ITSELF,
    RENEWED,
    SHARED_AGAIN,
    TIMEOUT,
    UNAVAILABLE,
    UNNOTICED,
    Case,
    Effect,
    Recovery,
    Seen,
    fails,
    stored,
)
from tests.faults.scene import NEW, NOON, Scene, get
from tests.storage_proxy import Fault, Policy, Request, failing_writes
from tests.threads import settle

CACHE, RECORD = "USAGE_CACHE_CONTAINER", "USAGE_SNAPSHOT_CONTAINER"
ONLY_IF_CACHED = RequestDirectives(only_if_cached=True)
HIT, FOUND = stored("hit"), Seen(document=NEW, how="hit")
FAILED = json.dumps(["UpstreamUnavailableError", "said by another instance", None, None])
OVER = Recovery(66, "once the claim is over, within {} s", rests=False)
KEEPS_AWAY = Effect(Seen(UNAVAILABLE), HIT, ITSELF)
LEFT_BEHIND = Effect(Seen(UNAVAILABLE), HIT, OVER)
BLIND = Effect(Seen(UNAVAILABLE), Seen(UNAVAILABLE), ITSELF)
"""Neither what is shared nor Partner Center can be reached."""
UNSHARED = replace(FINE, recovery=SHARED_AGAIN)
IS_DOWN, DOWN = Scenario("down"), fails(UNAVAILABLE, 503)
BOTH_DOWN = replace(DOWN, stale=DOWN.nothing)
ALONE = Effect(FETCHED, FETCHED, SHARED_AGAIN)
"""The app cannot read what is shared, and asks Partner Center by itself."""
REPLACED = Effect(FETCHED, FETCHED, UNNOTICED)
ADOPTED = Effect(FOUND, FOUND, UNNOTICED)
AGAIN = Effect(RENEWED, RENEWED, UNNOTICED)
AT_ONCE = Recovery(0, "at once")
"""Nobody was asked, so nobody rests."""
KNOWS = Effect(Seen(UNAVAILABLE), HIT, AT_ONCE)
KILLED = fails(TIMEOUT, recovery=Recovery(130, "by itself, within {} s"))


def cache(fault: Fault, method: str = "", *, times: int = 10**6) -> Act:
    """So many requests about the shared answer fare like that."""
    return lambda scene: scene.fail(fault, {scene.environ[CACHE]}, method, times)


def shared(content: bytes | None = None, **metadata: str) -> Act:
    """The shared blob is not as an instance wrote it."""
    return lambda scene: scene.share(content, **metadata)


def until(**after: float) -> str:
    return (NOON + timedelta(**after)).isoformat()


def is_gone(scene: Scene) -> None:
    scene.environ[CACHE] = f"gone-{scene.environ[RECORD]}"
    container = scene.container(CACHE)
    container.create_container()
    scene.share(b"{}")
    container.delete_container()


def is_immutable(scene: Scene) -> None:
    scene.proxy.policies[scene.environ[CACHE]] = Policy.IMMUTABLE


def record_fails(scene: Scene) -> None:
    names = {scene.environ[f"USAGE_{each}_CONTAINER"] for each in ("SNAPSHOT", "HISTORY")}
    scene.fail(Fault.ERROR_503, names)


def a_run_fails_too(scene: Scene, app: App) -> Response:
    response = scene.ask(app)
    with pytest.raises(StorageError):
        app.take_snapshot()
    return response


STORAGE = [
    Case("the container is deleted", is_gone, REPLACED),
    Case("the shared body is damaged", shared(b"damaged"), REPLACED),
    Case("the shared answer has no sound date", shared(fetched="yesterday"), REPLACED),
    Case("the shared answer is of the future", shared(fetched=until(minutes=6)), REPLACED),
    Case("a claim has no sound end", shared(owner="somebody", until="soon"), FINE),
    Case("a claim ends tomorrow", shared(owner="somebody", until=until(days=1)), FINE),
    Case("another instance has failed", shared(failure=FAILED, until=until(seconds=18)), KEEPS_AWAY),
    Case("drops each request", cache(Fault.DROP), ALONE),
    Case("drops one request", cache(Fault.DROP, times=1), FINE),
    Case("loses its answer to the claim", cache(Fault.LOSE, "PUT", times=1), FINE),
    Case("answers 500", cache(Fault.ERROR_500), ALONE),
    Case("answers 503", cache(Fault.ERROR_503), ALONE),
    Case("refuses the key: 403", cache(Fault.NO_KEY), ALONE),
    Case("has archived the shared blob: 409", cache(Fault.ARCHIVED, "GET"), ALONE),
    Case("says at each write that another was faster: 412", cache(Fault.CHANGED, "PUT"), UNSHARED),
    Case("lets create, and change nothing: 409", is_immutable, UNSHARED),
    Case("never answers", hurried("deadlines", cache(Fault.HANG)), ALONE),
    Case("answers 503, and so does Partner Center", together(IS_DOWN, cache(Fault.ERROR_503)), BOTH_DOWN),
    Case("answers 503 for the record alone: runs fail", record_fails, FINE, ask=a_run_fails_too),
]


def wall(**error: float) -> Act:
    """The process is so far ahead of everybody else."""
    return lambda scene: setattr(scene, "off", timedelta(**error))


def storage_is(**error: float) -> Act:
    return lambda scene: setattr(scene, "storage_off", timedelta(**error))


def during_the_call(act: Act) -> Act:
    return lambda scene: scene.during_the_call(lambda: act(scene))


def stands_still(
    scene: Scene, seconds: float = 70, writes: int = 1, then: Callable[[], object] = lambda: None
) -> None:
    """The process, not the world, just before its write of that number; meanwhile something happens."""
    left = [writes]

    def plan(request: Request, _: int) -> Fault:
        if request.method == "PUT" and request.blob:
            left[0] -= 1
            if left[0] == 0:
                scene.stood_still = seconds
                scene.clock.advance(seconds=seconds)
                then()
        return Fault.NONE

    scene.proxy.follow(plan)


def is_overtaken(scene: Scene) -> None:
    """It stands still before it publishes; meanwhile another takes its claim for a dead one's, and asks."""

    def take_over() -> None:
        with scene.another_proxy() as proxy:
            another = scene.start(AzureWebJobsStorage=proxy.connection_string)
            assert asyncio.run(get(another)).status == 200

    stands_still(scene, writes=2, then=take_over)


def too_late_to_ask(scene: Scene) -> None:
    """Its claim, which it takes then, is for others to wait for no longer."""
    stands_still(scene, 55)


def at_once(scene: Scene, app: App) -> Response:
    """Nobody waits for the end of the claim that was given back."""
    response = scene.ask(app)
    assert scene.took - scene.stood_still < 5
    return response


def is_put_right(scene: Scene, app: App) -> Response:
    """The clock, once the process has signed in; what is seen comes after the access token is over."""
    scene.ask(app)
    scene.off = timedelta()
    scene.clock.advance(hours=2)
    return scene.ask(app)


CLOCK = [
    Case("the process is 10 minutes ahead, and stays so", wall(minutes=10), FINE, end=as_always),
    Case("the process is 10 minutes behind, and stays so", wall(minutes=-10), FINE, end=as_always),
    Case("the process is an hour ahead, and Partner Center is down", together(IS_DOWN, wall(hours=1)), DOWN),
    Case("the process is a day behind, and Partner Center is down", together(IS_DOWN, wall(days=-1)), DOWN),
    Case("the process's clock goes back an hour during the call", during_the_call(wall(hours=-1)), FINE),
    Case("the process's clock goes on by a day during the call", during_the_call(wall(days=1)), FINE),
    Case("the process was a day ahead when it signed in", wall(days=1), AGAIN, ask=is_put_right),
    Case("the process was a day behind when it signed in", wall(days=-1), AGAIN, ask=is_put_right),
    Case("storage is an hour ahead", storage_is(hours=1), FINE),
    Case(
        "storage's clock goes back 10 minutes during the call", during_the_call(storage_is(minutes=-10)), FINE
    ),
    Case("the process stands still until it is too late to ask", too_late_to_ask, FINE, ask=at_once),
    Case("the process stands still past its claim, then asks", stands_still, FINE),
    Case("the process stands still past its claim, and another asks", is_overtaken, FINE),
]


def is_killed(scene: Scene) -> None:
    """An instance is killed before it writes what came of its claim."""
    with scene.another_proxy() as proxy:
        proxy.follow(failing_writes(Fault.DIE, scene.environ[CACHE], first=2))
        scene.ask(scene.start(AzureWebJobsStorage=proxy.connection_string))


def without_threads(scene: Scene, app: App) -> Response:
    """The process looks at what is shared while it still can."""
    scene.ask(app, ONLY_IF_CACHED)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in {"refresh", "look"}:
            raise RuntimeError("can't start new thread")
        start(thread)

    scene.patch.setattr(threading.Thread, "start", refuse)
    return scene.ask(app)


def no_timer(scene: Scene) -> None:
    """Each deadline is a thread of its own."""

    def refuse(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    scene.patch.setattr(threading.Timer, "start", refuse)


def no_timer_for_a_call(scene: Scene) -> None:
    """Storage's deadlines, which are shorter, still find a thread."""
    start = threading.Timer.start

    def refuse(timer: threading.Timer) -> None:
        if timer.interval > QUICK.total_seconds():
            raise RuntimeError("can't start new thread")
        start(timer)

    scene.patch.setattr(threading.Timer, "start", refuse)


def raises(kind: type[BaseException]) -> Act:
    def broken(*_: object) -> None:
        raise kind

    return lambda scene: scene.patch.setattr("shared.client.PartnerCenterClient.get_usage_summary", broken)


def soon(scene: Scene, app: App) -> Response:
    """A caller who would wait for a minute waits for half a second."""
    scene.ask(app, ONLY_IF_CACHED)
    scene.patch.setattr(threading, "excepthook", lambda _: None)  # as Python does with SystemExit by itself
    scene.patch.setattr("shared.answers.LONGEST_WAIT", timedelta(seconds=0.5))
    return scene.ask(app)


def opens_no_more(scene: Scene) -> None:
    scene.fail_connections(OSError(errno.EMFILE, "Too many open files"))


def leaves(scene: Scene, app: App) -> Response:
    """The caller leaves amid the call; another comes when it is over."""

    async def leave() -> None:
        caller = asyncio.create_task(get(app))
        while not scene.calls():  # noqa: ASYNC110  # the world lives in a thread
            await asyncio.sleep(0.01)
        caller.cancel()

    asyncio.run(leave())
    settle()
    return scene.ask(app)


def both_at_once(scene: Scene, app: App) -> Response:
    """What the one gets of two instances that asks."""

    async def both() -> Response:
        responses = await asyncio.gather(get(app), get(scene.start()))
        (asked,) = (each for each in responses if "fwd-status" in each.headers["Cache-Status"])
        return asked

    asked = scene.waiting(lambda: asyncio.run(both()))
    assert len(scene.calls()) == 1
    return asked


def asked_before(scene: Scene) -> None:
    scene.ask(scene.start())


PROCESS = [
    Case("an instance was killed with its claim", shared(owner="dead", until=until(seconds=65)), LEFT_BEHIND),
    Case("an instance was killed before it published", is_killed, LEFT_BEHIND),
    Case("an instance was killed 65 s ago", shared(owner="dead", until=until()), FINE),
    Case("two instances start at once", as_always, FINE, ask=both_at_once),
    Case("another instance has just asked", asked_before, ADOPTED),
    Case(
        "the caller leaves amid the call, and another comes", delivers(PC, Delivery.LATE), ADOPTED, ask=leaves
    ),
    Case("can start no thread for a refresh, and has looked before", as_always, KNOWS, ask=without_threads),
    Case("can start no thread for a deadline", no_timer, replace(BLIND, recovery=AT_ONCE)),
    Case("can start no thread for the deadline of a call", no_timer_for_a_call, KNOWS),
    Case("can open no connection", opens_no_more, BLIND),
    Case("has no memory left amid a refresh", raises(MemoryError), fails(UNAVAILABLE)),
    Case("its refresh is killed, and it has looked before", raises(SystemExit), KILLED, ask=soon),
]
