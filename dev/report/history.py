"""Histories for the report, made by the app's own code from what Partner Center would say."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from shared.rows import Rows, key_of, ndjson, row_of
from shared.snapshots import first_name, parse_name, revision_name, snapshot
from shared.usage_summary import read_usage_summary

DAY = timedelta(days=1)
ID = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"
FIVE_PAST = time(0, 5, 2, tzinfo=UTC)

PUBLISHED = (
    b'{"resourceId":"b1d2a3c4","resourceName":"Contoso","customersWithUsageBasedSubscription":11,'
    b'"customersTrendingOver":0,"customersOverBudget":1,"totalCost":22.861172,"currencyLocale":"fr-FR",'
    b'"billingStartDate":"2017-08-28T00:00:00-07:00","billingEndDate":"2017-09-27T00:00:00-07:00",'
    b'"lastModifiedDate":"2017-09-01T23:04:41.193+00:00",'
    b'"attributes":{"objectType":"PartnerUsageSummary"}}'
)
"""The figures of the response example in "Get a usage summary for a partner"."""


@dataclass(frozen=True)
class Said:
    """What Partner Center said, and when."""

    at: datetime
    document: bytes
    is_revision: bool = False


def said(
    day: date, total: str, start: date | None = None, end: date | None = None, **members: object
) -> Said:
    """A document of a day; `start` and `end` as dates in Pacific time, which is not that of `day`."""
    dates = {
        name: f"{value}T00:00:00-0{7 if 4 <= value.month <= 10 else 8}:00"
        for name, value in (("billingStartDate", start), ("billingEndDate", end))
        if value
    }
    members = {"currencyCode": "EUR", **dates, **members}
    is_revision = bool(members.pop("is_revision", False))
    at = datetime.combine(day, members.pop("at", FIVE_PAST))  # type: ignore[arg-type]
    text = json.dumps(members)[1:-1]
    return Said(at, f'{{"totalCost":{total},{text}}}'.encode(), is_revision)


def history(answers: Iterable[Said]) -> bytes:
    """usagesummary.ndjson of these answers, by the code that writes it."""
    rows: Rows = {}
    for each in answers:
        members = read_usage_summary(each.document).members
        content = snapshot(members, each.at, ID, ID)
        name = parse_name(revision_name(each.at) if each.is_revision else first_name(each.at.date()))
        assert name is not None
        row = row_of(name, content)
        rows[key_of(row)] = row
    return ndjson(rows[key] for key in sorted(rows))


def months(first: date, count: int) -> Iterator[tuple[int, date, date]]:
    """So many billing periods from `first`: number, first day, first day of the next."""
    for number in range(count):
        months_on = first.month - 1 + number
        start = first.replace(year=first.year + months_on // 12, month=months_on % 12 + 1)
        following = (start.replace(day=1) + 32 * DAY).replace(day=first.day)
        yield number, start, following


def days(start: date, following: date) -> Iterator[tuple[int, date]]:
    """The days of a period, from 1."""
    for number in range((following - start).days):
        yield number + 1, start + number * DAY
