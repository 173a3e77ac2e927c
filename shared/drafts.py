"""What the history is to be, pure: from the one before and the snapshots that it has not seen.

A row whose snapshot is lost stays. A later snapshot of its day and billing period takes its place, and an
operator can drop it by its day.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import date

from shared.blob import md5
from shared.former import Former, digests, digests_of_rows, last_of
from shared.rows import (
    Key,
    Row,
    Rows,
    day_of,
    is_same,
    key_of,
    manifest,
    missing_days,
    source_of,
)
from shared.snapshots import SnapshotName, is_yet_to_come
from shared.usage_summary import Json

NDJSON, CSV, LATEST, MANIFEST = "usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"

YET_TO_COME = "its day is yet to come"  # the damage of a snapshot that no run wrote

type Files = dict[str, bytes]
"""Content by name, in the order in which the files are written."""


@dataclass(frozen=True, slots=True)
class Found:
    """A dated blob as read: the history's row of it, or what is wrong with it."""

    name: SnapshotName
    row: Row | None
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What the history is to be: its rows, the names that were listed, the damaged blobs and why, its day.

    A draft of all snapshots tells the rows without a readable snapshot: they are `kept`.
    """

    rows: Rows
    names: list[SnapshotName]
    damaged: dict[str, str]
    today: date
    kept: Rows = field(default_factory=dict)

    @property
    def last(self) -> SnapshotName | None:
        """The newest snapshot that it has a row of."""
        return last_of(self.rows)

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
        return digests_of_rows(content, self.names, self.last) if name == NDJSON else digests(content)


@dataclass(frozen=True, slots=True)
class Updated:
    """What became of the history.

    The files written, in that order; the dated blobs whose rows are new in it; the days that have lost a row;
    the damaged blobs, with the reason; how many rows it has, and the days without one; the blobs whose rows
    are kept, with the reason, where all snapshots were read; the number of lines of the former history
    that were no rows.
    """

    written: list[str]
    added: list[str]
    dropped: list[str]
    damaged: dict[str, str]
    rows: int
    missing: list[date]
    kept: dict[str, str] = field(default_factory=dict)
    lost: int = 0


def draft(names: list[SnapshotName], read: Iterable[Found], today: date) -> Draft:
    """The rows of these snapshots, which are read in their order."""
    rows, damaged = dict[Key, Row](), dict[str, str]()
    for found in read:
        if is_yet_to_come(found.name.day, today):
            damaged[found.name.name] = YET_TO_COME
        elif found.row is None:
            damaged[found.name.name] = found.damage
        else:
            rows[key_of(found.row)] = found.row
    return Draft({key: rows[key] for key in sorted(rows)}, names, damaged, today)


def keeping(draft: Draft, rows: Rows, dropped: Collection[date] = ()) -> Draft:
    """A draft with those rows of a former history whose snapshots cannot be read.

    Such a row takes the place of an earlier snapshot's. Rows of days to be dropped, and of days yet to come,
    are left out.
    """
    sound = {name.name for name in draft.names} - draft.damaged.keys()

    def stays(key: Key, row: Row) -> bool:
        day = day_of(row)
        if row["sourceBlob"] in sound or day in dropped or is_yet_to_come(day, draft.today):
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
        lost=former.lost,
    )
