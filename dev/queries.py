"""The alerts' queries and the runbook's, parsed and bound by Microsoft's own Kusto language service.

The rules are deployed without validation, since their table comes with the first line. So a misspelt column
would show on the day on which no alert rings. In Markdown a query is a block marked `kusto`, an argument of
`ask`, or a code span that begins with a table or with `events |`.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import npm
from dev.environment import ROOT

# What a query may use: learn.microsoft.com/azure/azure-monitor/reference/tables/apptraces, and …/usage
TABLES = {
    "AppTraces": "(TimeGenerated: datetime, Message: string, SeverityLevel: int)",
    "Usage": "(TimeGenerated: datetime, DataType: string, IsBillable: bool, Quantity: real)",
}
_PRELUDE = re.compile(r"^\$ events='(.*?)'", re.MULTILINE | re.DOTALL)
_QUERY = re.compile(
    r'^```kusto\n(.*?)^```|\bask "(?!\$\()([^"]*)"|`((?:events|[A-Z]\w+) \| [^`\n]+)`',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Query:
    """A query, where it begins, and the text that is run before it."""

    place: str
    line: int
    text: str
    before: str = ""


def all_queries() -> list[Query]:
    """Those of the rules and those of the documents."""
    rules = sorted((ROOT / "infra" / "alerts").glob("*.kql"))
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
    read = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (*rules, *pages)}
    return [query for place, text in read.items() for query in queries_of(place, text)]


def queries_of(place: str, text: str) -> Iterator[Query]:
    """The query that a file is, or those of a page, whose `events` its line `$ events='…'` defines."""
    if Path(place).suffix == ".kql":
        yield Query(place, 1, text)
        return
    prelude = _PRELUDE.search(text)
    before = prelude[1] if prelude else ""
    if prelude:
        yield Query(place, _line(text, prelude.start(1)), f"{before} events")
    for found in _QUERY.finditer(text):
        group = found.lastindex or 0
        yield Query(place, _line(text, found.start(group)), found[group], before)


def complaints(queries: Sequence[Query]) -> list[str]:
    """What is wrong with these queries: file, line and fault; raises InstallError."""
    asked = {"tables": TABLES, "queries": [query.before + query.text for query in queries]}
    command = [npm.NODE, str(ROOT / "dev" / "kusto" / "bind.cjs"), str(npm.ensure_installed("kusto"))]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        return [done.stderr.strip()]
    said: list[list[tuple[int, str]]] = json.loads(done.stdout)
    return [
        f"{query.place}:{query.line + query.text.count('\n', 0, start - len(query.before))}: {fault}"
        for query, faults in zip(queries, said, strict=True)
        for start, fault in faults
        if start >= len(query.before)  # the query that consists of the text before tells the others
    ]


def _line(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1
