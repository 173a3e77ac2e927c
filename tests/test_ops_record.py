"""python3 -m ops snapshot and history, on Azurite and the simulated world."""

import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import BlobServiceClient, ContainerClient

from dev.azurite import Azurite
from ops.access import Operator
from ops.report import NotSoundError, exit_code
from shared.clock import Clock
from shared.drafts import CSV, LATEST, MANIFEST, NDJSON
from shared.errors import ContainerMissingError, RecordError, StorageRefusedError
from shared.history import History
from shared.record import Record
from shared.snapshots import first_name, revision_name, snapshot
from shared.usage_summary import read_usage_summary
from tests.conftest import beside
from tests.terminal import Done, Terminal

FILES = [NDJSON, CSV, LATEST, MANIFEST]
DAY = date(2026, 11, 21)


@dataclass
class Desk:
    """An operator's terminal, and the record's two containers."""

    terminal: Terminal
    usage: ContainerClient
    history: ContainerClient
    now: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)
    meanwhile: Callable[[], object] = lambda: None
    """What others do while a command waits."""
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()

    def run(self, *arguments: str, stdin: str = "", **changed: str) -> Done:
        return self.terminal.run(*arguments, stdin=stdin, changed=changed)

    def put(self, day: date, total: str, start: str = "2026-10-28", **members: str) -> str:
        """A dated blob; whole days are hours after midnight, revisions later ones."""
        texts = "".join(f',"{name}":"{value}"' for name, value in members.items())
        body = f'{{"totalCost":{total},"billingStartDate":"{start}T00:00:00-07:00"{texts}}}'.encode()
        at = datetime(day.year, day.month, day.day, 6, 5, tzinfo=UTC)
        name = first_name(day)
        if beside(self.usage).read(name).blob is not None:
            at += timedelta(hours=2)
            name = revision_name(at)
        content = snapshot(read_usage_summary(body).members, at, str(uuid.uuid4()), str(uuid.uuid4()))
        beside(self.usage).write(name, content, "application/json; charset=utf-8", replacing=None)
        return name

    def blobs(self) -> dict[str, str]:
        """The ETags of all blobs by name."""
        return {
            each.name: each.etag
            for container in (self.usage, self.history)
            if container.exists()
            for each in container.list_blobs()
        }


@pytest.fixture
def desk(
    terminal: Terminal, azurite: Azurite, service: BlobServiceClient, monkeypatch: pytest.MonkeyPatch
) -> Desk:
    own = uuid.uuid4().hex[:12]
    terminal.environ |= {
        "USAGE_STORAGE": azurite.connection_string,
        "USAGE_SNAPSHOT_CONTAINER": f"usage-{own}",
        "USAGE_HISTORY_CONTAINER": f"history-{own}",
        "USAGE_CACHE_CONTAINER": f"cache-{own}",
    }
    usage, history = (service.get_container_client(f"{name}-{own}") for name in ("usage", "history"))
    desk = Desk(terminal, usage, history)
    monkeypatch.setattr("ops.history.Clock", desk.clock)
    return desk


@pytest.fixture
def kept(desk: Desk) -> Desk:
    """A record of some days, with a gap, the turn of a period, and a history."""
    desk.put(DAY - timedelta(days=6), "900.25", currencyCode="DKK")
    desk.put(DAY - timedelta(days=5), "1000.75", currencyCode="DKK")
    desk.put(DAY - timedelta(days=2), "1300.75", currencyCode="DKK")
    desk.put(DAY - timedelta(days=1), "1304.55", currencyCode="DKK")
    desk.put(DAY - timedelta(days=1), "3.5", "2026-11-20", currencyCode="DKK")
    desk.put(DAY, "120.5682999999995904716", "2026-11-20", currencyCode="DKK")
    assert desk.run("history", "rebuild").code == 0
    return desk


def test_a_snapshot_is_taken_as_the_timer_takes_it(desk: Desk) -> None:
    first, again = desk.run("snapshot", "--json"), desk.run("snapshot")
    assert (first.code, first.facts["outcome"], first.facts["written"]) == (0, "taken", FILES)
    assert (again.code, again.err) == (0, "")
    assert "unchanged" in again.out
    assert set(desk.blobs()) == {first.facts["blob"], *FILES}
    assert desk.run("history", "verify").code == 0


def test_a_dry_run_tells_what_would_be_written_and_writes_nothing(desk: Desk) -> None:
    done = desk.run("snapshot", "--dry-run", "--json")
    assert (done.code, done.facts["outcome"], done.facts["dryRun"]) == (0, "taken", True)
    assert done.facts["blob"].startswith("usagesummary/v1/")
    assert desk.blobs() == {}


def test_no_usage_data_is_said_and_nothing_is_written(desk: Desk) -> None:
    desk.terminal.world.choose("no-usage-data")
    done = desk.run("snapshot")
    assert (done.code, desk.blobs()) == (0, {})
    assert "no usage data" in done.out


def test_a_federated_apps_secret_is_asked_for_only_when_partner_center_is(desk: Desk) -> None:
    secret = desk.terminal.environ["PARTNER_CENTER_CLIENT_SECRET"]
    refused = desk.run("snapshot", **desk.terminal.federated)
    taken = desk.run("snapshot", stdin=f"{secret}\n", **desk.terminal.federated)
    again = desk.run("snapshot", **desk.terminal.federated)
    assert [refused.code, taken.code, again.code] == [2, 0, 0]
    assert "standard input has no client secret" in refused.err


@pytest.mark.parametrize(
    ("scenario", "code", "said"),
    [("vault-empty", 3, "consent-required"), ("forbidden", 2, "upstream-refused")],
)
def test_a_snapshot_that_cannot_be_taken_says_why(desk: Desk, scenario: str, code: int, said: str) -> None:
    desk.terminal.world.choose(scenario)
    done = desk.run("snapshot")
    assert (done.code, desk.blobs()) == (code, {})
    assert done.err.startswith(f"{said}: ")


@pytest.mark.parametrize("command", ["verify", "rebuild", "show"])
def test_the_record_needs_no_settings_of_partner_center(kept: Desk, command: str) -> None:
    without = {name: "" for name in kept.terminal.environ if name.startswith("PARTNER_CENTER_")}
    done = kept.run("history", command, **without)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", ["verify", "rebuild", "show"])
def test_settings_that_lack_an_account_are_named(desk: Desk, command: str) -> None:
    done = desk.run("history", command, USAGE_STORAGE="")
    assert done.code == 2
    assert "USAGE_STORAGE is missing" in done.err


@pytest.mark.parametrize("command", ["verify", "rebuild", "show"])
def test_a_record_that_has_nothing_in_it_is_an_error_that_says_so(desk: Desk, command: str) -> None:
    done = desk.run("history", command)
    assert done.code == 1
    assert done.err.startswith("record: there is no ")


def test_a_sound_record_is_verified_and_its_gaps_are_no_failure(kept: Desk) -> None:
    before = kept.blobs()
    done = kept.run("history", "verify", "--json")
    assert (done.code, kept.blobs(), kept.slept) == (0, before, [])
    assert done.facts == {
        "snapshots": 6,
        "rows": 6,
        "damaged": {},
        "ignored": [],
        "kept": {},
        "differing": [],
        "wouldDrop": [],
        "lastDate": "2026-11-21",
        "daysSince": 0,
        "missingDates": ["2026-11-17", "2026-11-18"],
        "sound": True,
    }


def test_a_damaged_snapshot_is_named_with_the_reason(kept: Desk) -> None:
    name = first_name(DAY)
    kept.usage.upload_blob(name, b"garbage", overwrite=True)
    done, facts = kept.run("history", "verify"), kept.run("history", "verify", "--json").facts
    assert done.code == 4
    assert f"… damaged               {name}: it is no JSON object in UTF-8\n" in done.out
    assert f"… kept, no snapshot     {name}: it is no JSON object in UTF-8\n" in done.out
    said = "1 damaged, 1 kept without a snapshot, 2 not as rebuilt"
    assert done.err.startswith(f"record: the record is not sound: {said}\nRestore the")
    assert facts["damaged"] == facts["kept"] == {name: "it is no JSON object in UTF-8"}
    assert (facts["differing"], facts["wouldDrop"]) == ([LATEST, MANIFEST], [])
    assert "before anything else" in facts["hint"]
    assert "--drop" in facts["hint"]
    assert facts["hint"].endswith("Then run python3 -m ops history rebuild.")
    assert kept.slept == [5.0, 5.0]


def test_a_snapshot_with_whom_to_notify_is_named_as_damaged(kept: Desk) -> None:
    name = kept.put(DAY - timedelta(days=3), "7")
    content = kept.usage.download_blob(name).readall()
    whom = b'"usageSummary":{"emailsToNotify":["a@nordlys.example"],'
    kept.usage.upload_blob(name, content.replace(b'"usageSummary":{', whom), overwrite=True)
    done = kept.run("history", "verify", "--json")
    assert (done.code, done.facts["differing"], done.facts["wouldDrop"]) == (4, [], [])
    assert done.facts["damaged"] == {name: "it holds personal data, emailsToNotify"}
    assert "nordlys" not in done.out
    assert kept.slept == []


def test_a_record_that_has_ended_is_sound_and_its_age_is_said(kept: Desk) -> None:
    kept.now += timedelta(days=3)
    done, facts = kept.run("history", "verify"), kept.run("history", "verify", "--json").facts
    assert (done.code, facts["lastDate"], facts["daysSince"]) == (0, "2026-11-21", 3)
    assert "Newest snapshot         2026-11-21\nDays since then         3\n" in done.out


def test_a_run_that_is_under_way_while_the_record_is_verified_is_no_failure(kept: Desk) -> None:
    kept.put(DAY, "121", "2026-11-20")
    run = History(Record(beside(kept.usage)), beside(kept.history), kept.clock())
    kept.meanwhile = run.bring_up_to_date
    done = kept.run("history", "verify", "--json")
    assert (done.code, done.facts["snapshots"], done.facts["sound"]) == (0, 7, True)
    assert kept.slept == [5.0]


def test_a_history_that_changes_at_each_look_is_not_said_to_be_unsound(kept: Desk) -> None:
    numbers = count()

    def change() -> None:
        kept.history.upload_blob(CSV, f"{next(numbers)}", overwrite=True)

    change()
    kept.meanwhile = change
    done = kept.run("history", "verify")
    assert done.code == 1
    assert done.err.startswith("record: the history changed each time that it was read\nTry again")
    assert (done.out, kept.slept) == ("", [5.0] * 3)


@pytest.mark.parametrize("name", FILES)
def test_a_history_that_is_not_as_rebuilt_is_named_and_a_rebuild_mends_it(kept: Desk, name: str) -> None:
    sound = kept.history.download_blob(name).readall()
    kept.history.upload_blob(
        name, sound.replace(b"120.5", b"120.6").replace(b'"rows": 6', b'"rows": 7'), overwrite=True
    )
    assert kept.history.download_blob(name).readall() != sound
    done = kept.run("history", "verify")
    assert done.code == 4
    hint = "Run python3 -m ops history rebuild."
    assert done.err == f"record: the record is not sound: 1 not as rebuilt\n{hint}\n"
    assert f"Not as rebuilt          {name}\n" in done.out
    assert kept.slept == [5.0]
    assert kept.run("history", "rebuild", "--json").facts["written"] == [name]
    assert kept.run("history", "verify").code == 0
    if name != MANIFEST:
        assert kept.history.download_blob(name).readall() == sound


def test_a_rebuild_adopts_what_was_brought_in_and_writes_nothing_twice(kept: Desk) -> None:
    brought = kept.put(DAY - timedelta(days=4), "1100")
    facts = kept.run("history", "rebuild", "--json").facts
    assert (facts["added"], facts["dropped"], facts["missingDates"]) == ([brought], [], ["2026-11-18"])
    before = kept.blobs()
    again = kept.run("history", "rebuild")
    assert (again.code, kept.blobs()) == (0, before)
    assert "none: all was right" in again.out


def test_a_row_without_a_snapshot_is_kept_and_named_until_its_day_is_dropped(kept: Desk) -> None:
    name = first_name(DAY - timedelta(days=5))
    kept.usage.delete_blob(name)
    before = kept.blobs()
    rebuilt, verified = kept.run("history", "rebuild"), kept.run("history", "verify", "--json")
    assert f"Kept, no snapshot       {name}: it is gone\n" in rebuilt.out
    assert (rebuilt.code, kept.blobs()) == (0, before)
    assert (verified.code, verified.facts["kept"]) == (4, {name: "it is gone"})
    assert verified.facts["message"] == "the record is not sound: 1 kept without a snapshot"
    assert "they may stay" in verified.facts["hint"]
    facts = kept.run("history", "rebuild", "--drop", "2026-11-16", "--json").facts
    assert (facts["dropped"], facts["kept"], facts["added"], facts["rows"]) == (["2026-11-16"], {}, [], 5)
    assert kept.run("history", "verify").code == 0


def test_a_line_that_is_no_row_is_told_and_a_former_version_is_advised(kept: Desk) -> None:
    text = kept.history.download_blob(NDJSON).readall()
    kept.usage.delete_blob(first_name(DAY - timedelta(days=5)))
    kept.history.upload_blob(NDJSON, text[20:].replace(b"\n", b"\r\n"), overwrite=True)
    done, facts = kept.run("history", "verify"), kept.run("history", "verify", "--json").facts
    assert (done.code, facts["lostLines"], facts["wouldDrop"]) == (4, 1, [])
    assert "Lines that are no rows  1\n" in done.out
    assert facts["kept"] == {first_name(DAY - timedelta(days=5)): "it is gone"}
    assert "A former version of usagesummary.ndjson may have the rows" in facts["hint"]
    assert kept.run("history", "rebuild", "--json").facts["lostLines"] == 1
    assert kept.history.download_blob(NDJSON).readall() == text
    assert "lostLines" not in kept.run("history", "rebuild", "--json").facts


def test_a_row_of_a_day_yet_to_come_is_told_before_a_rebuild_drops_it(kept: Desk) -> None:
    text = kept.history.download_blob(NDJSON).readall()
    last = text.splitlines(keepends=True)[-1]
    future = last.replace(b"2026-11-21", b"2031-11-21").replace(b"2026/11/21", b"2031/11/21")
    kept.history.upload_blob(NDJSON, text + future, overwrite=True)
    facts = kept.run("history", "verify", "--json").facts
    assert (facts["differing"], facts["wouldDrop"]) == ([NDJSON], ["2031-11-21"])
    assert kept.run("history", "rebuild", "--json").facts["dropped"] == ["2031-11-21"]
    assert kept.history.download_blob(NDJSON).readall() == text


def test_a_day_that_keeps_no_row_is_not_dropped(kept: Desk) -> None:
    before = kept.blobs()
    done = kept.run("history", "rebuild", "--drop", "2026-11-21", "--drop", "2026-11-17")
    assert (done.code, done.out, kept.blobs()) == (2, "", before)
    assert "no row is kept of 2026-11-17, 2026-11-21" in done.err
    with pytest.raises(SystemExit) as stopped:
        kept.run("history", "rebuild", "--drop", "2026-11-31")
    assert stopped.value.code == 2


def test_archived_snapshots_are_all_named_and_verified_again_once_they_are_rehydrated(kept: Desk) -> None:
    names = [first_name(DAY - timedelta(days=days)) for days in (6, 5, 2)]
    for name in names:
        kept.usage.get_blob_client(name).set_standard_blob_tier("Archive")
    kept.history.delete_blob(NDJSON)
    done = kept.run("history", "verify", "--json")
    assert (done.code, [*done.facts["damaged"]], done.facts["kept"]) == (4, names, {})
    rebuilt = kept.run("history", "rebuild", "--json").facts
    assert ([*rebuilt["damaged"]], rebuilt["rows"]) == (names, 3)
    for name in names:
        kept.usage.get_blob_client(name).set_standard_blob_tier("Hot")
    assert kept.run("history", "rebuild", "--json").facts["rows"] == 6
    assert kept.run("history", "verify").code == 0


def test_odd_names_are_told_as_what_they_are(kept: Desk) -> None:
    odd = (Path(__file__).parent / "field" / "record" / "odd-names.txt").read_text(encoding="utf-8").split()
    *ignored, future = odd
    for name in ignored:
        kept.usage.upload_blob(name, b"{}")
    sound = kept.run("history", "verify", "--json")
    assert (sound.code, sound.facts["ignored"], sound.facts["snapshots"]) == (0, sorted(ignored), 6)
    kept.usage.upload_blob(future, b"{}")
    done = kept.run("history", "verify")
    assert done.code == 4
    assert [f"Ignored, no snapshot    {name}\n" in done.out for name in ignored] == [True] * 5
    assert f"… damaged               {future}: its day is yet to come\n" in done.out
    advice = "Remove or rename the snapshots of days yet to come, which no run wrote."
    assert done.err == f"record: the record is not sound: 1 damaged\n{advice}\n"


def test_of_many_names_a_person_sees_the_first_and_a_machine_all(kept: Desk) -> None:
    names = [f"copies/{number:03}" for number in range(60)]
    for name in names:
        kept.usage.upload_blob(name, b"{}")
    done = kept.run("history", "verify")
    assert done.out.count("Ignored, no snapshot") == 51
    assert "Ignored, no snapshot    and 10 more, all of them with --json\n" in done.out
    assert kept.run("history", "verify", "--json").facts["ignored"] == names


@pytest.mark.parametrize("command", ["snapshot", "snapshot --dry-run", "history rebuild", "history verify"])
def test_a_deleted_container_is_named_with_what_to_do_and_nothing_is_made(kept: Desk, command: str) -> None:
    kept.usage.delete_container()
    before = kept.blobs()
    done = kept.run(*command.split())
    assert (done.code, done.out, kept.blobs(), kept.usage.exists()) == (4, "", before, False)
    name = kept.usage.container_name
    assert done.err.startswith(
        f"record: the container {name} of the dated snapshots is missing, and its history has rows\n"
        f"Undelete {name} before anything of that name is made"
    )


def test_an_empty_container_in_a_deleted_ones_place_costs_no_row(kept: Desk) -> None:
    files = {name: kept.history.download_blob(name).readall() for name in FILES}
    names = [each.name for each in kept.usage.list_blobs()]
    for name in names:
        kept.usage.delete_blob(name)
    verified, rebuilt = kept.run("history", "verify", "--json"), kept.run("history", "rebuild")
    assert (verified.code, verified.facts["snapshots"], verified.facts["rows"]) == (4, 0, 6)
    assert verified.facts["kept"] == dict.fromkeys(names, "it is gone")
    assert (rebuilt.code, rebuilt.err.splitlines()[0]) == (
        1,
        "record: there is no snapshot that can be read among 0",
    )
    assert {name: kept.history.download_blob(name).readall() for name in FILES} == files


def test_the_last_days_are_a_table_with_what_each_added(kept: Desk) -> None:
    done = kept.run("history", "show", "--days", "6")
    lines = [line.split() for line in done.out.splitlines()[2:]]
    assert lines == [
        ["2026-11-16", "2026-10-28", "1,000.75", "+100.50", "DKK"],
        ["2026-11-17", "no", "snapshot"],
        ["2026-11-18", "no", "snapshot"],
        ["2026-11-19", "2026-10-28", "1,300.75", "+300.00", "DKK", "in", "3", "days"],
        ["2026-11-20", "2026-10-28", "1,304.55", "+3.80", "DKK"],
        ["2026-11-20", "2026-11-20", "3.50", "+3.50", "DKK", "a", "period", "begins"],
        ["2026-11-21", "2026-11-20", "120.57", "+117.07", "DKK"],
    ]


def test_a_record_that_has_ended_has_no_snapshots_until_yesterday(kept: Desk) -> None:
    kept.now += timedelta(days=3)
    done = kept.run("history", "show", "--days", "4")
    assert [line.split()[:3] for line in done.out.splitlines()[2:]] == [
        ["2026-11-20", "2026-10-28", "1,304.55"],
        ["2026-11-20", "2026-11-20", "3.50"],
        ["2026-11-21", "2026-11-20", "120.57"],
        ["2026-11-22", "no", "snapshot"],
        ["2026-11-23", "no", "snapshot"],
    ]
    kept.now += timedelta(days=30)
    facts = kept.run("history", "show", "--days", "2", "--json").facts
    none = {"note": "no snapshot"}
    assert facts["days"] == [none | {"snapshotDate": f"2026-12-{day}"} for day in (22, 23)]


def test_the_table_as_json_has_every_digit(kept: Desk) -> None:
    (last,) = kept.run("history", "show", "--days", "1", "--json").facts["days"]
    assert (last["totalCost"], last["change"]) == ("120.5682999999995904716", "117.0682999999995904716")


def test_a_change_of_currency_is_no_change_of_cost(desk: Desk) -> None:
    desk.put(DAY - timedelta(days=1), "100", currencyLocale="da-DK")
    desk.put(DAY, "20", currencyLocale="fr-FR")
    desk.run("history", "rebuild")
    first, last = desk.run("history", "show", "--json").facts["days"]
    assert (first["change"], first["note"]) == (None, "the record begins")
    assert (last["change"], last["note"]) == (None, "another currency")
    assert "fr-FR" in desk.run("history", "show").out


def test_a_damaged_history_is_not_shown(kept: Desk) -> None:
    kept.history.upload_blob(NDJSON, b"garbage", overwrite=True)
    done = kept.run("history", "show")
    assert (done.code, done.err.splitlines()[0]) == (1, "record: the history is damaged")


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5", "99999999"])
def test_a_number_of_days_that_makes_no_sense_is_refused(desk: Desk, days: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        desk.run("history", "show", "--days", days)
    assert stopped.value.code == 2


def test_whoever_lacks_a_role_must_act_and_a_record_that_could_not_be_read_may_be_later() -> None:
    assert exit_code(StorageRefusedError("")) == 2
    assert exit_code(RecordError("")) == 1
    assert exit_code(NotSoundError("")) == 4
    assert exit_code(ContainerMissingError("")) == 4


class SignedIn(nullcontext["SignedIn"]):
    """Gives tokens that last so many seconds, each once."""

    credentials = ()

    def __init__(self, *lives: int) -> None:
        super().__init__(self)
        self._lives = iter(lives)

    def get_token(self, *_: str, **__: object) -> AccessToken:
        life = next(self._lives)
        return AccessToken(f"{life}", int(time.time()) + life)


def test_an_operators_token_is_kept_until_it_is_about_to_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in = SignedIn(-1, 290, 330, 3600)
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", lambda **_: signed_in)
    operator = Operator()
    tokens = [operator.get_token("https://storage.azure.com/.default").token for _ in range(5)]
    assert tokens == ["-1", "290", "330", "330", "330"]
    assert operator.get_token("https://vault.azure.net/.default").token == "3600"
