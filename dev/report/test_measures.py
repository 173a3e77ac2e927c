"""The measures, against values computed by hand."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from dev.report.conftest import Refresh
from dev.report.evaluation import Refreshed
from dev.report.history import PUBLISHED, Said, days, months, said
from dev.report.model import Model

GAPS = {
    *(date(2024, 3, day) for day in (9, 10, 11)),  # America's clocks go forward on the 10th
    *(date(2024, 10, day) for day in (26, 27)),  # Europe's go back on the 27th
    date(2025, 2, 22),  # the first day of a period
}


def years_from_the_22nd() -> Iterator[Said]:
    """25 periods from 22 December 2023: in period n (from 0) a day costs 100 + n; the end is the last day."""
    for number, start, following in months(date(2023, 12, 22), 25):
        for day_of_period, day in days(start, following):
            if day not in GAPS:
                yield said(
                    day,
                    f"{day_of_period * (100 + number)}.00",
                    start,
                    following - timedelta(days=1),
                    customersOverBudget=number,
                    customersTrendingOver=day_of_period,
                    customersWithUsageBasedSubscription=day.day,
                )


@pytest.fixture(scope="module")
def two_years(refreshed: Refresh) -> Refreshed:
    return refreshed(years_from_the_22nd(), budget=4000)


def on(report: Refreshed, day: str, *measures: str) -> list[Any]:
    """Measures of one day, as a visual by days asks for them."""
    return [report.value_where(measure, {"Date.Date": [day]}) for measure in measures]


def near(value: float | None) -> Any:  # noqa: ANN401  # pytest's
    """What equals the value but for the last digits of a division."""
    return None if value is None else pytest.approx(value, rel=1e-12)


COST = "Cost to Date", "Daily Cost", "Days Covered"
PERIOD = "Start of Period", "Day of Data", "Length of Period"
COMPARISON = "Day Compared", "Same Day of Previous Period", "Change", "Change %"


@pytest.mark.parametrize(
    ("day", "cost", "period", "comparison", "forecast"),
    [
        # The first day of all: the day costs 100, 31 days to 21 January, nothing before it.
        ("2023-12-22", (100, 100, 1), (date(2023, 12, 22), 1, 31), (None,) * 4, 3100),
        # A day in January, period 0: 11 * 100.
        ("2024-01-01", (1100, 100, 1), (date(2023, 12, 22), 11, 31), (None,) * 4, 3100),
        # The leap day is day 8 of period 2, 22 February to 21 March, 29 days: 8 * 102 against 8 * 101.
        ("2024-02-29", (816, 102, 1), (date(2024, 2, 22), 8, 29), (8, 808, 8, 8 / 808), 2958),
        # After three days without a snapshot: four days' cost in one, 20 * 102 against 20 * 101.
        ("2024-03-12", (2040, 408, 4), (date(2024, 2, 22), 20, 29), (20, 2020, 20, 20 / 2020), 2958),
        # Europe's change of clocks, period 10: day 7 after the gap of days 5 and 6, 7 * 110 against 7 * 109.
        ("2024-10-28", (770, 330, 3), (date(2024, 10, 22), 7, 31), (7, 763, 7, 7 / 763), 3410),
        # The last day of a period, 21 March 2024, day 29 of 29.
        ("2024-03-21", (2958, 102, 1), (date(2024, 2, 22), 29, 29), (29, 2929, 29, 29 / 2929), 2958),
        # The next day is the first of the next period: 103, and not less than the day before.
        ("2024-03-22", (103, 103, 1), (date(2024, 3, 22), 1, 31), (1, 102, 1, 1 / 102), 3193),
        # The first snapshot of period 14 is that of day 2: 2 * 114 for two days, against 2 * 113.
        ("2025-02-23", (228, 228, 2), (date(2025, 2, 22), 2, 28), (2, 226, 2, 2 / 226), 3192),
        # Day 1 of period 15 against a period 14 that has no day 1.
        ("2025-03-22", (115, 115, 1), (date(2025, 3, 22), 1, 31), (None,) * 4, 3565),
        # Period 3 has 31 days and period 2 had 29: day 31 is compared with the last there was, 29 * 102.
        ("2024-04-21", (3193, 103, 1), (date(2024, 3, 22), 31, 31), (29, 2958, 235, 235 / 2958), 3193),
        # The last of all, day 31 of period 24.
        ("2026-01-21", (3844, 124, 1), (date(2025, 12, 22), 31, 31), (30, 3690, 154, 154 / 3690), 3844),
    ],
)
def test_the_figures_of_a_day_in_two_years(
    two_years: Refreshed,
    day: str,
    cost: tuple[float, ...],
    period: tuple[Any, ...],
    comparison: tuple[Any, ...],
    forecast: float,
) -> None:
    assert on(two_years, day, *COST) == list(cost)
    assert on(two_years, day, *PERIOD) == list(period)
    assert on(two_years, day, *COMPARISON) == [near(value) for value in comparison]
    assert on(two_years, day, "Forecast") == [near(forecast)]


def test_cumulative_cost_is_never_summed(two_years: Refreshed) -> None:
    assert two_years.value("Cost to Date") == 3844
    assert two_years.value("Cost to Date", Period=["2024-02-22"]) == 2958
    assert two_years.value("Cost to Date", Period=["2024-02-22", "2024-03-22"]) == 3193
    # Added up day by day it is the sum of the periods' last figures: n * days * ... of all 25 periods.
    leap_year = [31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30]
    next_year = [31, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30]
    lengths = [*leap_year, *next_year, 31]
    assert two_years.value("Daily Cost") == sum(days * (100 + n) for n, days in enumerate(lengths))
    assert two_years.value("Days Covered") == sum(lengths)


def test_the_newest_period_as_a_whole(two_years: Refreshed) -> None:
    assert two_years.value("Total of Previous Period") == 3690
    assert two_years.value("Budget") == 4000
    assert two_years.value("Budget Used %", Periods_Ago=[0], Day_of_Period=[10]) == near(1240 / 4000)
    assert two_years.value("Forecast of Budget %", Periods_Ago=[0], Day_of_Period=[10]) == near(3844 / 4000)
    assert two_years.value("Customers over Budget") == 24
    assert two_years.value("Customers Trending over") == 31
    assert two_years.value("Customers with Subscriptions") == 21
    assert two_years.value("Cost to Date", Periods_Ago=[0], Day_of_Period=[3]) == 372
    assert two_years.value("Same Day of Previous Period", Periods_Ago=[0], Day_of_Period=[3]) == 369


def test_days_without_a_snapshot_are_counted_and_named(two_years: Refreshed) -> None:
    assert two_years.value("Missing Days") == 6
    assert [
        day["Date"]
        for day in two_years.table("Date")
        if on(two_years, day["Date"], "Note of Day") == ["no snapshot"]
    ] == sorted(map(str, GAPS))
    assert (len(two_years.table("Date")), two_years.table("Date")[0]["Date"]) == (762, "2023-12-22")


def test_no_budget_is_blank(refreshed: Refresh) -> None:
    report = refreshed([said(date(2026, 11, 21), "5", date(2026, 11, 1), date(2026, 11, 30))])

    assert [report.value(name) for name in ("Budget", "Budget Used %", "Forecast of Budget %")] == [None] * 3


def test_the_published_example_is_a_forecast_by_the_day_of_its_data(refreshed: Refresh) -> None:
    report = refreshed([Said(datetime(2017, 9, 17, 0, 5, 2, tzinfo=UTC), PUBLISHED)])

    assert report.value("Date of Data") == date(2017, 9, 1)
    assert report.value("Newest Snapshot") == datetime(2017, 9, 17, 0, 5, 2)  # noqa: DTZ001  # the model's are UTC
    assert [report.value(name) for name in PERIOD] == [date(2017, 8, 28), 5, 31]
    assert report.value("Cost to Date") == 22.8612
    assert report.value("Forecast") == pytest.approx(22.8612 * 31 / 5)  # 141.73944
    assert report.value("Currency Note") == "EUR"


def calendar_months() -> Iterator[Said]:
    """Three calendar months, 10 a day; the end is the first day that is no longer in the period."""
    for _, start, following in months(date(2024, 1, 1), 3):
        for day_of_period, day in days(start, following):
            yield said(day, f"{day_of_period * 10}", start, following)


def test_periods_that_are_calendar_months_and_end_on_the_next_ones_first_day(refreshed: Refresh) -> None:
    report = refreshed(calendar_months())

    lengths = [report.value("Length of Period", Period=[f"2024-0{month}-01"]) for month in (1, 2, 3)]
    assert lengths == [31, 29, 31]
    assert on(report, "2024-02-29", "Day of Data", "Forecast", "Daily Cost") == [29, 290, 10]
    assert on(report, "2024-03-10", *COMPARISON) == [10, 100, 0, 0]


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [
        ("2025-01-31", "2025-02-28", 28),  # the next begins on 28 February, for want of a 31st
        ("2025-02-28", "2025-03-31", 31),  # and that on 31 March
        ("2025-01-31", "2025-02-27", 28),
        ("2024-02-01", "2024-02-29", 29),
        ("2024-02-01", "2024-03-01", 29),
        ("2025-10-28", "2025-11-27", 31),
        ("2025-10-28", "2025-11-28", 31),
        ("2025-10-28", "2025-10-28", None),
        ("2025-10-28", "2025-10-01", None),
    ],
)
def test_either_convention_of_the_end_of_a_lone_period(
    refreshed: Refresh, start: str, end: str, length: int | None
) -> None:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    report = refreshed([said(first, "1", first, last)])

    assert report.value("Length of Period") == length


@pytest.mark.parametrize(
    ("periods", "lengths"),
    [
        (
            [("2025-01-31", "2025-02-27"), ("2025-02-28", "2025-03-30"), ("2025-03-31", "2025-04-29")],
            [28, 31, 30],
        ),
        (
            [("2025-01-31", "2025-02-28"), ("2025-02-28", "2025-03-31"), ("2025-03-31", "2025-04-30")],
            [28, 31, 30],
        ),
        (
            [("2025-04-30", "2025-05-29"), ("2025-05-30", "2025-06-29"), ("2025-06-30", "2025-07-29")],
            [30, 31, 30],
        ),
    ],
)
def test_of_several_periods_the_next_ones_start_tells_what_an_end_is(
    refreshed: Refresh, periods: list[tuple[str, str]], lengths: list[int]
) -> None:
    dates = [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in periods]
    report = refreshed([said(start, "1", start, end) for start, end in dates])

    assert [report.value("Length of Period", Period=[start]) for start, _ in periods] == lengths


def test_a_change_of_currency_is_never_added_up_or_compared(refreshed: Refresh) -> None:
    november, december = date(2026, 11, 1), date(2026, 12, 1)
    ends = {"start": november, "end": date(2026, 11, 30)}
    report = refreshed(
        [
            said(date(2026, 11, 1), "10", **ends),
            said(date(2026, 11, 2), "20", **ends),
            said(date(2026, 11, 3), "33", currencyCode="USD", **ends),
            said(date(2026, 11, 4), "44", currencyCode="USD", **ends),
            said(date(2026, 12, 4), "48", december, date(2026, 12, 31), currencyCode="USD"),
            said(date(2026, 12, 5), "60", december, date(2026, 12, 31), currencyCode="GBP"),
        ]
    )

    assert report.value("Daily Cost") is None
    assert report.value("Daily Cost", Currency=["EUR"]) == 20
    assert on(report, "2026-11-03", "Cost to Date", "Daily Cost", "Currency of Cost") == [33, None, "USD"]
    assert on(report, "2026-11-04", "Cost to Date", "Daily Cost", "Currency of Cost") == [44, 11, "USD"]
    assert on(report, "2026-12-04", "Same Day of Previous Period", "Change") == [44, 4]
    assert on(report, "2026-12-05", "Same Day of Previous Period", "Change", "Change %") == [None] * 3
    assert report.value("Total of Previous Period") is None
    names = {row["Period and Currency"] for row in report.table("History")}
    assert names == {"2026-11-01 EUR", "2026-11-01 USD", "2026-12-01 USD", "2026-12-01 GBP"}


def test_the_day_of_the_turn_has_both_periods(refreshed: Refresh) -> None:
    old, new = (date(2026, 10, 28), date(2026, 11, 27)), (date(2026, 11, 28), date(2026, 12, 27))
    day = date(2026, 11, 28)
    report = refreshed(
        [
            said(date(2026, 11, 27), "990", *old),
            said(day, "1000", *old, at=time(6, 5, tzinfo=UTC)),
            said(day, "3", *new, at=time(8, 5, tzinfo=UTC), is_revision=True),
            said(date(2026, 11, 29), "5", *new),
        ]
    )

    assert on(report, "2026-11-28", "Cost to Date", "Daily Cost", "Start of Period") == [3, 13, new[0]]
    assert report.value("Cost to Date", Period=["2026-10-28"]) == 1000
    assert report.value("Day of Data", Period=["2026-10-28"]) == 31
    assert report.value("Total of Previous Period") == 1000
    assert on(report, "2026-11-28", "Days Covered", "Note of Day", "Revised Figures") == [1, None, 0]
    assert report.value("Days Covered", Period=["2026-10-28"]) == 31
    assert report.value("Missing Days") == 0


def test_a_period_that_the_record_has_not_seen_is_not_skipped_in_a_comparison(refreshed: Refresh) -> None:
    report = refreshed(
        [
            said(date(2026, 9, 5), "50", date(2026, 9, 1), date(2026, 9, 30)),
            said(date(2026, 11, 5), "70", date(2026, 11, 1), date(2026, 11, 30)),
        ]
    )

    assert report.value("Start of Previous Period") is None
    assert [report.value(name) for name in (*COMPARISON, "Total of Previous Period")] == [None] * 5


def test_data_of_a_day_before_the_period_has_no_day_in_it(refreshed: Refresh) -> None:
    start, end = date(2026, 11, 1), date(2026, 11, 30)
    report = refreshed([said(start, "0.5", start, end, lastModifiedDate="2026-10-31T23:59:59-07:00")])

    assert [report.value(name) for name in ("Day of Data", "Forecast", "Same Day of Previous Period")] == [
        None
    ] * 3
    assert report.value("Cost to Date") == 0.5


@pytest.mark.parametrize(
    ("currency", "locale", "shown", "note"),
    [
        ("USD", "fr-FR", "USD", "USD"),
        (None, "fr-FR", "EUR", "EUR"),
        ("", "da-DK", "DKK", "DKK"),
        ("eur", None, "EUR", "EUR"),
        (None, "de-CH", "CHF", "CHF"),
        (None, "xx-YY", "xx-YY", "xx-YY (a culture whose currency is not known)"),
        (None, None, None, "no currency given"),
    ],
)
def test_a_currency_is_shown_or_its_culture_as_it_is(
    refreshed: Refresh, currency: str | None, locale: str | None, shown: str | None, note: str
) -> None:
    day = date(2026, 11, 21)
    answer = said(day, "1", day, currencyCode=currency, currencyLocale=locale)
    report = refreshed([answer])

    assert report.value("Currency of Cost") == shown
    assert report.value("Currency Note") == note
    (row,) = report.table("History")
    assert row["Period and Currency"] == f"2026-11-21 {shown}" if shown else "2026-11-21"


def test_money_is_written_with_its_currency(refreshed: Refresh, model: Model) -> None:
    report = refreshed([said(date(2026, 11, 21), "1", currencyCode=code) for code in ("EUR",)])
    bare = refreshed([said(date(2026, 11, 21), "1", currencyCode=None)])
    formats = {
        name: each.format_expression for name, each in model.measures.items() if each.format_expression
    }

    money = {name for name, each in model.measures.items() if not each.format and "Cost" in each.folder}
    assert {"Cost to Date", "Daily Cost", "Forecast", "Change", "Budget"} <= formats.keys()
    assert money - formats.keys() == {"Currency of Cost", "Currency Suffix"}
    assert report.format(formats["Forecast"]) == '#,0.00 "EUR"'
    assert report.format(formats["Change"]) == '+#,0.00 "EUR";-#,0.00 "EUR";0.00 "EUR"'
    assert bare.format(formats["Forecast"]) == "#,0.00"


@pytest.mark.parametrize(("hours", "warning"), [(5, ""), (26, ""), (27, ". THE RECORD HAS STOPPED")])
def test_the_headline_tells_the_period_the_data_and_a_record_that_has_stopped(
    refreshed: Refresh, hours: int, warning: str
) -> None:
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    start = date(at.year, at.month, 1)
    end = (start + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    report = refreshed([said(at.date(), "1", start, end, at=at.timetz())])

    assert report.value("Snapshot Age in Hours") == hours
    assert report.value("Headline") == (
        f"Billing period from {start.day} {start:%b %Y}, {end.day} days."
        f" Data of {at.day} {at:%b %Y}, day {at.day}{warning}."
    )


@pytest.mark.parametrize(("hours", "warnings"), [(26, 0), (27, 1)])
def test_the_headline_tells_a_report_that_is_not_refreshed(
    refreshed: Refresh, hours: int, warnings: int
) -> None:
    refreshed_at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    fetched_at = refreshed_at - timedelta(hours=1)
    report = refreshed([said(fetched_at.date(), "1", at=fetched_at.timetz())], refreshed_at=refreshed_at)

    assert report.value("Headline").count("NOT BEEN REFRESHED SINCE") == warnings
    assert "STOPPED" not in report.value("Headline")


def test_a_history_without_a_row_is_a_report_without_figures(refreshed: Refresh, model: Model) -> None:
    report = refreshed([])

    assert report.value("Headline") == "No snapshot"
    assert [row["Date"] for row in report.table("Date")] == [str(datetime.now(UTC).date())]
    blank = {name for name in model.measures if report.value(name) is None}
    assert {"Cost to Date", "Forecast", "Change", "Snapshot Age in Hours"} <= blank


def test_what_a_figure_is_of_its_period(refreshed: Refresh) -> None:
    today = datetime.now(UTC).date()
    start, end = today - timedelta(days=10), today + timedelta(days=19)
    before = start - timedelta(days=30)
    ended = [said(before + timedelta(days=day), "1", before, start - timedelta(days=1)) for day in (3, 9)]
    going = said(today, "1", start, end)

    report = refreshed([*ended, going])
    earlier, last = (str(before + timedelta(days=day)) for day in (3, 9))
    assert report.value("Standing") == "in progress"
    assert report.value_where("Standing", {"Date.Date": [earlier]}) == "an earlier figure of its period"
    for closed in (
        report.value_where("Standing", {"Date.Date": [last]}),
        report.value("Standing", Period=[str(before)]),
        refreshed(ended).value("Standing"),
    ):
        assert closed == "last seen before its close, not the invoice"


def test_the_day_compared_is_at_most_three_days_before(refreshed: Refresh) -> None:
    old, new = (date(2026, 10, 1), date(2026, 10, 31)), (date(2026, 11, 1), date(2026, 11, 30))
    report = refreshed(
        [
            said(date(2026, 10, 5), "50", *old),
            *(said(date(2026, 11, day), f"{day}", *new) for day in (4, 5, 8, 9)),
        ]
    )

    days_compared = [on(report, f"2026-11-0{day}", "Day Compared", "Change") for day in (4, 5, 8, 9)]
    assert days_compared == [[None, None], [5, -45], [5, -42], [None, None]]


def test_a_correction_downwards_is_taken_as_it_is_and_named(refreshed: Refresh) -> None:
    old, new = (date(2026, 10, 1), date(2026, 10, 31)), (date(2026, 11, 1), date(2026, 11, 30))
    report = refreshed(
        [
            said(date(2026, 10, 29), "300", *old),
            said(date(2026, 10, 30), "320", *old, lastModifiedDate="2026-10-30T10:00:00Z"),
            said(date(2026, 10, 31), "310", *old, lastModifiedDate="2026-10-30T20:00:00Z"),
            said(date(2026, 11, 1), "10", *new),
            said(date(2026, 11, 30), "311", *new),
        ]
    )

    assert report.value("Total of Previous Period") == 310
    assert on(report, "2026-11-30", "Day Compared", "Same Day of Previous Period") == [30, 310]
    assert on(report, "2026-10-31", "Daily Cost", "Note of Day") == [-10, "the cost fell"]
    assert (report.value("Falls of Cost"), report.value("Missing Days")) == (1, 28)


def test_missing_days_beside_the_day_of_a_turn(refreshed: Refresh) -> None:
    old, new = (date(2026, 10, 28), date(2026, 11, 27)), (date(2026, 11, 28), date(2026, 12, 27))
    day = date(2026, 11, 28)
    report = refreshed(
        [
            said(day, "1000", *old),
            said(day, "3", *new, at=time(8, 5, tzinfo=UTC), is_revision=True),
            said(date(2026, 12, 1), "12", *new, is_revision=True),
        ]
    )

    assert (report.value("Missing Days"), report.value("Revised Figures")) == (2, 1)
    assert on(report, "2026-12-01", "Daily Cost", "Days Covered") == [9, 3]


def test_a_day_without_billing_dates_adds_nothing_twice(refreshed: Refresh) -> None:
    october, november = (date(2026, 10, 1), date(2026, 10, 31)), (date(2026, 11, 1), date(2026, 11, 30))
    report = refreshed(
        [
            said(date(2026, 10, 31), "300", *october),
            said(date(2026, 11, 19), "190", *november),
            said(date(2026, 11, 20), "200"),
            said(date(2026, 11, 21), "210", *november),
        ]
    )

    assert report.value("Daily Cost") == 510
    assert on(report, "2026-11-20", "Cost to Date", "Daily Cost", "Length of Period") == [200, None, None]
    assert {row["Period"]: row["Periods Ago"] for row in report.table("History")} == {
        "2026-10-01": 1,
        "2026-11-01": 0,
        "unknown": None,
    }


def test_ages_are_those_of_now(refreshed: Refresh) -> None:
    now = datetime.now(UTC)
    modified = (now - timedelta(days=3)).date()
    report = refreshed([said(now.date(), "1", lastModifiedDate=f"{modified}T10:00:00Z")])

    assert report.value("Date of Data") == modified
    assert report.value("Data Age in Days") == 3
