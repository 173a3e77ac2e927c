"""The tables of docs/reliability.md, made of what the tests assert."""

from collections.abc import Sequence

from tabulate import tabulate

from dev.environment import ROOT
from tests.faults import TABLE
from tests.faults.case import Case, State

PAGE = ROOT / "docs" / "reliability.md"

_COLUMNS = ["fault", *(state.value for state in State), "recovery"]


def page() -> str:
    """The page as it should be: what is written before the first table stays."""
    introduction, _, _ = PAGE.read_text(encoding="utf-8").partition("\n## ")
    return "\n".join([introduction, *(_section(place, cases) for place, cases in TABLE.items())])


def write() -> None:
    """Bring the page up to date."""
    PAGE.write_text(page(), encoding="utf-8")


def _section(place: str, cases: Sequence[Case]) -> str:
    rows = [[case.what, *(case.seen(state) for state in State), case.effect.recovery] for case in cases]
    return f"## {place}\n\n{tabulate(rows, _COLUMNS, tablefmt='github', disable_numparse=True)}\n"
