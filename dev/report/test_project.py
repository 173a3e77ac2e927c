"""The report's files have no fault; and sown faults are found, each by the check that is meant for it."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from dev.report import checks
from dev.report.checks import Complaints, check_accessibility, check_files, check_links, check_model
from dev.report.drawing import FILE, draw
from dev.report.evaluation import Refreshed
from dev.report.history import history, said
from dev.report.model import Model, read_model

START, END = date(2026, 3, 22), date(2026, 4, 21)
REFERENCE = history(
    [
        said(date(2026, 3, 21), "290", date(2026, 2, 22), date(2026, 3, 21)),
        said(date(2026, 3, 29), "80", START, END, lastModifiedDate="2026-03-28T22:00:00-07:00"),
        said(date(2026, 3, 31), "105", START, END, lastModifiedDate="2026-03-30T22:00:00-07:00"),
    ]
)
VALUES = {
    "Cost to Date": 105,
    "Daily Cost": 290 + 80 + 25,
    "Days Covered": 28 + 8 + 2,
    "Date of Data": date(2026, 3, 30),
    "Day of Data": 9,
    "Length of Period": 31,
    "Forecast": 105 * 31 / 9,
    "Total of Previous Period": 290,
    "Missing Days": 8,
    "Budget Used %": 105 / 500,
    "Forecast of Budget %": 105 * 31 / 9 / 500,
}


def check_fields(project: Path) -> Complaints:
    return checks.check_fields(project, model_of(project))


def check_dax(project: Path) -> Complaints:
    return checks.check_dax(model_of(project))


def check_query(project: Path) -> Complaints:
    return checks.check_query(model_of(project))


def check_values(project: Path) -> Complaints:
    """The model evaluates to what it should."""
    try:
        report = Refreshed(model_of(project), lambda _: REFERENCE, budget=500)
    except Exception as error:  # noqa: BLE001  # whatever the engines raise
        return [f"{type(error).__name__}: {error}"]
    found = {name: report.value(name) for name in VALUES}
    return [f"{name}: {found[name]}" for name, value in VALUES.items() if found[name] != pytest.approx(value)]


def model_of(project: Path) -> Model:
    return read_model(checks.definition_of(project))


type Check = Callable[[Path], Complaints]
FILES_ONLY: list[Check] = [check_files, check_links, check_accessibility]
ALL: list[Check] = [*FILES_ONLY, check_model, check_fields, check_dax, check_query, check_values]


@pytest.mark.parametrize("check", FILES_ONLY)
def test_the_files_have_no_fault(project: Path, check: Check) -> None:
    assert check(project) == []


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("check", [check for check in ALL if check not in FILES_ONLY])
def test_the_model_has_no_fault(project: Path, check: Check) -> None:
    assert check(project) == []


def test_the_drawing_is_of_these_files(project: Path, model: Model) -> None:
    """python3 -m dev report --draw makes it anew."""
    assert (project / FILE).read_text(encoding="utf-8") == draw(project, model)


MODEL, REPORT = "UsageSummary.SemanticModel/", "UsageSummary.Report/"
TABLES = f"{MODEL}definition/tables/"
HISTORY = f"{TABLES}History.tmdl"
PAGES = f"{REPORT}definition/pages/"
COST = f"{PAGES}now/visuals/cost/"
THEME = f"{REPORT}StaticResources/RegisteredResources/UsageSummary.json"
TAG = "lineageTag: a48d5c05-ce87-52cc-81d0-c01aca84b62c"
OTHER_TAG = "b1cc523a-2d28-5490-ad8b-428a7c8c0f7c"
DATES_TAG = "ccc72a44-8061-5d1e-bfa1-8cb0aed6c718"
COST_MEASURE = "CALCULATE(MAX(History[Total Cost]), History[Row] = Newest)"
HOURS_7_LATER = "try (if Number.From(Text.Middle(value, 11, 2)) > 16 then 1 else 0) otherwise 0"
DATE_OF = "Date.From(Text.Start(value, 10))"

FAULTS: dict[str, tuple[Check, str, str, str, str]] = {
    "a value that is none": (check_model, HISTORY, "mode: import", "mode: imported", "imported"),
    "a property that is none": (
        check_model,
        HISTORY,
        "summarizeBy: none",
        "summarizesBy: none",
        "summarizesBy",
    ),
    "a relationship to nothing": (
        check_model,
        f"{MODEL}definition/relationships.tmdl",
        "Date.Date",
        "Date.Day",
        "ToColumn",
    ),
    "a tag twice": (check_model, HISTORY, TAG, f"lineageTag: {OTHER_TAG}", "already exists"),
    "a tag twice in two tables": (check_model, HISTORY, TAG, f"lineageTag: {DATES_TAG}", "2 times"),
    "a measure named like a column": (
        check_model,
        HISTORY,
        "measure 'Standing'",
        "measure 'day of period'",
        "a column has that name",
    ),
    "no description": (check_model, f"{TABLES}Date.tmdl", "\t/// A day.\n", "", "Date: no description"),
    "no display folder": (
        check_model,
        HISTORY,
        "\t\tdisplayFolder: Outlook\n",
        "",
        "Forecast: no display folder",
    ),
    "a column that adds itself up": (
        check_model,
        HISTORY,
        "summarizeBy: none\n\t\tsourceColumn: Total Cost",
        "summarizeBy: sum\n\t\tsourceColumn: Total Cost",
        "Total Cost: summed up",
    ),
    "implicit measures": (
        check_model,
        f"{MODEL}definition/model.tmdl",
        "\tdiscourageImplicitMeasures\n",
        "",
        "implicit",
    ),
    "a renamed measure": (
        check_fields,
        HISTORY,
        "measure 'Headline'",
        "measure 'Summary'",
        "now/headline: no Measure History Headline",
    ),
    "a renamed table": (
        check_fields,
        f"{COST}visual.json",
        '"Entity": "History"',
        '"Entity": "Usage"',
        "Usage",
    ),
    "a measure taken for a column": (
        check_fields,
        f"{COST}visual.json",
        '"Measure": {',
        '"Column": {',
        "no Column",
    ),
    "a reference to another field": (
        check_fields,
        f"{COST}visual.json",
        "History.Cost to Date",
        "History.Forecast",
        "queryRef",
    ),
    "DAX without its parenthesis": (
        check_dax,
        HISTORY,
        COST_MEASURE,
        COST_MEASURE[:-1],
        "Cost to Date: no DAX",
    ),
    "DAX of a column that is not there": (
        check_dax,
        HISTORY,
        "MAX(History[Total Cost])",
        "MAX(History[Cost])",
        "no column History[Cost]",
    ),
    "DAX of a measure that is not there": (
        check_dax,
        HISTORY,
        "DIVIDE([Change],",
        "DIVIDE([Changes],",
        "no measure [Changes]",
    ),
    "M without its parenthesis": (
        check_query,
        HISTORY,
        "(HistoryUrl), null",
        "(HistoryUrl, null",
        "parse error",
    ),
    "M that calls what is not there": (
        check_query,
        HISTORY,
        "Date.AddDays",
        "Date.AddDay",
        "no function Date.AddDay",
    ),
    "M that names what is not there": (
        check_query,
        HISTORY,
        "List.Zip({InPeriods,",
        "List.Zip({InPeriod,",
        "InPeriod",
    ),
    "M with an argument too many": (
        check_values,
        HISTORY,
        "List.Count(InPeriods)",
        "List.Count(InPeriods, 1, 2)",
        "List.Count",
    ),
    "an address that is computed": (
        check_query,
        HISTORY,
        "BlobContents(HistoryUrl)",
        'BlobContents(HistoryUrl & "?x")',
        "dynamic data source",
    ),
    "another source": (
        check_query,
        f"{TABLES}Settings.tmdl",
        "Table.FromRecords({",
        "Table.FromRecords({Json.Document(Web.Contents(HistoryUrl)), ",
        "Web.Contents",
    ),
    "a parameter that is none": (
        check_query,
        f"{MODEL}definition/expressions.tmdl",
        "IsParameterQuery=true, ",
        "",
        "HistoryUrl: no parameter",
    ),
    "a date shifted by its zone": (
        check_values,
        HISTORY,
        DATE_OF,
        f"Date.AddDays({DATE_OF}, {HOURS_7_LATER})",
        "Date of Data",
    ),
    "cost summed over the days in view": (
        check_values,
        HISTORY,
        COST_MEASURE,
        "SUM(History[Total Cost])",
        "Cost to Date: 475",
    ),
    "a day of the period from 0": (check_values, HISTORY, "else Since + 1", "else Since", "Day of Data: 8"),
    "the end always the last day": (
        check_values,
        HISTORY,
        "else Span + 1",
        "else Span",
        "Length of Period: 30",
    ),
    "periods that go on in the next": (
        check_values,
        HISTORY,
        "pair{1}[Period] = This[Period]",
        "true",
        "Daily Cost: 105",
    ),
    "a byte-order mark": (check_files, f"{COST}visual.json", "{", "\ufeff{", "byte-order mark"),
    "carriage returns": (check_files, HISTORY, "\n", "\r\n", "carriage returns"),
    "a column of another type": (
        check_values,
        HISTORY,
        "column 'Total Cost'\n\t\tdataType: decimal",
        "column 'Total Cost'\n\t\tdataType: int64",
        "is no Int64",
    ),
    "a column of another name": (
        check_values,
        HISTORY,
        "sourceColumn: Total Cost",
        "sourceColumn: Cost",
        "'Cost'",
    ),
    "a date table without a key": (check_model, f"{TABLES}Date.tmdl", "\t\tisKey\n", "", "the date table"),
    "a relationship that is off": (
        check_model,
        f"{MODEL}definition/relationships.tmdl",
        "\tfromColumn",
        "\tisActive: false\n\tfromColumn",
        "the date table",
    ),
    "an address computed in its parameter": (
        check_query,
        f"{MODEL}definition/expressions.tmdl",
        ".net/usage-history",
        '.net/" & "usage-history',
        "HistoryUrl: no parameter",
    ),
    "DAX that calls what is not there": (check_dax, HISTORY, "UTCNOW()", "UTCTIME()", "no function UTCTIME"),
    "a visual that adds up": (
        check_fields,
        f"{COST}visual.json",
        '"Measure": {',
        '"Aggregation": {}, "Measure": {',
        "adds up",
    ),
    "a role that is none": (
        check_fields,
        f"{COST}visual.json",
        '"Values": {',
        '"Fields": {',
        "a card has no Fields",
    ),
    "another kind of visual": (check_fields, f"{COST}visual.json", '"card"', '"cardd"', "a cardd has no"),
    "a filter the other way round": (
        check_fields,
        f"{PAGES}now/visuals/days/visual.json",
        '"ComparisonKind": 4',
        '"ComparisonKind": 2',
        "its filter",
    ),
    "white titles on white": (
        check_accessibility,
        THEME,
        """"fontColor": {
              "solid": {
                "color": "#1F2328\"""",
        """"fontColor": {
              "solid": {
                "color": "#FFFFFF\"""",
        "#FFFFFF on",
    ),
    "a machine's own file": (check_files, f"{REPORT}.pbi/localSettings.json", "", "{}", "a machine's own"),
    "a second project": (check_files, "Other.pbip", "", "{}", "Other.pbip"),
    "no schema": (check_files, f"{COST}visual.json", '"$schema"', '"schema"', "no $schema"),
    "no JSON": (check_files, f"{PAGES}pages.json", "]", "", "pages.json"),
    "one id for both": (
        check_files,
        f"{REPORT}.platform",
        "b2da9835-7f36-5e29-be69-32fa24357eb2",
        "d2f8d190-aee8-55da-80ce-3ada1d862b91",
        "logicalId",
    ),
    "a page that is not listed": (check_links, f"{PAGES}pages.json", '    "history",\n', "", "pages.json"),
    "another page first": (
        check_links,
        f"{PAGES}pages.json",
        'Name": "now"',
        'Name": "then"',
        "no page then",
    ),
    "a model that is not there": (
        check_links,
        f"{REPORT}definition.pbir",
        "../UsageSummary.S",
        "../Usage.S",
        "nothing there",
    ),
    "a name that is not its folder's": (
        check_links,
        f"{COST}visual.json",
        '"name": "cost"',
        '"name": "costs"',
        "not its folder's",
    ),
    "a theme that is not there": (
        check_links,
        f"{REPORT}definition/report.json",
        '"path": "UsageSummary.json"',
        '"path": "Other.json"',
        "no Other.json",
    ),
    "no alternative text": (
        check_accessibility,
        f"{COST}visual.json",
        '"altText"',
        '"tooltip"',
        "no altText",
    ),
    "a visual on top of another": (
        check_accessibility,
        f"{COST}visual.json",
        '"x": 24',
        '"x": 44',
        "on top of",
    ),
    "a visual out of its page": (
        check_accessibility,
        f"{COST}visual.json",
        '"x": 24',
        '"x": -1',
        "out of its page",
    ),
    "tabs in another order": (
        check_accessibility,
        f"{COST}visual.json",
        '"tabOrder": 2000',
        '"tabOrder": 9000',
        "another order",
    ),
    "a visual too wide for a phone": (
        check_accessibility,
        f"{COST}mobile.json",
        "324",
        "640",
        "out of its page",
    ),
    "grey on grey": (check_accessibility, THEME, "#57606A", "#8A8F98", "a contrast of"),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(project: Path, tmp_path: Path, fault: str) -> None:
    check, name, right, wrong, complaint = FAULTS[fault]
    copy = tmp_path / "powerbi"
    shutil.copytree(project, copy)
    file = copy / name
    text = file.read_text(encoding="utf-8") if right else ""
    assert right in text
    file.parent.mkdir(exist_ok=True)
    file.write_text(text.replace(right, wrong, 1), encoding="utf-8", newline="")

    assert complaint in "\n".join(check(copy))
