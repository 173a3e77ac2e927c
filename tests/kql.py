"""As much of the Kusto Query Language as the alerts are written in, evaluated over log lines.

`where`, `extend`, `summarize` without `by` (count, countif, dcountif, arg_max) and `project`. Any other word
is an error. So no rule has what Azure refuses in one: `search`, `union`, `bag_unpack`, a computed `ago`.
This evaluates; whether the words are Kusto's is for Microsoft's language service (dev/queries.py).
learn.microsoft.com/kusto/query
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import CodeType
from typing import Any

TABLE = "AppTraces"
UNITS = {"d": "days", "h": "hours", "m": "minutes"}
EPOCH = datetime(1, 1, 1, tzinfo=UTC)

type Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of AppTraces: when it was logged, which may be long after its event, and what it says."""

    generated: datetime
    message: str


class Dynamic:
    """A dynamic value: a member that is not there is null."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __getattr__(self, name: str) -> "Dynamic":
        return Dynamic(self._value.get(name) if isinstance(self._value, dict) else None)

    @property
    def plain(self) -> Any:  # noqa: ANN401  # any JSON
        """The value itself."""
        return self._value


def _parse_json(text: str) -> Dynamic:
    try:
        return Dynamic(json.loads(text))
    except ValueError:
        return Dynamic(None)


def _to_string(value: Dynamic) -> str:
    return "" if value.plain is None else str(value.plain)


def _to_double(value: Dynamic) -> float:
    return float("nan") if value.plain is None else float(value.plain)


def _to_datetime(value: Dynamic) -> datetime | None:
    return None if value.plain is None else datetime.fromisoformat(value.plain)


FUNCTIONS: dict[str, Callable[..., object]] = {
    "parse_json": _parse_json,
    "tostring": _to_string,
    "todouble": _to_double,
    "todatetime": _to_datetime,
    "isnotnull": lambda value: value.plain is not None,
    "isnotempty": bool,
    "toint": int,
    "bin": lambda instant, span: instant - (instant - EPOCH) % span,
}


def evaluate(query: str, lines: list[Line], now: datetime, window: timedelta) -> list[Row]:
    """The rows of a query over the lines of a rule's window."""
    table, *stages = (part.strip() for part in query.split("\n|"))
    assert table == TABLE
    rows: list[Row] = [
        {"TimeGenerated": line.generated, "Message": line.message}
        for line in lines
        if now - window < line.generated <= now
    ]
    for stage in stages:
        verb, rest = stage.split(maxsplit=1)
        match verb:
            case "where":
                rows = [row for row in rows if _value(_compiled(rest), row, now)]
            case "extend":
                rows = [row | _named(rest, row, now) for row in rows]
            case "project":
                rows = [_named(rest, row, now) for row in rows]
            case "summarize":
                rows = [_newest(rows)] if rest == "arg_max(at, event)" else [_summary(rest, rows, now)]
            case _:
                raise ValueError(f"no {verb} here")
    return rows


def _newest(rows: list[Row]) -> Row:
    dated = [row for row in rows if row["at"] is not None]
    nothing = {"at": None, "event": Dynamic(None)}  # a row all the same
    return max(dated, key=lambda row: row["at"], default=nothing)


def _summary(text: str, rows: list[Row], now: datetime) -> Row:
    made = {}
    for name, call in _parts(text):
        found = re.fullmatch(r"(?:count\(\)|countif\((.*)\)|dcountif\((\w+\(.*?\)), (.*)\))", call)
        assert found, f"no {call} here"
        condition, counted = _compiled(found[1] or found[3] or "True"), found[2]
        counting = [row for row in rows if _value(condition, row, now)]
        code = _compiled(counted) if counted else None
        made[name] = len({_value(code, row, now) for row in counting} if code else counting)
    return made


def _named(text: str, row: Row, now: datetime) -> Row:
    return {name: _value(_compiled(expression), row, now) for name, expression in _parts(text)}


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The names of a list and what each stands for."""
    for part in re.split(r", (?=\w+ = )", text):
        name, _, expression = part.partition(" = ")
        yield name, expression


def _compiled(expression: str) -> CodeType:
    """An expression, whose operators are Python's but for the look of a timespan and of a list of one."""
    expression = re.sub(r"\b(\d+)([dhm])\b", r'timespan(\1, "\2")', expression)
    return compile(re.sub(r"\bin \((.*?)\)", r"in (\1,)", expression), "kql", "eval")


def _value(code: CodeType, row: Row, now: datetime) -> Any:  # noqa: ANN401  # any value
    known = FUNCTIONS | {
        "ago": lambda span: now - span,
        "timespan": lambda number, unit: timedelta(**{UNITS[unit]: number}),
    }
    return eval(code, {"__builtins__": {}}, known | row)  # noqa: S307  # the alerts' own text
