"""Every fault of the table in every state: what callers see, how it ends, that nothing is lost or said."""

import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from azure.storage.blob import BlobServiceClient

from dev.azurite import ACCOUNT_KEY, Azurite
from dev.simulator import SCENARIOS, Simulator, World
from shared.app import App
from shared.errors import UsageSummaryError
from shared.problems import Response
from tests.clients import blob_service
from tests.conftest import ManualClock, forget_this_machine
from tests.faults import TABLE
from tests.faults.acts import scenarios_of
from tests.faults.case import NO_DATA, Case, Recovery, Seen, State
from tests.faults.gate import Gate
from tests.faults.page import PAGE, page
from tests.faults.scene import AGE, LATER, NOON, STORED, Certificates, Copy, Past, Scene
from tests.storage_proxy import StorageProxy
from tests.threads import PATIENCE, settle

BUDGET = 60 + 6  # seconds: a refresh, and a few for a caller who has to wait for it
HARMLESS = {"healthy", "bom", "no-bom"}
PERSONAL = "nordlys.example"  # the addresses in the document

CELLS = [
    pytest.param(case, state, id=f"{place}: {case.what}, {state.value}")
    for place, cases in TABLE.items()
    for case in cases
    for state in State
]


@pytest.fixture(scope="session")
def certificates(served: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority, foreign = trustme.CA(), trustme.CA()
    bundle = tmp_path_factory.mktemp("faults") / "bundle.pem"
    bundle.write_bytes(Path(served.ca_bundle).read_bytes() + authority.cert_pem.bytes())
    return Certificates(
        str(bundle),
        authority.issue_cert("127.0.0.1"),
        authority.issue_cert("127.0.0.1", not_after=datetime(2025, 1, 1, tzinfo=UTC)),
        foreign.issue_cert("127.0.0.1"),
    )


@pytest.fixture(scope="session")
def past(served: Simulator, azurite: Azurite) -> Past:
    """What an instance has recorded yesterday, and shared some hours ago."""
    world, clock = served.world, ManualClock(NOON - timedelta(days=1))
    vars(world).update(vars(World()))
    world.clock, world.document = (lambda: clock.instant), STORED
    with StorageProxy(azurite, world.clock) as proxy, pytest.MonkeyPatch.context() as patch:
        forget_this_machine(patch)
        environ = {
            **served.settings,
            "PARTNER_CENTER_REFRESH_TOKEN_SECRET": "",
            "PARTNER_CENTER_REFRESH_TOKEN": world.refresh_token(),
            "AzureWebJobsStorage": proxy.connection_string,
            "USAGE_CACHE_CONTAINER": "faults-past-cache",
            "USAGE_SNAPSHOT_CONTAINER": "faults-past-usage",
            "USAGE_HISTORY_CONTAINER": "faults-past-history",
        }
        app = App(environ, clock.clock())
        app.take_snapshot()
        clock.instant = NOON - AGE
        app.take_snapshot(dry_run=True)
        settle()
        with blob_service(azurite.connection_string) as service:
            snapshot, shared = (
                Copy.of(service.get_container_client(environ[f"USAGE_{each}_CONTAINER"]))
                for each in ("SNAPSHOT", "CACHE")
            )
    return Past(snapshot, shared)


@pytest.fixture
def scene(
    past: Past,
    certificates: Certificates,
    simulator: Simulator,
    environ: dict[str, str],
    service: BlobServiceClient,
    azurite: Azurite,
    at_once: None,  # noqa: ARG001  # a fixture
) -> Iterator[Scene]:
    with Gate(simulator.port) as gate:
        scene = Scene(environ, simulator, service, azurite, past, certificates, gate)
        with scene.proxy:
            yield scene
            settle()
            scene.patch.undo()


def test_the_table_has_every_scenario_that_is_a_fault() -> None:
    chosen = {name for cases in TABLE.values() for case in cases for name in scenarios_of(case.begin)}
    assert chosen == SCENARIOS.keys() - HARMLESS


def test_the_page_says_what_the_tests_assert() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python3 -m dev reliability writes it"


@pytest.mark.parametrize(("case", "state"), CELLS)
def test_a_fault_costs_what_the_table_says_and_nothing_is_lost_said_or_left(
    case: Case,
    state: State,
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    scene.prepare(gate=case.gate, is_stale=state is State.STALE)
    began = time.monotonic()
    case.begin(scene)
    app = scene.start()

    response = case.ask(scene, app)

    seen = case.seen(state)
    assert_seen(response, seen, scene)
    assert scene.took - scene.stood_still <= BUDGET
    if seen.code:
        assert_told_when(response, seen, case.effect.recovery, time.monotonic() - began)
    if case.effect.recovery.rests:
        assert_nobody_asks_again(scene, app, response, seen)

    case.end(scene)
    scene.world.document = LATER
    assert_recovers(scene, app, case.effect.recovery)
    assert_nothing_is_lost(scene)
    case.proof(scene)
    if state is State.STALE:
        assert_a_run_works(scene, app)
        assert_no_connection_is_open(scene)
    assert_no_thread_is_left()
    problem = response.body.decode() if seen.code else ""
    assert_nothing_is_said(scene, "".join([problem, caplog.text, *capfd.readouterr()]))


def assert_seen(response: Response, seen: Seen, scene: Scene) -> None:
    problem = json.loads(response.body) if response.status != 200 else {}
    assert (response.status, problem.get("code", "")) == (seen.status, seen.code)
    if problem:
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["Cache-Control"] == "no-store"
        assert (problem.get("upstreamStatus"), problem.get("upstreamCode")) == (seen.upstream, seen.number)
        assert ("requestId" in problem) == (seen.upstream is not None)
        return
    assert response.body == seen.document
    age, how = int(response.headers["Age"]), response.headers["Cache-Status"]
    passed = (scene.clock.instant - NOON).total_seconds()
    least = AGE.total_seconds() if seen.document == STORED else 0
    assert least <= age <= least + passed + 1  # storage's clock has whole seconds
    assert how.removeprefix("usage-summary; ").removesuffix(f"; ttl={3600 - age}") == seen.how


def assert_told_when(response: Response, seen: Seen, recovery: Recovery, passed: float) -> None:
    """Where a date says when, so many of the machine's seconds have passed since then."""
    told = response.headers.get("Retry-After")
    if not seen.waiting_helps:
        assert told is None
    elif recovery.retry_after is None:
        assert 1 <= int(told or 0) <= max(1, recovery.seconds)
    else:
        assert -2 - passed <= int(told or 0) - recovery.retry_after <= 2


def assert_nobody_asks_again(scene: Scene, app: App, response: Response, seen: Seen) -> None:
    """The next caller sees the same, and so does a run, which fails where callers do."""
    asked = len(scene.world.exchanges)
    again = scene.ask(app)
    assert again.status == response.status
    if not seen.code:
        assert again.body == response.body
    else:
        assert json.loads(again.body)["code"] == seen.code
    if seen.code and seen.code != NO_DATA:
        with pytest.raises(UsageSummaryError):
            app.take_snapshot()
    assert len(scene.world.exchanges) == asked


def assert_recovers(scene: Scene, app: App, recovery: Recovery) -> None:
    """The same app, which has not been started anew, gives what Partner Center says by now."""
    for _ in range(recovery.tries):
        scene.clock.advance(seconds=recovery.seconds / recovery.tries)
        response = scene.ask(app)
    response = scene.ask(app) if recovery.behind else response
    assert (response.status, response.body) == (200, LATER)


def assert_nothing_is_lost(scene: Scene) -> None:
    """What is shared is sound, and another instance finds it; the vault has a token that works."""
    shared = scene.shared.download_blob()
    assert shared.readall() == LATER
    assert not {"owner", "until", "failure"} & (shared.properties.metadata or {}).keys()
    asked = len(scene.world.exchanges)
    assert scene.ask(scene.start()).body == LATER
    assert len(scene.world.exchanges) == asked
    newest = scene.versions[-1]
    token = scene.world.refresh_tokens[newest.value]
    assert (newest.attributes["enabled"], scene.world.refusal(token)) == (True, None)


def assert_a_run_works(scene: Scene, app: App) -> None:
    """Today's snapshot is taken, and yesterday's is still in the history."""
    run = app.take_snapshot()
    assert (run["outcome"], run["rows"], run["missingDates"], run["damaged"]) == ("taken", 2, 0, 0)
    history = scene.container("USAGE_HISTORY_CONTAINER").download_blob("usagesummary.csv").readall().decode()
    rows = [
        (row["snapshotDate"], row["totalCost"]) for row in csv.DictReader(io.StringIO(history, newline=""))
    ]
    assert rows == [("2026-11-20", "1.10"), ("2026-11-21", "130.250")]


def assert_no_connection_is_open(scene: Scene) -> None:
    """None of the app's, once the gate has closed what is behind it."""
    settle()
    ends = time.monotonic() + PATIENCE
    while (found := scene.open_connections()) and time.monotonic() < ends:
        threading.Event().wait(0.01)
    assert found == []


def assert_no_thread_is_left() -> None:
    settle()
    left = [thread for thread in threading.enumerate() if thread.name in {"refresh", "look"}]
    timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
    assert left + [timer for timer in timers if not timer.finished.is_set()] == []


def assert_nothing_is_said(scene: Scene, said: str) -> None:
    canaries = {*scene.world.canaries(), scene.world.canary, ACCOUNT_KEY, PERSONAL}
    assert len(canaries) > 3
    assert {canary for canary in canaries if canary in said} == set()
