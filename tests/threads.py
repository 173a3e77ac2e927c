"""Waiting for what runs beside a test."""

import threading

PATIENCE = 30.0
"""Seconds; for what takes a fraction of one, on a machine that has much to do."""


def settle() -> None:
    """Wait for the refreshes under way in this process."""
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(PATIENCE)
            assert not thread.is_alive()
