"""What has to hold of the report's files, layer by layer: each check gives its complaints, best none."""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pbi_parsers.dax
import pqtools
from pbix_mcp.dax.function_catalog import FUNCTION_CATALOG

from dev.report.evaluation import FAKED, known_functions
from dev.report.model import Column, Measure, Model, ModelError, Table, read_model

NAME = "UsageSummary"
LOCAL = ".pbi", "cache.abf", "localSettings.json"
JSON_FILES = ".pbip", ".pbir", ".pbism", ".platform", ".json"
TEXT_CONTRAST, GRAPHIC_CONTRAST = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""
PHONE_WIDTH = 324
SOURCE = re.compile(r"(?:AzureStorage|Web|File|Folder|Sql|Odbc|OData|SharePoint)\.\w+")
ROLES = {
    "card": ["Values"],
    "multiRowCard": ["Values"],
    "tableEx": ["Values"],
    "lineChart": ["Category", "Series", "Y"],
    "clusteredColumnChart": ["Category", "Series", "Y", "Tooltips"],
}
DAX_FUNCTIONS = {name for name, _ in FUNCTION_CATALOG}
AT_MOST = 4
"""ComparisonKind of a filter."""
PARAMETER = re.compile(
    r'("https://[^"]+" meta \[IsParameterQuery=true, Type="Text"|'
    r'\d+ meta \[IsParameterQuery=true, Type="Number"), IsParameterQueryRequired=true\]'
)
"""A parameter that the service lets people set: a literal of a type."""
UNRESOLVED = "M005"
"""What pqtools says of a name that is not in the same query."""
NUMBERS = "Int64", "Decimal", "Double"

type Complaints = list[str]
type Json = Any


@dataclass(frozen=True)
class Visual:
    """A visual of a page, its file and that of its place on a phone."""

    page: str
    name: str
    content: Json
    mobile: Json

    def __str__(self) -> str:
        return f"{self.page}/{self.name}"

    @property
    def fields(self) -> list[tuple[str, str, str]]:
        """Kind (Measure or Column), table and name of each field that it shows, sorts or filters by."""
        return list(_fields(self.content, {}))

    def text(self, group: str, name: str) -> str:
        """A text of the visual's container: its title, or what a screen reader says."""
        try:
            literal = self.content["visual"]["visualContainerObjects"][group][0]["properties"][name]
        except KeyError:
            return ""
        return str(literal["expr"]["Literal"]["Value"]).strip("'")


def _fields(value: Json, aliases: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _fields(each, aliases)
    if not isinstance(value, dict):
        return
    aliases = aliases | {each["Name"]: each["Entity"] for each in value.get("From", [])}
    for kind in ("Measure", "Column"):
        if kind in value and "Property" in value[kind]:
            source = value[kind]["Expression"]["SourceRef"]
            yield kind, source.get("Entity") or aliases[source["Source"]], value[kind]["Property"]
    for each in value.values():
        yield from _fields(each, aliases)


def read_json(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8"))


def report_of(project: Path) -> Path:
    return project / f"{NAME}.Report"


def definition_of(project: Path) -> Path:
    return project / f"{NAME}.SemanticModel" / "definition"


def pages_of(project: Path) -> dict[str, Json]:
    """The pages' files by folder, in the order of the report."""
    pages = report_of(project) / "definition" / "pages"
    return {
        name: read_json(pages / name / "page.json") for name in read_json(pages / "pages.json")["pageOrder"]
    }


def visuals_of(project: Path) -> list[Visual]:
    """All visuals, in the order of their files."""
    pages = report_of(project) / "definition" / "pages"
    return [
        Visual(file.parts[-4], file.parts[-2], read_json(file), read_json(file.with_name("mobile.json")))
        for file in sorted(pages.glob("*/visuals/*/visual.json"))
    ]


def check_files(project: Path) -> Complaints:
    """The files are those of one project, text as Power BI writes it, and nothing of a machine."""
    found = []
    for pattern in ("*.pbip", "*.SemanticModel", "*.Report"):
        names = [path.name for path in project.glob(pattern)]
        if names != [NAME + pattern[1:]]:
            found.append(f"{pattern}: {names}")
    for file in sorted(path for path in project.rglob("*") if path.is_file()):
        where = file.relative_to(project)
        found += [f"{where}: {complaint}" for complaint in _check_file(where, file.read_bytes())]
    ids = [read_json(file)["config"]["logicalId"] for file in project.glob("*/.platform")]
    if len(set(ids)) != len(("report", "model")):
        found.append(f".platform: logicalId {ids}")
    return found


def _check_file(where: Path, content: bytes) -> Iterator[str]:
    if content.startswith(b"\xef\xbb\xbf"):
        yield "begins with a byte-order mark"
    if b"\r" in content:
        yield "has carriage returns"
    if set(where.parts) & set(LOCAL):
        yield "is a machine's own"
    if where.suffix in JSON_FILES or where.name in JSON_FILES:
        try:
            if not str(json.loads(content).get("$schema", "")).startswith("https://"):
                yield "names no $schema"
        except ValueError as error:
            yield str(error)


def check_links(project: Path) -> Complaints:
    """What a file says of another is there."""
    report = report_of(project)
    pages = report / "definition" / "pages"
    (artifact,) = read_json(project / f"{NAME}.pbip")["artifacts"]
    path = read_json(report / "definition.pbir")["datasetReference"]["byPath"]["path"]
    found = [
        f"{place}: nothing there"
        for place in (project / artifact["report"]["path"], report / path)
        if not place.is_dir()
    ]
    order = read_json(pages / "pages.json")
    folders = {file.parent.name for file in pages.glob("*/page.json")}
    if len(set(order["pageOrder"])) != len(order["pageOrder"]) or set(order["pageOrder"]) != folders:
        found.append(f"pages.json: {order['pageOrder']}, and there are {sorted(folders)}")
    if order["activePageName"] not in folders:
        found.append(f"pages.json: no page {order['activePageName']}")
    found += [
        f"{file.relative_to(pages)}: its name is not its folder's"
        for file in sorted(pages.rglob("*.json"))
        if file.name in {"page.json", "visual.json"} and read_json(file)["name"] != file.parent.name
    ]
    content = read_json(report / "definition" / "report.json")
    items = [
        Path(package["type"]) / item["path"]
        for package in content["resourcePackages"]
        for item in package["items"]
    ]
    return found + [
        f"report.json: no {item.name}" for item in items if not (report / "StaticResources" / item).is_file()
    ]


def check_fields(project: Path, model: Model) -> Complaints:
    """Every field that a visual names is in the model, as what the visual takes it for."""
    known = {
        ("Column", table.name, column.name) for table in model.tables.values() for column in table.columns
    }
    known |= {
        ("Measure", table.name, measure.name) for table in model.tables.values() for measure in table.measures
    }
    found = []
    for visual in visuals_of(project):
        found += [f"{visual}: no {' '.join(field)}" for field in visual.fields if field not in known]
        found += [f"{visual}: {complaint}" for complaint in _check_roles(visual)]
    return found


def _check_roles(visual: Visual) -> Iterator[str]:
    if "Aggregation" in json.dumps(visual.content):
        yield "adds up a column by itself"
    kind, roles = visual.content["visual"]["visualType"], visual.content["visual"]["query"]["queryState"]
    for name, role in roles.items():
        if name not in ROLES.get(kind, ()):
            yield f"a {kind} has no {name}"
        for projection in role["projections"]:
            ((_, table, field),) = _fields(projection["field"], {})
            if projection["queryRef"] != f"{table}.{field}":
                yield f"queryRef {projection['queryRef']} is not {table}.{field}"
    for each in visual.content.get("filterConfig", {}).get("filters", []):
        (where,) = each["filter"]["Where"]
        if where["Condition"]["Comparison"]["ComparisonKind"] != AT_MOST:
            yield "its filter is none of the last periods"


def check_accessibility(project: Path) -> Complaints:
    """Everybody can read it: titles, alternative texts, order of tabs, no overlap, contrast."""
    found, pages, visuals = [], pages_of(project), visuals_of(project)
    for visual in visuals:
        found += [
            f"{visual}: no {name}"
            for group, name in (("title", "text"), ("general", "altText"))
            if not visual.text(group, name)
        ]
        place, phone = visual.content["position"], visual.mobile["position"]
        page = pages[visual.page]
        if not _fits(place, page["width"], page["height"]) or not _fits(phone, PHONE_WIDTH, 10**4):
            found.append(f"{visual}: out of its page")
    for one, other in combinations(visuals, 2):
        if one.page == other.page:
            for here, there in (
                (one.content["position"], other.content["position"]),
                (one.mobile["position"], other.mobile["position"]),
            ):
                if _overlap(here, there):
                    found.append(f"{one} and {other}: one on top of the other")
                if (here["tabOrder"] < there["tabOrder"]) != (_reading(here) < _reading(there)):
                    found.append(f"{one} and {other}: tabs go in another order than the eye")
    return found + _contrasts(project)


def _fits(place: Json, width: float, height: float) -> bool:
    return bool(
        min(place["x"], place["y"]) >= 0
        and place["x"] + place["width"] <= width
        and place["y"] + place["height"] <= height
    )


def _overlap(one: Json, other: Json) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "width"), ("y", "height"))
    )


def _reading(place: Json) -> tuple[float, float]:
    return place["y"], place["x"]


def _contrasts(project: Path) -> Complaints:
    resources = report_of(project) / "StaticResources" / "RegisteredResources"
    theme = read_json(resources / f"{NAME}.json")
    texts = [theme["foreground"], theme["foregroundNeutralSecondary"]]
    texts += [each["color"] for each in theme["textClasses"].values()]
    texts += re.findall(r'"fontColor": {"solid": {"color": "(#\w+)"', json.dumps(theme["visualStyles"]))
    wanted = dict.fromkeys(theme["dataColors"], GRAPHIC_CONTRAST) | dict.fromkeys(texts, TEXT_CONTRAST)
    grounds = theme["background"], theme["backgroundLight"]
    return [
        f"theme: {colour} on {ground} has a contrast of {ratio:.1f}"
        for colour, least in wanted.items()
        for ground in grounds
        if (ratio := contrast(colour, ground)) < least
    ]


def contrast(one: str, other: str) -> float:
    """Of two colours as #RRGGBB, from 1 to 21 (WCAG 2.2, contrast ratio)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def check_model(project: Path) -> Complaints:
    """TOM reads the model and finds it valid; what TOM does not mind is right as well."""
    try:
        model = read_model(definition_of(project))
    except ModelError as error:
        return [str(error)]
    texts = [file.read_text(encoding="utf-8") for file in definition_of(project).rglob("*.tmdl")]
    tags = Counter(re.findall(r"lineageTag: (\S+)", "\n".join(texts)))
    found = [f"lineageTag {tag} is there {times} times" for tag, times in tags.items() if times > 1]
    columns = [column for table in model.tables.values() for column in table.columns]
    for name, measure in model.measures.items():
        if not measure.folder:
            found.append(f"measure {name}: no display folder")
        if name.lower() in {column.name.lower() for column in columns}:
            found.append(f"measure {name}: a column has that name")
    described: list[Column | Measure | Table] = [*columns, *model.measures.values(), *model.tables.values()]
    found += [f"{each.name}: no description" for each in described if not each.description]
    found += [f"{name}: no description" for name, text in model.parameters.items() if not text]
    found += [
        f"column {column.name}: summed up by itself"
        for column in columns
        if column.data_type in NUMBERS and column.summarize_by != "None"
    ]
    keys = [
        (table.name, column.name)
        for table in model.tables.values()
        for column in table.columns
        if column.is_key
    ]
    if keys != [("Date", "Date")] or model.relationships != [("History", "Snapshot Date", "Date", "Date")]:
        found.append(f"the days are not those of the date table: {keys}, {model.relationships}")
    if not any("discourageImplicitMeasures" in text for text in texts):
        found.append("implicit measures are not discouraged")
    return found


@functools.cache
def _check_dax(expression: str) -> str:
    try:
        pbi_parsers.dax.to_ast(expression)
    except Exception as error:  # noqa: BLE001  # it raises whatever comes
        return repr(error)
    return ""


def check_dax(model: Model) -> Complaints:
    """DAX is DAX, and each name in it is the model's."""
    columns = {f"{table.name}[{column.name}]" for table in model.tables.values() for column in table.columns}
    found = []
    for where, expression in _dax_of(model):
        if complaint := _check_dax(expression):
            found.append(f"{where}: no DAX: {complaint}")
        code = re.sub(r'"(?:[^"]|"")*"|//.*', '""', expression)
        names = {table + column for table, column in re.findall(r"'?(\w+)'?(\[[^\]]+\])", code)}
        measures = set(re.findall(r"(?<![\w'])\[([^\]]+)\]", code))
        calls = set(re.findall(r"([A-Z][A-Z.]+)\(", code))
        found += [f"{where}: no function {name}" for name in sorted(calls - DAX_FUNCTIONS)]
        found += [f"{where}: no column {name}" for name in sorted(names - columns)]
        found += [f"{where}: no measure [{name}]" for name in sorted(measures - model.measures.keys())]
    return found


def _dax_of(model: Model) -> Iterator[tuple[str, str]]:
    for name, measure in model.measures.items():
        yield f"measure {name}", measure.expression
        if measure.format_expression:
            yield f"format of {name}", measure.format_expression
    for table in model.tables.values():
        if not table.is_query:
            yield f"table {table.name}", table.source
        for column in table.columns:
            if column.expression:
                yield f"column {column.name}", column.expression


@functools.cache
def _check_m(source: str, shared: tuple[str, ...]) -> Complaints:
    """What Microsoft's parser says of M, and the functions in it that there are not."""
    found = [
        f"M, line {each.line}: {each.message}"
        for each in pqtools.check(source)
        if not (each.code == UNRESOLVED and each.message.endswith(tuple(f" {name}" for name in shared)))
    ]
    if not found:
        calls = [name for name in pqtools.dependencies(source) if "." in name]
        found = [f"M: no function {name}" for name in calls if name not in known_functions()]
    return found


def check_query(model: Model) -> Complaints:
    """M is M by Microsoft's parser, calls what there is, and reads the one address as it was given."""
    sources = [table.source for table in model.tables.values() if table.is_query]
    found = [each for source in sources for each in _check_m(source, tuple(model.expressions))]
    reads = [name for source in sources for name in SOURCE.findall(source)]
    if reads != [FAKED[0]]:
        found.append(f"M: reads by {reads}")
    if not any(f"{FAKED[0]}(HistoryUrl)" in source for source in sources):
        found.append(
            "M: the address is not the parameter as it is: a dynamic data source cannot be refreshed"
        )
    # A shared query that is no parameter may meet the privacy firewall; a computed one cannot be set.
    found += [
        f"{name}: no parameter that can be set in the service"
        for name, text in model.expressions.items()
        if not PARAMETER.fullmatch(text)
    ]
    return found
