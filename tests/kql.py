"""As much of the Kusto Query Language as the alerts are written in, evaluated over log lines.

`where`, `extend`, `summarize` without `by` (count, countif, dcountif, arg_max) and `project`; any other word
is an error. learn.microsoft.com/kusto/query
"""

import json
import re
from collections.abc import Callable
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
    """A line of AppTraces."""

    at: datetime
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


FUNCTIONS: dict[str, Callable[..., object]] = {
    "parse_json": _parse_json,
    "tostring": _to_string,
    "todouble": _to_double,
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
        {"TimeGenerated": line.at, "Message": line.message} for line in lines if now - window < line.at <= now
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
                rows = [_summary(rest, rows, now)] if not rest.startswith("arg_max") else _newest(rows)
            case _:
                raise ValueError(f"no {verb} here")
    return rows


def _newest(rows: list[Row]) -> list[Row]:
    nothing = {"TimeGenerated": None, "event": Dynamic(None)}  # a row all the same
    return sorted(rows, key=lambda row: row["TimeGenerated"])[-1:] or [nothing]


def _summary(text: str, rows: list[Row], now: datetime) -> Row:
    made = {}
    for part in re.split(r", (?=\w+ = )", text):
        name, call = part.split(" = ", 1)
        found = re.fullmatch(r"(?:count\(\)|countif\((.*)\)|dcountif\((\w+\(.*?\)), (.*)\))", call)
        assert found, f"no {call} here"
        condition, counted = _compiled(found[1] or found[3] or "True"), found[2]
        counting = [row for row in rows if _value(condition, row, now)]
        code = _compiled(counted) if counted else None
        made[name] = len({_value(code, row, now) for row in counting} if code else counting)
    return made


def _named(text: str, row: Row, now: datetime) -> Row:
    name, expression = text.split(" = ", 1)
    return {name: _value(_compiled(expression), row, now)}


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
