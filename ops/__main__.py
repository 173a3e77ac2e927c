"""The commands for operators: python3 -m ops."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ops.arguments import parser

if TYPE_CHECKING:
    import argparse

    from ops.report import Report


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    _use_packages()
    from ops.report import Report, exit_code
    from shared.errors import UsageSummaryError

    logging.disable()  # a command tells what came of it; libraries say too much, codes and tokens among it
    report = Report(as_json=getattr(options, "json", False))
    try:
        _run(options, report)
    except UsageSummaryError as error:
        report.fail(error)
        return exit_code(error)
    except Exception as defect:  # noqa: BLE001  # its text and its locals may hold a token
        frame = traceback.extract_tb(defect.__traceback__)[-1]
        report.defect(f"{type(defect).__name__} at {Path(frame.filename).name}:{frame.lineno}")
        return 1
    finally:
        report.end()
        logging.disable(logging.NOTSET)
    return 0


def _run(options: "argparse.Namespace", report: "Report") -> None:
    match options.command, getattr(options, options.command, None):
        case "consent", _:
            from ops.consent import consent

            consent(report, port=options.port, browser=options.browser)
        case "token", "status":
            from ops.tokens import status

            status(report)
        case "token", "rotate":
            from ops.tokens import rotate

            rotate(report)
        case "token", "import":
            from ops.tokens import import_token

            import_token(report)
        case "show", _:
            from ops.show import show

            show(report, url=options.url)
        case "snapshot", _:
            from ops.snapshot import snapshot

            snapshot(report, dry_run=options.dry_run)
        case "history", "verify":
            from ops.history import verify

            verify(report)
        case "history", "rebuild":
            from ops.history import rebuild

            rebuild(report, dropped=options.drop)
        case "history", "show":
            from ops.history import show as show_history

            show_history(report, days=options.days)


def _use_packages() -> None:
    """Go on with the packages of requirements.txt: this Python's, or those that `dev` installed."""
    if find_spec("msal"):
        return
    python = Path(__file__).parent.parent / ".venv" / "bin" / "python"
    if not python.exists():
        print("the packages are missing: python3 -m pip install -r requirements.txt", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), "-m", "ops", *sys.argv[1:]])  # noqa: S606  # this very command


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the partner's script
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
