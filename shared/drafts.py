"""What the history is to be, pure: from the one before and the snapshots that it has not seen."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from shared.blob import Blob, md5
from shared.rows import (
    Row,
    Rows,
    is_same,
    key_of,
    manifest,
    missing_days,
    parse_ndjson,
    source_of,
)
from shared.snapshots import PREFIX, DamagedError, SnapshotName
from shared.usage_summary import Json

NDJSON, CSV, LATEST, MANIFEST = "usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"

_SHA256, _SEEN = "sha256", "seen"  # metadata that whoever else writes a blob does not keep true
_DAY = timedelta(days=1)

type Files = dict[str, bytes]
"""Content by name, in the order in which the files are written."""


@dataclass(frozen=True, slots=True)
class Found:
    """A dated blob as read: the history's row of it, or what is wrong with it."""

    name: SnapshotName
    row: Row | None
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Former:
    """A history as read: its rows, and a digest of the names that its last two days had."""

    rows: Rows = field(default_factory=dict)
    seen: str | None = None

    @property
    def last(self) -> SnapshotName | None:
        """The newest snapshot that it has a row of."""
        return _last(self.rows)

    def unread(self, names: Iterable[SnapshotName]) -> list[SnapshotName]:
        """Those of the listed names that may say something new."""
        recent, last = _recent(names, self.last), self.last
        if last is None or self.seen != _seen(recent, last):
            return recent  # an overtaken run has put one among the earlier ones
        return [name for name in recent if name > last]


@dataclass(frozen=True, slots=True)
class Draft:
    """What the history is to be: its rows, the names that were listed, the damaged blobs and why."""

    rows: Rows
    names: list[SnapshotName]
    damaged: dict[str, str]

    @property
    def last(self) -> SnapshotName | None:
        """The newest snapshot that it has a row of."""
        return _last(self.rows)

    def candidates(self) -> list[SnapshotName]:
        """The snapshots of which the newest that can be read is the latest, in the order to be tried."""
        sound = {name for name in self.names if name.name not in self.damaged}
        return sorted(sound.union(map(source_of, self.rows.values())), reverse=True)

    def metadata_of(self, name: str, content: bytes) -> dict[str, str]:
        """The metadata of one of its files."""
        seen = {_SEEN: _seen(_recent(self.names, self.last), self.last)} if name == NDJSON else {}
        return {_SHA256: hashlib.sha256(content).hexdigest(), **seen}


@dataclass(frozen=True, slots=True)
class Updated:
    """What became of the history.

    The files written, in that order; the dated blobs whose rows are new in it; the days that have lost a row;
    the damaged blobs, with the reason; how many rows it has, and the days without one.
    """

    written: list[str]
    added: list[str]
    dropped: list[str]
    damaged: dict[str, str]
    rows: int
    missing: list[date]


def read_former(head: Blob | None) -> Former:
    """The history as read; nothing where there is none. Raises DamagedError where no run wrote it so."""
    if head is None:
        return Former()
    if head.metadata.get(_SHA256) != hashlib.sha256(head.content).hexdigest():
        raise DamagedError("it is not what was written")
    return Former({key_of(row): row for row in parse_ndjson(head.content)}, head.metadata.get(_SEEN))


def draft(rows: Rows, names: list[SnapshotName], read: Iterable[Found], today: date) -> Draft:
    """The rows with those of the snapshots read; a row that is there stays where it comes of a later one."""
    rows, damaged = dict(rows), dict[str, str]()
    for found in read:
        if found.row is None:
            damaged[found.name.name] = found.damage
        elif found.name.day > today + _DAY:  # by a clock that is ahead of this one
            damaged[found.name.name] = "its day is yet to come"
        else:
            there = rows.get(key_of(found.row))
            if there is None or source_of(there) <= found.name:  # else its later one is gone or damaged
                rows[key_of(found.row)] = found.row
    return Draft({key: rows[key] for key in sorted(rows)}, names, damaged)


def prefixes(last: SnapshotName, today: date) -> Iterator[str]:
    """Where what may be new lies: the months since the day before the last."""
    # A snapshot has the date of the storage service, whose clock may be ahead of this one.
    since, until = last.day - _DAY, max(last.day, today) + _DAY
    months = range(since.year * 12 + since.month - 1, until.year * 12 + until.month)
    yield from (f"{PREFIX}{month // 12:04}/{month % 12 + 1:02}/" for month in months)


def manifest_of(draft: Draft, files: Files, generated: Json) -> bytes:
    """The manifest of a draft and its files."""
    sizes = {name: (len(content), md5(content)) for name, content in files.items()}
    return manifest(draft.rows.values(), sizes, generated)


def updated(former: Former, draft: Draft, written: list[str]) -> Updated:
    """What has become of a former history."""
    added = [row for key, row in draft.rows.items() if not is_same(former.rows.get(key), row)]
    return Updated(
        written=written,
        added=[name.name for name in sorted(map(source_of, added))],
        dropped=sorted(day for day, _ in former.rows.keys() - draft.rows.keys()),
        damaged=draft.damaged,
        rows=len(draft.rows),
        missing=missing_days(draft.rows.values()),
    )


def _last(rows: Rows) -> SnapshotName | None:
    return max(map(source_of, rows.values()), default=None)


def _recent(names: Iterable[SnapshotName], last: SnapshotName | None) -> list[SnapshotName]:
    """Those of the day before the last one on: what a run that was overtaken may still have written."""
    return [name for name in names if last is None or name.day >= last.day - _DAY]


def _seen(recent: Iterable[SnapshotName], last: SnapshotName | None) -> str:
    """A digest of the recent names up to the last."""
    seen = "\n".join(each.name for each in recent if last is not None and each <= last)
    return hashlib.sha256(seen.encode()).hexdigest()
