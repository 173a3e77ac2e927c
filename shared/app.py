"""The composition root: the only reader of the environment, the only builder of live objects.

Both functions import `app`. A process with wrong settings lives and says so; it works after a restart with
right ones. Libraries of some weight are imported when first needed, not when a stored answer is served.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from shared.answers import Answers, Result
from shared.blobs import PATIENT, QUICK, Container
from shared.clock import Clock
from shared.configuration import read_settings
from shared.errors import ConfigurationError
from shared.events import log_event
from shared.fleet import Fleet
from shared.freshness import Decision, RequestDirectives
from shared.settings import Freshness, RecordSettings, Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from shared.client import PartnerCenterClient
    from shared.history import History
    from shared.record import Record
    from shared.run import Outcome, Run

_log = logging.getLogger(__name__)

# The Azure libraries log each request at INFO and tracebacks at WARNING; host.json cannot tell them apart.
for _library in ("azure", "msal", "urllib3"):
    logging.getLogger(_library).setLevel(logging.ERROR)


class App:
    """The live objects of a process, or why there are none."""

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Clock,
        operator: "TokenCredential | None" = None,
        prepared: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        """An operator stands in for the platform's identity, with settings prepared for the sign-in."""
        self._problem: ConfigurationError | None = None
        self.freshness = Freshness()
        try:
            settings = read_settings(environ, os.path.exists)
        except ConfigurationError as error:
            self._problem = error
            return
        self.freshness = settings.freshness
        partner = f"{settings.cloud.base_url} {settings.tenant_id}"
        cache = Container(
            settings.cache_container, settings.cache_storage, QUICK, settings.ca_bundle, operator
        )

        def open_client() -> "PartnerCenterClient":
            from shared.auth import AppUserCredential
            from shared.client import PartnerCenterClient

            signing_in = prepared(settings)
            return PartnerCenterClient(signing_in, AppUserCredential(signing_in, clock, operator), clock)

        fleet = Fleet(cache, partner, clock, shares_failures=operator is None)
        self._answers = Answers(fleet, open_client, settings.freshness, clock)

        def open_run() -> "Run":
            from shared.run import Run

            def token_age() -> float | None:
                from shared.consent import stored_age_in_days

                return None if operator else stored_age_in_days(settings, clock)

            record, history = open_record(settings.record, clock, operator)
            schedule, floor = settings.snapshot_schedule, settings.freshness.min_refresh
            return Run(self._answers, record, history, schedule, floor, clock, token_age)

        self._open_run = open_run

    async def get_usage_summary(self, directives: RequestDirectives, correlation_id: str) -> Result:
        """The usage summary for one caller, or why there is none; see Answers.get."""
        if self._problem is not None:
            log_event(_log, logging.ERROR, "configuration.wrong", message=self._problem.message)
            return Result(Decision.FETCH_MISSING, error=self._problem)
        return await self._answers.get(directives, correlation_id)

    def take_snapshot(self, *, dry_run: bool = False, by_timer: bool = False) -> "Outcome":
        """Record today's usage summary; see Run.take_snapshot."""
        from shared.run import log_failed

        if self._problem is not None:
            log_failed(self._problem)
            raise self._problem.with_traceback(None)  # one error fails many runs, and gathers no frames
        return self._open_run().take_snapshot(dry_run=dry_run, by_timer=by_timer)


def open_record(
    settings: RecordSettings, clock: Clock, operator: "TokenCredential | None" = None
) -> "tuple[Record, History]":
    """The record and its history, for the platform's identity or for an operator."""
    from shared.history import History, refuse_anew
    from shared.record import Record

    name, where = settings.snapshot_container, (settings.storage, PATIENT, settings.ca_bundle, operator)
    history = Container(settings.history_container, *where)
    record = Record(Container(name, *where, missing=lambda: refuse_anew(name, history)))
    return record, History(record, history, clock)


app = App(os.environ, Clock())
