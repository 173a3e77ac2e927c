"""A year of the record: the whole app on real parts, in simulated time, with whatever may go wrong."""

import base64
import hashlib
import json
import logging
import re
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any, ClassVar, NamedTuple

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dev.azurite import Azurite
from dev.simulator import Exchange, Service, Simulator
from shared.app import App, open_record
from shared.clock import Clock
from shared.configuration import read_settings
from shared.errors import UsageSummaryError
from shared.run import Outcome
from tests.conftest import shared_name
from tests.storage_proxy import Fault, Plan, Request, StorageProxy, failing, no_faults
from tests.threads import settle

FILES = "usagesummary.ndjson", "usagesummary.csv", "latest.json"
MANIFEST = "manifest.json"
EMAILS = "regnskab@nordlys.example", "счета@nordlys.example"
COLUMNS = [
    "snapshotDate",
    "fetchedAt",
    "billingStartDate",
    "billingEndDate",
    "totalCost",
    "currencyCode",
    "currencyLocale",
    "customersOverBudget",
    "customersTrendingOver",
    "customersWithUsageBasedSubscription",
    "lastModifiedDate",
    "resourceId",
    "resourceName",
    "schemaVersion",
    "sourceBlob",
]

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
QUIET = timedelta(seconds=140)
"""After this nothing that has failed keeps anybody from asking."""
SURE_OF_MIDNIGHT = timedelta(minutes=5)
"""So far from midnight no clock of an instance is wrong about the day."""
GUESSES = timedelta(seconds=55)
"""An instance whose clock is wrong by less than this finds today's answer even then."""


# What the files are to be, made by other means than the app's own.


def number(text: str) -> str:
    return f"\ue000{text}\ue001"


def parse(text: bytes) -> Any:  # noqa: ANN401  # any JSON
    """JSON, its numbers marked texts."""
    return json.loads(text, parse_int=number, parse_float=number)


def unparse(value: Any) -> str:  # noqa: ANN401  # any JSON
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace('"\ue000', "").replace('\ue001"', "")


def day_in(name: str) -> date:
    return date(*map(int, name.split("/")[2:5]))


def row(name: str, snapshot: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
    summary = snapshot["usageSummary"]
    cells = {column: summary.get(column) for column in COLUMNS}
    for column in ("billingStartDate", "billingEndDate"):
        cells[column] = cells[column] and cells[column][:10]
    return cells | {
        "snapshotDate": str(day_in(name)),
        "fetchedAt": snapshot["fetchedAt"],
        "schemaVersion": number("1"),
        "sourceBlob": name,
    }


def cell(value: str | None) -> str:
    text = (value or "").strip("\ue000\ue001")
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"\r\n]', text) else text


def in_order(names: Iterable[str]) -> list[str]:
    """The first snapshot of a day before its revisions."""
    return sorted(names, key=lambda name: (day_in(name), name.split("/")[5].split(".")[1:-1]))


def rebuilt(blobs: dict[str, bytes]) -> dict[str, bytes]:
    """The files but for the manifest, of the dated blobs by name."""
    rows = {}
    for name in in_order(blobs):
        found = row(name, parse(blobs[name]))
        rows[found["snapshotDate"], found["billingStartDate"] or ""] = found
    kept = [rows[key] for key in sorted(rows)]
    table = [COLUMNS, *([each[column] for column in COLUMNS] for each in kept)]
    return {
        "usagesummary.ndjson": "".join(f"{unparse(each)}\n" for each in kept).encode(),
        "usagesummary.csv": "".join(f"{','.join(map(cell, line))}\n" for line in table).encode(),
        "latest.json": blobs[in_order(blobs)[-1]],
    }


def days_between(days: Iterable[date]) -> list[date]:
    """Those from the first to the last that are not among them."""
    present = set(days)
    first = min(present)
    return [each for n in range((max(present) - first).days) if (each := first + n * DAY) not in present]


# What Partner Center says.


@dataclass
class Figures:
    """The usage summary as it moves on."""

    day: date
    number: int = 0
    fetch: int = 0
    total: str = "120.5682999999995904716"
    name: str = "Nordlys"
    rest: str = ""

    def move(self, news: str) -> None:
        self.fetch += 1
        self.number += news not in {"nothing", "etag"}
        match news:
            case "figure":
                self.total = f"{self.number * 37}.{self.number:025}"
            case "digits":
                self.total = ["9" * 30, "1e5", "-0.50", "1E-7", "0", "12.0"][self.number % 6]
            case "turn":
                self.day += 30 * DAY
                self.total = "3"
            case "shape":
                self.name = ['Ærø, "Nord"', "two\nlines", "Северное 北光 نور", "a\r\nb", " x "][
                    self.number % 5
                ]
                self.rest = ['"customersOverBudget":null,', "", '"currencyCode":"DKK",'][self.number % 3]

    def document(self) -> bytes:
        return (
            f'{{"resourceId":"5b0c4c8e","resourceName":{json.dumps(self.name)},"totalCost":{self.total},'
            f'"emailsToNotify":{json.dumps(EMAILS, ensure_ascii=False)},{self.rest}"customersTrendingOver":0,'
            f'"billingStartDate":"{self.day}T00:00:00-07:00","lastModifiedDate":"{self.day}",'
            f'"attributes":{{"objectType":"PartnerUsageSummary","etag":"{self.fetch}"}}}}'
        ).encode()


# Time, and what happens in it.


NAP, SHORT_NAP = 4.0, 0.3
"""Seconds: who waits for the dead does not look too often; for the living, time flies less."""


@dataclass
class Time:
    """One instant for all, which moves when somebody sleeps; never less than `nap` seconds."""

    instant: datetime
    nap: float = NAP

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.instant += timedelta(seconds=max(seconds, self.nap))

    def clock(self, skew: timedelta, began: float) -> Clock:
        """An instance's clocks: wrong by `skew`, and monotonic since any second."""
        return Clock(lambda: self.instant + skew, lambda: self.instant.timestamp() - began, self.sleep)


class Gap(NamedTuple):
    """How long nothing happens: seconds or, with days, until so many seconds after (or before) a midnight."""

    days: int
    seconds: int


class Call(NamedTuple):
    """A call of Partner Center, and by how much an app may be wrong about its instant."""

    at: datetime
    document: bytes
    early: timedelta
    late: timedelta


@dataclass(frozen=True)
class Ran:
    """A run that has ended: what it said, or None where it failed."""

    outcome: Outcome | None

    @property
    def is_good(self) -> bool:
        return self.outcome is not None

    @property
    def said(self) -> object:
        return None if self.outcome is None else self.outcome["outcome"]

    @property
    def has_snapshot(self) -> bool:
        return self.said not in {None, "no-usage-data"}


class Instance:
    """A process, as far as storage can tell: killed and started anew behind the same proxy."""

    def __init__(self, time: Time, proxy: StorageProxy, environ: dict[str, str]) -> None:
        self.proxy = proxy
        self._time = time
        self._environ = environ | {"AzureWebJobsStorage": proxy.connection_string}
        self._starts = count(1)
        self.start(timedelta())

    def start(self, skew: timedelta) -> None:
        self.skew = skew
        self.clock = self._time.clock(skew, self._time.instant.timestamp() - 1000.0 * next(self._starts))
        self.app = App(self._environ, self.clock)
        self.record = read_settings(self._environ).record


class Lines(logging.Handler):
    """The app's log, and how many lines of an event each thread has logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.counts: Counter[tuple[int, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.counts[threading.get_ident(), json.loads(self.texts[-1])["event"]] += 1

    def mine(self) -> tuple[int, int]:
        """How many runs of this thread have failed, and how many not."""
        thread = threading.get_ident()
        return self.counts[thread, "snapshot.failed"], self.counts[thread, "snapshot.done"]


@dataclass
class Ground:
    """What all lives of the record stand on."""

    simulator: Simulator
    azurite: Azurite
    service: BlobServiceClient
    environ: dict[str, str]
    lines: Lines


class Life:
    """A record from its first day on, and what has to be true of it."""

    def __init__(self, ground: Ground, began: datetime) -> None:
        self.ground = ground
        self.world = ground.simulator.world
        self.time = Time(began)
        self.figures = Figures(began.date())
        self.calls: dict[str, Call] = {}
        self.written: dict[str, tuple[str, bytes]] = {}
        """The dated blobs: ETag and content of each at its first appearance."""
        self.good_days: set[date] = set()
        self.earlier: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.began, self.last_ran, self.runs = began, began, 0
        self._doubt = timedelta()
        self._is_alone = True
        self.requests = 0
        """Of storage, by the last run."""
        self.wrote: Counter[str] = Counter()
        """How many blobs it has written, by container of the record."""
        self._open = ExitStack()
        own = uuid.uuid4().hex[:12]
        environ = ground.environ | {
            f"USAGE_{name}_CONTAINER": f"{name.lower()}-{own}" for name in ("CACHE", "SNAPSHOT", "HISTORY")
        }
        self.cache, self.usage, self.history = (
            ground.service.get_container_client(environ[f"USAGE_{name}_CONTAINER"])
            for name in ("CACHE", "SNAPSHOT", "HISTORY")
        )
        self.answer = shared_name(environ)
        self.proxies = [
            self._open.enter_context(StorageProxy(ground.azurite, lambda: self.time.instant))
            for _ in range(2)
        ]
        self.instances = [Instance(self.time, proxy, environ) for proxy in self.proxies]
        self.world.choose("healthy")
        self.world.clock = lambda: self.time.instant
        self.world.observer = self._called
        self.world.document = self.figures.document()
        self.world.consent()

    def close(self) -> None:
        self._open.close()

    def pass_time(self, gap: Gap) -> None:
        midnight = self.time.instant.replace(hour=0, minute=0, second=0, microsecond=0)
        then = midnight + timedelta(days=gap.days, seconds=gap.seconds)
        if gap.days == 0:
            then = self.time.instant + timedelta(seconds=gap.seconds)
        self.time.instant = max(then, self.time.instant + SECOND)

    def say(self, news: str) -> None:
        """Partner Center has news."""
        self.figures.move(news)
        self.world.document = self.figures.document()

    def run(self, who: Instance, plan: Plan = no_faults) -> Ran:
        """A run of one instance."""
        is_healthy = plan is no_faults and self.world.scenario == "healthy"
        must_do = is_healthy and self._has_peace(who)
        self._begin({who: plan})
        ran = self._take_snapshot(who)
        self._end([ran])
        assert ran.is_good or not must_do, self.ground.lines.texts[-3:]
        if is_healthy and ran.is_good:
            assert ran.said not in {"unchanged", "no-usage-data"} or not self.wrote
            assert (ran.said in {"taken", "revised"}) == (self.usage.container_name in self.wrote)
        return ran

    def run_while(self, scenario: str, who: Instance) -> None:
        """A run while something is wrong with Partner Center, or with the sign-in before it."""
        self.world.choose(scenario)
        self.run(who)
        self.world.choose("healthy")

    def run_both(self, one: Instance, other: Instance, others_plan: Plan) -> None:
        """Two runs at the same moment, of two instances or of one."""
        must_do = others_plan is no_faults and self._has_peace(one) and self._has_peace(other)
        self.time.nap = SHORT_NAP
        self._begin({one: no_faults, other: others_plan})
        with ThreadPoolExecutor(2) as pool:
            rans = list(pool.map(self._take_snapshot, [one, other]))
        self._end(rans)
        self.time.nap = NAP
        assert any(ran.is_good for ran in rans) or not must_do, self.ground.lines.texts[-3:]

    def _has_peace(self, who: Instance) -> bool:
        """Whether nothing of before, and no clock, keeps a run from its work."""
        midnight = self.time.instant.replace(hour=0, minute=0, second=0, microsecond=0)
        from_midnight = min(self.time.instant - midnight, midnight + DAY - self.time.instant)
        knows_the_day = abs(who.skew) <= GUESSES or from_midnight > SURE_OF_MIDNIGHT
        return knows_the_day and self.time.instant - self.last_ran >= QUIET

    def _begin(self, plans: dict[Instance, Plan]) -> None:
        self._is_alone = self.time.nap == NAP
        self._doubt = timedelta() if self._is_alone else timedelta(seconds=6)
        for who, plan in plans.items():
            who.proxy.follow(plan)
            if plan is not no_faults:  # an instance that storage tells no time goes by its own clock
                self._doubt = max(self._doubt, abs(who.skew) + timedelta(seconds=6))

    def _end(self, rans: list[Ran]) -> None:
        settle()
        self._look()
        self.last_ran = self.time.instant
        if all(ran.has_snapshot for ran in rans):
            self.check_history()

    def _take_snapshot(self, who: Instance) -> Ran:
        self.runs += 1
        lines = self.ground.lines
        failed, done = lines.mine()
        try:
            ran = Ran(who.app.take_snapshot())
        except UsageSummaryError:
            ran = Ran(None)
        assert lines.mine() == ((failed, done + 1) if ran.is_good else (failed + 1, done))
        if ran.outcome is not None and ran.has_snapshot:
            fetched_at = ran.outcome["fetchedAt"]
            assert isinstance(fetched_at, datetime)
            self.good_days.add(fetched_at.date())
        return ran

    def _called(self, exchange: Exchange) -> None:
        """Partner Center has been asked, and gives what it has."""
        if exchange.service is Service.PARTNER_CENTER and Service.PARTNER_CENTER not in self.world.faults:
            request_id, grain = exchange.headers["ms-requestid"], 2 * SECOND  # storage tells whole seconds
            doubt = self._doubt
            self.calls[request_id] = Call(self.time.instant, self.world.document, grain + doubt, doubt)

    def _look(self) -> None:
        """Take note of what has been written; the dated blobs each once."""
        requests = [request for proxy in self.proxies for request in proxy.requests]
        self.requests = len(requests)
        self.wrote = Counter(request.container for request in requests if request.created)
        del self.wrote[str(self.cache.container_name)]
        container = self.usage.container_name
        created = {each.blob: each for each in requests if each.created and each.container == container}
        assert len(created) == self.wrote[str(container)], "one is written again"
        for name in in_order(created):
            self._appeared(created[name])
        for proxy in self.proxies:
            proxy.requests.clear()
            proxy.follow()
        self.world.exchanges.clear()

    def _appeared(self, request: Request) -> None:
        name = request.blob
        assert name not in self.written, f"{name} is written again"
        assert request.headers["if-none-match"] == "*"
        assert not [each for each in EMAILS if each.encode() in request.body]
        snapshot = parse(request.body)
        call = self.calls[snapshot["requestId"]]
        said = parse(call.document)
        del said["emailsToNotify"]
        assert unparse(snapshot["usageSummary"]) == unparse(said)
        fetched_at = datetime.fromisoformat(snapshot["fetchedAt"])
        assert call.at - call.early < fetched_at <= call.at + call.late
        assert fetched_at.date() == day_in(name) == date.fromisoformat(snapshot["snapshotDate"])
        others = in_order(each for each in self.written if day_in(each) == day_in(name))
        assert name.endswith(f".{fetched_at:%H%M%S}Z.json" if others else "/usagesummary.json")
        if others and self._is_alone:
            last = parse(self.written[others[-1]][1])["usageSummary"]
            said["attributes"].pop("etag")
            last["attributes"].pop("etag")
            assert unparse(last) != unparse(said)
        self.written[name] = request.etag, request.body

    def check_history(self) -> None:
        """The files are what an independent rebuild makes, and the manifest tells the truth about them."""
        expected = rebuilt({name: content for name, (_, content) in self.written.items()})
        found = {}
        for name in (*FILES, MANIFEST):
            blob = self.history.download_blob(name)
            found[name] = blob.readall()
            self.earlier.setdefault(name, (found[name], dict(blob.properties.metadata)))
        manifest = parse(found.pop(MANIFEST))
        assert found == expected
        days = {day_in(name) for name in self.written}
        generated = datetime.fromisoformat(manifest.pop("generatedAt"))
        assert self.began - DAY < generated <= self.time.instant + DAY
        assert manifest == {
            "schemaVersion": number("1"),
            "dataset": "usagesummary",
            "firstDate": str(min(days)),
            "lastDate": str(max(days)),
            "rows": number(str(expected["usagesummary.ndjson"].count(b"\n"))),
            "missingDates": list(map(str, days_between(days))),
            "files": [
                {
                    "name": name,
                    "size": number(str(len(expected[name]))),
                    "md5": base64.b64encode(
                        hashlib.md5(expected[name], usedforsecurity=False).digest()
                    ).decode(),
                }
                for name in FILES
            ],
        }

    def bring(self, chosen: int) -> None:
        """Bring in a snapshot of a missing day by hand, or of one before the first; then rebuild."""
        if not self.written:
            return
        days = {day_in(name) for name in self.written}
        missing = [*days_between(days), min(days) - DAY]
        day = missing[chosen % len(missing)]
        self.earlier.clear()  # a history of before does not know this one, and a run does not look for it
        name = f"usagesummary/v1/{day:%Y/%m/%d}/usagesummary.json"
        content = (
            f'{{"schemaVersion":1,"snapshotDate":"{day}","fetchedAt":"{day}T12:00:00Z","requestId":"r",'
            f'"correlationId":"c","usageSummary":{{"totalCost":{chosen}.10,"byHand":true}}}}'
        ).encode()
        etag = self.usage.upload_blob(name, content, overwrite=False).get_blob_properties().etag
        self.written[name] = str(etag), content
        _, history = open_record(self.instances[0].record, self.instances[0].clock)
        history.rebuild(lambda found, _: found)
        self._look()
        self.check_history()

    def harm(self, name: str, how: str) -> None:
        """Somebody lays hands on a file of the history, or deletes what is no record at all."""
        try:
            match how:
                case "all":
                    self.history.delete_container()
                case "cache":
                    self.cache.delete_blob(self.answer)
                case "delete":
                    self.history.delete_blob(name)
                case "cut":
                    blob = self.history.download_blob(name)
                    content, metadata = blob.readall(), blob.properties.metadata
                    self.history.upload_blob(name, content[:-9], overwrite=True, metadata=metadata)
                case "write over":
                    self.history.upload_blob(name, b"\xff nonsense", overwrite=True)
                case "restore" if name in self.earlier:
                    content, metadata = self.earlier[name]
                    self.history.upload_blob(name, content, overwrite=True, metadata=metadata)
        except ResourceNotFoundError:
            pass

    def end(self) -> None:
        """After one last good run: everything that the record promises."""
        self.world.choose("healthy")
        self.pass_time(Gap(2, 12 * 3600))
        who = self.instances[0]
        who.start(timedelta())
        assert self.run(who).has_snapshot
        stored = {each.name: str(each.etag).strip('"') for each in self.usage.list_blobs()}
        assert stored == {name: etag.strip('"') for name, (etag, _) in self.written.items()}
        for name, (_, content) in self.written.items():
            assert self.usage.download_blob(name).readall() == content
        days = {day_in(name) for name in self.written}
        assert self.good_days <= days
        assert self.time.instant.date() in days
        assert not self.world.complaints
        said = "\n".join(self.ground.lines.texts)
        assert self.world.canary not in said
        for email in EMAILS:
            assert email not in said
            assert email.encode() not in b"".join(
                self.history.download_blob(name).readall() for name in FILES
            )

    @property
    def days(self) -> int:
        return (self.time.instant - self.began).days


@pytest.fixture
def ground(
    simulator: Simulator,
    azurite: Azurite,
    service: BlobServiceClient,
    environ: dict[str, str],
    at_once: None,  # noqa: ARG001  # a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Ground]:
    monkeypatch.setattr("shared.consent.WRITE_BACK_AGE", 30 * DAY)  # a fifth of a run, and not its subject
    with listening("shared") as lines:
        yield Ground(simulator, azurite, service, environ, lines)


@contextmanager
def listening(name: str) -> Iterator[Lines]:
    """All lines of a logger, and nobody else hears them: a year's are too many for a report."""
    lines, log = Lines(), logging.getLogger(name)
    level, log.propagate = log.level, False
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    try:
        yield lines
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
        log.propagate = True


DAYS = st.sampled_from([1, 2, 4, 7, 11, 26])
GAPS = st.one_of(
    st.builds(Gap, DAYS, st.sampled_from([300, 5, 43200, 80000])),
    st.builds(Gap, DAYS, st.sampled_from([-70, -61, -30, -2, -1, 0, 1, 2, 30, 62])),
    st.builds(Gap, st.just(0), st.sampled_from([3600, 3599, 7300, 20000, 20, 200])),
)
NEWS = st.sampled_from(["figure", "nothing", "digits", "etag", "turn", "shape"])
WHO = st.sampled_from([0, 1])
PAIRS = st.sampled_from([(0, 1), (1, 0), (0, 0)])
FAULTS = st.sampled_from([Fault.DROP, Fault.LOSE, Fault.ERROR_500, Fault.ERROR_503])
OTHERS_FAULTS = st.sampled_from([Fault.NONE, Fault.LOSE, Fault.ERROR_503, Fault.DIE])
NUMBERS = st.integers(1, 22)
SKEWS = st.sampled_from([0, 7, -20, 45, 180, -180]).map(lambda seconds: timedelta(seconds=seconds))
SCENARIOS = [
    "down",
    "no-usage-data",
    "throttled",
    "forbidden",
    "html",
    "half-document",
    "connection-reset",
    "no-usage-data-400",
    "entra-down",
    "consent-revoked",
    "vault-down",
    "no-total",
]
HARMS = ["delete", "cut", "write over", "restore", "all", "cache"]


class Year(RuleBasedStateMachine):
    """Some days of a record's life after another, whatever they bring."""

    ground: ClassVar[Ground]
    lives: ClassVar[list[Life]]

    @initialize(began=st.sampled_from(["2026-11-21T00:05:02", "2027-12-30T23:05:00", "2028-02-01T12:00:00"]))
    def begin(self, began: str) -> None:
        self.life = Life(self.ground, datetime.fromisoformat(began).replace(tzinfo=UTC))
        self.lives.append(self.life)

    def teardown(self) -> None:
        if not hasattr(self, "life"):
            return
        try:
            if sys.exception() is None:
                self.life.end()
        finally:
            self.life.close()

    def pass_by(self, gap: Gap, news: str) -> None:
        self.life.pass_time(gap)
        self.life.say(news)

    @rule(then=st.tuples(GAPS, NEWS, WHO))
    def a_run(self, then: tuple[Gap, str, int]) -> None:
        self.pass_by(*then[:2])
        self.life.run(self.life.instances[then[2]])

    @rule(gap=GAPS, scenario=st.sampled_from(SCENARIOS), who=WHO)
    def upstream_fails(self, gap: Gap, scenario: str, who: int) -> None:
        self.pass_by(gap, "figure")
        self.life.run_while(scenario, self.life.instances[who])

    @rule(gap=GAPS, news=NEWS, who=WHO, fault=FAULTS, first=NUMBERS, times=st.sampled_from([1, 2, 2, 3, 99]))
    def storage_fails(self, gap: Gap, news: str, who: int, fault: Fault, first: int, times: int) -> None:
        self.pass_by(gap, news)
        self.life.run(self.life.instances[who], failing(fault, first, times))

    @rule(gap=GAPS, news=NEWS, who=WHO, first=NUMBERS, skew=SKEWS)
    def killed_and_replaced(self, gap: Gap, news: str, who: int, first: int, skew: timedelta) -> None:
        self.pass_by(gap, news)
        self.life.run(self.life.instances[who], failing(Fault.DIE, first))
        self.life.instances[who].start(skew)

    @rule(gap=GAPS, news=NEWS, pair=PAIRS, fault=OTHERS_FAULTS, first=NUMBERS)
    def two_runs_at_once(self, gap: Gap, news: str, pair: tuple[int, int], fault: Fault, first: int) -> None:
        self.pass_by(gap, news)
        one, other = (self.life.instances[each] for each in pair)
        self.life.run_both(one, other, no_faults if fault is Fault.NONE else failing(fault, first, 2))
        if fault is Fault.DIE:
            other.start(timedelta())

    @rule(chosen=st.integers(0, 99), news=NEWS)
    def brought_in_by_hand_and_rebuilt(self, chosen: int, news: str) -> None:
        self.life.say(news)
        self.life.bring(chosen)

    @rule(name=st.sampled_from([*FILES, MANIFEST]), how=st.sampled_from(HARMS))
    def harmed_by_hand(self, name: str, how: str) -> None:
        self.life.harm(name, how)


HABITS = profile(
    max_examples=2,  # the first has a plain run a day; the second lives months of everything
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # shrinking would take an hour
    suppress_health_check=list(HealthCheck),
)
LONGER = profile(HABITS, max_examples=8, stateful_step_count=104, derandomize=False)
NIGHTLY = pytest.mark.nightly, pytest.mark.timeout(1800)


# The SDK leaves the connection of a read that was refused twice to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("habits", "times", "days"),
    [
        pytest.param(HABITS, 1, 60, marks=pytest.mark.timeout(900)),
        pytest.param(LONGER, 6, 365, marks=NIGHTLY),
    ],
    ids=["months", "years"],
)
def test_whatever_happens_in_a_year_the_record_is_whole_and_says_where_it_is_not(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    habits: profile,
    times: int,
    days: int,
) -> None:
    lives: list[Life] = []
    monkeypatch.setattr(Year, "ground", ground, raising=False)
    monkeypatch.setattr(Year, "lives", lives, raising=False)
    for _ in range(times):
        run_state_machine_as_test(Year, settings=habits)
    record_property("days", sum(life.days for life in lives))
    record_property("runs", sum(life.runs for life in lives))
    assert max(life.days for life in lives) >= days, [life.days for life in lives]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault.DIE, 1),
        pytest.param(Fault.LOSE, 2, marks=pytest.mark.nightly),
        pytest.param(Fault.LOSE, 1, marks=pytest.mark.nightly),
        pytest.param(Fault.DROP, 2, marks=pytest.mark.nightly),
        pytest.param(Fault.ERROR_503, 2, marks=pytest.mark.nightly),
    ],
)
def test_whichever_request_fails_or_is_a_runs_last_the_next_run_finishes_its_work(
    ground: Ground, fault: Fault, times: int
) -> None:
    with closing(Life(ground, datetime(2026, 11, 24, 0, 5, tzinfo=UTC))) as life:
        who, requests, first = life.instances[0], 1, 0
        assert life.run(who).said == "taken"
        while requests >= first:
            first += 1
            life.pass_time(Gap(1, 300))
            life.say("turn" if first % 2 else "figure")
            life.run(who, failing(fault, first, times))
            if fault is Fault.DIE:
                who.start(timedelta())
            requests, written = life.requests, life.wrote
            is_done = written[str(life.history.container_name)] == len([*FILES, MANIFEST])
            left = "unchanged" if is_done else "repaired"
            life.pass_time(Gap(0, 3600))
            assert life.run(who).said == (left if written[str(life.usage.container_name)] else "taken")
        assert first > 15
        life.end()
