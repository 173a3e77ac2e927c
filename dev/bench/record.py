"""What the record costs as it grows: a run of the timer, and a rebuild of the history."""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from azure.storage.blob import BlobServiceClient

from dev.azurite import Azurite
from dev.bench import years
from dev.bench.figures import Spread, ratio, spread
from dev.bench.report import Section, Table
from dev.bench.wire import Requests, counting
from dev.simulator import Simulator
from shared.app import App, open_record
from shared.clock import Clock
from shared.configuration import read_settings
from shared.drafts import Found
from shared.snapshots import day_prefix

REBUILD, TAKEN, REVISED, UNCHANGED = "rebuild", "taken", "revised", "unchanged"
_SECOND_AND_MORE = 1.2  # seconds; until Partner Center may be asked again

METHOD = """\
Records of some days before today, a snapshot each day. In each round, at each age: the history is made of \
all dated blobs, then the timer runs three times, each time asking Partner Center: for the day's first \
snapshot, for a document that has changed, for one that has not. Then the record is put back as it was. \
Counted are all requests to Blob Storage, those for the shared answer included. The sign-in and Partner \
Center are in the seconds, the vault is not: the refresh token stands in the settings."""


@dataclass(frozen=True)
class _Cost:
    """What something took."""

    requests: int
    seconds: float


type _Done = dict[tuple[str, int], list[_Cost]]
"""By what was done, and at how many days of record."""


class _Stage:
    """A record of so many days, and an app that has it."""

    def __init__(self, azurite: Azurite, service: BlobServiceClient, simulator: Simulator, days: int) -> None:
        self._world = simulator.world
        self._environ = {
            **simulator.settings,
            "AzureWebJobsStorage": azurite.connection_string,
            "PARTNER_CENTER_REFRESH_TOKEN": simulator.world.refresh_token(),
            "USAGE_CACHE_FRESH_SECONDS": "1",
            "USAGE_CACHE_MIN_REFRESH_SECONDS": "1",
            "USAGE_SNAPSHOT_CONTAINER": f"usage-{days}",
            "USAGE_HISTORY_CONTAINER": f"history-{days}",
        }
        del self._environ["PARTNER_CENTER_REFRESH_TOKEN_SECRET"]
        self._usage = service.get_container_client(f"usage-{days}")
        self._history = service.get_container_client(f"history-{days}")
        self._history.create_container()
        years.write(self._usage, days)

    def round(self, requests: Requests) -> dict[str, _Cost]:
        """What a rebuild took and each of the three runs."""
        _, history = open_record(read_settings(self._environ).record, Clock())
        costs = {REBUILD: _cost(requests, lambda: history.rebuild(_unwatched))}
        app = App({**self._environ, "USAGE_CACHE_CONTAINER": f"cache-{uuid.uuid4().hex}"}, Clock())
        for outcome, total in ((TAKEN, 7), (REVISED, 8), (UNCHANGED, 8)):
            if outcome != TAKEN:
                time.sleep(_SECOND_AND_MORE)
            self._world.document = years.document(datetime.now(UTC).date(), total)
            costs[outcome] = _cost(requests, partial(_run, app, outcome))
        self._put_back()
        return costs

    def _put_back(self) -> None:
        today = day_prefix(datetime.now(UTC).date())
        for blob in list(self._usage.list_blobs(name_starts_with=today)):
            self._usage.delete_blob(blob.name)
        for blob in list(self._history.list_blobs()):
            self._history.delete_blob(blob.name)


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on the record."""
    ages, rounds = ((1, 30), 1) if quick else ((1, 365, 3650), 3)
    done: _Done = {(what, days): [] for what in (TAKEN, REVISED, UNCHANGED, REBUILD) for days in ages}
    logging.getLogger("shared").addHandler(logging.NullHandler())  # what came of a run is looked at here
    with ExitStack() as stack:
        connection = azurite.connection_string
        service = stack.enter_context(BlobServiceClient.from_connection_string(connection))
        simulator = stack.enter_context(Simulator())
        stages = {days: _Stage(azurite, service, simulator, days) for days in ages}
        requests = stack.enter_context(counting(azurite))
        if not quick:
            stages[ages[0]].round(requests)  # imports what is imported when first needed
        for _ in range(rounds):
            for days, stage in stages.items():
                for what, cost in stage.round(requests).items():
                    done[what, days].append(cost)
    runs = Table([_row(key, done) for key in done if key[0] != REBUILD], "a run of the timer")
    rebuilds = Table([_row(key, done) for key in done if key[0] == REBUILD], "a rebuild of the history")
    first, last = ages[0], ages[-1]
    reading = (
        f"A run at {last:,} days of record makes {_requests(done[TAKEN, last])} requests for a new day and"
        f" {_requests(done[UNCHANGED, last])} for a document that has not changed, against"
        f" {_requests(done[TAKEN, first])} and {_requests(done[UNCHANGED, first])} at {first}; it takes"
        f" {_times((TAKEN, last), done).median:.1f} and {_times((UNCHANGED, last), done).median:.1f} times as"
        f" long, {_seconds(done[TAKEN, last]):.1f} and {_seconds(done[UNCHANGED, last]):.1f} seconds. A"
        f" rebuild takes {_seconds(done[REBUILD, last]):.1f} seconds there."
    )
    return Section("What does the record cost as it grows?", METHOD, [runs, rebuilds], reading)


def _run(app: App, outcome: str) -> None:
    """One run of the timer; raises RuntimeError when something else came of it."""
    came = app.take_snapshot()["outcome"]
    if came != outcome:
        raise RuntimeError(f"a run that was to be {outcome} is {came}")


def _unwatched(found: Iterator[Found], _: int) -> Iterable[Found]:
    return found


def _cost(requests: Requests, work: Callable[[], object]) -> _Cost:
    before, began = requests.count, time.perf_counter()
    work()
    return _Cost(requests.count - before, time.perf_counter() - began)


def _times(key: tuple[str, int], done: _Done) -> Spread:
    """How many times as long as at the least age."""
    first = next(found for (what, _), found in done.items() if what == key[0])
    return ratio([each.seconds for each in done[key]], [each.seconds for each in first])


def _seconds(costs: list[_Cost]) -> float:
    return spread(each.seconds for each in costs).median


def _requests(costs: list[_Cost]) -> str:
    return f"{spread(each.requests for each in costs):,.0f}"


def _row(key: tuple[str, int], done: _Done) -> dict[str, str]:
    what, days = key
    return {
        "outcome": what,
        "days of record": f"{days:,}",
        "seconds, times the least": f"{_times(key, done):.2f}",
        "requests": _requests(done[key]),
        "seconds": f"{_seconds(done[key]):.3f}",
    }
