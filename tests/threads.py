"""Waiting for what runs beside a test."""

import threading


def settle() -> None:
    """Wait for the refreshes under way in this process."""
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(30)
            assert not thread.is_alive()
