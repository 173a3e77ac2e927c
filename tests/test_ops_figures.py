"""What ops show makes of a usage summary's members: the period, the money, the app's address."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.checks import has_mfa, texts
from ops.show import Period, billing_period, endpoint, money
from shared.errors import ConfigurationError
from shared.usage_summary import Json, read_usage_summary

DAY = timedelta(days=1)
APP = "https://app.azurewebsites.net"
PDT, PST = timezone(timedelta(hours=-7)), timezone(timedelta(hours=-8))


def period(start: Json, end: Json, now: str) -> Period | None:
    members = {"billingStartDate": start, "billingEndDate": end}
    return billing_period(members, datetime.fromisoformat(now).astimezone(UTC))


@pytest.mark.parametrize(
    ("start", "end", "now", "day", "days"),
    [
        # learn.microsoft.com/partner-center/developer/get-a-partner-usage-summary, its example
        ("2019-08-28T00:00:00-07:00", "2019-09-27T00:00:00-07:00", "2019-09-17T12:00:00Z", 21, 31),
        ("2019-08-28T00:00:00-07:00", "2019-09-27T00:00:00-07:00", "2019-09-18T06:59:59Z", 21, 31),
        ("2019-08-28T00:00:00-07:00", "2019-09-27T00:00:00-07:00", "2019-09-18T07:00:00Z", 22, 31),
        # summer time begins and ends within
        ("2026-10-28T00:00:00-07:00", "2026-11-27T00:00:00-08:00", "2026-10-28T07:00:00Z", 1, 31),
        ("2026-10-28T00:00:00-07:00", "2026-11-27T00:00:00-08:00", "2026-11-27T12:00:00Z", 31, 31),
        ("2026-02-28T00:00:00-08:00", "2026-03-27T00:00:00-07:00", "2026-03-27T12:00:00Z", 28, 28),
        # calendar months, by their exclusive or their inclusive end
        ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-11-30T23:59:59Z", 30, 30),
        ("2026-11-01T00:00:00", "2026-11-30T00:00:00", "2026-11-01T00:00:00Z", 1, 30),
        ("2026-11-01T00:00:00Z", "2026-11-30T23:59:59Z", "2026-11-15T00:00:00Z", 15, 30),
        ("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", "2024-02-29T12:00:00Z", 29, 29),
    ],
)
def test_a_period_is_counted_in_calendar_days(start: str, end: str, now: str, day: int, days: int) -> None:
    assert period(start, end, now) == Period(start[:10], end[:10], day, days)


@pytest.mark.parametrize("value", [None, "", "soon", 20190828, "2019-13-01T00:00:00Z", [], {}])
def test_without_both_dates_there_is_no_period(value: Json) -> None:
    assert period(value, "2019-09-27T00:00:00Z", "2019-09-17T00:00:00Z") is None
    assert period("2019-08-28T00:00:00Z", value, "2019-09-17T00:00:00Z") is None
    assert billing_period({}, datetime(2019, 9, 17, tzinfo=UTC)) is None


@given(
    first=st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    days=st.integers(2, 28),
    zones=st.tuples(st.sampled_from([PDT, PST, UTC]), st.sampled_from([PDT, PST, UTC])),
    seconds=st.integers(0, 86399),
    number=st.integers(0, 100),
)
def test_every_day_of_a_period_has_its_number(
    first: date, days: int, zones: tuple[timezone, timezone], seconds: int, number: int
) -> None:
    start = datetime.combine(first, datetime.min.time(), zones[0])
    end = datetime.combine(first + (days - 1) * DAY, datetime.min.time(), zones[1])
    number %= days
    now = start + number * DAY + timedelta(seconds=seconds)

    found = billing_period({"billingStartDate": start.isoformat(), "billingEndDate": end.isoformat()}, now)

    assert found == Period(first.isoformat(), end.date().isoformat(), number + 1, days)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_a_month_that_ends_as_the_next_begins_has_as_many_days_as_that_month(day: date) -> None:
    first = day.replace(day=1)
    following = (first + 31 * DAY).replace(day=1)

    found = period(f"{first}T00:00:00Z", f"{following}T00:00:00Z", f"{day}T12:00:00Z")

    assert found is not None
    assert (found.day, found.days) == (day.day, (following - first).days)


def test_the_last_hour_of_a_period_is_of_its_last_day() -> None:
    found = period("2026-10-28T00:00:00-07:00", "2026-11-27T00:00:00-08:00", "2026-11-27T23:30:00-08:00")

    assert found is not None
    assert (found.day, found.days) == (31, 31)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('"currencyCode": "EUR", "currencyLocale": "da-DK"', "7.10 EUR"),
        ('"currencyCode": null, "currencyLocale": "da-DK"', "7.10 in the currency of da-DK"),
        ('"currencyLocale": "en-US"', "7.10 in the currency of en-US"),
        ('"currencyCode": ""', "7.10 (no currency given)"),
    ],
)
def test_money_has_its_currency_or_what_stands_for_one(more: str, words: str) -> None:
    assert money(read_usage_summary(f'{{"totalCost": 7.10, {more}}}'.encode()).members) == words


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**300), max_value=10**300))
def test_money_keeps_every_digit(cost: Decimal) -> None:
    text = str(cost).replace("E", "e")
    members = read_usage_summary(f'{{"totalCost": {text}, "currencyCode": "EUR"}}'.encode()).members

    assert money(members) == f"{text} EUR"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (APP, f"{APP}/v1/usagesummary"),
        (f"{APP}/", f"{APP}/v1/usagesummary"),
        (f"{APP}/api", f"{APP}/v1/usagesummary"),
        (f"{APP}/api/", f"{APP}/v1/usagesummary"),
        (f"{APP}/v1/usagesummary", f"{APP}/v1/usagesummary"),
        (f"{APP}/v1/usagesummary/", f"{APP}/v1/usagesummary"),
        ("https://api", "https://api/v1/usagesummary"),
        ("https://gateway.example/partners/", "https://gateway.example/partners/v1/usagesummary"),
        ("https://gateway.example/api/v1/usagesummary", "https://gateway.example/api/v1/usagesummary"),
        ("http://localhost:7071", "http://localhost:7071/v1/usagesummary"),
    ],
)
def test_the_app_answers_below_its_address(url: str, expected: str) -> None:
    assert endpoint(url) == endpoint(endpoint(url)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.azurewebsites.net",
        "ftp://app.example",
        "https://",
        "https:///api",
        "file:///etc/passwd",
        f"{APP}?code=a-key",
        f"{APP}/#part",
        "https://[",
        "https://app.example:port",
        "https://user:a-key@app.example",
        "http://app.azurewebsites.net",
    ],
)
def test_what_is_no_address_of_an_app_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        endpoint(url)

    assert "a-key" not in raised.value.message


@pytest.mark.parametrize(
    ("amr", "known"), [(["pwd", "mfa"], True), (["pwd"], False), (None, None), (7, None)]
)
def test_mfa_is_known_where_a_token_says_so(amr: object, known: bool | None) -> None:  # noqa: FBT001
    assert has_mfa({"amr": amr}) is known


@pytest.mark.parametrize("claim", [None, 7, "text", {"a": 1}, [None, 7]])
def test_a_claim_of_another_shape_is_none(claim: object) -> None:
    assert texts(claim) == []
