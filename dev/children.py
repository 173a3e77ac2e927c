"""Child processes that end with their parent, however it ends."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from dev.environment import ROOT

GRACE_SECONDS = 5.0


@contextmanager
def child(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A running child whose output is one pipe, ended on leaving.

    It is in a session of its own, so that Ctrl-C reaches the parent alone. It is to end when its standard
    input does: a pipe that nobody writes to, closed on leaving and when the parent is killed. If that takes
    longer than GRACE_SECONDS, it is killed.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=sys.platform != "win32",
    )
    with process:
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
