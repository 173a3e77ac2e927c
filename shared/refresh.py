"""A refresh: the shared answer adopted or, under the claim, Partner Center asked for another.

Partner Center is asked by one instance at a time; without storage each asks for itself. How a refresh ended
is a value, not an exception, for hundreds may share it. Storage that fails costs freshness, never an answer.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import uniform
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.errors import OperatorError, StorageError, UpstreamUnavailableError, UsageSummaryError
from shared.events import defect, log_event, log_failure
from shared.fleet import Fleet
from shared.fleet_blob import CLAIM_LIFE
from shared.freshness import Decision
from shared.held import Answer, Held, Shared
from shared.known import Known
from shared.outcome import Outcome, Source, Wanted

if TYPE_CHECKING:
    from shared.client import PartnerCenterClient

LONGEST_WAIT = timedelta(seconds=62)
"""A caller's, and a refresh's for another instance: a little longer than asking can take."""

_ASKING_TIME = timedelta(seconds=50)  # from reading the shared answer to the end of the upstream call
_CLAIM = CLAIM_LIFE.total_seconds()  # what somebody waits for was sent no longer before
_REST = 10.0, 18.0  # seconds after a failure, from and to: jitter
_OPERATORS_REST = 50.0, 57.0  # the same where somebody must act, who sees it work within a minute
_POLL = 0.05, 0.25  # seconds between two looks at another instance's claim
_LOST_CLAIMS = 5  # in a row, without anybody having won: that is storage failing

_log = logging.getLogger(__name__)


class Refresh:
    """How this process comes by a newer answer."""

    def __init__(
        self, known: Known, fleet: Fleet, open_client: Callable[[], "PartnerCenterClient"], clock: Clock
    ) -> None:
        self._known = known
        self._fleet = fleet
        self._open_client = open_client
        self._opened: PartnerCenterClient | None = None
        self._clock = clock

    def run(self, wanted: Wanted) -> Outcome:
        """Hold a newer answer, if there is one to be had; how that ended."""
        claim: Shared | Outcome | None = None
        try:
            claim = self._claim_or_not(wanted)
            return claim if isinstance(claim, Outcome) else self._ask(wanted, claim)
        except Exception as error:  # noqa: BLE001  # a defect must not leave callers waiting
            failure = UpstreamUnavailableError(defect(error))
            outcome = self._give_up(failure, claim if isinstance(claim, Shared) else None)
            return replace(outcome, decision=self._known.decide(wanted.directives))

    def look(self) -> None:
        """Hold the shared answer if it is newer."""
        try:
            self._read()
        except StorageError as error:
            _say_not_shared(error)

    def settle(self) -> None:
        """Do what can wait until callers have their answer."""
        if self._opened is not None:
            self._opened.settle()

    def _claim_or_not(self, wanted: Wanted) -> Shared | Outcome | None:
        """The claim, or an outcome that needs none, or nothing where storage does not take part."""
        try:
            return self._claim(wanted)
        except StorageError as error:
            _say_not_shared(error)
            if self._is_enough(wanted):  # another flight's, or a look's
                return Outcome(Source.STORED)
            rest = self._known.rest
            return None if rest is None else Outcome(Source.STORED, rest.error)

    def _claim(self, wanted: Wanted) -> Shared | Outcome:
        """The claim, or an outcome that needs none; waits for another instance's fetch where it must."""
        waits_with, waits, lost = self._known.held, False, 0
        while True:
            shared, held = self._read(), self._known.held
            if waits and held and held is not waits_with and held.sent > wanted.began - _CLAIM:
                return Outcome(Source.COLLAPSED)
            outcome = self._settled(wanted, shared)
            if outcome is not None:
                return outcome
            if not shared.keep_away:
                claim = self._fleet.claim(shared, uuid.uuid4().hex)
                if claim is not None:
                    if self._left(claim.read) > timedelta():
                        return claim
                    self._fleet.release(claim)  # this process has been stopped meanwhile
                lost += 1
                if lost == _LOST_CLAIMS:
                    raise StorageError("the claim is neither to be had nor held by anybody")
            elif shared.read - wanted.began > LONGEST_WAIT.total_seconds():
                error = UpstreamUnavailableError("another instance is asking", retry_after=shared.keep_away)
                return Outcome(Source.STORED, error)
            else:
                waits_with, waits, lost = waits_with if waits else held, True, 0
                self._clock.sleep(uniform(*_POLL))  # noqa: S311  # jitter

    def _settled(self, wanted: Wanted, shared: Shared) -> Outcome | None:
        """How a refresh ends that needs no asking, now that the shared answer is adopted."""
        if self._is_enough(wanted):
            return Outcome(Source.STORED)
        decision, rest = self._known.decide_exactly(wanted.directives), self._known.rest
        if rest is not None:
            return Outcome(Source.STORED, rest.error)
        is_enough = wanted.is_behind or (decision is Decision.FETCH_STALE and self._known.has_usable())
        return Outcome(Source.STORED) if shared.keep_away and is_enough else None

    def _is_enough(self, wanted: Wanted) -> bool:
        """Whether the answer held is what is wanted, and nobody needs to ask."""
        decision = self._known.decide_exactly(wanted.directives)
        return decision is Decision.SERVE or (decision is Decision.SERVE_AND_REFRESH and not wanted.is_behind)

    def _left(self, since: float) -> timedelta:
        """The time for asking that is left since a monotonic second."""
        return _ASKING_TIME - timedelta(seconds=self._clock.monotonic() - since)

    def _read(self) -> Shared:
        """What is shared, adopted."""
        self._known.looked_at = self._clock.monotonic()
        shared = self._fleet.read()
        self._known.adopt(shared)
        return shared

    def _ask(self, wanted: Wanted, claim: Shared | None) -> Outcome:
        """Ask Partner Center, hold what it says and share it, as far as storage takes part."""
        began, decision = self._clock.monotonic(), self._known.decide(wanted.directives)
        try:
            self._opened = self._opened or self._open_client()
            left = self._left(claim.read if claim else wanted.began)
            fetched = self._opened.get_usage_summary(wanted.correlation_id, left)
        except UsageSummaryError as error:
            return replace(self._give_up(error, claim), decision=decision)
        now = self._clock.monotonic()
        sent = (claim or Shared(now, self._clock.now())).instant(fetched.sent)
        answer = Answer(fetched.body, sent, fetched.request_id, fetched.correlation_id, fetched.no_usage_data)
        self._known.hold(Held(answer, fetched.sent, is_exact=True, is_by_storage=claim is not None))
        log_event(
            _log,
            logging.INFO,
            "usage_summary.refreshed",
            seconds=round(now - began, 3),
            noUsageData=fetched.no_usage_data is not None,
            requestId=fetched.request_id,
            correlationId=fetched.correlation_id,
        )
        if claim is not None and not self._share(lambda: self._fleet.publish(claim, answer)):
            log_event(_log, logging.WARNING, "usage_summary.claim_lost", requestId=answer.request_id)
            self.look()
        return Outcome(Source.FETCHED, decision=decision)

    def _give_up(self, error: UsageSummaryError, claim: Shared | None) -> Outcome:
        """Keep away for a while, in all instances where storage takes part, if anybody was asked."""
        rest = uniform(*(_OPERATORS_REST if isinstance(error, OperatorError) else _REST))  # noqa: S311  # jitter
        wait = max(timedelta(seconds=rest), error.retry_after or timedelta())
        until = self._known.keep_away(wait, error) if error.asked else None
        reply = error.reply
        log_failure(
            _log,
            logging.ERROR,
            "usage_summary.refresh_failed",
            error,
            upstreamStatus=reply and reply.status,
            upstreamCode=reply and reply.code,
            requestId=reply and reply.request_id,
            nextAttemptInSeconds=wait if error.asked else None,
        )
        if claim is not None and not self._share(lambda: self._give_back(claim, error, until)):
            self.look()
        return Outcome(Source.FETCHED if error.asked else Source.STORED, error)

    def _give_back(self, claim: Shared, error: UsageSummaryError, until: float | None) -> bool:
        return self._fleet.release(claim) if until is None else self._fleet.back_off(claim, error, until)

    def _share(self, write: Callable[[], bool]) -> bool:
        """Whether a write met the claim that it is for; one that failed is said and no more."""
        try:
            return write()
        except StorageError as error:
            _say_not_shared(error)
            return True


def _say_not_shared(error: StorageError) -> None:
    log_failure(_log, logging.WARNING, "usage_summary.not_shared", error)
