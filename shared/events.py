"""One log line an outcome: a stable event name, the instant of the event and values, as one JSON object.

Fields given as `extra=` do not reach Application Insights from a Python function; a JSON message does,
and a query reads it with `parse_json(message)`. The host drops lines that belong to no running invocation:
a thread that outlives its invocation keeps its lines, and the next invocation logs them. So each line holds
the instant of its event.
"""

import json
import logging
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.errors import UsageSummaryError

type Line = tuple[logging.Logger, int, str]

_kept: ContextVar[deque[Line] | None] = ContextVar("kept", default=None)


def log_event(logger: logging.Logger, level: int, name: str, /, **values: object) -> None:
    """Log an outcome, or keep its line where lines are kept."""
    line, kept = event(name, **values), _kept.get()
    if kept is None:
        logger.log(level, line)
    else:
        kept.append((logger, level, line))


def log_failure(
    logger: logging.Logger, level: int, name: str, error: UsageSummaryError, /, **values: object
) -> None:
    """Log an outcome that is an error of this app: its class, its code, its message, its hint."""
    said = {
        "error": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
    log_event(logger, level, name, **said, **values)


def defect(error: Exception) -> str:
    """What is said of an exception that nobody expected: its class and its place; its text may be private."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"a defect: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


@contextmanager
def keeping(lines: deque[Line]) -> Iterator[None]:
    """Keep what is logged within for `log_kept`."""
    token = _kept.set(lines)
    try:
        yield
    finally:
        _kept.reset(token)


def log_kept(lines: deque[Line]) -> None:
    """Log what was kept, each line once."""
    with suppress(IndexError):  # another invocation may log them at the same time
        while lines:
            logger, level, line = lines.popleft()
            logger.log(level, line)


def event(name: str, /, **values: object) -> str:
    """The log line of an outcome that comes about now; durations in seconds, what is None is left out.

    `at` is ISO 8601 in UTC with milliseconds, by this machine's clock as all logs. Values are facts (counts,
    names, ids), never a token, a secret, a body or personal data.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(
        {"event": name, "at": at} | {key: value for key, value in values.items() if value is not None},
        ensure_ascii=False,
        default=_plain,
    )


def _plain(value: object) -> object:
    match value:
        case timedelta():
            return round(value.total_seconds(), 3)
        case datetime():
            return value.isoformat(timespec="seconds").replace("+00:00", "Z")
        case _:
            return str(value)
