"""The suite itself: what a test leaves open fails that test, and a run can be repeated."""

import asyncio
import gc
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from dev.environment import ROOT
from tests.leaks import PATIENCE, nothing_left_open

SMALL = """
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

from tests import leaks

leaks.PATIENCE = 0.0
kept = []


def said(text):
    with open("said", "a") as file:
        file.write(f"{text}\\n")


@pytest.fixture(scope="session")
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def accept():
            while True:
                try:
                    kept.append(listener.accept())
                except OSError:
                    return
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        while kept:
            kept.pop()[0].close()


def test_leaks():
    kept.append((socket.socket(),))


@pytest.mark.parametrize("number", range(9))
def test_calls_the_server(server, number):
    said(number)
    socket.create_connection(server).close()


@settings(database=None, deadline=None, max_examples=20)
@given(integers())
def test_tries(number):
    said(number)
"""


class Run(NamedTuple):
    """What pytest said of the small suite, and in which order which examples were tried."""

    said: str
    tried: list[str]


def run(directory: Path, *arguments: str) -> Run:
    (directory / "test_small.py").write_text(SMALL)
    command = [sys.executable, "-m", "pytest", "-ptests.leaks", "-ptests.seeds", "-pno:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(directory), *arguments, "test_small.py"]
    done = subprocess.run(
        command,
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(done.stdout + done.stderr, (directory / "said").read_text().splitlines())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("first"))


def test_a_leak_fails_the_test_that_makes_it_and_no_other(first: Run) -> None:
    failed = re.findall(r"^ERROR (\S+) - Failed: left open: socket", first.said, re.MULTILINE)
    assert failed == ["test_small.py::test_leaks"]
    assert "11 passed, 1 error" in first.said


def test_a_run_is_repeated_by_the_number_that_it_prints(first: Run, tmp_path: Path) -> None:
    (number,) = re.findall(r"^seed (\d+); .*--randomly-seed=\1$", first.said, re.MULTILINE)
    by_two = run(tmp_path, f"--randomly-seed={number}", "-n2")
    assert by_two.said.count(f"seed {number};") == 1
    assert sorted(by_two.tried) == sorted(first.tried)


def test_a_run_in_the_order_of_the_files_has_a_number_for_its_examples(first: Run, tmp_path: Path) -> None:
    (number,) = re.findall(r"^seed (\d+); ", first.said, re.MULTILINE)
    in_order = run(tmp_path, "-pno:randomly", f"--hypothesis-seed={number}")
    assert f"no random order; the examples again: -p no:randomly --hypothesis-seed={number}" in in_order.said
    assert in_order.tried[:9] == [*"012345678"]
    assert sorted(in_order.tried) == sorted(first.tried)


def leave_a_file() -> Callable[[], object]:
    return Path(__file__).open().close


def leave_a_connection() -> Callable[[], object]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()).close


def leave_a_loop() -> Callable[[], object]:
    return asyncio.new_event_loop().close


def leave_a_thread() -> Callable[[], object]:
    ends = threading.Event()
    threading.Thread(target=ends.wait, name="forgotten").start()
    return ends.set


LEAKS = {
    leave_a_file: "test_suite.py$",
    leave_a_connection: r"socket:\S+ of \('127.0.0.1', \d+\)",
    leave_a_loop: "eventpoll.*, socket:.*, socket:",
    leave_a_thread: "thread forgotten$",
}


@pytest.mark.parametrize("leave", LEAKS)
def test_what_is_left_open_is_named(leave: Callable[[], Callable[[], object]]) -> None:
    named = pytest.raises(pytest.fail.Exception, match=f"left open: .*{LEAKS[leave]}")
    with ExitStack() as later, named, nothing_left_open(0):
        later.callback(leave())
    with nothing_left_open(PATIENCE):
        leave()()


def test_a_thread_that_another_one_is_just_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ends = threading.Event(), threading.Event()
    starting = threading.Thread(target=ends.wait, name="starting")
    running = [*threading.enumerate()]
    monkeypatch.setattr(threading, "enumerate", lambda: [*running, starting] if begun.is_set() else running)
    with nothing_left_open(PATIENCE):
        begun.set()
        threading.Timer(0.05, begun.clear).start()


def test_what_waits_for_the_collector_is_left_open_and_no_other_test_finds_it() -> None:
    def leave() -> None:
        ring: list[object] = [socket.socket()]
        ring.append(ring)

    gc.disable()
    try:
        named = pytest.raises(pytest.fail.Exception, match="left open: socket")
        with nothing_left_open(PATIENCE), named, nothing_left_open(0):
            leave()
    finally:
        gc.enable()
