"""A snapshot taken now, as the timer takes it."""

from ops.access import Operator, environment, with_client_secret
from ops.report import Report
from shared.app import App
from shared.clock import Clock


def snapshot(report: Report, *, dry_run: bool) -> None:
    """Record today's usage summary and report what came of it. Raises an error of this app."""
    app = App(environment(), Clock(), Operator(), with_client_secret)
    outcome = app.take_snapshot(dry_run=dry_run)
    said = _SAID[str(outcome["outcome"])]
    if dry_run:
        report.add("dryRun", "Dry run", value=True, said="nothing is written to the record")
    report.add("outcome", "Outcome", str(outcome["outcome"]), said=said)
    for name, label in (
        ("blob", "Snapshot"),
        ("fetchedAt", "Fetched at"),
        ("requestId", "Partner Center's id"),
        ("written", "Files written"),
        ("repairedBlobs", "Left by earlier runs"),
        ("damaged", "Damaged snapshots"),
        ("rows", "Rows of the history"),
        ("missingDates", "Days missing"),
        ("seconds", "Seconds"),
    ):
        value = outcome.get(name)
        if value is not None:
            report.add(name, label, [*value] if isinstance(value, list) else value)


_SAID = {
    "taken": "taken: the first snapshot of its day",
    "revised": "revised: the figure differs from the day's last snapshot",
    "repaired": "repaired: nothing new, but another run had left the history behind",
    "unchanged": "unchanged: the day's last snapshot says the same",
    "no-usage-data": "Partner Center has no usage data for this partner; nothing is written",
}
