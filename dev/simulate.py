"""The simulated world alone, for a person who tries the operators' commands or another client on it."""

import contextlib
import logging
import shlex
import signal
import sys
import tempfile
import threading
from pathlib import Path

from dev.simulator import SCENARIOS, Exchange, Simulator, World


def simulate(port: int, scenario: str) -> int:
    """Serve until Ctrl-C. Returns the exit code: 0, or 1 when there is no such scenario or port."""
    if scenario not in SCENARIOS:
        print(f"there is no scenario {scenario}; there are\n{_scenarios()}", file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT as well: a shell's & has it ignored
        signal.signal(number, signal.default_int_handler)
    world = World(scenario=scenario, observer=_show)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            with Simulator(world, port=port) as simulator, tempfile.TemporaryDirectory() as az:
                simulator.install_az(Path(az))
                print(_greeting(simulator, az), flush=True)
                threading.Event().wait()
        except OSError as error:
            print(f"{error.strerror}; choose another with --port", file=sys.stderr)
            return 1
    return 0


def _greeting(simulator: Simulator, az: str) -> str:
    """The settings of an app in this world, for a shell."""
    settings = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in simulator.settings.items())
    return f"""{settings}

For python3 -m ops: an az that has signed in, and no managed identity.
export PATH={shlex.quote(az)}:"$PATH"; unset IDENTITY_ENDPOINT IDENTITY_HEADER
To see it with an app that has no secret, keep the secret's value for standard input:
unset PARTNER_CENTER_CLIENT_SECRET
export PARTNER_CENTER_CLIENT_MANAGED_IDENTITY={simulator.world.managed_identity_client_id}
A sign-in needs no browser: curl --location --cacert {simulator.ca_bundle} '<the address>'

{_scenarios()}

The scenario is {simulator.world.scenario}. To choose another:
curl --cacert {simulator.ca_bundle} -X PUT {simulator.url}/simulator/scenario/NAME
"""


def _scenarios() -> str:
    return "\n".join(f"{name:18} {scenario.sentence}" for name, scenario in SCENARIOS.items())


def _show(exchange: Exchange) -> None:
    print(
        f"{exchange.service:15} {exchange.method:5} {exchange.path} {exchange.status or 'no answer'}",
        flush=True,
    )
