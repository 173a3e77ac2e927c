"""Records today's usage summary; a run that failed raises, so that the host records a failure."""

import azure.functions as func

from shared.app import app


def main(timer: func.TimerRequest) -> None:  # noqa: ARG001  # whether it is late does not matter
    """Take today's snapshot and bring the history up to date."""
    app.take_snapshot(by_timer=True)
