"""The checks of the Power BI report: python3 -m dev report.

They are tests, and stand apart from the test suite, since they need what is in no other environment:
Microsoft's Tabular Object Model on .NET, and evaluators of M and DAX. That is installed into .venv-report at
first use and laid over .venv, so that the app's own code makes the histories that they look at.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence

from dev.environment import ROOT, make

VENV = ROOT / ".venv-report"
REQUIREMENTS = ROOT / "dev" / "report" / "requirements.txt"


def report(arguments: Sequence[str], *, is_drawn: bool) -> int:
    """Run the checks, with more arguments for pytest, or draw the pages; returns the exit code.

    Raises InstallError.
    """
    make(VENV, REQUIREMENTS)
    packages = sysconfig.get_path("purelib", vars={"base": str(VENV)})
    work = ["dev.report.drawing"] if is_drawn else ["pytest", "-n", "auto", "dev/report"]
    command = [sys.executable, "-m", *work, *arguments]
    return subprocess.call(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": packages})
