"""The history as a run finds it, pure: its rows, and the snapshots that it has seen."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from shared.blob import Blob
from shared.rows import Rows, ndjson, read_ndjson, source_of
from shared.snapshots import SnapshotName, is_yet_to_come

_SHA256, _SEEN = "sha256", "seen"  # metadata that whoever else writes a blob does not keep true
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Former:
    """A history as read: its rows, a digest of the names that its last two days had, and its damage.

    The rows of a damaged one, which has no digest, are good only where no snapshot tells. `lost` is how many
    of its lines are no rows.
    """

    rows: Rows = field(default_factory=dict)
    seen: str | None = None
    damage: str = ""
    lost: int = 0

    @property
    def last(self) -> SnapshotName | None:
        """The newest snapshot that it has a row of."""
        return last_of(self.rows)

    def unread(self, names: Iterable[SnapshotName]) -> list[SnapshotName]:
        """Those of the listed names that may say something new."""
        last = self.last
        recent = _recent(names, last)
        if last is None or self.seen != _seen(recent, last):
            return recent  # an overtaken run has put one among the earlier ones
        return [name for name in recent if name > last]


def read_former(head: Blob | None, today: date) -> Former:
    """The history as read; nothing where there is none."""
    if head is None:
        return Former()
    rows, lost = read_ndjson(head.content)
    last, damage = last_of(rows), ""
    if head.metadata.get(_SHA256) != hashlib.sha256(head.content).hexdigest():
        damage = "it is not what was written"
    elif ndjson(rows.values()) != head.content:
        damage = "it is not as a run writes it"
    elif last is not None and is_yet_to_come(last.day, today):
        damage = "it has a row of a day yet to come"  # and says nothing of the days until then
    return Former(rows, None if damage else head.metadata.get(_SEEN), damage, lost)


def last_of(rows: Rows) -> SnapshotName | None:
    """The newest snapshot of these rows."""
    return max(map(source_of, rows.values()), default=None)


def digests(content: bytes) -> dict[str, str]:
    """The metadata by which a file of the history is known to be as written."""
    return {_SHA256: hashlib.sha256(content).hexdigest()}


def digests_of_rows(
    content: bytes, names: Iterable[SnapshotName], last: SnapshotName | None
) -> dict[str, str]:
    """The same of usagesummary.ndjson, and what `Former.unread` compares."""
    return digests(content) | {_SEEN: _seen(_recent(names, last), last)}


def _recent(names: Iterable[SnapshotName], last: SnapshotName | None) -> list[SnapshotName]:
    """Those of the day before the last one on: what a run that was overtaken may still have written."""
    return [name for name in names if last is None or name.day >= last.day - _DAY]


def _seen(recent: Iterable[SnapshotName], last: SnapshotName | None) -> str:
    """A digest of the recent names up to the last."""
    seen = "\n".join(each.name for each in recent if last is not None and each <= last)
    return hashlib.sha256(seen.encode()).hexdigest()
