"""The history: what the dated blobs say, in one file for each kind of reader, brought up to date by each run.

The rows of usagesummary.ndjson are the history; csv, latest and manifest follow from it and the snapshots,
the manifest last. Every write is conditional, so two runs at once converge, and a run that was killed leaves
nothing that the next one does not finish. A run that finds nothing new writes nothing, and needs as many
requests of storage after ten years as on the second day.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date

from shared import drafts, snapshots
from shared.blob import Blob, ListedBlob, md5
from shared.blobs import Container
from shared.clock import Clock
from shared.drafts import CSV, LATEST, MANIFEST, NDJSON, Draft, Files, Found, Updated, manifest_of
from shared.errors import BlobConflictError, ConfigurationError, ContainerMissingError, RecordError
from shared.events import log_event
from shared.former import Former, read_former
from shared.record import Record
from shared.rows import CSV_TYPE, NDJSON_TYPE, csv_text, day_of, generated_at, last_date, ndjson
from shared.snapshots import DATASET, JSON_TYPE, instant_text

_TYPES = {NDJSON: NDJSON_TYPE, CSV: CSV_TYPE, LATEST: JSON_TYPE, MANIFEST: JSON_TYPE}
_TRIES = 5
_GAPS_SAID = 31

type Progress = Callable[[Iterator[Found], int], Iterable[Found]]
"""Watches long work: is given what is read and how much that will be, and hands it on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The container of the history as found: what is in it, the two files that tell, and the rows of one."""

    listed: dict[str, ListedBlob]
    head: Blob | None
    manifest: Blob | None
    former: Former


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

    def rebuild(self, progress: Progress, dropped: Collection[date] = ()) -> Updated:
        """The same from all dated blobs, with those that others have brought in or damaged.

        A row of the history whose snapshot cannot be read stays, unless its day is to be dropped. Raises
        ConfigurationError, and writes nothing, when a day to be dropped has no such row.
        """
        unproven = set(dropped)

        def make_draft(former: Former) -> Draft:
            draft = self._draft_of_all(progress)
            absent = unproven.difference(map(day_of, drafts.keeping(draft, former.rows).kept.values()))
            unproven.clear()  # a second look may find them dropped by the first
            if absent:
                raise ConfigurationError(
                    f"no row is kept of {', '.join(day.isoformat() for day in sorted(absent))}, "
                    "so there is none to drop: either the history has no row of that day, "
                    "or a snapshot that can be read makes it",
                    hint="Look for the days of kept rows with python3 -m ops history verify.",
                )
            return drafts.keeping(draft, former.rows, dropped)

        return self._converge(make_draft)

    def draft(self, progress: Progress, head: Blob | None = None) -> Draft:
        """What a rebuild would make of the dated blobs, where `head` is the history's usagesummary.ndjson."""
        return drafts.keeping(self._draft_of_all(progress), read_former(head, self._today()).rows)

    def files(self, draft: Draft) -> Files:
        """The files of a draft but for the manifest. Raises RecordError when no snapshot can be read."""
        rows = draft.rows.values()
        return {NDJSON: ndjson(rows), CSV: csv_text(rows), LATEST: self._latest(draft)}

    def stored(self) -> dict[str, Blob]:
        """The files that are there."""
        read = {name: self._container.read(name).blob for name in (NDJSON, CSV, LATEST, MANIFEST)}
        return {name: blob for name, blob in read.items() if blob is not None}

    def _converge(self, make_draft: Callable[[Former], Draft]) -> Updated:
        first: _Stored | None = None
        for _ in range(_TRIES):
            stored = self._look()
            first = first or stored  # a later look may find this run's own files
            former = stored.former
            if former.damage:
                log_event(
                    _log,
                    logging.WARNING,
                    "history.damaged",
                    dataset=DATASET,
                    blob=NDJSON,
                    message=former.damage,
                    lostLines=former.lost or None,
                )
            draft = make_draft(former)
            for name, damage in draft.damaged.items():
                log_event(_log, logging.ERROR, "snapshot.damaged", dataset=DATASET, blob=name, message=damage)
            try:
                updated = drafts.updated(first.former, draft, self._write(draft, stored))
            except BlobConflictError:
                continue
            _warn_of_gaps(updated, draft, first.manifest)
            return updated
        raise RecordError(f"the history could not be written: others were faster {_TRIES} times")

    def _look(self) -> _Stored:
        listed = {blob.name: blob for blob in self._container.list()}
        head, manifest = (self._container.read(name).blob for name in (NDJSON, MANIFEST))
        return _Stored(listed, head, manifest, read_former(head, self._today()))

    def _write(self, draft: Draft, stored: _Stored) -> list[str]:
        """Write the files of a draft that are not there as they are to be; their names."""
        files, said, written = self.files(draft), stored.manifest, list[str]()
        made = manifest_of(draft, files, generated_at(said.content) if said else None)
        if said is None or said.content != made:
            made = manifest_of(draft, files, instant_text(self._clock.now()))
        for name, content in (files | {MANIFEST: made}).items():
            there = stored.head if name == NDJSON else stored.listed.get(name)
            metadata = draft.metadata_of(name, content)
            is_right = there is not None and there.md5 == md5(content)
            if is_right and isinstance(there, Blob):  # a listing tells no metadata
                is_right = there.metadata == metadata
            if not is_right:
                etag = None if there is None else there.etag
                self._container.write(name, content, _TYPES[name], replacing=etag, metadata=metadata)
                written.append(name)
        return written

    def _later(self, former: Former) -> Draft:
        """The former history with the snapshots that it has not seen."""
        if former.last is None or former.seen is None:
            return drafts.keeping(self._draft_of_all(lambda found, _: found), former.rows)
        today = self._today()
        prefixes = snapshots.prefixes(former.last, today)
        names = [name for prefix in prefixes for name in self._record.names(prefix)]
        unread = former.unread(names)
        draft = drafts.keeping(drafts.draft(unread, self._record.read(unread), today), former.rows)
        return replace(draft, names=names, kept={})

    def _draft_of_all(self, progress: Progress) -> Draft:
        names = self._record.names()
        found = progress(self._record.read(names), len(names))
        return drafts.draft(names, found, self._today())

    def _today(self) -> date:
        return self._clock.now().date()

    def _latest(self, draft: Draft) -> bytes:
        """The newest snapshot; not one that has been damaged since it was recorded."""
        for name in draft.candidates():
            content = self._record.content(name)
            if content is not None:
                return content
        raise RecordError(
            f"there is no snapshot that can be read among {len(draft.names)}",
            hint="Check USAGE_SNAPSHOT_CONTAINER, the container of the dated snapshots.",
        )


def refuse_anew(container: str, history: Container) -> None:
    """Raise ContainerMissingError where a history has files, which are only ever made of snapshots.

    An empty container in a deleted one's place would keep anybody from undeleting that one.
    """
    if not _TYPES.keys().isdisjoint(blob.name for blob in history.list()):
        raise ContainerMissingError(
            f"the container {container} of the dated snapshots is missing, and its history has rows",
            hint=f"Undelete {container} before anything of that name is made (in the portal Show deleted "
            "containers, or az storage container restore), or correct USAGE_SNAPSHOT_CONTAINER; then run "
            "python3 -m ops snapshot, and python3 -m ops history verify, which tells whether a rebuild is "
            "needed.",
        )


def _warn_of_gaps(updated: Updated, draft: Draft, former: Blob | None) -> None:
    """Warn once a day, by the run that finishes the day's first manifest; `former` is the one before."""
    last, until = draft.last, last_date(former.content) if former else None
    if updated.missing and last is not None and until != last.day.isoformat():
        newest = [day.isoformat() for day in updated.missing[-_GAPS_SAID:]]
        count = len(updated.missing)
        log_event(_log, logging.WARNING, "history.gaps", dataset=DATASET, missingDates=count, newest=newest)
