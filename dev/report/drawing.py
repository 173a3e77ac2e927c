"""A drawing of the report's pages, for those who cannot open it: its own layout, figures of a made history.

What Power BI makes of the same files looks different; titles, places, sizes and colours are theirs.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from dev.environment import ROOT
from dev.report.checks import Json, Visual, definition_of, pages_of, read_json, report_of, visuals_of
from dev.report.evaluation import Refreshed, Value
from dev.report.history import Said, days, history, months, said
from dev.report.model import Model, read_model

FILE = "pages.svg"
PERIODS, MISSING, REVISED = 4, date(2026, 10, 18), date(2026, 11, 3)
UNTIL = date(2026, 11, 9)
NOW = {
    "Snapshot Age in Hours": "5",
    "Data Age in Days": "1",
    "Refreshed": "DATE(2026, 11, 9) + TIME(1, 0, 0)",
    "Report Is Behind": "FALSE()",
    "Record Is Behind": "FALSE()",
    "Standing": 'IF(MAX(History[Periods Ago]) = 0, "in progress",'
    ' "last seen before its close, not the invoice")',
}
"""Measures that go by the clock, at the moment of the drawing."""
GAP, LINE, TEXT = 48, 20, 13
ROWS = 14
"""So many rows of a table are drawn."""

type Svg = Iterator[str]
type Series = dict[str, dict[Any, float]]
type Filters = dict[str, list[Value]]


def made_history() -> Iterator[Said]:
    """Four periods from the 22nd, the last one under way; a day is missing and one revised."""
    for number, start, following in months(date(2026, 7, 22), PERIODS):
        for day_of_period, day in days(start, following):
            if day == MISSING or day > UNTIL:
                continue
            cost = (1200 + 90 * number) * day_of_period + 35 * (day_of_period % 5) ** 2
            counts = {
                "customersOverBudget": number,
                "customersTrendingOver": 1 + day_of_period // 9,
                "customersWithUsageBasedSubscription": 41 + number,
            }
            end = following - timedelta(days=1)
            modified = (
                {"lastModifiedDate": f"{day - timedelta(days=1)}T20:00:00-07:00"} if day_of_period > 1 else {}
            )
            yield said(day, f"{cost}.40", start, end, **counts, **modified)
            if day == REVISED:
                later = {"at": time(14, 5, 2, tzinfo=UTC), "is_revision": True}
                yield said(day, f"{cost + 61}.75", start, end, **counts, **modified, **later)


def draw(project: Path, model: Model) -> str:
    """The pages below each other, as SVG."""
    content = history(made_history())
    report = Refreshed(model, lambda _: content, budget=50_000, instead=NOW)
    return "\n".join([*_Drawing(project, model, report).lines(), ""])


class _Drawing:
    def __init__(self, project: Path, model: Model, report: Refreshed) -> None:
        self._project = project
        self._model = model
        self._report = report
        self._theme = read_json(
            report_of(project) / "StaticResources" / "RegisteredResources" / "UsageSummary.json"
        )

    def lines(self) -> Svg:
        pages = pages_of(self._project)
        width = max(page["width"] for page in pages.values())
        height = sum(page["height"] + GAP for page in pages.values())
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        yield ' font-family="sans-serif">'
        yield f'<rect width="{width}" height="{height}" fill="{self._theme["backgroundLight"]}"/>'
        top = 0
        for name, page in pages.items():
            heading = (
                f"{page['displayName']} \N{EN DASH} a drawing of made figures, not a picture of Power BI"
            )
            yield self._text(24, top + 32, heading, 18)
            yield f'<g transform="translate(0 {top + GAP})">'
            for visual in visuals_of(self._project):
                if visual.page == name:
                    yield from self._visual(visual)
            yield "</g>"
            top += page["height"] + GAP
        yield "</svg>"

    def _visual(self, visual: Visual) -> Svg:
        place = visual.content["position"]
        yield f'<g transform="translate({place["x"]} {place["y"]})">'
        yield f"<title>{escape(visual.text('general', 'altText'))}</title>"
        extent = f'width="{place["width"]}" height="{place["height"]}"'
        yield f'<rect {extent} fill="{self._theme["background"]}"/>'
        yield self._text(12, 24, visual.text("title", "text"), 15, weight=600)
        roles = visual.content["visual"]["query"]["queryState"]
        names = {role: [each["nativeQueryRef"] for each in roles[role]["projections"]] for role in roles}
        match visual.content["visual"]["visualType"]:
            case "card":
                size = 26 if visual.name == "cost" else 14
                words = self._said(names["Values"][0])
                yield from self._wrapped(12, 36 + size, words, size, place["width"] - 24)
            case "multiRowCard":
                for number, name in enumerate(names["Values"]):
                    y = 52 + number * 2 * LINE
                    yield self._text(12, y, name, 11, colour=self._theme["foregroundNeutralSecondary"])
                    yield self._text(12, y + 17, self._said(name), 15)
            case "tableEx":
                yield from self._table(names["Values"], place)
            case kind:
                yield from self._chart(kind, visual, names, place)
        yield "</g>"

    def _table(self, names: list[str], place: Json) -> Svg:
        columns = {column.name for table in self._model.tables.values() for column in table.columns}
        key = next(name for name in names if name in columns)
        table = "Date" if key == "Date" else "History"
        values = sorted({row[key] for row in self._report.table(table)}, reverse=True)
        rows = [
            [str(value) if name == key else self._said(name, {f"{table}.{key}": [value]}) for name in names]
            for value in values
        ]
        shown = [names, *(row for row in rows if sum(map(bool, row)) > 1)][: ROWS + 1]
        widths = [max(map(len, column)) + 3 for column in zip(*shown, strict=True)]
        for number, row in enumerate(shown):
            x = 12.0
            for cell, width in zip(row, widths, strict=True):
                yield self._text(x, 52 + number * LINE, cell, 11, weight=400 if number else 600)
                x += width * (place["width"] - 24) / sum(widths)

    def _chart(self, kind: str, visual: Visual, names: dict[str, list[str]], place: Json) -> Svg:
        left, top, width, height = 24, 72, place["width"] - 48, place["height"] - 104
        ticks, series = self._series(_filter_of(visual), names)
        most = max(value for found in series.values() for value in found.values())
        step = width / len(ticks)
        for number, (name, found) in enumerate(series.items()):
            colour = self._theme["dataColors"][number % len(self._theme["dataColors"])]
            x = left + number * min(190, width / len(series))
            yield self._text(x, 48, f"\N{BLACK SQUARE} {name}", 12, colour=colour)
            points = [
                (left + (ticks.index(tick) + 0.5) * step, top + height * (1 - value / most))
                for tick, value in found.items()
            ]
            if kind == "lineChart":
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            else:
                for x, y in points:
                    corner = f'x="{x - step * 0.35:.1f}" y="{y:.1f}"'
                    size = f'width="{step * 0.7:.1f}" height="{top + height - y:.1f}"'
                    yield f'<rect {corner} {size} fill="{colour}"/>'
        right, bottom = place["width"] - 24, place["height"] - 12
        yield self._text(left, bottom, str(ticks[0]), 11)
        yield self._text(right, bottom, str(ticks[-1]), 11, anchor="end")
        yield self._text(right, 64, f"{most:,.0f}", 11, anchor="end")

    def _series(self, periods_ago: int, names: dict[str, list[str]]) -> tuple[list[Any], Series]:
        """The values of the category, and for each line or colour its values at these."""
        (key,), group = names["Category"], names.get("Series", [None])[0]
        column, place = ("Snapshot Date", "Date.Date") if key == "Date" else (key, f"History.{key}")
        rows = [row for row in self._report.table("History") if row["Periods Ago"] <= periods_ago]
        ticks = sorted({row[column] for row in rows if row[column] is not None})
        series: Series = {}
        for measure in names["Y"]:
            for member in sorted({row[group] for row in rows}) if group else [measure]:
                filters: Filters = {"History.Periods Ago": [*range(periods_ago + 1)]}
                if group:
                    filters[f"History.{group}"] = [member]
                found = series[member] = {}
                for tick in ticks:
                    at: Filters = {place: [str(tick) if key == "Date" else tick]}
                    value = self._report.value_where(measure, filters | at)
                    if value is not None:
                        found[tick] = value
        return ticks, series

    def _said(self, name: str, filters: Filters | None = None) -> str:
        """A measure as a person reads it."""
        value = self._report.value_where(name, filters or {})
        measure = self._model.measures[name]
        if value is None:
            return ""
        if isinstance(value, date):
            return f"{value:%d %b %Y %H:%M}" if isinstance(value, datetime) else f"{value:%d %b %Y}"
        sign = "+" if name.startswith("Change") else ""
        if measure.format_expression:
            currency = self._report.value_where("Currency of Cost", filters or {})
            return f"{value:{sign},.2f} {currency or ''}".strip()
        if measure.format.endswith("%"):
            return f"{value:{sign}.1%}"
        return value if isinstance(value, str) else f"{value:.0f}"

    def _wrapped(self, x: float, y: float, words: str, size: int, width: float) -> Svg:
        lines = [""]
        for word in words.split():
            if len(lines[-1] + word) * size * 0.52 > width and lines[-1]:
                lines.append("")
            lines[-1] += f"{word} "
        for number, line in enumerate(lines):
            yield self._text(x, y + number * size * 1.4, line.strip(), size)

    def _text(
        self,
        x: float,
        y: float,
        words: str,
        size: int,
        *,
        weight: int = 400,
        colour: str = "",
        anchor: str = "start",
    ) -> str:
        return (
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
            f' fill="{colour or self._theme["foreground"]}">{escape(words)}</text>'
        )


def _filter_of(visual: Visual) -> int:
    """How many periods ago a visual begins."""
    (only,) = visual.content["filterConfig"]["filters"]
    (where,) = only["filter"]["Where"]
    return int(where["Condition"]["Comparison"]["Right"]["Literal"]["Value"].rstrip("L"))


def main() -> None:
    """Write the drawing into the project."""
    project = ROOT / "powerbi"
    (project / FILE).write_text(draw(project, read_model(definition_of(project))), encoding="utf-8")


if __name__ == "__main__":
    main()
