"""The record: a day's snapshots, each written once and never changed.

Works where the container has a policy against changes, and with a role that may only create and read.
"""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched

from shared import snapshots
from shared.blob import md5
from shared.blobs import Container
from shared.drafts import Found
from shared.errors import BlobConflictError, BlobUnreadableError, RecordError, StorageRefusedError
from shared.held import Answer
from shared.rows import Row, row_of
from shared.snapshots import DamagedError, SnapshotName
from shared.usage_summary import read_usage_summary

_TRIES = 5
_WRITE = "write"  # metadata by which a writer knows its own blob, though the answer to the write was lost
_READERS = 8  # threads; each has one small blob at a time


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an answer: the outcome (taken, revised or unchanged) and the day's last snapshot."""

    outcome: str
    name: str


class Record:
    """The container of the dated blobs. Every method raises StorageError when Blob Storage fails."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def take(self, answer: Answer, *, dry_run: bool = False) -> Taken:
        """Write the snapshot of an answer under the day on which it was fetched, unless it says nothing new.

        Raises RecordError when others keep writing first. A dry run tells what would be written.
        """
        members = read_usage_summary(answer.body).members
        content = snapshots.snapshot(members, answer.fetched_at, answer.request_id, answer.correlation_id)
        day = answer.fetched_at.date()
        for _ in range(_TRIES):
            name, outcome = snapshots.first_name(day), "taken"
            there = self.names(snapshots.day_prefix(day))
            if there:
                sound = ((each, text) for each in reversed(there) if (text := self.content(each)) is not None)
                last, text = next(sound, (there[-1], None))
                name, outcome = snapshots.revision_name(answer.fetched_at), "revised"
                is_taken = any(each.name == name for each in there)  # and perhaps damaged since
                if is_taken or (text is not None and not snapshots.is_news(content, text)):
                    return Taken("unchanged", last.name)
            if dry_run or self._create(name, content):
                return Taken(outcome, name)
        raise RecordError(f"the snapshot of {day} could not be written: others were faster {_TRIES} times")

    def names(self, prefix: str = snapshots.PREFIX) -> list[SnapshotName]:
        """The dated blobs whose names begin so, in the order in which they were written."""
        listed = (snapshots.parse_name(blob.name) for blob in self._container.list(prefix))
        return sorted(name for name in listed if name is not None)

    def ignored(self) -> list[str]:
        """The names of all blobs of the container that are no dated blobs', by name."""
        return [blob.name for blob in self._container.list() if snapshots.parse_name(blob.name) is None]

    def read(self, names: Sequence[SnapshotName]) -> Iterator[Found]:
        """Those blobs, in that order; of ten years no more than a few are in memory."""
        with ThreadPoolExecutor(_READERS) as pool:
            for some in batched(names, _READERS * 4, strict=False):
                yield from pool.map(self._find, some)

    def content(self, name: SnapshotName) -> bytes | None:
        """A snapshot as it was written; None where it is gone, archived or damaged."""
        try:
            return self._sound(name)[0]
        except DamagedError:
            return None

    def _create(self, name: str, content: bytes) -> bool:
        """Write a blob that is not there yet; False when it is, and is another writer's."""
        own = {_WRITE: uuid.uuid4().hex}
        try:
            self._container.write(name, content, snapshots.JSON_TYPE, replacing=None, metadata=own)
        except (BlobConflictError, StorageRefusedError) as error:
            # A role that may only create is refused where there is a blob already.
            blob = self._container.read(name).blob
            if blob is None and isinstance(error, StorageRefusedError):
                raise
            return blob is not None and blob.metadata.get(_WRITE) == own[_WRITE]
        return True

    def _find(self, name: SnapshotName) -> Found:
        try:
            return Found(name, self._sound(name)[1])
        except DamagedError as damage:
            return Found(name, None, str(damage))

    def _sound(self, name: SnapshotName) -> tuple[bytes, Row]:
        """A blob and its row. Raises DamagedError."""
        try:
            blob = self._container.read(name.name).blob
        except BlobUnreadableError as error:
            raise DamagedError(f"it cannot be read. {error.hint}") from None
        if blob is None:
            raise DamagedError("it is gone")
        if blob.md5 is not None and blob.md5 != md5(blob.content):
            raise DamagedError("its MD5 is another")
        return blob.content, row_of(name, blob.content)
