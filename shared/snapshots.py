"""The record's documents, pure: where a snapshot lies, what is in it, and what the history makes of it.

A snapshot is written once and never changed. The history can be made of the snapshots alone, byte for byte.
"""

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from simplejson import RawJSON

from shared.usage_summary import Json, dump, parse

SCHEMA_VERSION = 1
PREFIX = "usagesummary/v1/"
JSON_TYPE = "application/json; charset=utf-8"
NDJSON_TYPE = "application/x-ndjson; charset=utf-8"
CSV_TYPE = "text/csv; charset=utf-8"

_NAME = re.compile(
    r"usagesummary/v1/(\d{4})/(\d\d)/(\d\d)/usagesummary(?:\.([01]\d[0-5]\d[0-5]\d|2[0-3][0-5]\d[0-5]\d)Z)?\.json",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

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

type Row = dict[str, Json]


@dataclass(frozen=True, slots=True, order=True)
class SnapshotName:
    """The name of a dated blob; in the order in which they were written: the first has no revision."""

    day: date
    revision: str
    name: str


def parse_name(name: str) -> SnapshotName | None:
    """The parts of a dated blob's name, or None for a blob that is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    year, month, day, revision = match.groups()
    try:
        return SnapshotName(date(int(year), int(month), int(day)), revision or "", name)
    except ValueError:
        return None


def day_prefix(day: date) -> str:
    """Where the blobs of a day lie."""
    return f"{PREFIX}{day:%Y/%m/%d}/"


def first_name(day: date) -> str:
    """The name of a day's first snapshot."""
    return f"{day_prefix(day)}usagesummary.json"


def revision_name(fetched_at: datetime) -> str:
    """The name of a later snapshot, by the instant at which its document was fetched."""
    return f"{day_prefix(fetched_at.date())}usagesummary.{fetched_at:%H%M%S}Z.json"


def snapshot(members: dict[str, Json], fetched_at: datetime, request_id: str, correlation_id: str) -> bytes:
    """The document of a snapshot; `members` are the usage summary's, without personal data."""
    return dump(
        {
            "schemaVersion": RawJSON(str(SCHEMA_VERSION)),
            "snapshotDate": fetched_at.date().isoformat(),
            "fetchedAt": instant_text(fetched_at),
            "requestId": request_id,
            "correlationId": correlation_id,
            "usageSummary": members,
        }
    )


def said_by(content: bytes) -> tuple[str, bytes]:
    """When a snapshot's document was fetched, and the document in one form. Raises ValueError."""
    document = _members(parse(content))
    return str(document["fetchedAt"]), dump(document["usageSummary"])


def row_of(name: SnapshotName, content: bytes) -> Row:
    """The history's row for a snapshot. Raises ValueError or LookupError for what is none of that day."""
    document = _members(parse(content))
    version, summary = document["schemaVersion"], _members(document["usageSummary"])
    if not isinstance(version, RawJSON) or version.encoded_json != str(SCHEMA_VERSION):
        raise ValueError("another schemaVersion")
    if document["snapshotDate"] != name.day.isoformat():
        raise ValueError("snapshotDate is not the date in the name")
    values = summary | {
        "snapshotDate": document["snapshotDate"],
        "fetchedAt": document["fetchedAt"],
        "schemaVersion": version,
        "sourceBlob": name.name,
    }
    return {column: _cell(column, values.get(column)) for column in COLUMNS}


def merged(rows: Iterable[Row], later: Iterable[Row]) -> list[Row]:
    """The rows with later ones in them: of each day and billing period the last, in the history's order."""
    last = {_key(row): row for each in (rows, later) for row in each}
    return [last[key] for key in sorted(last)]


def ndjson(rows: Iterable[Row]) -> bytes:
    """The history, a JSON object a line."""
    return b"".join(dump(row) + b"\n" for row in rows)


def parse_ndjson(content: bytes) -> list[Row]:
    """The rows of a history. Raises ValueError where it is not as `ndjson` writes it."""
    rows = [_members(parse(line)) for line in content.splitlines()]
    if any(tuple(row) != COLUMNS or source_of(row).day != day_of(row) for row in rows):
        raise ValueError("not a history's rows")
    if ndjson(merged(rows, ())) != content:
        raise ValueError("not a history as written")
    return rows


def csv_text(rows: Iterable[Row]) -> bytes:
    """The history for spreadsheets: RFC 4180 but for its line ends, which are LF; null is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_csv_cell(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue().encode(errors="replace")


def manifest(rows: Sequence[Row], files: dict[str, tuple[int, bytes]], generated_at: Json) -> bytes:
    """What the history holds; `files` are sizes (bytes) and MD5 digests by name."""
    days = sorted(map(day_of, rows))
    document: dict[str, Json] = {
        "schemaVersion": RawJSON(str(SCHEMA_VERSION)),
        "dataset": "usagesummary",
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


def missing_days(rows: Iterable[Row]) -> list[date]:
    """The days between the first and the last that have no row."""
    days = set(map(day_of, rows))
    first, last = min(days), max(days)
    return [day for n in range((last - first).days) if (day := first + timedelta(days=n)) not in days]


def source_of(row: Row) -> SnapshotName:
    """The snapshot that a row was made of. Raises ValueError."""
    name = parse_name(str(row["sourceBlob"]))
    if name is None:
        raise ValueError("sourceBlob is no snapshot's name")
    return name


def day_of(row: Row) -> date:
    """The day of a history's row. Raises ValueError."""
    return date.fromisoformat(str(row["snapshotDate"]))


def instant_text(instant: datetime) -> str:
    """An instant as all documents have it: UTC, whole seconds."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _key(row: Row) -> tuple[str, str]:
    return str(row["snapshotDate"]), str(row["billingStartDate"] or "")


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


def _members(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # the document is wrong, not the program
    return value
