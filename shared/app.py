"""The composition root: the only reader of the environment, the only builder of live objects.

Both functions import `app`. A process with wrong settings lives and says so; it works after a restart with
right ones. Libraries of some weight are imported when first needed, not when a stored answer is served.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from shared.answers import Answers, Result
from shared.blobs import PATIENT, QUICK, Container
from shared.clock import Clock
from shared.errors import ConfigurationError, RecordError, UsageSummaryError
from shared.events import log_event
from shared.fleet import Fleet
from shared.freshness import Decision, RequestDirectives
from shared.history import Record
from shared.settings import Freshness, Settings, read_settings

if TYPE_CHECKING:
    from shared.client import PartnerCenterClient

_log = logging.getLogger(__name__)

# The Azure libraries log each request at INFO and tracebacks at WARNING; host.json cannot tell them apart.
for _library in ("azure", "msal", "urllib3"):
    logging.getLogger(_library).setLevel(logging.ERROR)


class App:
    """The live objects of a process, or why there are none."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        self._problem: ConfigurationError | None = None
        self.freshness = Freshness()
        try:
            settings = read_settings(environ, os.path.exists)
        except ConfigurationError as error:
            self._problem = error
            return
        self.freshness = settings.freshness
        partner = f"{settings.cloud.base_url} {settings.tenant_id}"
        cache = Container(settings.cache_container, settings.cache_storage, QUICK, settings.ca_bundle)
        self._answers = Answers(
            Fleet(cache, partner, clock), lambda: _open_client(settings, clock), settings.freshness, clock
        )
        self._record = Record(
            Container(settings.snapshot_container, settings.record_storage, PATIENT, settings.ca_bundle),
            Container(settings.history_container, settings.record_storage, PATIENT, settings.ca_bundle),
            clock,
        )

    async def get_usage_summary(self, directives: RequestDirectives, correlation_id: str) -> Result:
        """The usage summary for one caller, or why there is none; see Answers.get."""
        if self._problem is not None:
            log_event(_log, logging.ERROR, "configuration.wrong", message=self._problem.message)
            return Result(Decision.FETCH_MISSING, error=self._problem)
        return await self._answers.get(directives, correlation_id)

    def take_snapshot(self) -> None:
        """Record today's usage summary and bring the history up to date; one log line says what came of it.

        Raises an error of this app when that failed, also when a stored answer of today was recorded instead
        of a refreshed one. That Partner Center has no usage data is an outcome, and nothing is written.
        """
        began = self._clock.monotonic()
        try:
            outcome = self._take_snapshot()
        except UsageSummaryError as error:
            log_event(
                _log,
                logging.ERROR,
                "snapshot.failed",
                error=type(error).__name__,
                message=error.message,
                hint=error.hint,
            )
            raise
        log_event(
            _log, logging.INFO, "snapshot.done", **outcome, seconds=round(self._clock.monotonic() - began, 3)
        )

    def _take_snapshot(self) -> dict[str, object]:
        if self._problem is not None:
            raise self._problem
        now = self._clock.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        todays_and_fresh = RequestDirectives(max_age=now - midnight, min_fresh=timedelta(seconds=1))
        result = asyncio.run(self._answers.get(todays_and_fresh, str(uuid.uuid4())))
        answer = result.answer
        if answer is None or answer.fetched_at.date() < now.date():
            raise result.error or RecordError("the answer is of an earlier day, and may not be refreshed yet")
        outcome: dict[str, object] = {"outcome": "no-usage-data", "requestId": answer.request_id}
        if answer.no_usage_data is None:
            taken, updated = self._record.take(answer), self._record.bring_up_to_date()
            outcome |= {
                "outcome": taken.outcome,
                "blob": taken.name,
                "written": updated.written,
                "rows": updated.rows,
                "missingDates": updated.missing,
            }
        if result.error is not None:
            raise result.error
        return outcome


def _open_client(settings: Settings, clock: Clock) -> "PartnerCenterClient":
    from shared.auth import AppUserCredential
    from shared.client import PartnerCenterClient

    return PartnerCenterClient(settings, AppUserCredential(settings, clock), clock)


app = App(os.environ, Clock())
