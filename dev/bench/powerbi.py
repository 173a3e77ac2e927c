"""What a refresh of the report asks of storage: one file, beside the dated blobs that it is made of."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import requests
from azure.storage.blob import BlobServiceClient, PublicAccess

from dev.azurite import Azurite
from dev.bench import years
from dev.bench.figures import Spread, ratio, spread
from dev.bench.report import Section, Table
from dev.bench.wire import Requests, counting
from shared.app import open_record
from shared.clock import Clock
from shared.drafts import NDJSON, Found
from shared.settings import RecordSettings, StorageConnection

HISTORY, DATED = "the history's one file", "a listing and each dated blob"
_TIMEOUT = 60.0  # seconds

METHOD = """\
Storage's part of a refresh, and not Power BI itself: a client reads, over one connection that it keeps, the \
history's file; or it lists the dated blobs and reads one after the other, as a report on those would have \
to. Azurite answers on this machine. To Azure each request also takes its way through the network, so the \
number of requests says more than the seconds."""


@dataclass(frozen=True)
class _Refresh:
    """What a refresh took."""

    requests: int
    bytes: int
    seconds: float


type _Done = dict[int, dict[str, list[_Refresh]]]
"""By days of record, and by what was read."""


class _Storage:
    """Records of several ages, each with its history, that anybody may read."""

    def __init__(self, stack: ExitStack, azurite: Azurite, ages: Iterable[int]) -> None:
        self._url, connection = azurite.url, azurite.connection_string
        service = stack.enter_context(BlobServiceClient.from_connection_string(connection))
        for days in ages:
            usage, history = f"usage-{days}", f"history-{days}"
            years.write(service.get_container_client(usage), days)
            settings = RecordSettings(StorageConnection(connection), usage, history, None)
            open_record(settings, Clock())[1].rebuild(_unwatched)
            for name in (usage, history):
                service.get_container_client(name).set_container_access_policy({}, PublicAccess.CONTAINER)
        self._session = stack.enter_context(requests.Session())
        self._session.trust_env = False  # nor a proxy
        self._requests: Requests = stack.enter_context(counting(azurite))

    def refresh(self, what: str, days: int) -> _Refresh:
        """Read what a refresh reads."""
        before, began = self._requests.count, time.perf_counter()
        read = self._one_file(days) if what == HISTORY else self._dated_blobs(days)
        seconds = time.perf_counter() - began
        return _Refresh(self._requests.count - before, read, seconds)

    def _one_file(self, days: int) -> int:
        """Bytes of the history's file."""
        return len(self._get(f"history-{days}/{NDJSON}"))

    def _dated_blobs(self, days: int) -> int:
        """Bytes of a listing and of all that is listed; raises RuntimeError if that is not all there is."""
        listed = list(self._list(f"usage-{days}"))
        names = [name for page in listed for name in re.findall(r"<Name>([^<]+)</Name>", page)]
        if len(names) != days:
            raise RuntimeError(f"{len(names)} of {days} blobs are listed")
        return sum(map(len, listed)) + sum(len(self._get(f"usage-{days}/{name}")) for name in names)

    def _list(self, container: str) -> Iterator[str]:
        """The pages of a listing, of 5,000 names at most."""
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "marker": marker}
            page = self._get(container, query).decode()
            yield page
            more = re.search(r"<NextMarker>([^<]+)</NextMarker>", page)
            if more is None:
                return
            marker = more[1]

    def _get(self, path: str, query: dict[str, str] | None = None) -> bytes:
        answer = self._session.get(f"{self._url}/{path}", params=query, timeout=_TIMEOUT)
        answer.raise_for_status()
        return answer.content


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on a refresh of the report."""
    ages, rounds = ((30,), 1) if quick else ((365, 3650), 3)
    done: _Done = {days: {HISTORY: [], DATED: []} for days in ages}
    with ExitStack() as stack:
        storage = _Storage(stack, azurite, ages)
        storage.refresh(DATED, ages[0])  # connects, and lets Azurite warm up
        for _ in range(rounds):
            for days, cases in done.items():
                for what, found in cases.items():
                    found.append(storage.refresh(what, days))
    table = Table([_row(days, what, done) for days, cases in done.items() for what in cases])
    last = ages[-1]
    requests_made = done[last][DATED][0].requests
    reading = (
        f"At {last:,} days of record a refresh reads one file with {done[last][HISTORY][0].requests} request;"
        f" from the dated blobs it would take {requests_made:,} requests and"
        f" {_times(last, DATED, done).median:,.0f} times as long, here."
    )
    return Section("What does one file save a refresh of the report?", METHOD, [table], reading)


def _times(days: int, what: str, done: _Done) -> Spread:
    return ratio(*([each.seconds for each in done[days][case]] for case in (what, HISTORY)))


def _row(days: int, what: str, done: _Done) -> dict[str, str]:
    found = done[days][what]
    return {
        "what is read": what,
        "days of record": f"{days:,}",
        "seconds, times one file's": f"{_times(days, what, done):,.0f}",
        "requests": f"{found[0].requests:,}",
        "kB": f"{found[0].bytes / 1000:,.0f}",
        "ms": f"{1000 * spread(each.seconds for each in found).median:,.1f}",
    }


def _unwatched(found: Iterator[Found], _: int) -> Iterable[Found]:
    return found
