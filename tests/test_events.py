"""The log line of an outcome: one JSON object with stable names."""

import json
import logging
import re
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConsentRequiredError
from shared.events import Line, defect, event, keeping, log_event, log_failure, log_kept
from tests.threads import PATIENCE


def test_an_event_is_its_name_and_its_values_in_order() -> None:
    assert list(json.loads(event("snapshot.done", rows=3, blob="a.json"))) == ["event", "at", "rows", "blob"]


def test_an_event_has_the_instant_at_which_it_came_about() -> None:
    before = datetime.now(UTC)
    at = json.loads(event("snapshot.done"))["at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    millisecond = timedelta(milliseconds=1)  # which is cut off
    assert before - millisecond < datetime.fromisoformat(at) <= datetime.now(UTC)


def test_a_line_that_is_logged_later_has_the_instant_of_the_event() -> None:
    lines = deque[Line]()
    with keeping(lines):
        log_event(logging.getLogger("a.module"), logging.ERROR, "it.failed")
    kept = datetime.now(UTC)
    ((_, _, line),) = lines
    assert datetime.fromisoformat(json.loads(line)["at"]) <= kept


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (False, False),
        ("", ""),
        ([], []),
        (["a", "b"], ["a", "b"]),
        (HTTPStatus.BAD_GATEWAY, 502),
        (timedelta(minutes=1), 60),
        (timedelta(milliseconds=1234.5678), 1.235),
        (timedelta(seconds=-2), -2),
        (datetime(2026, 11, 21, 8, 0, 1, 999_999, tzinfo=UTC), "2026-11-21T08:00:01Z"),
        (datetime(2026, 11, 21, 8, tzinfo=timezone(timedelta(hours=-7))), "2026-11-21T08:00:00-07:00"),
        (PurePosixPath("a/b"), "a/b"),
    ],
)
def test_a_value_is_written_so_that_a_query_can_read_it(value: object, expected: object) -> None:
    assert json.loads(event("a", value=value))["value"] == expected


def test_what_is_none_is_left_out() -> None:
    assert list(json.loads(event("a", b=None, c=1))) == ["event", "at", "c"]


def test_names_stay_legible_in_any_script() -> None:
    assert "Ærø · 北光" in event("a", partner="Ærø · 北光")


def test_a_failure_is_its_class_its_code_its_message_and_its_hint(caplog: pytest.LogCaptureFixture) -> None:
    error = ConsentRequiredError("none is stored", hint="Sign in.")
    log_failure(logging.getLogger("a.module"), logging.ERROR, "it.failed", error, attempt=1)
    (line,) = [json.loads(message) for message in caplog.messages]
    del line["at"]
    assert line == {
        "event": "it.failed",
        "error": "ConsentRequiredError",
        "code": "consent-required",
        "message": "none is stored",
        "hint": "Sign in.",
        "attempt": 1,
    }


def test_of_a_defect_is_said_where_it_was_raised_and_nothing_private() -> None:
    def fails() -> None:
        raise ValueError("canary")

    def calls() -> None:
        fails()

    with pytest.raises(ValueError, match="canary") as raised:
        calls()
    line = fails.__code__.co_firstlineno + 1
    assert defect(raised.value) == f"a defect: ValueError at test_events.py:{line}"


@given(st.text())
def test_an_event_is_one_line(text: str) -> None:
    line = event("a", text=text)
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line)["text"] == text


def test_a_thread_without_an_invocation_keeps_its_lines_for_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, lines = logging.getLogger("a.module"), deque[Line]()

    def work() -> None:
        with keeping(lines):
            log_event(log, logging.ERROR, "it.failed", attempt=1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caplog.records == []

    log_kept(lines)
    log_kept(lines)
    log_event(log, logging.WARNING, "it.goes_on")
    said = [(each.name, each.levelname, json.loads(each.getMessage())["event"]) for each in caplog.records]
    assert said == [("a.module", "ERROR", "it.failed"), ("a.module", "WARNING", "it.goes_on")]


class Contended(deque[Line]):
    """Two threads have both seen the one line before either takes it."""

    def __init__(self, lines: list[Line]) -> None:
        super().__init__(lines)
        self._both = threading.Barrier(2)

    def popleft(self) -> Line:
        self._both.wait(PATIENCE)
        return super().popleft()


def test_two_threads_log_what_was_kept_once(caplog: pytest.LogCaptureFixture) -> None:
    lines = Contended([(logging.getLogger("a.module"), logging.ERROR, "line")])
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(log_kept, [lines, lines])) == [None, None]
    assert caplog.messages == ["line"]
