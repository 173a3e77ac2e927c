"""A run of the timer: today's answer, its snapshot, the history brought up to date, one log line.

Runs may be late, missed, doubled or killed: each looks at what is there, and finishes what others have left.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.answers import Answers
from shared.clock import Clock
from shared.errors import RecordError, UsageSummaryError
from shared.events import defect, log_event, log_failure
from shared.freshness import RequestDirectives
from shared.held import Answer
from shared.history import History
from shared.record import Record
from shared.schedule import has_tick
from shared.snapshots import DATASET

_LONGEST_WAIT = timedelta(minutes=2)  # with both refreshes and the writing, well below functionTimeout
_EARLY = timedelta(seconds=60)  # that a timer may fire before its tick, and more
_NAMES_SAID = 31

type Outcome = dict[str, str | float | datetime | list[str] | None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """Takes snapshots; may run on several instances at once."""

    answers: Answers
    record: Record
    history: History
    schedule: str
    min_refresh: timedelta
    clock: Clock
    token_age: Callable[[], float | None]
    """Of the stored refresh token, in days, for the log line."""

    def take_snapshot(self, *, dry_run: bool = False, by_timer: bool = False) -> Outcome:
        """Record today's usage summary and bring the history up to date; what came of it, which is logged.

        The outcome is taken, revised (the document differs from the day's last), repaired (nothing new, but
        another run had left something undone), unchanged, or no-usage-data, with which nothing is written.
        Raises an error of this app when the run failed, also when a stored answer of today was recorded
        instead of a refreshed one. A dry run writes nothing to the record. A run by the timer just before
        midnight is the new day's, if the schedule has a tick then.
        """
        began = self.clock.monotonic()
        try:
            if by_timer:
                self._wait_for_midnight()
            outcome = self._take_snapshot(dry_run=dry_run)
        except Exception as error:  # noqa: BLE001  # whatever it was, the run failed, and says so
            known = error if isinstance(error, UsageSummaryError) else RecordError(defect(error))
            log_failed(known, seconds=round(self.clock.monotonic() - began, 3))
            raise known.with_traceback(None) from None  # one error may fail many runs
        outcome["refreshTokenAgeInDays"] = self.token_age()
        outcome["seconds"] = round(self.clock.monotonic() - began, 3)
        log_event(_log, logging.INFO, "snapshot.done", dataset=DATASET, **outcome)
        return outcome

    def _take_snapshot(self, *, dry_run: bool) -> Outcome:
        began = self.clock.monotonic()
        answer, failure = self._todays_answer()
        outcome: Outcome = {
            "outcome": "no-usage-data",
            "fetchedAt": answer.fetched_at,
            "requestId": answer.request_id,
            "answerSeconds": round(self.clock.monotonic() - began, 3),
        }
        if answer.no_usage_data is None:
            taken = self.record.take(answer, dry_run=dry_run)
            outcome |= {"outcome": taken.outcome, "blob": taken.name}
            if not dry_run:
                outcome |= self._bring_up_to_date(taken.name, taken.outcome)
        if failure is not None:
            raise failure
        return outcome

    def _bring_up_to_date(self, name: str, outcome: str) -> Outcome:
        updated = self.history.bring_up_to_date()
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

    def _wait_for_midnight(self) -> None:
        """Wait for a midnight on the schedule, since the platform may fire some milliseconds early."""
        now = self.clock.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        if midnight - now <= _EARLY and has_tick(self.schedule, midnight):
            # A second more, since storage's clock, which tells the day, has whole seconds.
            self.clock.sleep((midnight - now).total_seconds() + 1)

    def _todays_answer(self) -> tuple[Answer, UsageSummaryError | None]:
        """An answer fetched today, by storage's clock; and why it is not a fresher one, where that is so.

        Just after midnight the fleet's floor may stand before a refresh: that is worth waiting for, since a
        schedule may have no other run today.
        """
        may_wait, oldest = self.min_refresh <= _LONGEST_WAIT, timedelta.max
        while True:
            now = self.clock.now()
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            max_age = min(now - midnight, oldest)
            todays_and_fresh = RequestDirectives(max_age=max_age, min_fresh=timedelta(seconds=1))
            result = asyncio.run(self.answers.get(todays_and_fresh, str(uuid.uuid4())))
            answer = result.answer
            if answer is not None and answer.fetched_at.date() >= now.date():
                return answer, result.error
            if result.error is not None or not may_wait:
                break
            may_wait = False
            oldest = self.min_refresh  # by a clock ahead of storage's the same answer would be today's
            self.clock.sleep(self.min_refresh.total_seconds() + 1)  # storage's clock has whole seconds
        raise result.error or RecordError("the answer is of an earlier day, and may not be refreshed yet")


def log_failed(error: UsageSummaryError, **values: object) -> None:
    """The log line of a run that failed."""
    log_failure(
        _log,
        logging.ERROR,
        "snapshot.failed",
        error,
        dataset=DATASET,
        requestId=error.reply and error.reply.request_id,
        **values,
    )
