"""The check of queries: which ones it finds in a page, and what the language service says against one."""

import re

from dev.environment import ROOT
from dev.queries import Query, all_queries, complaints, queries_of

PIPE = re.compile(r"\|\s*(?:where|extend|project|summarize|order) \w")
PAGE = """\
Text, `secret | python3 -m ops show`, and `Usage | where IsBilable`.

$ events='let events = AppTraces | extend event = parse_json(Massage)
    | extend at = todatetime(event.at);'
$ ask "events | where at > ago(1h)
    | where SeverityLeve >= 2" P1D
$ ask "$(cat infra/alerts/operator-needed.kql)" PT1H

```kusto
events
| extend what = tostrin(event.event)
```
"""


def test_a_misspelt_column_function_or_table_is_told_once_with_file_and_line() -> None:
    found = [
        *queries_of("docs/page.md", PAGE),
        *queries_of("infra/alerts/a.kql", "AppTrace\n| count\n"),
        Query("b.kql", 1, 'AppTraces\n| where TimeGenerated > ago("1h")\n'),
        Query("c.kql", 1, "AppTraces\n| where SeverityLevel >= 2\n| summarise count()\n"),
    ]

    told = complaints(found)
    assert told[0] == (
        "docs/page.md:3: The name 'Massage' does not refer to any known column, table, variable or function."
    )
    assert [fault.split(": ")[0] for fault in told[1:]] == [
        "docs/page.md:1",
        "docs/page.md:6",
        "docs/page.md:11",
        "infra/alerts/a.kql:1",
        "b.kql:2",
        *["c.kql:3"] * 3,
    ]


def test_no_query_of_the_documents_is_overlooked() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    texts = [re.sub(r"^\|.*\|$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE) for page in pages]
    written = sum(len(PIPE.findall(text)) for text in texts)  # but for rows of tables
    checked = [query.text for query in all_queries() if query.place.endswith(".md")]

    assert sum(len(PIPE.findall(text)) for text in checked) == written > 0
