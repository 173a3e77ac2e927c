"""Snapshots, pure: where one lies, what is in it, and whether what is there is one.

A snapshot is written once and never changed.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from simplejson import RawJSON

from shared.usage_summary import Json, dump, has_personal_data, is_finite, parse

DATASET = "usagesummary"
SCHEMA_VERSION = 1
PREFIX = "usagesummary/v1/"
JSON_TYPE = "application/json; charset=utf-8"

_NAME = re.compile(
    r"usagesummary/v1/(\d{4})/(\d\d)/(\d\d)/usagesummary(?:\.([01]\d[0-5]\d[0-5]\d|2[0-3][0-5]\d[0-5]\d)Z)?\.json",
    re.ASCII,
)
_DAY = timedelta(days=1)
_CHANGES_AT_EACH_FETCH = "etag"  # of the resource, in its attributes; nothing promises that it stays


class DamagedError(ValueError):
    """A document of the record is not what it is to be; the text says why and holds nothing of it."""


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


def is_yet_to_come(day: date, today: date) -> bool:
    """Whether no run has written a snapshot of a day; storage's clock may be a day ahead of this one."""
    return day > today + _DAY


def day_prefix(day: date) -> str:
    """Where the blobs of a day lie."""
    return f"{PREFIX}{day:%Y/%m/%d}/"


def prefixes(last: SnapshotName, today: date) -> Iterator[str]:
    """Where what may be new lies: the months since the day before the last."""
    # A snapshot has the date of the storage service, whose clock may be ahead of this one.
    since, until = last.day - _DAY, max(last.day, today) + _DAY
    months = range(since.year * 12 + since.month - 1, until.year * 12 + until.month)
    yield from (f"{PREFIX}{month // 12:04}/{month % 12 + 1:02}/" for month in months)


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


def is_news(content: bytes, last: bytes) -> bool:
    """Whether a snapshot was fetched later than the day's last one and its document says something else."""
    try:
        (fetched_at, document), (fetched_before, document_before) = map(_said, (content, last))
    except DamagedError:
        return True
    return fetched_at > fetched_before and dump(document) != dump(document_before)


def read_snapshot(name: SnapshotName, content: bytes) -> tuple[str, dict[str, Json]]:
    """When the document in a snapshot was fetched, and its members. Raises DamagedError."""
    document = members_of(content)
    version, summary = document.get("schemaVersion"), document.get("usageSummary")
    if not isinstance(version, RawJSON) or version.encoded_json != str(SCHEMA_VERSION):
        raise DamagedError(f"its schemaVersion is not {SCHEMA_VERSION}")
    if document.get("snapshotDate") != name.day.isoformat():
        raise DamagedError("its snapshotDate is not the date in its name")
    fetched_at = document.get("fetchedAt")
    if not isinstance(fetched_at, str) or not _is_instant_of(name.day, fetched_at):
        raise DamagedError("its fetchedAt is no instant of that day, in UTC and whole seconds")
    if not isinstance(summary, dict) or not is_finite(summary.get("totalCost")):
        raise DamagedError("its usageSummary has no finite number totalCost")
    if _read(content, has_personal_data):  # only one that others brought in
        raise DamagedError("it holds personal data, emailsToNotify")
    return fetched_at, summary


def members_of(content: bytes) -> dict[str, Json]:
    """The members of a JSON object. Raises DamagedError where there is none."""
    value = _read(content, parse)
    if not isinstance(value, dict):
        raise DamagedError("it is no JSON object in UTF-8")
    return value


def instant_text(instant: datetime) -> str:
    """An instant as all documents have it: UTC, whole seconds."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read[T](content: bytes, read: Callable[[bytes], T]) -> T:
    try:
        return read(content)
    except (ValueError, RecursionError):
        raise DamagedError("it is no JSON object in UTF-8") from None


def _said(content: bytes) -> tuple[str, Json]:
    """When a snapshot's document was fetched, and the document without what may change at each fetch."""
    document = members_of(content)
    fetched_at, summary = document.get("fetchedAt"), document.get("usageSummary")
    if not isinstance(fetched_at, str) or not isinstance(summary, dict):
        raise DamagedError
    attributes = summary.get("attributes")
    if isinstance(attributes, dict):
        kept = {name: value for name, value in attributes.items() if name != _CHANGES_AT_EACH_FETCH}
        summary = summary | {"attributes": kept}
    return fetched_at, summary


def _is_instant_of(day: date, text: str) -> bool:
    try:
        instant = datetime.fromisoformat(text)
        return instant.tzinfo is not None and instant_text(instant) == text and instant.date() == day
    except (ValueError, OverflowError):  # the latter for an instant that is in no year of UTC
        return False
