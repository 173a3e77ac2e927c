import asyncio
import json
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ResourceTypes,
    generate_account_sas,
)

from dev.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from dev.simulator import Exchange, Service, Simulator, World
from shared.answers import Result
from shared.app import App
from shared.blobs import Container
from shared.clock import Clock, PassedSeconds
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    NotCachedError,
    RecordError,
    StorageRefusedError,
    UpstreamRefusedError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.events import event
from shared.fleet import Fleet
from shared.freshness import NO_DIRECTIVES, RequestDirectives
from shared.held import Answer
from shared.history import History
from shared.http import Conditions, respond
from shared.outcome import Source
from shared.record import Record
from shared.settings import ClientSecret, Settings
from tests.clients import managed_identity
from tests.conftest import FIELD, ManualClock, beside, events, partner_of, share
from tests.storage_proxy import StorageProxy
from tests.test_deadlines import refusing
from tests.threads import settle

MIDNIGHTS = {
    "0 0 0 * * *": (0.005, 60),
    "0 0 * * * *": (0.005, 60),
    "*/30 * * * * *": (0.005, 60),
    "0 0 0 * * 1-5": (0.005, 60),  # the day that begins is a Monday
    "0 0 0 22 * *": (),  # the day that ends is the 22nd
    "0 0 0 1 * *": (),
    "0 5 * * * *": (),
    "00:01:00": (),
    "": (),
}
"""How many seconds before midnight a run waits for it, by schedule."""

OLD = Answer(b'{"totalCost":1}', datetime.min.replace(tzinfo=UTC), str(uuid.uuid4()), str(uuid.uuid4()))
NO_CACHE, ONLY_IF_CACHED = RequestDirectives(no_cache=True), RequestDirectives(only_if_cached=True)
TODAY = datetime(2026, 11, 21, tzinfo=UTC)
FIRST = "usagesummary/v1/2026/11/21/usagesummary.json"
HISTORY = ["latest.json", "manifest.json", "usagesummary.csv", "usagesummary.ndjson"]


@dataclass
class Place:
    """What instances share: settings, the world, storage, and the clock of all."""

    environ: dict[str, str]
    world: World
    service: BlobServiceClient
    proxy: StorageProxy
    clock: ManualClock
    nowhere: str

    def start(self, **changed: str) -> App:
        return App(self.environ | changed, self.clock.clock())

    @property
    def up(self) -> str:
        return self.environ["AzureWebJobsStorage"]

    @property
    def down(self) -> str:
        return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint=http://{self.nowhere}/{ACCOUNT}"

    @property
    def read_only(self) -> str:
        types, may = ResourceTypes(container=True, object=True), AccountSasPermissions(read=True, list=True)
        until = datetime.now(UTC) + timedelta(hours=1)
        signature = generate_account_sas(ACCOUNT, ACCOUNT_KEY, types, may, until)
        endpoint = f"http://127.0.0.1:{self.proxy.port}/{ACCOUNT}"
        return f"BlobEndpoint={endpoint};SharedAccessSignature={signature}"

    def container(self, setting: str) -> ContainerClient:
        return self.service.get_container_client(self.environ[setting])

    @property
    def record(self) -> Record:
        return Record(beside(self.container("USAGE_SNAPSHOT_CONTAINER")))

    @property
    def cache(self) -> Container:
        return beside(self.container("USAGE_CACHE_CONTAINER"))

    def blobs(self) -> dict[str, tuple[str, bytes]]:
        """The record: ETag and content of every blob in both containers, by name."""
        found = {}
        for setting in ("USAGE_SNAPSHOT_CONTAINER", "USAGE_HISTORY_CONTAINER"):
            client = self.container(setting)
            for each in client.list_blobs() if client.exists() else ():
                found[each.name] = (each.etag, client.download_blob(each.name).readall())
        return found

    def store(self, fetched_at: datetime) -> None:
        """An answer that the fleet has had since then."""
        share(Fleet(self.cache, partner_of(self.environ), Clock()), replace(OLD, fetched_at=fetched_at))

    def calls(self) -> list[Exchange]:
        return [each for each in self.world.exchanges if each.service is Service.PARTNER_CENTER]


@pytest.fixture
def place(
    environ: dict[str, str], simulator: Simulator, service: BlobServiceClient, azurite: Azurite
) -> Iterator[Place]:
    """The app, the world and storage have one clock, which begins at noon."""
    clock, world = ManualClock(TODAY + timedelta(hours=12)), simulator.world
    world.clock = lambda: clock.instant
    world.secrets.clear()
    world.consent()
    with StorageProxy(azurite, world.clock) as proxy, refusing() as nowhere:
        environ["AzureWebJobsStorage"] = proxy.connection_string
        yield Place(environ, world, service, proxy, clock, nowhere)
        settle()


def ask(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return asyncio.run(app.get_usage_summary(directives, str(uuid.uuid4())))


def body(result: Result) -> bytes | None:
    return None if result.answer is None else result.answer.body


def snapshot_of(day: datetime) -> str:
    return f"usagesummary/v1/{day:%Y/%m/%d}/usagesummary.json"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the runs came to: outcomes, then failures."""
    done, failed = (events(caplog, f"snapshot.{name}") for name in ("done", "failed"))
    return [*(line["outcome"] for line in done), *(line["error"] for line in failed)]


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


REQUIRED = """PARTNER_CENTER_TENANT_ID PARTNER_CENTER_CLIENT_ID PARTNER_CENTER_CLIENT_SECRET
PARTNER_CENTER_REFRESH_TOKEN_SECRET USAGE_STORAGE"""
ALL = f"""{REQUIRED} PARTNER_CENTER_CLOUD PARTNER_CENTER_BASE_URL PARTNER_CENTER_AUTHORITY
PARTNER_CENTER_CLIENT_CERTIFICATE_PATH PARTNER_CENTER_CLIENT_MANAGED_IDENTITY PARTNER_CENTER_REFRESH_TOKEN
USAGE_CACHE_CONTAINER USAGE_SNAPSHOT_CONTAINER USAGE_HISTORY_CONTAINER USAGE_CACHE_MIN_REFRESH_SECONDS
USAGE_CACHE_FRESH_SECONDS USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS USAGE_CACHE_STALE_IF_ERROR_SECONDS"""


@pytest.mark.parametrize(
    ("value", "named"),
    [("canary!", ALL), ("@Microsoft.KeyVault(SecretUri=https://canary)", ALL), ("", REQUIRED)],
    ids=["wrong", "unresolved", "missing"],
)
def test_with_wrong_settings_the_app_lives_and_says_each_time_what_is_wrong(
    caplog: pytest.LogCaptureFixture, value: str, named: str
) -> None:
    app = App(dict.fromkeys(ALL.split(), value), ManualClock().clock())
    for directives in (NO_DIRECTIVES, NO_CACHE, ONLY_IF_CACHED):
        response = respond(ask(app, directives), "", app.freshness.fresh, Conditions(if_none_match="*"))
        assert (response.status, json.loads(response.body)["code"]) == (500, "configuration")
    for line in (lines := events(caplog, "configuration.wrong")):
        assert [name for name in named.split() if name not in line["message"]] == []
    assert len(lines) == 3
    with pytest.raises(ConfigurationError):
        app.take_snapshot()
    assert said(caplog) == ["ConfigurationError"]
    assert "canary" not in caplog.text


def test_an_unresolved_reference_is_sent_nowhere(environ: dict[str, str], simulator: Simulator) -> None:
    unresolved = FIELD / "settings" / "unresolved-reference.env"
    name, _, value = unresolved.read_text(encoding="utf-8").strip().partition("=")
    app = App(environ | {name: value}, ManualClock().clock())
    response = respond(ask(app), "", app.freshness.fresh)
    assert (response.status, json.loads(response.body)["code"]) == (500, "configuration")
    with pytest.raises(
        ConfigurationError, match=f"^{name} is a reference that the platform could not resolve"
    ):
        app.take_snapshot()
    assert simulator.world.exchanges == []


def test_the_first_run_takes_the_callers_answer_and_the_next_writes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start()
    answer = ask(app).answer
    app.take_snapshot()
    before = place.blobs()
    app.take_snapshot()
    place.start().take_snapshot()
    assert place.blobs() == before
    assert before.keys() == {FIRST, *HISTORY}
    assert said(caplog) == ["taken", "unchanged", "unchanged"]
    (call,) = place.calls()
    snapshot = json.loads(before[FIRST][1])
    assert answer is not None
    assert snapshot["fetchedAt"] == f"{answer.fetched_at:%Y-%m-%dT%H:%M:%SZ}"
    assert snapshot["requestId"] == call.headers["ms-requestid"]
    assert snapshot["correlationId"] == call.headers["ms-correlationid"]
    assert not any(canary in caplog.text for canary in place.world.canaries())


def test_digits_are_the_same_everywhere_and_personal_data_reaches_callers_only(place: Place) -> None:
    digits = {"totalCost": "120.5682999999995904716", "customersOverBudget": "1.0"}
    digits |= {"customersTrendingOver": "1e5", "customersWithUsageBasedSubscription": "9" * 30}
    members = ",".join(f'"{name}":{text}' for name, text in digits.items())
    place.world.document = f'{{{members},"emailsToNotify":["æ@nordlys.example"]}}'.encode()
    app = place.start()
    app.take_snapshot()
    assert body(ask(app)) == place.world.document
    record = {name: content for name, (_, content) in place.blobs().items()}
    for name in (FIRST, "latest.json", "usagesummary.ndjson"):
        for member, text in digits.items():
            assert f'"{member}":{text},'.encode() in record[name].replace(b"}", b",")
    for text in digits.values():
        assert f",{text},".encode() in record["usagesummary.csv"]
    assert not [name for name, content in record.items() if b"nordlys.example" in content]


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("summary-old-period.json", ["2016-02-06", "2016-03-05", "0.0", "", "en-US"]),
        ("summary-credit.json", ["2026-10-28", "2026-11-27", "-12.1100000000000000003", "", "fr-FR"]),
    ],
)
def test_a_period_that_is_over_and_a_credit_are_served_and_recorded_as_they_are(
    place: Place, file: str, columns: list[str]
) -> None:
    document = (Path(__file__).parent / "field" / "partner-center" / file).read_bytes()
    place.world.document = document
    app = place.start()
    assert app.take_snapshot()["outcome"] == "taken"
    assert body(ask(app)) == document
    record = {name: content for name, (_, content) in place.blobs().items()}
    assert json.loads(record[FIRST])["usageSummary"] == json.loads(document)
    assert record["usagesummary.csv"].decode().splitlines()[1].split(",")[2:7] == columns


def test_a_run_says_in_one_line_what_came_of_it_and_returns_the_same(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start()
    outcomes = [app.take_snapshot() for _ in range(2)]
    first, second = events(caplog, "snapshot.done")
    (call,) = place.calls()
    assert first == {
        "event": "snapshot.done",
        "at": first["at"],
        "dataset": "usagesummary",
        "outcome": "taken",
        "fetchedAt": json.loads(place.blobs()[FIRST][1])["fetchedAt"],
        "requestId": call.headers["ms-requestid"],
        "answerSeconds": 0.0,
        "blob": FIRST,
        "written": ["usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"],
        "repaired": 0,
        "damaged": 0,
        "rows": 1,
        "missingDates": 0,
        "refreshTokenAgeInDays": 0.0,
        "seconds": 0.0,
    }
    assert second == first | {"at": second["at"], "outcome": "unchanged", "written": []}
    for outcome, line in zip(outcomes, (first, second), strict=True):
        assert outcome["repairedBlobs"] is None
        said = json.loads(event("snapshot.done", dataset="usagesummary", **outcome))
        assert said | {"at": line["at"]} == line


def test_an_answer_is_as_old_as_it_is_though_the_machine_was_suspended_meanwhile(place: Place) -> None:
    clock = place.clock.clock()
    stopped = PassedSeconds(lambda: 1_000.0, clock.monotonic)  # only the wall clock goes on
    app = App(place.environ, replace(clock, monotonic=stopped))
    ask(app)
    assert (ask(app).age, len(place.calls())) == (timedelta(), 1)
    place.clock.advance(hours=8)
    assert (ask(app).source, len(place.calls())) == (Source.FETCHED, 2)


@pytest.mark.parametrize("settings_are", ["wrong", "right"])
def test_what_is_logged_of_a_run_that_fails_again_and_again_does_not_grow(
    place: Place, settings_are: str
) -> None:
    place.world.choose("down")
    app = place.start(**({"PARTNER_CENTER_CLIENT_ID": "wrong"} if settings_are == "wrong" else {}))
    sizes = set[int]()
    for _ in range(20):
        with pytest.raises(UsageSummaryError) as raised:
            app.take_snapshot()
        sizes.add(sum(len(line) for line in traceback.format_exception(raised.value)))
    assert len(sizes) == 1


def test_a_run_is_good_though_the_vault_does_not_tell_the_tokens_age(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start()
    app.take_snapshot()
    place.world.choose("vault-down")
    app.take_snapshot()
    ages = [line.get("refreshTokenAgeInDays") for line in events(caplog, "snapshot.done")]
    assert ages == [0.0, None]


@pytest.mark.parametrize(("left", "repaired"), [(HISTORY, 1), (["manifest.json"], 0)], ids=["all", "last"])
def test_an_unchanged_run_that_finishes_what_a_killed_one_left_has_repaired_it(
    place: Place, caplog: pytest.LogCaptureFixture, left: list[str], repaired: int
) -> None:
    app = place.start()
    app.take_snapshot()
    before = place.blobs()
    for name in left:
        place.container("USAGE_HISTORY_CONTAINER").delete_blob(name)
    for _ in range(2):
        app.take_snapshot()
    assert said(caplog) == ["taken", "repaired", "unchanged"]
    line = events(caplog, "snapshot.done")[1]
    assert (sorted(line["written"]), line["repaired"]) == (left, repaired)
    assert line.get("repairedBlobs", []) == [FIRST] * repaired
    assert {name: text for name, (_, text) in place.blobs().items() if name != "manifest.json"} == {
        name: text for name, (_, text) in before.items() if name != "manifest.json"
    }


def test_a_run_names_what_earlier_runs_had_left_out_of_the_history(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for days in range(40, 0, -1):
        place.record.take(replace(OLD, fetched_at=TODAY - timedelta(days=days)))
    place.start().take_snapshot()
    (line,) = events(caplog, "snapshot.done")
    assert (line["outcome"], line["repaired"], line["rows"]) == ("taken", 40, 41)
    assert line["repairedBlobs"] == [snapshot_of(TODAY - timedelta(days=days)) for days in range(31, 0, -1)]


def test_a_run_counts_damaged_snapshots_and_missing_days(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for days in (4, 2):
        place.record.take(replace(OLD, fetched_at=TODAY - timedelta(days=days)))
    damaged = snapshot_of(TODAY - timedelta(days=2))
    place.container("USAGE_SNAPSHOT_CONTAINER").upload_blob(damaged, b"garbage", overwrite=True)
    place.start().take_snapshot()
    (line,) = events(caplog, "snapshot.done")
    assert (line["damaged"], line["missingDates"], line["rows"], line["repaired"]) == (1, 3, 2, 1)
    assert [line["blob"] for line in events(caplog, "snapshot.damaged")] == [damaged]
    assert [line["missingDates"] for line in events(caplog, "history.gaps")] == [3]


def test_a_dry_run_writes_nothing_to_the_record_and_says_what_it_would(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start()
    outcome = app.take_snapshot(dry_run=True)
    assert (outcome["outcome"], outcome["blob"]) == ("taken", FIRST)
    assert not {"written", "rows"} & outcome.keys()
    assert not place.blobs()
    app.take_snapshot()
    before = place.blobs()
    assert app.take_snapshot(dry_run=True)["outcome"] == "unchanged"
    assert place.blobs() == before
    assert said(caplog) == ["taken", "taken", "unchanged"]


@pytest.mark.parametrize("floor", [60, 120])
def test_just_after_midnight_a_run_waits_until_the_fleet_may_refresh(
    place: Place, caplog: pytest.LogCaptureFixture, floor: int
) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=-10)
    assert ask(place.start()).source is Source.FETCHED
    place.clock.advance(seconds=15)
    place.start(USAGE_CACHE_MIN_REFRESH_SECONDS=str(floor)).take_snapshot()
    assert place.clock.slept == [floor + 1]
    assert place.blobs().keys() == {snapshot_of(TODAY + timedelta(days=1)), *HISTORY}
    assert len(place.calls()) == 2
    (line,) = events(caplog, "snapshot.done")
    assert (line["outcome"], line["answerSeconds"], line["seconds"]) == ("taken", floor + 1, floor + 1)


@pytest.mark.parametrize("seconds", [60.1, 60, 0.005, 0])
@pytest.mark.parametrize("schedule", MIDNIGHTS)
def test_a_timers_run_just_before_a_midnight_on_its_schedule_is_the_new_days(
    place: Place, schedule: str, seconds: float
) -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    place.clock.instant = midnight - timedelta(seconds=seconds)
    place.world.clock = lambda: place.clock.instant
    waits, day = seconds in MIDNIGHTS[schedule], place.clock.instant
    place.start(SNAPSHOT_SCHEDULE=schedule).take_snapshot(by_timer=True)
    assert place.clock.slept == ([seconds + 1] if waits else [])
    assert place.blobs().keys() == {snapshot_of(midnight if waits else day), *HISTORY}


def test_a_run_that_waits_for_midnight_asks_again_though_a_caller_has_just_been_answered(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    midnight = TODAY + timedelta(days=1)
    place.clock.instant = midnight - timedelta(seconds=10)
    app = place.start(SNAPSHOT_SCHEDULE="0 0 0 * * *")
    assert ask(app).source is Source.FETCHED
    app.take_snapshot(by_timer=True)
    assert place.clock.slept == [11, 61]
    assert place.blobs().keys() == {snapshot_of(midnight), *HISTORY}
    (line,) = events(caplog, "snapshot.done")
    assert (line["answerSeconds"], line["seconds"]) == (61, 72)


def test_a_run_that_no_timer_began_waits_for_no_midnight(place: Place) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=-1)
    place.start(SNAPSHOT_SCHEDULE="0 0 0 * * *").take_snapshot()
    assert place.clock.slept == []
    assert place.blobs().keys() == {FIRST, *HISTORY}


def test_a_run_that_had_to_wait_longer_than_two_minutes_fails_at_once(place: Place) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=-10)
    ask(place.start())
    place.clock.advance(seconds=15)
    with pytest.raises(RecordError, match="of an earlier day, and may not be refreshed yet"):
        place.start(USAGE_CACHE_MIN_REFRESH_SECONDS="121").take_snapshot()
    assert place.clock.slept == []
    assert not place.blobs()


def test_a_run_that_waited_and_then_fails_says_so_and_writes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=-10)
    ask(place.start())
    place.clock.advance(seconds=15)
    place.world.choose("role-missing")
    with pytest.raises(UpstreamRefusedError):
        place.start().take_snapshot()
    (line,) = events(caplog, "snapshot.failed")
    assert (line["error"], line["seconds"]) == ("UpstreamRefusedError", 61.0)
    assert "Admin agent" in line["hint"]
    assert line["requestId"] == place.calls()[-1].headers["ms-requestid"]
    assert not place.blobs()


class Operator:
    """Somebody who is not signed in."""

    def get_token(self, *_: str, **__: object) -> AccessToken:
        raise ConfigurationError("nobody is signed in", hint="Run az login.")


@pytest.mark.parametrize("container", ["USAGE_STORAGE", "AzureWebJobsStorage"])
def test_an_operator_who_is_not_signed_in_is_told_so(
    place: Place, simulator: Simulator, caplog: pytest.LogCaptureFixture, container: str
) -> None:
    environ = place.environ | {container: "", f"{container}__blobServiceUri": simulator.url}
    environ |= {"USAGE_STORAGE": place.up} if container != "USAGE_STORAGE" else {}
    ask(place.start())
    with pytest.raises((ConfigurationError, StorageRefusedError), match="nobody is signed in") as failed:
        App(environ, place.clock.clock(), Operator()).take_snapshot()
    assert failed.value.hint == "Run az login."
    assert said(caplog) == [type(failed.value).__name__]


def test_an_operator_s_settings_are_prepared_when_somebody_has_to_sign_in(place: Place) -> None:
    prepared: list[Settings] = []

    def prepare(settings: Settings) -> Settings:
        prepared.append(settings)
        right = ClientSecret(place.environ["PARTNER_CENTER_CLIENT_SECRET"])
        return replace(settings, client_authentication=right)

    environ = place.environ | {"PARTNER_CENTER_CLIENT_SECRET": "wrong"}
    ca_bundle, client_id = environ["REQUESTS_CA_BUNDLE"], place.world.managed_identity_client_id
    with managed_identity(ca_bundle, client_id) as operator:
        app = App(environ, place.clock.clock(), operator, prepare)
        assert not prepared
        assert [app.take_snapshot()["outcome"] for _ in range(2)] == ["taken", "unchanged"]
    assert [each.client_authentication for each in prepared] == [ClientSecret("wrong")]


def test_two_instances_at_the_same_moment_take_one_snapshot(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    apps = [place.start(), place.start()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(App.take_snapshot, apps))
    assert sorted(said(caplog)) in (["taken", "unchanged"], ["repaired", "taken"])
    assert place.blobs().keys() == {FIRST, *HISTORY}
    assert len(place.calls()) == 1


def test_a_changed_document_is_a_revision_with_the_time_of_its_call(place: Place) -> None:
    place.store(TODAY + timedelta(seconds=5))
    app = place.start(USAGE_CACHE_FRESH_SECONDS="90000", USAGE_CACHE_MIN_REFRESH_SECONDS="1")
    app.take_snapshot()
    first = place.blobs()[FIRST]
    answer = ask(app, NO_CACHE).answer
    app.take_snapshot()
    assert answer is not None
    blobs, revision = place.blobs(), f"{FIRST[:-5]}.{answer.fetched_at:%H%M%S}Z.json"
    assert blobs.keys() == {FIRST, revision, *HISTORY}
    assert blobs[FIRST] == first
    assert blobs[revision][1] == blobs["latest.json"][1]


def test_no_usage_data_is_an_outcome_and_nothing_is_written(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.world.choose("no-usage-data")
    place.start().take_snapshot()
    assert said(caplog) == ["no-usage-data"]
    assert not place.blobs()


def test_yesterdays_answer_though_fresh_is_refreshed_and_not_recorded(place: Place) -> None:
    place.store(TODAY - timedelta(seconds=1))
    place.start(USAGE_CACHE_FRESH_SECONDS="200000").take_snapshot()
    assert len(place.calls()) == 1
    assert place.blobs().keys() == {FIRST, *HISTORY}
    assert OLD.request_id.encode() not in place.blobs()[FIRST][1]


@pytest.mark.parametrize(
    ("scenario", "floor", "kind"),
    [("forbidden", "60", UpstreamRefusedError), ("healthy", "200000", RecordError)],
)
def test_where_yesterdays_answer_cannot_be_refreshed_the_run_fails_and_nothing_is_written(
    place: Place, scenario: str, floor: str, kind: type[UsageSummaryError]
) -> None:
    place.store(TODAY - timedelta(seconds=1))
    place.world.choose(scenario)
    with pytest.raises(kind):
        place.start(USAGE_CACHE_MIN_REFRESH_SECONDS=floor).take_snapshot()
    assert not place.blobs()


@pytest.mark.parametrize("seconds", [20, 320])
def test_an_answer_fetched_before_midnight_is_not_recorded_after_it(
    place: Place, azurite: Azurite, seconds: int
) -> None:
    place.clock.instant = storages = TODAY + timedelta(days=1, seconds=-10)
    with StorageProxy(azurite, lambda: storages) as behind:
        app = place.start(AzureWebJobsStorage=behind.connection_string)
        assert ask(app).source is Source.FETCHED
        place.clock.advance(seconds=seconds)
        with pytest.raises(RecordError):
            app.take_snapshot()
    assert not place.blobs()


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [("down", UpstreamUnavailableError), ("consent-revoked", ConsentRequiredError)],
)
def test_a_failed_run_raises_and_says_so_in_one_line_and_the_next_good_one_works(
    place: Place, caplog: pytest.LogCaptureFixture, scenario: str, kind: type[UsageSummaryError]
) -> None:
    place.world.choose(scenario)
    with pytest.raises(kind):
        place.start(AzureWebJobsStorage=place.down).take_snapshot()
    assert said(caplog) == [kind.__name__]
    assert not place.blobs()
    place.world.choose("healthy")
    place.start().take_snapshot()
    assert place.blobs().keys() == {FIRST, *HISTORY}


def test_a_defect_fails_a_run_in_one_line_that_says_where_and_nothing_else(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("canary")

    app = place.start()
    with monkeypatch.context() as patch:
        patch.setattr(History, "bring_up_to_date", broken)
        with pytest.raises(RecordError) as raised:
            app.take_snapshot()
    assert raised.value.message.startswith("a defect: ValueError at test_app.py:")
    assert said(caplog) == ["RecordError"]
    assert "canary" not in caplog.text
    assert app.take_snapshot()["outcome"] == "repaired"


def test_a_stale_answer_of_today_is_recorded_and_the_run_fails_all_the_same(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.store(TODAY + timedelta(seconds=5))
    place.world.choose("forbidden")
    with pytest.raises(UpstreamRefusedError):
        place.start(USAGE_CACHE_FRESH_SECONDS="1", USAGE_CACHE_MIN_REFRESH_SECONDS="1").take_snapshot()
    assert place.blobs().keys() == {FIRST, *HISTORY}
    assert OLD.request_id.encode() in place.blobs()["latest.json"][1]
    assert said(caplog) == ["UpstreamRefusedError"]


def test_a_stale_answer_of_today_is_refreshed_before_it_is_recorded(place: Place) -> None:
    place.store(TODAY + timedelta(seconds=5))
    app = place.start(
        USAGE_CACHE_FRESH_SECONDS="1",
        USAGE_CACHE_MIN_REFRESH_SECONDS="1",
        USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS="90000",
    )
    app.take_snapshot()
    assert len(place.calls()) == 1
    assert place.blobs().keys() == {FIRST, *HISTORY}
    assert OLD.request_id.encode() not in place.blobs()[FIRST][1]


def test_where_it_is_tomorrow_by_storages_clock_already_the_snapshot_is_of_tomorrow(
    place: Place, azurite: Azurite
) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=-10)
    with StorageProxy(azurite, lambda: place.clock.instant + timedelta(seconds=15)) as ahead:
        place.start(AzureWebJobsStorage=ahead.connection_string).take_snapshot()
    assert place.clock.slept == []
    assert place.blobs().keys() == {snapshot_of(TODAY + timedelta(days=1)), *HISTORY}


def test_where_it_is_yesterday_still_by_storages_clock_a_run_asks_again_once_it_may(
    place: Place, azurite: Azurite
) -> None:
    place.clock.instant = TODAY + timedelta(days=1, seconds=43)
    with StorageProxy(azurite, lambda: place.clock.instant - timedelta(seconds=45)) as behind:
        place.start(AzureWebJobsStorage=behind.connection_string).take_snapshot()
    assert place.clock.slept == [61]
    assert len(place.calls()) == 2
    assert place.blobs().keys() == {snapshot_of(TODAY + timedelta(days=1)), *HISTORY}


def test_a_record_that_takes_no_write_fails_the_run_and_no_caller(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start(USAGE_STORAGE=place.read_only)
    with pytest.raises(StorageRefusedError):
        app.take_snapshot()
    assert said(caplog) == ["StorageRefusedError"]
    assert ask(app).is_plain_hit


@pytest.mark.parametrize("storage", ["down", "read_only"])
def test_storage_that_fails_costs_no_answer_and_no_snapshot(place: Place, storage: str) -> None:
    app = place.start(AzureWebJobsStorage=getattr(place, storage), USAGE_STORAGE=place.up)
    first, second = ask(app), ask(app)
    assert (first.source, first.error, body(first)) == (Source.FETCHED, None, place.world.document)
    assert second.is_plain_hit
    app.take_snapshot()
    assert len(place.calls()) == 1
    assert place.blobs().keys() == {FIRST, *HISTORY}
    place.clock.advance(hours=3)
    place.world.choose("forbidden")
    third = ask(app)
    assert (third.answer, type(third.error)) == (first.answer, UpstreamRefusedError)


@pytest.mark.parametrize("storage", ["up", "down", "read_only"])
def test_only_if_cached_with_nothing_stored_asks_nobody(place: Place, storage: str) -> None:
    result = ask(place.start(AzureWebJobsStorage=getattr(place, storage)), ONLY_IF_CACHED)
    assert (type(result.error), result.answer) == (NotCachedError, None)
    assert not place.world.exchanges


def test_a_shared_answer_that_can_only_be_read_is_served(place: Place) -> None:
    first = ask(place.start())
    assert ask(place.start(AzureWebJobsStorage=place.read_only)).answer == first.answer
    assert len(place.calls()) == 1


def test_a_cache_that_is_deleted_under_way_is_made_again(place: Place) -> None:
    app = place.start()
    ask(app)
    place.container("USAGE_CACHE_CONTAINER").delete_container()
    place.clock.advance(hours=3)
    assert ask(app).source is Source.FETCHED
    assert ask(place.start()).source is Source.STORED
    assert len(place.calls()) == 2
