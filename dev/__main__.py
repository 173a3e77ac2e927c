"""The commands for working on this project: python3 -m dev.

Needs Python 3.13 and nothing else: whatever the commands use is imported after .venv is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dev import environment

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(
        prog="python3 -m dev",
        description="Run, test and check the app on this machine. What that needs is installed into .venv.",
        allow_abbrev=False,
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="command")

    run = commands.add_parser(
        "run",
        help="the app, a simulated Partner Center and a blob service, until Ctrl-C",
        description="Run the app with all it needs, until Ctrl-C: a blob service (Azurite), a simulated"
        " Partner Center with its sign-in and key vault, and both functions on Microsoft's own runtime.",
        epilog="USAGE_CACHE_* and SNAPSHOT_SCHEDULE are taken from the environment; every other setting is"
        " the simulated world's, and local.settings.json is not read.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument("--port", type=port, default=7071, help="where the app answers")
    run.add_argument("--blob-port", type=port, default=10000, help="where the blob service answers")
    run.add_argument("--simulator-port", type=port, default=8443, help="where the simulated world answers")
    run.add_argument(
        "--scenario", default="healthy", help="what the simulated world does; a wrong name lists all"
    )

    simulator = commands.add_parser(
        "simulator",
        help="the simulated Partner Center, sign-in and key vault alone",
        description="Serve the simulated world until Ctrl-C and print the settings of an app in it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    simulator.add_argument("--port", type=port, default=8443, help="where it answers; 0 takes any free one")
    simulator.add_argument("--scenario", default="healthy", help="what it does; a wrong name lists all")

    test = commands.add_parser(
        "test",
        help="the test suite",
        usage="python3 -m dev test [--nightly] [pytest arguments ...]",
        description="Run the tests; whatever is not listed here goes to pytest.",
        allow_abbrev=False,
    )
    test.add_argument("--nightly", action="store_true", help="the tests that take minutes as well")

    commands.add_parser(
        "check",
        help="format, lint, arrows between modules, types, queries, pinned requirements",
        description="Check format, lint, the arrows between modules, types, the queries of alerts and"
        " runbook, the Bicep, and that the pinned requirements are what pyproject.toml asks for. All of them"
        " run; the exit code is 1 when one fails.",
    )
    report = commands.add_parser(
        "report",
        help="the checks of the Power BI report",
        usage="python3 -m dev report [--draw] [pytest arguments ...]",
        description="Check powerbi/: its files, the model by Microsoft's own library, and the values of its"
        " measures. What that needs is installed into .venv-report; whatever is given here goes to pytest.",
        allow_abbrev=False,
    )
    report.add_argument("--draw", action="store_true", help="draw powerbi/pages.svg anew, and check nothing")
    package = commands.add_parser(
        "package",
        help="the deployment package, as a zip",
        description="Build the deployment package: the app and its packages, compiled, in one zip that runs"
        " in Azure as it is. The same files give the same bytes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    package.add_argument(
        "--output", type=Path, default=Path("dist/usage-summary.zip"), metavar="FILE", help="where it is put"
    )
    package.add_argument("--for-azd", action="store_true", help="and unpack it where `azd package` takes it")
    bench = commands.add_parser(
        "bench",
        help="the benchmarks, into docs/benchmarks.md",
        description="Measure hits, callers while Partner Center hangs, several processes beside caching"
        " libraries, cold starts, memory, the record as it grows and a refresh of the report. Prints tables"
        " and writes docs/benchmarks.md; takes some ten minutes, in which the machine should do little else.",
    )
    bench.add_argument(
        "--quick", action="store_true", help="that they work, in less than a minute; writes nothing"
    )
    commands.add_parser(
        "audit",
        help="known vulnerabilities and licences of what is deployed",
        description="Ask PyPI for known vulnerabilities of the pins in requirements.txt, and write their"
        " licences into docs/dependencies.md. The exit code is 1 when one is known; what the index cannot"
        " tell is skipped with the reason.",
    )
    mutants = commands.add_parser(
        "mutants",
        help="mutants of the app's code that no test notices",
        description="Change the app's code in one place at a time, run the tests that look there, and write"
        " what none noticed into docs/mutants.md. The exit code is 1 when one of those is not explained.",
    )
    mutants.add_argument("names", nargs="*", help="of mutants, such as shared.freshness*; all, if none")
    commands.add_parser(
        "reliability",
        help="what callers get when something fails, as docs/reliability.md",
        description="Run the tests of everything that may fail and, if they pass, write docs/reliability.md"
        " of what they assert.",
    )
    lock = commands.add_parser(
        "lock",
        help="pin the requirements of pyproject.toml",
        description="Compile the requirements files from pyproject.toml; pins stay if they fit.",
    )
    lock.add_argument("--upgrade", action="store_true", help="the newest versions instead, npm's as well")
    return root


def port(text: str) -> int:
    """As dev.ports has it, which is not there before .venv is."""
    from dev.ports import port_number

    return port_number(text)


def main(arguments: Sequence[str]) -> int:
    """Run one command inside .venv; returns the exit code."""
    complaint = environment.wrong_version(sys.version_info[:3])
    if complaint:
        print(complaint, file=sys.stderr)
        return 2
    root = parser()
    options, rest = root.parse_known_args(arguments)
    if rest and options.command not in {"test", "report"}:
        root.error("unrecognized arguments: " + " ".join(rest))
    environment.enter(arguments)
    return work(options, rest)


def work(options: argparse.Namespace, rest: Sequence[str]) -> int:  # noqa: C901  # a table of commands
    """Run one command, inside .venv; returns the exit code."""
    match options.command:
        case "run":
            from dev.run import run

            code = run(options.port, options.blob_port, options.simulator_port, options.scenario)
        case "simulator":
            from dev.simulate import simulate

            code = simulate(options.port, options.scenario)
        case "check":
            from dev.check import check

            code = check()
        case "report":
            from dev.report import report

            code = report(rest, is_drawn=options.draw)
        case "package":
            from dev.package import package

            code = package(options.output, for_azd=options.for_azd)
        case "audit":
            from dev.audit import audit

            code = audit()
        case "mutants":
            from dev.mutants import mutants

            code = mutants(options.names)
        case "bench":
            from dev.bench import bench

            code = bench(quick=options.quick)
        case "reliability":
            code = reliability()
        case "lock":
            from dev.lock import lock

            code = lock(upgrade=options.upgrade)
        case _:
            code = test(rest, is_nightly=options.nightly)
    return code


def test(arguments: Sequence[str], *, is_nightly: bool) -> int:
    """Run the test suite; returns the exit code."""
    import pytest

    from dev import npm

    for name in npm.NAMES:
        npm.ensure_installed(name)  # not within the time limit of the first test that needs it
    chosen = [] if is_nightly else ["-m", "not nightly"]
    workers = (os.process_cpu_count() or 1) + 1  # tests wait for other processes as long as they compute
    return int(pytest.main(["-n", str(workers), "--dist", "worksteal", *chosen, *arguments]))


def reliability() -> int:
    """Write docs/reliability.md of the tests that it tells about, if they pass; returns the exit code."""
    file, page = "tests/test_faults.py", "test_the_page_says_what_the_tests_assert"
    code = test([file, f"--deselect={file}::{page}"], is_nightly=False)
    if code == 0:
        from tests.faults.page import write

        write()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except environment.InstallError as error:
        sys.exit(f"{error}\nthe installation failed; the next start begins it anew")
    except KeyboardInterrupt:
        sys.exit(130)
