"""The history's rows, pure: what is made of a snapshot, and the rows as ndjson, as CSV and in the manifest.

All of it can be made of the snapshots again, byte for byte.
"""

import base64
import codecs
import csv
import io
import re
from collections.abc import Collection, Iterable
from datetime import date, timedelta

from simplejson import RawJSON

from shared.snapshots import (
    DATASET,
    SCHEMA_VERSION,
    DamagedError,
    SnapshotName,
    members_of,
    parse_name,
    read_snapshot,
)
from shared.usage_summary import Json, dump

NDJSON_TYPE = "application/x-ndjson; charset=utf-8"
CSV_TYPE = "text/csv; charset=utf-8"

COLUMNS = (
    "snapshotDate",
    "fetchedAt",
    "billingStartDate",
    "billingEndDate",
    "totalCost",
    "currencyCode",
    "currencyLocale",
    "customersOverBudget",
    "customersTrendingOver",
    "customersWithUsageBasedSubscription",
    "lastModifiedDate",
    "resourceId",
    "resourceName",
    "schemaVersion",
    "sourceBlob",
)

_BILLING_DATES = {"billingStartDate", "billingEndDate"}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

type Row = dict[str, Json]
type Key = tuple[str, str]
"""Of a row: its day, and the day on which its billing period begins, or nothing."""
type Rows = dict[Key, Row]


def row_of(name: SnapshotName, content: bytes) -> Row:
    """The row for a snapshot. Raises DamagedError for what is no snapshot of that day."""
    fetched_at, members = read_snapshot(name, content)
    values = members | {
        "snapshotDate": name.day.isoformat(),
        "fetchedAt": fetched_at,
        "schemaVersion": RawJSON(str(SCHEMA_VERSION)),
        "sourceBlob": name.name,
    }
    return {column: _cell(column, values.get(column)) for column in COLUMNS}


def key_of(row: Row) -> Key:
    """What there is one row of: a day and billing period. In the order of keys the rows are written."""
    return str(row["snapshotDate"]), str(row["billingStartDate"] or "")


def is_same(row: Row | None, other: Row) -> bool:
    """Whether a row is there and says the same, digit by digit."""
    return row is other or (row is not None and dump(row) == dump(other))


def ndjson(rows: Iterable[Row]) -> bytes:
    """The history, a JSON object a line."""
    return b"".join(dump(row) + b"\n" for row in rows)


def parse_ndjson(content: bytes) -> list[Row]:
    """The rows of a history. Raises DamagedError where it is not as `ndjson` writes it."""
    rows, lost = read_ndjson(content)
    if lost or ndjson(rows.values()) != content:
        raise DamagedError("it is not as a run writes it")
    return list(rows.values())


def read_ndjson(content: bytes) -> tuple[Rows, int]:
    """The rows of a history in the order of their keys, and the number of its lines that are no rows.

    Each line counts by itself, since the history may be the last place of a row, and an editor may have
    changed blanks, line ends or the order. Of two rows of one key the later snapshot's counts.
    """
    rows, lost = list[Row](), 0
    for line in content.removeprefix(codecs.BOM_UTF8).splitlines():
        try:
            rows.append(_row_in(line))
        except DamagedError:
            lost += bool(line.strip())
    by_key = {key_of(row): row for row in sorted(rows, key=source_of)}
    return {key: by_key[key] for key in sorted(by_key)}, lost


def csv_text(rows: Iterable[Row]) -> bytes:
    """The history for spreadsheets: RFC 4180 but for its line ends, which are LF; null is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_csv_cell(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue().encode(errors="replace")


def manifest(rows: Collection[Row], files: dict[str, tuple[int, bytes]], generated_at: Json) -> bytes:
    """What the history holds; `files` are sizes (bytes) and MD5 digests by name."""
    days = sorted(map(day_of, rows))
    document: dict[str, Json] = {
        "schemaVersion": RawJSON(str(SCHEMA_VERSION)),
        "dataset": DATASET,
        "generatedAt": generated_at,
        "firstDate": days[0].isoformat(),
        "lastDate": days[-1].isoformat(),
        "rows": RawJSON(str(len(rows))),
        "missingDates": [day.isoformat() for day in missing_days(rows)],
        "files": [
            {"name": name, "size": RawJSON(str(size)), "md5": base64.b64encode(digest).decode()}
            for name, (size, digest) in files.items()
        ],
    }
    return dump(document, indent=2) + b"\n"


def generated_at(manifest: bytes) -> Json:
    """When a manifest was made; None where it does not say."""
    return _member(manifest, "generatedAt")


def last_date(manifest: bytes) -> Json:
    """The last day of a manifest; None where it does not say."""
    return _member(manifest, "lastDate")


def missing_days(rows: Iterable[Row]) -> list[date]:
    """The days between the first and the last that have no row."""
    days = set(map(day_of, rows))
    first, last = min(days), max(days)
    return [day for n in range((last - first).days) if (day := first + timedelta(days=n)) not in days]


def source_of(row: Row) -> SnapshotName:
    """The snapshot that a row was made of. Raises DamagedError."""
    name = parse_name(str(row["sourceBlob"]))
    if name is None:
        raise DamagedError("a row's sourceBlob is no snapshot's name")
    return name


def day_of(row: Row) -> date:
    """The day of a history's row. Raises DamagedError."""
    try:
        return date.fromisoformat(str(row["snapshotDate"]))
    except ValueError:
        raise DamagedError("a row's snapshotDate is no date") from None


def _row_in(line: bytes) -> Row:
    row = members_of(line)
    if tuple(row) != COLUMNS or row["snapshotDate"] != source_of(row).day.isoformat():
        raise DamagedError("it is no row")
    return row


def _member(manifest: bytes, name: str) -> Json:
    try:
        return members_of(manifest).get(name)
    except DamagedError:
        return None


def _cell(column: str, value: Json) -> Json:
    """A scalar as it came; a billing date is the calendar date as written, without conversion of zones."""
    if isinstance(value, dict | list):
        return None
    if column in _BILLING_DATES:
        found = _DATE.match(value) if isinstance(value, str) else None
        return found[0] if found else None
    return value


def _csv_cell(value: Json) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dump(value).decode()
