"""A run of the timer: today's answer, its snapshot, the history brought up to date, one log line.

Runs may be late, missed, doubled or killed: each looks at what is there, and finishes what others have left.
"""

import asyncio
import logging
import uuid
from datetime import datetime, timedelta

from shared.answers import Answers
from shared.clock import Clock
from shared.errors import RecordError, UsageSummaryError
from shared.events import log_event
from shared.fleet import Answer
from shared.freshness import RequestDirectives
from shared.history import History
from shared.record import Record

_LONGEST_WAIT = timedelta(minutes=2)  # the platform may end a run after five
_NAMES_SAID = 31

type Outcome = dict[str, str | float | datetime | list[str] | None]

_log = logging.getLogger(__name__)


class Run:
    """Takes snapshots; may run on several instances at once."""

    def __init__(
        self, answers: Answers, record: Record, history: History, min_refresh: timedelta, clock: Clock
    ) -> None:
        self._answers = answers
        self._record = record
        self._history = history
        self._min_refresh = min_refresh
        self._clock = clock

    def take_snapshot(self, *, dry_run: bool = False) -> Outcome:
        """Record today's usage summary and bring the history up to date; what came of it, which is logged.

        The outcome is taken, revised (the document differs from the day's last), repaired (nothing new, but
        another run had left something undone), unchanged, or no-usage-data, with which nothing is written.
        Raises an error of this app when the run failed, also when a stored answer of today was recorded
        instead of a refreshed one. A dry run writes nothing to the record.
        """
        began = self._clock.monotonic()
        try:
            outcome = self._take_snapshot(dry_run=dry_run)
        except UsageSummaryError as error:
            log_failed(error, seconds=round(self._clock.monotonic() - began, 3))
            raise
        outcome["seconds"] = round(self._clock.monotonic() - began, 3)
        log_event(_log, logging.INFO, "snapshot.done", **outcome)
        return outcome

    def _take_snapshot(self, *, dry_run: bool) -> Outcome:
        began = self._clock.monotonic()
        answer, failure = self._todays_answer()
        outcome: Outcome = {
            "outcome": "no-usage-data",
            "fetchedAt": answer.fetched_at,
            "requestId": answer.request_id,
            "answerSeconds": round(self._clock.monotonic() - began, 3),
        }
        if answer.no_usage_data is None:
            taken = self._record.take(answer, dry_run=dry_run)
            outcome |= {"outcome": taken.outcome, "blob": taken.name}
            if not dry_run:
                outcome |= self._bring_up_to_date(taken.name, taken.outcome)
        if failure is not None:
            raise failure
        return outcome

    def _bring_up_to_date(self, name: str, outcome: str) -> Outcome:
        updated = self._history.bring_up_to_date()
        left = [each for each in updated.added if outcome == "unchanged" or each != name]
        if outcome == "unchanged" and updated.written:
            outcome = "repaired"
        return {
            "outcome": outcome,
            "written": updated.written,
            "repaired": len(left),
            "repairedBlobs": left[-_NAMES_SAID:] or None,
            "damaged": len(updated.damaged),
            "rows": updated.rows,
            "missingDates": len(updated.missing),
        }

    def _todays_answer(self) -> tuple[Answer, UsageSummaryError | None]:
        """An answer fetched today, by storage's clock; and why it is not a fresher one, where that is so.

        Just after midnight the fleet's floor may stand before a refresh: that is worth waiting for, since a
        schedule may have no other run today.
        """
        may_wait = self._min_refresh <= _LONGEST_WAIT
        while True:
            now = self._clock.now()
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            todays_and_fresh = RequestDirectives(max_age=now - midnight, min_fresh=timedelta(seconds=1))
            result = asyncio.run(self._answers.get(todays_and_fresh, str(uuid.uuid4())))
            answer = result.answer
            if answer is not None and answer.fetched_at.date() >= now.date():
                return answer, result.error
            if result.error is not None or not may_wait:
                break
            may_wait = False
            self._clock.sleep(self._min_refresh.total_seconds() + 1)  # storage's clock has whole seconds
        raise result.error or RecordError("the answer is of an earlier day, and may not be refreshed yet")


def log_failed(error: UsageSummaryError, **values: object) -> None:
    """The log line of a run that failed."""
    log_event(
        _log,
        logging.ERROR,
        "snapshot.failed",
        error=type(error).__name__,
        message=error.message,
        hint=error.hint,
        requestId=error.reply and error.reply.request_id,
        **values,
    )
