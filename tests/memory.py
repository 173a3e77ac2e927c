"""Containers of Blob Storage in memory, as honest as Azurite and a hundred times as fast."""

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count

from shared.blob import Blob, ListedBlob, Reading, md5
from shared.blobs import Container
from shared.errors import BlobConflictError


class Memory(Container):
    """One container. `now` is the service's clock, which tells whole seconds."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.blobs: dict[str, Blob] = {}
        self.before: Callable[[str], object] = lambda _: None
        """Is told of each operation, by its name, before it is done."""
        self.after: Callable[[str], object] = lambda _: None
        """The same once it is done."""
        self._now = now
        self._etags = count(1)
        self._lock = threading.Lock()

    def read(self, name: str) -> Reading:
        self.before("read")
        reading = Reading(self.blobs.get(name), self._now().replace(microsecond=0))
        self.after("read")
        return reading

    def write(
        self,
        name: str,
        content: bytes,
        content_type: str,  # noqa: ARG002  # nobody asks for it
        *,
        replacing: str | None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        self.before("write")
        with self._lock:
            there = self.blobs.get(name)
            if (None if there is None else there.etag) != replacing:
                raise BlobConflictError("another blob is there")
            etag = f'"0x{next(self._etags):X}"'
            self.blobs[name] = Blob(content, etag, dict(metadata or {}), md5(content))
        self.after("write")
        return etag

    def list(self, prefix: str = "") -> list[ListedBlob]:
        self.before("list")
        found = [
            ListedBlob(name, blob.etag, blob.md5)
            for name, blob in sorted(self.blobs.items())
            if name.startswith(prefix)
        ]
        self.after("list")
        return found
