"""One process of several, in which callers want the usage summary.

The first line of JSON is its World, each later one a case and the monotonic seconds, the same in all
processes, from which and to which callers come; a line out for each line is what they Heard. It ends with its
standard input.
"""

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

import requests
from cachecontrol import CacheControl
from cachecontrol.caches import FileCache
from cachecontrol.heuristics import ExpiresAfter
from requests_cache import CachedSession

from shared.app import App
from shared.clock import Clock
from shared.freshness import NO_DIRECTIVES
from shared.http import respond

OURS, NO_CACHE = "this app", "no cache"
REQUESTS_CACHE, RENEWING = "requests-cache", "requests-cache, stale_while_revalidate"
CACHE_CONTROL = "CacheControl"
LIBRARIES = REQUESTS_CACHE, RENEWING, CACHE_CONTROL, NO_CACHE
CASES = OURS, *LIBRARIES

CALLERS = 4
"""In each process."""
PAUSE = 0.1
"""Seconds between an answer and the same caller's next request."""

_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Heard:
    """When callers came, in monotonic seconds, and how long they waited; what their requests raised.

    What a library raises behind its callers, in a thread of its own, is among the failures.
    """

    waits: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """Where it all is: settings of the app, a token, a directory of all processes, seconds of freshness."""

    settings: dict[str, str]
    token: str
    directory: str
    fresh: int


def session_of(case: str, world: World) -> requests.Session:
    """A session as its library's documentation would have it for several processes on one machine."""
    if case == NO_CACHE:
        return requests.Session()
    if case == CACHE_CONTROL:
        cache = FileCache(f"{world.directory}/cachecontrol")
        return CacheControl(requests.Session(), cache, heuristic=ExpiresAfter(seconds=world.fresh))
    return CachedSession(
        f"{world.directory}/{case}.sqlite",
        backend="sqlite",
        wal=True,
        fast_save=True,
        expire_after=world.fresh,
        stale_if_error=True,
        stale_while_revalidate=world.fresh if case == RENEWING else False,
        timeout=_TIMEOUT,  # a busy machine may hold the database for longer than SQLite's five seconds
    )


def asking(session: requests.Session, world: World) -> Callable[[], None]:
    """One request of a caller, who has this session alone: threads that share one get half an answer."""
    url = f"{world.settings['PARTNER_CENTER_BASE_URL']}/v1/usagesummary"
    headers = {"Authorization": f"Bearer {world.token}", "Accept": "application/json"}
    headers["MS-Contract-Version"] = "v1"

    def ask() -> None:
        each = {"MS-RequestId": str(uuid.uuid4()), "MS-CorrelationId": str(uuid.uuid4())}
        ca_bundle = world.settings["REQUESTS_CA_BUNDLE"]
        answer = session.get(url, headers=headers | each, verify=ca_bundle, timeout=_TIMEOUT)
        answer.raise_for_status()
        if not answer.content:
            raise RuntimeError("an empty answer")

    return ask


async def ask_ours(app: App) -> None:
    """One request of a caller to this app, up to its response."""
    correlation_id = str(uuid.uuid4())
    result = await app.get_usage_summary(NO_DIRECTIVES, correlation_id)
    response = respond(result, correlation_id, app.freshness.fresh)
    if response.status != requests.codes.ok:
        raise RuntimeError(response.body)


async def call(ask: Callable[[], Awaitable[None]], begins: float, ends: float) -> Heard:
    """What one caller sees, who comes again and again, and once at the least."""
    heard, came = Heard(), float("-inf")
    await asyncio.sleep(begins - time.monotonic() + random.uniform(0, PAUSE))  # noqa: S311  # not all at once
    while came + PAUSE < ends:
        came = time.monotonic()
        try:
            await ask()
        except Exception as error:  # noqa: BLE001  # whatever a library raises at a caller counts
            heard.failures.append(type(error).__name__)
        heard.waits.append((came, time.monotonic() - came))
        await asyncio.sleep(PAUSE)
    return heard


async def call_all(asks: Iterable[Callable[[], Awaitable[None]]], begins: float, ends: float) -> Heard:
    """What all callers of this process see."""
    heard = await asyncio.gather(*(call(ask, begins, ends) for ask in asks))
    return Heard(
        [wait for each in heard for wait in each.waits], [name for each in heard for name in each.failures]
    )


def in_thread(pool: ThreadPoolExecutor, ask: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """The same request for an event loop."""
    return lambda: asyncio.get_running_loop().run_in_executor(pool, ask)


def main() -> None:
    """Do as told, line by line."""
    world = World(**json.loads(sys.stdin.readline()))
    os.environ.update(world.settings)
    logging.getLogger("requests_cache").setLevel(logging.ERROR)  # it warns of each failure that it bridges
    behind: list[str] = []
    threading.excepthook = lambda failed: behind.append(failed.exc_type.__name__)
    app = App(os.environ, Clock())
    with ThreadPoolExecutor(CALLERS) as pool, asyncio.Runner() as runner:
        asks = {
            case: [in_thread(pool, asking(session_of(case, world), world)) for _ in range(CALLERS)]
            for case in LIBRARIES
        } | {OURS: [partial(ask_ours, app)] * CALLERS}
        _say(Heard())
        for line in sys.stdin:
            case, begins, ends = json.loads(line)
            heard = runner.run(call_all(asks[case], begins, ends))
            heard.failures.extend(behind)
            behind.clear()
            _say(heard)


def _say(heard: Heard) -> None:
    print(json.dumps(asdict(heard)), flush=True)
