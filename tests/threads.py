"""Waiting for what runs beside a test."""

import threading
from datetime import UTC, datetime, timedelta

PATIENCE = 30.0
"""Seconds; for what takes a fraction of one, on a machine that has much to do."""


_LAST_OF_A_DAY = timedelta(seconds=45)


def begin_a_new_day() -> None:
    """Wait for midnight in UTC if it is near: a process that reads the machine's clock shall see one day."""
    now = datetime.now(UTC)
    left = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now
    if left < _LAST_OF_A_DAY:
        threading.Event().wait(left.total_seconds() + 1)


def settle() -> None:
    """Wait for the refreshes under way in this process."""
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(PATIENCE)
            assert not thread.is_alive()
