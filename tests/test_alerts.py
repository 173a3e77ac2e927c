"""Each alert on lines that the app really wrote: it fires when it should, and is silent when it should."""

import json
import logging
import re
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from dev.azurite import ACCOUNT_KEY
from dev.environment import ROOT
from dev.queries import all_queries
from dev.simulator import Simulator
from shared.clock import Clock
from shared.errors import UsageSummaryError
from shared.fleet import Fleet
from shared.held import Answer
from tests.conftest import ManualClock, beside, partner_of, share
from tests.kql import Line, evaluate
from tests.test_functions import app as app  # noqa: PLC0414  # a fixture

INFRA = ROOT / "infra"
ALERTS = (INFRA / "alerts.bicep").read_text(encoding="utf-8")
FREQUENCIES = {"PT5M": 5, "PT10M": 10, "PT15M": 15, "PT30M": 30, "PT1H": 60, "PT6H": 360}
WINDOWS = FREQUENCIES | {"PT2H": 120, "PT3H": 180, "PT4H": 240, "P1D": 1440, "P2D": 2880}
"""Minutes. What a rule may have: learn.microsoft.com/rest/api/monitor/scheduled-query-rules."""
COMPARED: dict[str, Callable[[float, float], bool]] = {
    "LessThan": lambda value, threshold: value < threshold,
    "GreaterThanOrEqual": lambda value, threshold: value >= threshold,
}
TOKEN_DAYS = 30
EVALUATED = [
    (6, "enabled: true"),
    (6, "evaluationFrequency: rule.frequency"),
    (6, "windowSize: rule.window"),
    (12, "query: rule.query"),
    (12, "metricMeasureColumn: rule.measure"),
    (12, "timeAggregation: 'Total'"),
    (12, "operator: rule.operator"),
    (12, "threshold: rule.threshold"),
    (14, "numberOfEvaluationPeriods: 1"),
    (14, "minFailingPeriodsToAlert: 1"),
    (8, "actionGroups: actionGroups"),
]
"""What each rule is made of, and how deep it is indented: `fires` says what these do."""


def rules() -> dict[str, dict[str, str]]:
    """The rules of alerts.bicep by name."""
    listed = ALERTS.split("var always = [")[1].split("resource alert ")[0]
    found = re.findall(r"\{\n(.*?)\n *\}", listed, re.DOTALL)
    members = [dict(re.findall(r"^ +(\w+): (.+)$", text, re.MULTILINE)) for text in found]
    return {
        each["name"].strip("'"): {key: value.strip("'") for key, value in each.items()} for each in members
    }


RULES = rules()


def query_of(rule: str) -> str:
    name = re.search(r"loadTextContent\('(.+)'\)", RULES[rule]["query"])
    assert name is not None
    return (INFRA / name[1]).read_text(encoding="utf-8").strip()


ALERT = ALERTS.split("resource alert ")[1]


def fires(rule: str, lines: list[Line], now: datetime) -> bool:
    """Whether a rule would fire at an instant: the total of its measure against its threshold."""
    members = RULES[rule]
    rows = evaluate(query_of(rule), lines, now, timedelta(minutes=WINDOWS[members["window"]]))
    total = sum(row[members["measure"]] for row in rows)
    threshold = TOKEN_DAYS if members["threshold"] == "refreshTokenAlertDays" else int(members["threshold"])
    return bool(rows) and COMPARED[members["operator"]](total, threshold)


class Watched(logging.Handler):
    """The app's lines, logged at the test's own instant, each as long after its event as it really was."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime.now(UTC)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        message, logged = record.getMessage(), datetime.fromtimestamp(record.created, UTC)
        with suppress(ValueError, TypeError, KeyError):  # the host's own lines are no events
            event = json.loads(message)
            at = self.now - (logged - datetime.fromisoformat(event["at"]))
            message = json.dumps(event | {"at": at.isoformat()})
        self.lines.append(Line(self.now, message))

    def fires(self, rule: str, **later: float) -> bool:
        return fires(rule, self.lines, self.now + timedelta(**later))

    def fires_for(self, rule: str, event: str) -> bool:
        """Whether it would fire if this event's lines were the only ones."""
        return fires(rule, [line for line in self.lines if f'"event": "{event}"' in line.message], self.now)

    def last(self, event: str) -> dict[str, object]:
        found = [json.loads(line.message) for line in self.lines if f'"{event}"' in line.message]
        return dict(found[-1])


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    handler, loggers = Watched(), [logging.getLogger(name) for name in ("shared", "__app__")]
    caplog.set_level(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def run(started: SimpleNamespace) -> None:
    with suppress(UsageSummaryError):
        started.snapshot()


def test_the_rules_are_evaluated_as_here() -> None:
    assert [text for indent, text in EVALUATED if f"\n{' ' * indent}{text}\n" not in ALERT] == []


def test_every_rule_has_durations_that_a_rule_may_have_and_a_measure_of_its_query() -> None:
    assert len(RULES) == 7
    assert {path.stem for path in (INFRA / "alerts").iterdir()} == RULES.keys()
    for name, rule in RULES.items():
        assert FREQUENCIES[rule["frequency"]] <= WINDOWS[rule["window"]]
        assert f"alerts/{name}.kql" in rule["query"]
        assert re.search(rf"\b{rule['measure']} = ", query_of(name))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_nothing_but_silence_fires_no_alert_but_that_of_silence(rule: str) -> None:
    now = datetime.now(UTC)

    for lines in (
        [],
        [Line(now, "no JSON"), Line(now, "[1]"), Line(now, '{"error": "ConsentRequiredError"}')],
    ):
        assert fires(rule, lines, now) == (rule in {"no-snapshot-run", "runs-silent"})


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_healthy_day_fires_none(app: Callable[..., SimpleNamespace], watched: Watched, rule: str) -> None:
    started = app()
    for _ in range(3):
        started.get()
        run(started)
        watched.now += timedelta(hours=1)

    assert not watched.fires(rule)


def test_a_run_is_missed_after_26_hours_and_not_before(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    started = app()
    run(started)
    assert not watched.fires("no-snapshot-run", hours=25.9)
    assert watched.fires("no-snapshot-run", hours=26.1)

    simulator.world.choose("no-usage-data")
    watched.now += timedelta(hours=30)
    run(app(USAGE_CACHE_CONTAINER="another"))
    assert not watched.fires("no-snapshot-run", hours=1)


def test_runs_that_fail_are_no_runs(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    simulator.world.choose("forbidden")
    run(app())

    assert watched.last("snapshot.failed")["error"] == "UpstreamRefusedError"
    assert watched.fires("no-snapshot-run", hours=1)


@pytest.mark.parametrize(
    ("scenario", "days", "is_old"),
    [("healthy", 30.1, False), ("vault-read-only", 29.9, False), ("vault-read-only", 30.1, True)],
)
def test_a_refresh_token_that_is_not_renewed_is_told(
    app: Callable[..., SimpleNamespace],
    watched: Watched,
    simulator: Simulator,
    scenario: str,
    days: float,
    is_old: bool,  # noqa: FBT001  # a column of the table
) -> None:
    world, now = simulator.world, simulator.world.clock
    world.clock = lambda: now() - timedelta(days=days)
    world.consent()
    world.clock = now
    world.choose(scenario)
    started = app()
    run(started)  # signs in, and writes the new token back
    run(started)

    assert watched.fires("refresh-token-old") == is_old


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("consent-revoked", "ConsentRequiredError"),
        ("mfa-missing", "ConsentRequiredError"),
        ("secret-expired", "ConfigurationError"),
        ("vault-forbidden", "ConfigurationError"),
    ],
)
def test_an_operator_is_called_and_only_for_an_hour_after_the_last_failure(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator, scenario: str, error: str
) -> None:
    simulator.world.choose(scenario)
    app().get()

    assert watched.last("usage_summary.refresh_failed")["error"] == error
    assert watched.fires("operator-needed", minutes=59)
    assert not watched.fires("operator-needed", minutes=61)


def test_an_operator_is_called_for_a_wrong_setting(
    app: Callable[..., SimpleNamespace], watched: Watched
) -> None:
    app(PARTNER_CENTER_CLOUD="mars").get()

    assert watched.fires_for("operator-needed", "configuration.wrong")


def test_an_operator_is_called_while_a_token_that_cannot_be_renewed_is_still_good(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator, manual_clock: ManualClock
) -> None:
    simulator.world.refresh_in = timedelta(minutes=30)
    started = app()
    started.get()
    simulator.world.choose("consent-revoked")
    manual_clock.advance(minutes=31)
    assert started.get(cache_control="no-cache").status_code == 200

    assert watched.last("sign_in.renewal_failed")["error"] == "ConsentRequiredError"
    assert watched.fires_for("operator-needed", "sign_in.renewal_failed")


@pytest.mark.parametrize(
    ("setting", "event"),
    [("AzureWebJobsStorage", "usage_summary.not_shared"), ("USAGE_STORAGE", "snapshot.failed")],
)
def test_an_operator_is_called_when_storage_refuses_the_app(
    app: Callable[..., SimpleNamespace],
    watched: Watched,
    environ: dict[str, str],
    setting: str,
    event: str,
) -> None:
    another_key = b64encode(bytes(64)).decode()
    started = app(**{setting: environ["AzureWebJobsStorage"].replace(ACCOUNT_KEY, another_key)})
    started.get()
    run(started)

    assert watched.last(event)["error"] == "StorageRefusedError"
    assert watched.fires_for("operator-needed", event)


def test_an_operator_is_called_when_the_container_of_the_snapshots_is_deleted(
    app: Callable[..., SimpleNamespace], watched: Watched, environ: dict[str, str], service: BlobServiceClient
) -> None:
    started = app()
    run(started)
    assert not watched.fires_for("operator-needed", "snapshot.failed")
    service.delete_container(environ["USAGE_SNAPSHOT_CONTAINER"])
    run(started)
    assert watched.last("snapshot.failed")["error"] == "ContainerMissingError"
    assert watched.fires_for("operator-needed", "snapshot.failed")


def test_nobody_is_called_for_an_upstream_that_is_down_for_a_while(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    watched.now = watched.now.replace(minute=30)
    app().get()
    simulator.world.choose("down")
    for number in range(3):
        watched.now += timedelta(hours=1)
        app(USAGE_CACHE_CONTAINER=f"another{number}").get()

    assert watched.last("usage_summary.refresh_failed")["error"] == "UpstreamUnavailableError"
    for rule in ("operator-needed", "upstream-failing", "answers-stale", "record-damaged"):
        assert not watched.fires(rule, hours=2.9)
    assert watched.fires("upstream-failing", hours=3.1)  # the success is out of the window
    watched.now += timedelta(hours=4.6)
    assert not watched.fires("upstream-failing")  # as is the first of three failures


def test_one_failure_of_a_run_a_day_is_no_upstream_that_fails_for_hours(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    simulator.world.choose("down")
    run(app())

    assert watched.last("usage_summary.refresh_failed")["error"] == "UpstreamUnavailableError"
    assert not watched.fires("upstream-failing")


def test_answers_that_are_stale_for_long_are_told(
    app: Callable[..., SimpleNamespace],
    watched: Watched,
    simulator: Simulator,
    environ: dict[str, str],
    service: BlobServiceClient,
) -> None:
    simulator.world.choose("down")
    for fresh, hours, is_told in ((1, 2.9, False), (24, 25.5, False), (24, 26.1, True), (1, 3.1, True)):
        watched.lines.clear()
        name = environ["USAGE_CACHE_CONTAINER"] = uuid.uuid4().hex
        store(service.get_container_client(name), environ, datetime.now(UTC) - timedelta(hours=hours))
        app(USAGE_CACHE_FRESH_SECONDS=str(fresh * 3600)).get()
        answered = watched.last("usage_summary.answered")
        assert answered["staleSeconds"] == pytest.approx((hours - fresh) * 3600, abs=60)
        assert watched.fires("answers-stale") == is_told


def test_nobody_is_called_for_a_caller_who_is_content_with_a_stale_answer(
    app: Callable[..., SimpleNamespace],
    watched: Watched,
    environ: dict[str, str],
    service: BlobServiceClient,
) -> None:
    container = service.get_container_client(environ["USAGE_CACHE_CONTAINER"])
    store(container, environ, datetime.now(UTC) - timedelta(hours=20))
    app().get(cache_control="max-stale")

    assert not watched.fires("answers-stale")


def test_damage_is_told(
    app: Callable[..., SimpleNamespace], watched: Watched, environ: dict[str, str], service: BlobServiceClient
) -> None:
    started = app()
    run(started)
    assert not watched.fires("record-damaged")
    history = service.get_container_client(environ["USAGE_HISTORY_CONTAINER"])
    history.upload_blob("usagesummary.ndjson", b"{", overwrite=True)
    run(started)
    assert watched.fires_for("record-damaged", "history.damaged")

    snapshots = service.get_container_client(environ["USAGE_SNAPSHOT_CONTAINER"])
    (name,) = snapshots.list_blob_names()
    snapshots.upload_blob(name, b"{", overwrite=True)
    history.delete_blob("usagesummary.ndjson")
    run(started)
    assert watched.fires_for("record-damaged", "snapshot.damaged")


def test_runs_that_stop_are_told_while_callers_go_on(
    app: Callable[..., SimpleNamespace], watched: Watched
) -> None:
    run(app())
    last = watched.now
    for number in range(8):
        watched.now += timedelta(minutes=15)
        app(USAGE_CACHE_CONTAINER=f"another{number}").get()

    assert watched.last("usage_summary.refreshed")
    assert not fires("runs-silent", watched.lines, last + timedelta(minutes=119))
    assert fires("runs-silent", watched.lines, last + timedelta(minutes=121))
    assert "endsWith(snapshotSchedule, ' * * * *') ? [silent] : []" in ALERTS


@pytest.mark.parametrize("broken", [{"USAGE_STORAGE": "nonsense"}, {"PARTNER_CENTER_CLOUD": "mars"}, {}])
def test_a_run_that_fails_is_no_silence(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator, broken: dict[str, str]
) -> None:
    simulator.world.choose("down")
    run(app(**broken))

    assert watched.last("snapshot.failed")
    assert not watched.fires("runs-silent", minutes=119)


def test_silence_is_told_within_three_hours_and_a_run_that_is_late_and_slow_is_none() -> None:
    rule, between, logged = RULES["runs-silent"], 60, 20  # minutes: between runs; a line on its way, at most
    window, frequency = WINDOWS[rule["window"]], FREQUENCIES[rule["frequency"]]
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    longest, late = int(host["functionTimeout"].split(":")[1]), 30

    assert window + frequency + logged <= 180
    assert between + late + longest + logged <= window


@pytest.mark.parametrize(("rule", "hours"), [("no-snapshot-run", 26.1), ("runs-silent", 2.1)])
def test_another_record_that_goes_on_hides_no_record_that_stands_still(
    app: Callable[..., SimpleNamespace], watched: Watched, rule: str, hours: float
) -> None:
    run(app())
    now = watched.now + timedelta(hours=hours)
    others = [Line(now, line.message.replace("usagesummary", "another")) for line in watched.lines]

    assert not watched.fires(rule)
    assert fires(rule, [*watched.lines, *others], now)


def test_failures_count_in_the_hour_in_which_they_were_also_when_they_are_logged_later(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    simulator.world.choose("down")
    watched.now = watched.now.replace(minute=30)
    for number in range(3):
        app(USAGE_CACHE_CONTAINER=f"another{number}").get()
        watched.now += timedelta(hours=1)
    late = [Line(watched.now, line.message) for line in watched.lines]

    assert fires("upstream-failing", late, watched.now)
    assert not fires("upstream-failing", late, watched.now + timedelta(hours=6))


def test_an_event_that_is_logged_hours_later_calls_an_operator_all_the_same(
    app: Callable[..., SimpleNamespace], watched: Watched, simulator: Simulator
) -> None:
    simulator.world.choose("consent-revoked")
    app().get()
    later = watched.now + timedelta(hours=9)
    late = [Line(later, line.message) for line in watched.lines]

    assert fires("operator-needed", late, later)
    assert not fires("operator-needed", late, later + timedelta(minutes=61))


def test_the_age_of_the_refresh_token_is_that_of_the_newest_run_and_not_of_the_newest_line(
    watched: Watched,
) -> None:
    ages = {days: {"event": "snapshot.done", "refreshTokenAgeInDays": days} for days in (0, 40)}
    events = [ages[40] | {"at": watched.now.isoformat()}]
    events += [ages[0] | {"at": (watched.now - timedelta(hours=1)).isoformat()}]
    lines = [Line(watched.now, json.dumps(event)) for event in events]

    assert fires("refresh-token-old", lines, watched.now)
    assert fires("refresh-token-old", lines[::-1], watched.now)


def test_windows_go_by_the_time_of_the_line_and_all_else_by_that_of_the_event() -> None:
    for query in all_queries():
        others = re.sub(r"\bTimeGenerated > ago\(\d+[dhm]\)", "", query.before + query.text)
        assert "TimeGenerated" not in others, query


def store(container: ContainerClient, environ: dict[str, str], fetched_at: datetime) -> None:
    """An answer that the fleet has had since then."""
    fleet = Fleet(beside(container), partner_of(environ), Clock())
    share(fleet, Answer(b'{"totalCost":1}', fetched_at, "r", "c"))


def test_queries_name_what_the_app_logs() -> None:
    files = [path for folder in ("shared", "GetUsageSummary") for path in (ROOT / folder).glob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    events = set(re.findall(r'"([a-z_]+\.[a-z_]+)"', code))
    fields = {name for pair in re.findall(r'\b(\w+)=|"(\w+)"', code) for name in pair}
    errors = set(re.findall(r"class (\w+Error)\b", code))

    for query in all_queries():
        assert set(re.findall(r'"([a-z_]+\.[a-z_]+)"', query.text)) <= events
        assert set(re.findall(r"\bevent\.(\w+)", query.before + query.text)) <= fields | {"event"}
        assert set(re.findall(r'"(\w+Error)"', query.text)) <= errors
