import asyncio
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
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
from shared.clock import Clock
from shared.errors import (
    BlobConflictError,
    ConfigurationError,
    ConsentRequiredError,
    NotCachedError,
    RecordError,
    StorageError,
    UpstreamRefusedError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.fleet import Answer, Fleet
from shared.freshness import NO_DIRECTIVES, RequestDirectives
from shared.http import respond
from shared.refreshes import Source
from tests.conftest import ManualClock, beside, events, partner_of, shared_name

OLD = Answer(b'{"totalCost":1}', datetime.min.replace(tzinfo=UTC), str(uuid.uuid4()), str(uuid.uuid4()))
NO_CACHE, ONLY_IF_CACHED = RequestDirectives(no_cache=True), RequestDirectives(only_if_cached=True)
HISTORY = ["latest.json", "manifest.json", "usagesummary.csv", "usagesummary.ndjson"]


@dataclass
class Place:
    """What instances share: settings, the world, a storage that has a clock of its own."""

    environ: dict[str, str]
    world: World
    service: BlobServiceClient
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime.now(UTC)))

    def start(self, **changed: str) -> App:
        return App(self.environ | changed, self.clock.clock())

    @property
    def up(self) -> str:
        return self.environ["AzureWebJobsStorage"]

    @property
    def down(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"http://127.0.0.1:{server.getsockname()[1]}/{ACCOUNT}"
        return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={address}"

    @property
    def read_only(self) -> str:
        types, may = ResourceTypes(container=True, object=True), AccountSasPermissions(read=True, list=True)
        until = datetime.now(UTC) + timedelta(hours=1)
        signature = generate_account_sas(ACCOUNT, ACCOUNT_KEY, types, may, until)
        return f"BlobEndpoint={self.service.url};SharedAccessSignature={signature}"

    def container(self, setting: str) -> ContainerClient:
        return self.service.get_container_client(self.environ[setting])

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
        fleet = Fleet(self.cache, partner_of(self.environ), Clock())
        claim = fleet.claim(fleet.read(), "before")
        assert claim is not None
        assert fleet.publish(claim, replace(OLD, fetched_at=fetched_at))

    def calls(self) -> list[Exchange]:
        return [each for each in self.world.exchanges if each.service is Service.PARTNER_CENTER]


@pytest.fixture
def place(environ: dict[str, str], simulator: Simulator, azurite: Azurite) -> Iterator[Place]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        yield Place(environ, simulator.world, service)
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(10)


def ask(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Result:
    return asyncio.run(app.get_usage_summary(directives, str(uuid.uuid4())))


def body(result: Result) -> bytes | None:
    return None if result.answer is None else result.answer.body


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def first_of_today() -> str:
    return f"usagesummary/v1/{today():%Y/%m/%d}/usagesummary.json"


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


@pytest.mark.parametrize(("value", "named"), [("canary!", ALL), ("", REQUIRED)], ids=["wrong", "missing"])
def test_with_wrong_settings_the_app_lives_and_says_each_time_what_is_wrong(
    caplog: pytest.LogCaptureFixture, value: str, named: str
) -> None:
    app = App(dict.fromkeys(ALL.split(), value), ManualClock().clock())
    for directives in (NO_DIRECTIVES, NO_CACHE, ONLY_IF_CACHED):
        response = respond(ask(app, directives), "", app.freshness.fresh, if_none_match="*", is_head=False)
        assert (response.status, json.loads(response.body)["code"]) == (500, "configuration")
    for line in (lines := events(caplog, "configuration.wrong")):
        assert [name for name in named.split() if name not in line["message"]] == []
    assert len(lines) == 3
    with pytest.raises(ConfigurationError):
        app.take_snapshot()
    assert said(caplog) == ["ConfigurationError"]
    assert "canary" not in caplog.text


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
    assert before.keys() == {first_of_today(), *HISTORY}
    assert said(caplog) == ["taken", "unchanged", "unchanged"]
    (call,) = place.calls()
    snapshot = json.loads(before[first_of_today()][1])
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
    for name in (first_of_today(), "latest.json", "usagesummary.ndjson"):
        for member, text in digits.items():
            assert f'"{member}":{text},'.encode() in record[name].replace(b"}", b",")
    for text in digits.values():
        assert f",{text},".encode() in record["usagesummary.csv"]
    assert not [name for name, content in record.items() if b"nordlys.example" in content]


def test_two_instances_at_the_same_moment_take_one_snapshot(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    apps = [place.start(), place.start()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(App.take_snapshot, apps))
    assert sorted(said(caplog)) == ["taken", "unchanged"]
    assert place.blobs().keys() == {first_of_today(), *HISTORY}
    assert len(place.calls()) == 1


def test_a_changed_document_is_a_revision_with_the_time_of_its_call(place: Place) -> None:
    place.store(today() + timedelta(seconds=5))  # at midnight itself, clocks that round might refresh it
    app = place.start(USAGE_CACHE_FRESH_SECONDS="90000", USAGE_CACHE_MIN_REFRESH_SECONDS="1")
    app.take_snapshot()
    first = place.blobs()[first_of_today()]
    answer = ask(app, NO_CACHE).answer
    app.take_snapshot()
    assert answer is not None
    blobs, revision = place.blobs(), f"{first_of_today()[:-5]}.{answer.fetched_at:%H%M%S}Z.json"
    assert blobs.keys() == {first_of_today(), revision, *HISTORY}
    assert blobs[first_of_today()] == first
    assert blobs[revision][1] == blobs["latest.json"][1]


def test_no_usage_data_is_an_outcome_and_nothing_is_written(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.world.choose("no-usage-data")
    place.start().take_snapshot()
    assert said(caplog) == ["no-usage-data"]
    assert not place.blobs()


def test_yesterdays_answer_though_fresh_is_refreshed_and_not_recorded(place: Place) -> None:
    place.store(today() - timedelta(seconds=1))
    place.start(USAGE_CACHE_FRESH_SECONDS="200000").take_snapshot()
    assert len(place.calls()) == 1
    assert place.blobs().keys() == {first_of_today(), *HISTORY}
    assert OLD.request_id.encode() not in place.blobs()[first_of_today()][1]


@pytest.mark.parametrize(
    ("scenario", "floor", "kind"),
    [("forbidden", "60", UpstreamRefusedError), ("healthy", "200000", RecordError)],
)
def test_where_yesterdays_answer_cannot_be_refreshed_the_run_fails_and_nothing_is_written(
    place: Place, scenario: str, floor: str, kind: type[UsageSummaryError]
) -> None:
    place.store(today() - timedelta(seconds=1))
    place.world.choose(scenario)
    with pytest.raises(kind):
        place.start(USAGE_CACHE_MIN_REFRESH_SECONDS=floor).take_snapshot()
    assert not place.blobs()


@pytest.mark.parametrize("seconds", [20, 320])
def test_an_answer_fetched_before_midnight_is_not_recorded_after_it(place: Place, seconds: int) -> None:
    place.clock.instant = today() + timedelta(days=1, seconds=-10)
    app = place.start()
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
    assert place.blobs().keys() == {first_of_today(), *HISTORY}


def test_a_stale_answer_of_today_is_recorded_and_the_run_fails_all_the_same(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.store(today() + timedelta(seconds=5))  # at midnight itself, clocks that round might refresh it
    place.world.choose("forbidden")
    with pytest.raises(UpstreamRefusedError):
        place.start(USAGE_CACHE_FRESH_SECONDS="1", USAGE_CACHE_MIN_REFRESH_SECONDS="1").take_snapshot()
    assert place.blobs().keys() == {first_of_today(), *HISTORY}
    assert OLD.request_id.encode() in place.blobs()["latest.json"][1]
    assert said(caplog) == ["UpstreamRefusedError"]


def test_a_record_that_takes_no_write_fails_the_run_and_no_caller(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.start(USAGE_STORAGE=place.read_only)
    with pytest.raises(StorageError):
        app.take_snapshot()
    assert said(caplog) == ["StorageError"]
    assert ask(app).is_plain_hit


@pytest.mark.parametrize("storage", ["down", "read_only"])
def test_storage_that_fails_costs_no_answer_and_no_snapshot(place: Place, storage: str) -> None:
    app = place.start(AzureWebJobsStorage=getattr(place, storage), USAGE_STORAGE=place.up)
    first, second = ask(app), ask(app)
    assert (first.source, first.error, body(first)) == (Source.FETCHED, None, place.world.document)
    assert second.is_plain_hit
    app.take_snapshot()
    assert len(place.calls()) == 1
    assert place.blobs().keys() == {first_of_today(), *HISTORY}
    place.clock.advance(hours=3)
    place.world.choose("forbidden")
    third = ask(app)
    assert (third.answer, type(third.error)) == (first.answer, UpstreamRefusedError)


def test_storage_that_hangs_costs_no_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.app.QUICK", timedelta(seconds=0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/{ACCOUNT}"
        hanging = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={address}"
        app = place.start(AzureWebJobsStorage=hanging, USAGE_STORAGE=place.up)
        assert [body(ask(app)) for _ in range(2)] == [place.world.document] * 2
    assert len(place.calls()) == 1


def test_storage_that_always_says_412_costs_no_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise BlobConflictError("412")

    monkeypatch.setattr(Container, "write", refuse)
    app = place.start()
    assert [body(ask(app)) for _ in range(2)] == [place.world.document] * 2
    assert len(place.calls()) == 1


@pytest.mark.parametrize("storage", ["up", "down", "read_only"])
def test_only_if_cached_with_nothing_stored_asks_nobody(place: Place, storage: str) -> None:
    result = ask(place.start(AzureWebJobsStorage=getattr(place, storage)), ONLY_IF_CACHED)
    assert (type(result.error), result.answer) == (NotCachedError, None)
    assert not place.world.exchanges


def test_a_shared_answer_that_can_only_be_read_is_served(place: Place) -> None:
    first = ask(place.start())
    assert ask(place.start(AzureWebJobsStorage=place.read_only)).answer == first.answer
    assert len(place.calls()) == 1


@pytest.mark.parametrize("metadata", [{}, {"fetched": "yesterday"}], ids=["none", "wrong"])
def test_a_garbage_blob_costs_no_answer_and_is_replaced(place: Place, metadata: dict[str, str]) -> None:
    place.cache.write(shared_name(place.environ), b"garbage", "text/plain", replacing=None, metadata=metadata)
    assert [body(ask(place.start())) for _ in range(2)] == [place.world.document] * 2
    assert len(place.calls()) == 1


def test_a_cache_that_is_deleted_under_way_is_made_again(place: Place) -> None:
    app = place.start()
    ask(app)
    place.container("USAGE_CACHE_CONTAINER").delete_container()
    place.clock.advance(hours=3)
    assert ask(app).source is Source.FETCHED
    assert ask(place.start()).source is Source.STORED
    assert len(place.calls()) == 2
