"""A refresh: what the model's query makes of the record's history, and what it asks for."""

import json
from collections.abc import Callable
from datetime import date, datetime
from time import perf_counter
from urllib.parse import urlsplit

import pytest
from azure.storage.blob import BlobServiceClient

from dev.azurite import Azurite
from dev.report.conftest import Refresh
from dev.report.evaluation import Refreshed
from dev.report.history import days, history, months, said
from dev.report.model import Model
from shared.rows import COLUMNS
from tests.storage_proxy import StorageProxy

DAY = date(2026, 11, 21)
START, END = date(2026, 11, 1), date(2026, 11, 30)


def refreshed_from(model: Model, content: bytes) -> Refreshed:
    return Refreshed(model, lambda _: content)


def altered(content: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    """A history whose rows have been changed, and written as JSON may be."""
    rows = [json.loads(line) for line in content.splitlines()]
    for row in rows:
        change(row)
    return "".join(json.dumps(row, indent=None) + "\n" for row in rows).encode()


def test_a_row_is_what_partner_center_said(refreshed: Refresh) -> None:
    report = refreshed(
        [
            said(
                DAY,
                "120.56829999959047",
                START,
                END,
                resourceName="Nordlys",
                customersOverBudget=1,
                customersTrendingOver=2,
                customersWithUsageBasedSubscription=11,
                lastModifiedDate="2026-11-19T23:59:59-08:00",
            )
        ]
    )

    assert report.table("History") == [
        {
            "Row": 1,
            "Snapshot Date": DAY,
            "Period": "2026-11-01",
            "Period and Currency": "2026-11-01 EUR",
            "Periods Ago": 0,
            "Period Start": START,
            "Period Length": 30,
            "Fetched At": datetime(2026, 11, 21, 0, 5, 2),  # noqa: DTZ001  # the model's are UTC
            "Data Date": date(2026, 11, 19),
            "Day of Period": 19,
            "Total Cost": 120.5683,
            "Currency": "EUR",
            "Currency Is Known": True,
            "Over Budget": 1,
            "Trending Over": 2,
            "With Subscription": 11,
            "Partner": "Nordlys",
            "Source": "usagesummary/v1/2026/11/21/usagesummary.json",
            "Is Revision": False,
            "Added Cost": 120.5683,
            "Added Days": 21,
        }
    ]


@pytest.mark.parametrize(
    ("total", "cost"),
    [
        ("0", 0.0),
        ("-12.34565", -12.3456),
        ("120.5682999999995904716", 120.5683),
        ("123456789012.34567890123", 123456789012.3457),
        ("922337203685477", 922337203685477.0),
        ("1e5", 100000.0),
        ("1e-9", 0.0),
        ("1234567890123456789012", None),
        ("1e300", None),
    ],
)
def test_a_cost_is_right_to_the_digits_of_a_fixed_decimal(
    refreshed: Refresh, total: str, cost: float | None
) -> None:
    (row,) = refreshed([said(DAY, total, START, END)]).table("History")

    assert row["Total Cost"] == cost
    assert row["Added Cost"] == cost


def test_what_a_document_lacks_stays_blank(refreshed: Refresh) -> None:
    report = refreshed([said(DAY, "5", currencyCode=None)])
    (row,) = report.table("History")

    blank = {name for name, value in row.items() if value is None}
    assert blank == {
        "Periods Ago",
        "Added Cost",
        "Period Start",
        "Period Length",
        "Day of Period",
        "Currency",
        "Over Budget",
        "Trending Over",
        "With Subscription",
        "Partner",
        "Added Days",
    }
    assert (row["Period"], row["Data Date"], report.value("Cost to Date")) == ("unknown", DAY, 5)
    assert report.value("Customers over Budget") is None
    assert report.value("Headline").startswith("Billing period unknown. Data of 21 Nov 2026. ".rstrip())


REST = {name for name in COLUMNS if name not in {"snapshotDate", "totalCost"}}
DRIFTS: dict[str, Callable[[dict[str, object]], object]] = {
    "a column more": lambda row: row.update(aNewColumn={"with": ["anything"]}),
    "nulls": lambda row: row.update(dict.fromkeys(REST)),
    "columns less": lambda row: [row.pop(name) for name in REST],
    "no dates": lambda row: row.update(billingStartDate="x", billingEndDate="2026-13-45", lastModifiedDate=7),
    "the year 1": lambda row: row.update(dict.fromkeys(["billingStartDate", "billingEndDate"], "0001-01-01")),
    "data of the year 1": lambda row: row.update(lastModifiedDate="0001-01-01T00:00:00Z"),
    "empty texts": lambda row: row.update(
        lastModifiedDate="", currencyLocale="", fetchedAt="", sourceBlob=""
    ),
    "no counts": lambda row: row.update(customersOverBudget="many", customersTrendingOver=10**22),
    "other types": lambda row: row.update(currencyCode=978, resourceName=["x"], schemaVersion="2"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_of_the_schema_breaks_no_refresh_and_moves_no_date(model: Model, drift: str) -> None:
    content = history(said(DAY.replace(day=day), f"{day}.5", START, END) for day in (20, 21))
    report = refreshed_from(model, altered(content, DRIFTS[drift]))

    assert [row["Snapshot Date"] for row in report.table("History")] == [DAY.replace(day=20), DAY]
    assert report.value("Cost to Date") == 21.5
    # What is added to nobody knows what is blank.
    added = {"2026-11-01": [20.5, 1.0], "unknown": [None, None]}
    assert [row["Added Cost"] for row in report.table("History")] == added[
        report.table("History")[0]["Period"]
    ]
    for name in model.measures:
        report.value(name)


def test_a_cost_that_is_missing_is_a_gap(model: Model) -> None:
    content = history(said(DAY.replace(day=day), f"{day}", START, END) for day in (18, 19, 20, 21))
    content = altered(
        content, lambda row: row.update(totalCost=None) if "19" in str(row["snapshotDate"]) else 0
    )
    rows = {row["Snapshot Date"].day: row for row in refreshed_from(model, content).table("History")}

    assert [rows[day]["Added Cost"] for day in (18, 19, 20, 21)] == [18.0, None, 2.0, 1.0]
    assert [rows[day]["Added Days"] for day in (18, 19, 20, 21)] == [18, None, 2, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_lines_end_as_they_may(model: Model, end: str) -> None:
    content = history(said(DAY.replace(day=day), "1", START, END) for day in (20, 21))

    report = refreshed_from(model, content.replace(b"\n", end.encode()))
    assert len(report.table("History")) == len(report.table("Date")) == 2


@pytest.mark.parametrize(
    "day",
    ["2024-02-29", "2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01", "2026-12-31", "2027-01-01"],
)
def test_no_zone_and_no_change_of_clocks_moves_a_date(refreshed: Refresh, day: str) -> None:
    there = date.fromisoformat(day)
    report = refreshed([said(there, "1", there, there, lastModifiedDate=f"{day}T23:59:59.999-12:00")])
    (row,) = report.table("History")

    assert {row["Snapshot Date"], row["Period Start"], row["Data Date"]} == {there}
    assert (row["Period"], row["Day of Period"], row["Added Days"]) == (day, 1, 1)


def test_ten_years_are_one_request(model: Model, record_property: Callable[[str, object], None]) -> None:
    """One blob is read, whole and once: counted at the storage that has it."""
    content = history(
        said(day, f"{number}.5", start, following)
        for _, start, following in months(date(2016, 12, 1), 120)
        for number, day in days(start, following)
    )
    with Azurite() as azurite, StorageProxy(azurite) as proxy:
        with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
            service.create_container("usage-history").upload_blob("usagesummary.ndjson", content)
        with BlobServiceClient.from_connection_string(proxy.connection_string) as service:

            def get(url: str) -> bytes:
                container, name = urlsplit(url).path.split("/")[-2:]
                return service.get_blob_client(container, name).download_blob().readall()

            began = perf_counter()
            report = Refreshed(model, get)
        record_property("seconds of a refresh", perf_counter() - began)
        record_property("bytes of a refresh", len(content))
        assert [(each.method, each.blob) for each in proxy.requests] == [("GET", "usagesummary.ndjson")]
    assert len(report.table("History")) == len(report.table("Date")) == 3652
    assert (report.value("Cost to Date"), report.value("Missing Days")) == (30.5, 0)
