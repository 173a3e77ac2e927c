"""The record: a day's snapshots, written once, and the history made of them, brought up to date by each run.

The rows of usagesummary.ndjson are the history; csv, latest and manifest follow from it and the snapshots,
the manifest last. Every write is conditional, so two runs at once converge, and a run that was killed leaves
nothing that the next one does not finish. A run that finds nothing new writes nothing.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby

from shared import snapshots
from shared.blobs import Blob, Container, ListedBlob, md5
from shared.clock import Clock
from shared.errors import BlobConflictError, RecordError
from shared.events import log_event
from shared.fleet import Answer
from shared.snapshots import Row, SnapshotName
from shared.usage_summary import Json, parse, read_usage_summary

NDJSON, CSV, LATEST, MANIFEST = "usagesummary.ndjson", "usagesummary.csv", "latest.json", "manifest.json"

_DIGEST = "sha256"  # metadata that whoever else writes a blob does not keep true
_TRIES = 5
_DAMAGED = ValueError, LookupError, RecursionError  # what a document that is not ours makes its reader raise

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an answer: the outcome (taken, revised or unchanged) and the day's last snapshot."""

    outcome: str
    name: str


@dataclass(frozen=True, slots=True)
class Updated:
    """What became of the history: the files written, in that order, its rows and its missing days."""

    written: list[str]
    rows: int
    missing: int


class Record:
    """The two containers of the record. Every method raises StorageError when Blob Storage fails."""

    def __init__(self, snapshot_container: Container, history_container: Container, clock: Clock) -> None:
        self._snapshots = snapshot_container
        self._history = history_container
        self._clock = clock

    def take(self, answer: Answer) -> Taken:
        """Write the snapshot of an answer under the day on which it was fetched, unless it says nothing new.

        Raises RecordError when others keep writing first.
        """
        members = read_usage_summary(answer.body).members
        content = snapshots.snapshot(members, answer.fetched_at, answer.request_id, answer.correlation_id)
        day = answer.fetched_at.date()
        for _ in range(_TRIES):
            name, outcome = snapshots.first_name(day), "taken"
            last = max(self._names(snapshots.day_prefix(day)), default=None)
            if last is not None:
                blob = self._snapshots.read(last.name).blob
                if blob is not None and not _says_more(content, blob.content):
                    return Taken("unchanged", last.name)
                name, outcome = snapshots.revision_name(answer.fetched_at), "revised"
            try:
                self._snapshots.write(name, content, snapshots.JSON_TYPE, replacing=None)
            except BlobConflictError:
                continue
            return Taken(outcome, name)
        raise RecordError(f"the snapshot of {day} could not be written: others were faster {_TRIES} times")

    def bring_up_to_date(self, *, from_scratch: bool = False) -> Updated:
        """Make the history say what the snapshots say, reading only days that may hold something new.

        Raises RecordError when others keep writing first.
        """
        for _ in range(_TRIES):
            try:
                return self._update(from_scratch=from_scratch)
            except BlobConflictError:
                continue
        raise RecordError(f"the history could not be written: others were faster {_TRIES} times")

    def _update(self, *, from_scratch: bool) -> Updated:
        listed = {blob.name: blob for blob in self._history.list()}
        head = self._history.read(NDJSON).blob
        rows = [] if from_scratch or head is None else self._rows(head)
        known: dict[date, SnapshotName] = {}
        for source in map(snapshots.source_of, rows):
            known[source.day] = max(known.get(source.day, source), source)
        since = max(known, default=None)
        names = [name for prefix in self._prefixes(since) for name in self._names(prefix)]
        for day, of_day in groupby(names, key=lambda name: name.day):
            in_day = list(of_day)
            if day not in known or in_day[-1] > known[day]:
                rows = snapshots.merged(rows, self._read_rows(in_day))
        if not rows:
            raise RecordError("there is no snapshot that can be read")
        files = {
            NDJSON: (snapshots.ndjson(rows), snapshots.NDJSON_TYPE),
            CSV: (snapshots.csv_text(rows), snapshots.CSV_TYPE),
            LATEST: (self._latest(rows), snapshots.JSON_TYPE),
        }
        written = []
        for name, (content, content_type) in files.items():
            there = listed.get(name)
            if there is None or there.md5 != md5(content):
                replaced = head if name == NDJSON else there
                self._write(name, content, content_type, replaced)
                written.append(name)
        sizes = {name: (len(content), md5(content)) for name, (content, _) in files.items()}
        if self._write_manifest(rows, sizes):
            written.append(MANIFEST)
        return Updated(written, len(rows), len(snapshots.missing_days(rows)))

    def _rows(self, head: Blob) -> list[Row]:
        """The rows of the history, none where it is not as a run wrote it."""
        try:
            if head.metadata.get(_DIGEST) != _digest(head.content):
                raise ValueError("not what was written")
            return snapshots.parse_ndjson(head.content)
        except _DAMAGED:
            log_event(_log, logging.WARNING, "history.damaged", blob=NDJSON)
            return []

    def _prefixes(self, since: date | None) -> Iterator[str]:
        """What to list: everything, or the months since a day."""
        if since is None:
            yield snapshots.PREFIX
            return
        # A snapshot has the date of the storage service, whose clock may be ahead of this one; and a run that
        # was overtaken may have written one of the day before.
        until = max(since, self._clock.now().date()) + timedelta(days=1)
        since -= timedelta(days=1)
        months = range(since.year * 12 + since.month - 1, until.year * 12 + until.month)
        yield from (f"{snapshots.PREFIX}{month // 12:04}/{month % 12 + 1:02}/" for month in months)

    def _names(self, prefix: str) -> list[SnapshotName]:
        listed = (snapshots.parse_name(blob.name) for blob in self._snapshots.list(prefix))
        return sorted(name for name in listed if name is not None)

    def _read_rows(self, names: Iterable[SnapshotName]) -> Iterator[Row]:
        for name in names:
            blob = self._snapshots.read(name.name).blob
            try:
                if blob is None or (blob.md5 is not None and blob.md5 != md5(blob.content)):
                    raise ValueError("not what was written")
                yield snapshots.row_of(name, blob.content)
            except _DAMAGED:
                log_event(_log, logging.ERROR, "snapshot.damaged", blob=name.name)

    def _latest(self, rows: Iterable[Row]) -> bytes:
        newest = max(map(snapshots.source_of, rows))
        blob = self._snapshots.read(newest.name).blob
        if blob is None:
            raise RecordError(f"{newest.name} is gone")
        return blob.content

    def _write_manifest(self, rows: list[Row], files: dict[str, tuple[int, bytes]]) -> bool:
        """Write the manifest, unless the one that is there says the same."""
        there = self._history.read(MANIFEST).blob
        if there is not None and snapshots.manifest(rows, files, _generated_at(there)) == there.content:
            return False
        content = snapshots.manifest(rows, files, snapshots.instant_text(self._clock.now()))
        self._write(MANIFEST, content, snapshots.JSON_TYPE, there)
        return True

    def _write(self, name: str, content: bytes, content_type: str, there: Blob | ListedBlob | None) -> None:
        replacing, metadata = None if there is None else there.etag, {_DIGEST: _digest(content)}
        self._history.write(name, content, content_type, replacing=replacing, metadata=metadata)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _generated_at(manifest: Blob) -> Json:
    try:
        said = parse(manifest.content)
    except _DAMAGED:
        return None
    return said.get("generatedAt") if isinstance(said, dict) else None


def _says_more(content: bytes, last: bytes) -> bool:
    """Whether a snapshot was fetched later than the day's last one and has another document."""
    try:
        (fetched_at, document), (fetched_before, document_before) = map(snapshots.said_by, (content, last))
    except _DAMAGED:
        return True
    return fetched_at > fetched_before and document != document_before
