"""The history: what the dated blobs say, in one file for each kind of reader, brought up to date by each run.

The rows of usagesummary.ndjson are the history; csv, latest and manifest follow from it and the snapshots,
the manifest last. Every write is conditional, so two runs at once converge, and a run that was killed leaves
nothing that the next one does not finish. A run that finds nothing new writes nothing, and needs as many
requests of storage after ten years as on the second day.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from shared.blob import Blob, ListedBlob, md5
from shared.blobs import Container
from shared.clock import Clock
from shared.errors import BlobConflictError, RecordError
from shared.events import log_event
from shared.record import Found, Record
from shared.rows import (
    CSV_TYPE,
    NDJSON_TYPE,
    Rows,
    csv_text,
    generated_at,
    is_same,
    key_of,
    last_date,
    manifest,
    missing_days,
    ndjson,
    parse_ndjson,
    source_of,
)
from shared.snapshots import JSON_TYPE, PREFIX, DamagedError, SnapshotName, instant_text
from shared.usage_summary import Json

NDJSON, CSV, LATEST, MANIFEST = "usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"

_TYPES = {NDJSON: NDJSON_TYPE, CSV: CSV_TYPE, LATEST: JSON_TYPE, MANIFEST: JSON_TYPE}
_SHA256 = "sha256"  # metadata that whoever else writes a blob does not keep true
_SEEN = "seen"
_DAY = timedelta(days=1)
_TRIES = 5
_GAPS_SAID = 31

type Files = dict[str, bytes]
"""Content by name, in the order in which the files are written."""

type Progress = Callable[[Iterator[Found], int], Iterable[Found]]
"""Watches long work: is given what is read and how much that will be, and hands it on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the history is to be: its rows, the names that were listed, the damaged blobs and why."""

    rows: Rows
    names: list[SnapshotName]
    damaged: dict[str, str]


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


@dataclass(frozen=True, slots=True)
class _Known:
    """A history as read: its rows, and a digest of the names that its last two days had."""

    rows: Rows = field(default_factory=dict)
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """The container of the history as found: what is in it, with the content of the two files that tell."""

    listed: dict[str, ListedBlob]
    head: Blob | None
    manifest: Blob | None


class History:
    """The container of the history. Every method raises StorageError when Blob Storage fails."""

    def __init__(self, record: Record, container: Container, clock: Clock) -> None:
        self._record = record
        self._container = container
        self._clock = clock

    def bring_up_to_date(self) -> Updated:
        """Make the history say what the dated blobs say, reading only those that may hold something new.

        Raises RecordError when others keep writing first.
        """
        return self._converge(self._later)

    def rebuild(self, progress: Progress) -> Updated:
        """The same from all dated blobs, with those that others have brought in or damaged."""
        return self._converge(lambda _: self.draft(progress))

    def draft(self, progress: Progress) -> Draft:
        """What a rebuild would make of the dated blobs."""
        names = self._record.names()
        return self._draft({}, names, progress(self._record.read(names), len(names)))

    def files(self, draft: Draft) -> Files:
        """The files of a draft but for the manifest. Raises RecordError when no snapshot can be read."""
        rows = draft.rows.values()
        return {NDJSON: ndjson(rows), CSV: csv_text(rows), LATEST: self._latest(draft)}

    def stored(self) -> dict[str, Blob]:
        """The files that are there."""
        read = {name: self._container.read(name).blob for name in (NDJSON, CSV, LATEST, MANIFEST)}
        return {name: blob for name, blob in read.items() if blob is not None}

    def _converge(self, make_draft: Callable[[_Known], Draft]) -> Updated:
        first: _Stored | None = None
        for _ in range(_TRIES):
            try:
                stored = self._look()
                first = first or stored  # a later look may find this run's own manifest
                draft, updated = self._update(stored, make_draft)
            except BlobConflictError:
                continue
            _warn_of_gaps(updated, draft, first.manifest)
            return updated
        raise RecordError(f"the history could not be written: others were faster {_TRIES} times")

    def _look(self) -> _Stored:
        listed = {blob.name: blob for blob in self._container.list()}
        return _Stored(listed, *(self._container.read(name).blob for name in (NDJSON, MANIFEST)))

    def _update(self, stored: _Stored, make_draft: Callable[[_Known], Draft]) -> tuple[Draft, Updated]:
        head, said = stored.head, stored.manifest
        known = _Known() if head is None else _read(head)
        draft = make_draft(known)
        files, written = self.files(draft), list[str]()
        made = manifest_of(draft, files, generated_at(said.content) if said else None)
        if said is None or said.content != made:
            made = manifest_of(draft, files, instant_text(self._clock.now()))
        for name, content in (files | {MANIFEST: made}).items():
            there = head if name == NDJSON else stored.listed.get(name)
            metadata = {_SHA256: hashlib.sha256(content).hexdigest()}
            if name == NDJSON:
                metadata[_SEEN] = _seen(draft.names, _last(draft.rows))
            if there is None or there.md5 != md5(content) or (there is head and head.metadata != metadata):
                etag = None if there is None else there.etag
                self._container.write(name, content, _TYPES[name], replacing=etag, metadata=metadata)
                written.append(name)
        return draft, _updated(known, draft, written)

    def _later(self, known: _Known) -> Draft:
        """What is known, with what the dated blobs say beyond it."""
        last = _last(known.rows)
        if last is None:
            return self.draft(_unwatched)
        names = [name for prefix in self._prefixes(last.day) for name in self._record.names(prefix)]
        unread = _recent(names, last)
        if known.seen == _seen(names, last):  # else an overtaken run has put one among the earlier ones
            unread = [name for name in unread if name > last]
        return self._draft(known.rows, names, self._record.read(unread))

    def _draft(self, known: Rows, names: list[SnapshotName], read: Iterable[Found]) -> Draft:
        rows, damaged = dict(known), dict[str, str]()
        tomorrow = self._clock.now().date() + _DAY  # by a clock that is ahead of this one
        for found in read:
            if found.row is not None and found.name.day <= tomorrow:
                there = rows.get(key_of(found.row))
                if there is None or source_of(there) <= found.name:  # else its later one is gone or damaged
                    rows[key_of(found.row)] = found.row
                continue
            name, damage = found.name.name, found.damage or "its day is yet to come"
            damaged[name] = damage
            log_event(_log, logging.ERROR, "snapshot.damaged", blob=name, message=damage)
        return Draft({key: rows[key] for key in sorted(rows)}, names, damaged)

    def _prefixes(self, last: date) -> Iterator[str]:
        """What to list: the months since the day before the last."""
        # A snapshot has the date of the storage service, whose clock may be ahead of this one.
        since, until = last - _DAY, max(last, self._clock.now().date()) + _DAY
        months = range(since.year * 12 + since.month - 1, until.year * 12 + until.month)
        yield from (f"{PREFIX}{month // 12:04}/{month % 12 + 1:02}/" for month in months)

    def _latest(self, draft: Draft) -> bytes:
        """The newest snapshot; not one that has been damaged since it was recorded."""
        sound = {name for name in draft.names if name.name not in draft.damaged}
        for name in sorted(sound.union(map(source_of, draft.rows.values())), reverse=True):
            content = self._record.content(name)
            if content is not None:
                return content
        raise RecordError(
            f"there is no snapshot that can be read among {len(draft.names)}",
            hint="Check USAGE_SNAPSHOT_CONTAINER, the container of the dated snapshots.",
        )


def manifest_of(draft: Draft, files: Files, generated: Json) -> bytes:
    """The manifest of a draft and its files."""
    sizes = {name: (len(content), md5(content)) for name, content in files.items()}
    return manifest(draft.rows.values(), sizes, generated)


def _read(head: Blob) -> _Known:
    """The history as read; nothing where it is not as a run wrote it."""
    damage = "it is not what was written"
    if head.metadata.get(_SHA256) == hashlib.sha256(head.content).hexdigest():
        try:
            rows = {key_of(row): row for row in parse_ndjson(head.content)}
            return _Known(rows, head.metadata.get(_SEEN))
        except DamagedError as error:
            damage = str(error)
    log_event(_log, logging.WARNING, "history.damaged", blob=NDJSON, message=damage)
    return _Known()


def _updated(known: _Known, draft: Draft, written: list[str]) -> Updated:
    added = [row for key, row in draft.rows.items() if not is_same(known.rows.get(key), row)]
    return Updated(
        written=written,
        added=[name.name for name in sorted(map(source_of, added))],
        dropped=sorted(day for day, _ in known.rows.keys() - draft.rows.keys()),
        damaged=draft.damaged,
        rows=len(draft.rows),
        missing=missing_days(draft.rows.values()),
    )


def _warn_of_gaps(updated: Updated, draft: Draft, former: Blob | None) -> None:
    """Warn once a day, by the run that finishes the day's first manifest; `former` is the one before."""
    last, until = _last(draft.rows), last_date(former.content) if former else None
    if updated.missing and last is not None and until != last.day.isoformat():
        newest = [day.isoformat() for day in updated.missing[-_GAPS_SAID:]]
        log_event(_log, logging.WARNING, "history.gaps", missingDates=len(updated.missing), newest=newest)


def _last(rows: Rows) -> SnapshotName | None:
    return max(map(source_of, rows.values()), default=None)


def _recent(names: Iterable[SnapshotName], last: SnapshotName) -> list[SnapshotName]:
    """Those of the day before the last one on: what a run that was overtaken may still have written."""
    return [name for name in names if name.day >= last.day - _DAY]


def _seen(names: Iterable[SnapshotName], last: SnapshotName | None) -> str:
    """A digest of the recent names up to the last."""
    seen = "" if last is None else "\n".join(each.name for each in _recent(names, last) if each <= last)
    return hashlib.sha256(seen.encode()).hexdigest()


def _unwatched(found: Iterator[Found], _: int) -> Iterable[Found]:
    return found
