"""A blob as Blob Storage tells of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as read; the MD5 is the one that was stored with it."""

    content: bytes = field(repr=False)
    etag: str
    metadata: Mapping[str, str] = field(repr=False)
    md5: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """A blob, or that there is none, at an instant of the service's clock, which all instances share."""

    blob: Blob | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """What a listing tells of a blob."""

    name: str
    etag: str
    md5: bytes | None


def md5(content: bytes) -> bytes:
    """The digest that Blob Storage keeps; a checksum, no signature."""
    return hashlib.md5(content, usedforsecurity=False).digest()
