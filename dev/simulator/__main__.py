"""python3 -m dev.simulator: the simulated world, for a person."""

import argparse
import contextlib
import logging
import shlex
import signal
import sys
import tempfile
import threading
from pathlib import Path

from dev.simulator import SCENARIOS, Exchange, Simulator, World


def main() -> int:
    """Serve until Ctrl-C. Returns the exit code: 0, or 1 when the port is in use."""
    parser = argparse.ArgumentParser(prog="python3 -m dev.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=8443, help="0 takes any free one (default: 8443)")
    parser.add_argument("--scenario", choices=SCENARIOS, default="healthy", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="show the scenarios and leave")
    options = parser.parse_args()
    if options.list:
        print(_scenarios())
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT as well: a shell's & has it ignored
        signal.signal(number, signal.default_int_handler)
    world = World(scenario=options.scenario, observer=_show)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            with Simulator(world, port=options.port) as simulator, tempfile.TemporaryDirectory() as az:
                simulator.install_az(Path(az))
                for name, value in simulator.settings.items():
                    print(f"export {name}={shlex.quote(value)}")
                print(
                    f"\nWith these python3 -m ops works, too, for an operator who has signed in by this az:\n"
                    f"export PATH={shlex.quote(az)}:$PATH; unset IDENTITY_ENDPOINT IDENTITY_HEADER"
                )
                print(f"\n{_scenarios()}\n\nThe scenario is {world.scenario}. To choose another:")
                print(
                    f"curl --cacert {simulator.ca_bundle} -X PUT {simulator.url}/simulator/scenario/NAME\n",
                    flush=True,
                )
                threading.Event().wait()
        except OSError as error:
            print(f"{error.strerror}; choose another with --port", file=sys.stderr)
            return 1
    return 0


def _scenarios() -> str:
    return "\n".join(f"{name:18} {scenario.sentence}" for name, scenario in SCENARIOS.items())


def _show(exchange: Exchange) -> None:
    print(
        f"{exchange.service:15} {exchange.method:5} {exchange.path} {exchange.status or 'no answer'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
