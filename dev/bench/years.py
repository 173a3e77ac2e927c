"""A record of some age, made of dated blobs as runs would have written them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from itertools import batched

from azure.storage.blob import ContainerClient, ContentSettings

from dev.simulator.world import DOCUMENT
from shared.blob import md5
from shared.snapshots import JSON_TYPE, first_name, snapshot
from shared.usage_summary import read_usage_summary

_WRITERS, _BATCH = 16, 50  # threads, blobs
_FIVE_PAST = time(0, 5, tzinfo=UTC)
_ID = "5ac39d30-6a4c-4b7e-8f0c-0a6a3a5f6a0e"
_PERIOD = b'"billingStartDate":"2026-10-28'
_TOTAL = b'"totalCost":120.5682999999995904716'


def document(day: date, total: int) -> bytes:
    """What Partner Center says on a day, in a billing period that began with the month."""
    began = f'"billingStartDate":"{day:%Y-%m}-01'.encode()
    return DOCUMENT.replace(_PERIOD, began).replace(_TOTAL, f'"totalCost":{total}.10'.encode())


def write(container: ContainerClient, days: int) -> None:
    """Write a snapshot of each of so many days before today, unless the container is there already."""
    if container.exists():
        return
    container.create_container()
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda some: _write(container, some), batched(_snapshots(days), _BATCH, strict=False)))


def _snapshots(days: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents, the oldest first."""
    today = datetime.now(UTC).date()
    for number in range(days, 0, -1):
        day = today - timedelta(days=number)
        members = read_usage_summary(document(day, number)).members
        yield first_name(day), snapshot(members, datetime.combine(day, _FIVE_PAST), _ID, _ID)


def _write(container: ContainerClient, snapshots: Sequence[tuple[str, bytes]]) -> None:
    for name, content in snapshots:
        settings = ContentSettings(JSON_TYPE, content_md5=bytearray(md5(content)))
        container.upload_blob(name, content, content_settings=settings)
