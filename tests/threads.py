"""Waiting for what runs beside a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from dev.simulator import Exchange, Service, World

PATIENCE = 30.0
"""Seconds; for what takes a fraction of one, on a machine that has much to do."""
PATIENCE_WITH_A_PROCESS = 120.0
"""Seconds; for a process that starts or ends, which takes an idle machine a few of them."""

_LAST_OF_A_DAY = timedelta(seconds=45)


@contextmanager
def unanswered(world: World, service: Service) -> Iterator[threading.Event]:
    """The world answers nobody once `service` is asked, until the end; the event is set when it is asked."""
    asked, answers = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> None:
        if exchange.service is service:
            asked.set()
            answers.wait(PATIENCE)

    world.observer = hold
    try:
        yield asked
    finally:
        answers.set()


def begin_a_new_day(ends: timedelta = _LAST_OF_A_DAY) -> None:
    """Wait for midnight in UTC if it is near: a process that reads the machine's clock shall see one day."""
    now = datetime.now(UTC)
    left = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now
    if left < ends:
        threading.Event().wait(left.total_seconds() + 1)


def settle() -> None:
    """Wait for the refreshes under way in this process."""
    for thread in threading.enumerate():
        if thread.name == "refresh":
            thread.join(PATIENCE)
            assert not thread.is_alive()
