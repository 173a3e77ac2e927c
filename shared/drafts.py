"""What the history is to be, pure: from the one before and the snapshots that it has not seen.

A row of the one before stays until a snapshot outdoes it, or an operator names its day.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from shared.blob import Blob, md5
from shared.rows import (
    Key,
    Row,
    Rows,
    day_of,
    is_same,
    key_of,
    manifest,
    missing_days,
    parse_ndjson,
    source_of,
)
from shared.snapshots import DamagedError, SnapshotName
from shared.usage_summary import Json

NDJSON, CSV, LATEST, MANIFEST = "usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"

YET_TO_COME = "its day is yet to come"  # the damage of a snapshot that no run wrote

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
    """A history as read: its rows, a digest of the names that its last two days had, and its damage.

    The rows of a damaged one, which has no digest, are good only where no snapshot tells.
    """

    rows: Rows = field(default_factory=dict)
    seen: str | None = None
    damage: str = ""

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
    """What the history is to be: its rows, the names that were listed, the damaged blobs and why.

    Of a draft of all snapshots `kept` are the rows that stay though no snapshot makes them any more.
    """

    rows: Rows
    names: list[SnapshotName]
    damaged: dict[str, str]
    kept: Rows = field(default_factory=dict)

    @property
    def last(self) -> SnapshotName | None:
        """The newest snapshot that it has a row of."""
        return _last(self.rows)

    def candidates(self) -> list[SnapshotName]:
        """The snapshots of which the newest that can be read is the latest, in the order to be tried."""
        sound = {name for name in self.names if name.name not in self.damaged}
        made = (source_of(row) for key, row in self.rows.items() if key not in self.kept)
        return sorted(sound.union(made), reverse=True)

    def why_kept(self) -> dict[str, str]:
        """The snapshots of the kept rows, and why none of them makes its row."""
        names = sorted(map(source_of, self.kept.values()))
        return {name.name: self.damaged.get(name.name, "it is gone") for name in names}

    def metadata_of(self, name: str, content: bytes) -> dict[str, str]:
        """The metadata of one of its files."""
        seen = {_SEEN: _seen(_recent(self.names, self.last), self.last)} if name == NDJSON else {}
        return {_SHA256: hashlib.sha256(content).hexdigest(), **seen}


@dataclass(frozen=True, slots=True)
class Updated:
    """What became of the history.

    The files written, in that order; the dated blobs whose rows are new in it; the days that have lost a row;
    the damaged blobs, with the reason; how many rows it has, and the days without one; the blobs whose rows
    are kept, with the reason, where all snapshots were read.
    """

    written: list[str]
    added: list[str]
    dropped: list[str]
    damaged: dict[str, str]
    rows: int
    missing: list[date]
    kept: dict[str, str] = field(default_factory=dict)


def read_former(head: Blob | None) -> Former:
    """The history as read; nothing where there is none, or nothing that is rows."""
    if head is None:
        return Former()
    is_written = head.metadata.get(_SHA256) == hashlib.sha256(head.content).hexdigest()
    damage = "" if is_written else "it is not what was written"
    try:
        rows = {key_of(row): row for row in parse_ndjson(head.content)}
    except DamagedError as error:
        return Former(damage=damage or str(error))
    return Former(rows, head.metadata.get(_SEEN) if is_written else None, damage)


def draft(names: list[SnapshotName], read: Iterable[Found], today: date) -> Draft:
    """The rows of these snapshots, which are read in their order."""
    rows, damaged = dict[Key, Row](), dict[str, str]()
    for found in read:
        if found.name.day > today + _DAY:  # by a clock that is ahead of this one
            damaged[found.name.name] = YET_TO_COME
        elif found.row is None:
            damaged[found.name.name] = found.damage
        else:
            rows[key_of(found.row)] = found.row
    return Draft({key: rows[key] for key in sorted(rows)}, names, damaged)


def keeping(draft: Draft, rows: Rows, dropped: Collection[date] = ()) -> Draft:
    """A draft with the rows of a former history that come of no snapshot in it and of none before one in it.

    Rows of the days to be dropped are left out.
    """
    sound = {name.name for name in draft.names} - draft.damaged.keys()

    def stays(key: Key, row: Row) -> bool:
        if row["sourceBlob"] in sound or day_of(row) in dropped:
            return False
        there = draft.rows.get(key)
        return there is None or source_of(there) < source_of(row)  # whose own is gone or damaged

    kept = {key: row for key, row in rows.items() if stays(key, row)}
    both = draft.rows | kept
    return replace(draft, rows={key: both[key] for key in sorted(both)}, kept=kept)


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
        kept=draft.why_kept(),
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
