"""How many requests this process makes of storage."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dev.azurite import Azurite


class Requests(logging.Handler):
    """Counts them by the line that urllib3 logs of each exchange, whichever library made it."""

    def __init__(self, azurite: Azurite) -> None:
        super().__init__()
        self._port = urlsplit(azurite.url).port
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line about an exchange with this storage: scheme, host, port, method and more."""
        match record.args:
            case (_, _, port, _, *_) if port == self._port:
                self.count += 1


@contextmanager
def counting(azurite: Azurite) -> Iterator[Requests]:
    """The count, which goes on while the context lasts."""
    log, requests = logging.getLogger("urllib3.connectionpool"), Requests(azurite)
    level, is_passed_on = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(requests)
    try:
        yield requests
    finally:
        log.removeHandler(requests)
        log.propagate = is_passed_on
        log.setLevel(level)
