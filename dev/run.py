"""The whole product on this machine, until Ctrl-C."""

import http.client
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from textwrap import fill

from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from dev.azurite import Azurite, AzuriteError
from dev.children import GRACE_SECONDS, child
from dev.ports import PortError, listen
from dev.simulator import SCENARIOS, Simulator, World

SCHEDULE = "0 5 * * * *"
ENDING = [signal.SIGINT, signal.SIGTERM, *([] if sys.platform == "win32" else [signal.SIGHUP])]
# One refresh ends within 60 seconds (shared/contract.md); the same again for storage that is slow.
FIRST_RUN_SECONDS = 120

# What the environment may not say: it is the simulated world's, or would keep its certificate from holding.
TAKEN_AWAY = (
    *("PARTNER_CENTER_", "USAGE_STORAGE", "USAGE_SNAPSHOT_", "USAGE_HISTORY_", "AZUREWEBJOBS", "AZURE_"),
    *("IDENTITY_", "MSI_", "SSL_CERT_", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)


class RunError(Exception):
    """Something that the person who runs it can put right; the message says what."""


def run(port: int, blob_port: int, simulator_port: int, scenario: str) -> int:
    """Run everything until Ctrl-C or SIGTERM; returns the exit code."""

    def end(*_: object) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ENDING:
        signal.signal(number, end)
    try:
        check(scenario, {"--port": port, "--blob-port": blob_port, "--simulator-port": simulator_port})
        with (
            Azurite(blob_port) as azurite,
            Simulator(World(scenario=scenario), port=simulator_port) as simulator,
        ):
            run_host(port, azurite, simulator)
    except (AzuriteError, PortError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def check(scenario: str, ports: Mapping[str, int]) -> None:
    """Raise RunError or PortError for what would stop the run half-way; `ports` by their options."""
    if scenario not in SCENARIOS:
        raise RunError(f"there is no scenario {scenario}; there are {', '.join(SCENARIOS)}")
    with ExitStack() as held:
        for option, port in ports.items():
            held.enter_context(listen(port, option))


def environment(azurite: Azurite, simulator: Simulator) -> dict[str, str]:
    """The host's settings: USAGE_CACHE_* and SNAPSHOT_SCHEDULE as the person has them, else the world's."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(TAKEN_AWAY)}
    world = {"AzureWebJobsStorage": azurite.connection_string, **simulator.settings}
    return {"SNAPSHOT_SCHEDULE": SCHEDULE, **kept, **world, "PYTHONUNBUFFERED": "1"}


def run_host(port: int, azurite: Azurite, simulator: Simulator) -> None:
    """Run the local host and show all of its log, until Ctrl-C; raises RunError when it ends by itself."""
    command = [sys.executable, "-m", "dev.host", "--port", str(port), "--environment-only", "--until-eof"]
    with child(command, environment(azurite, simulator)) as host:
        is_over = ended_by_signal(host)
        log = iter(host.stdout or ())
        for line in log:
            if line.startswith("listening on "):
                url = line.removeprefix("listening on ").strip()
                path = f"usage/usagesummary/v1/{datetime.now(UTC):%Y/%m/%d}/usagesummary.json"
                print(greeting(url, azurite, simulator), flush=True)
                fire(url)
                if is_over.is_set():
                    break
                snapshot = path if is_stored(azurite, path) else f"is not there, the log says why: {path}"
                print(f"Today's snapshot       {snapshot}\nThe log of both functions:\n", flush=True)
                break
            print(line, end="", flush=True)
        for line in log:
            print(line, end="", flush=True)
        if not is_over.is_set():
            raise RunError(f"the local host ended by itself, with exit code {host.wait()}")


def ended_by_signal(host: subprocess.Popen[str]) -> threading.Event:
    """Whether a signal has ended the host: an exception from its handler would lose lines of the log."""
    is_over = threading.Event()

    def end(*_: object) -> None:
        is_over.set()
        if host.stdin:
            host.stdin.close()
        killer = threading.Timer(GRACE_SECONDS, host.kill)
        killer.daemon = True
        killer.start()

    for number in ENDING:
        signal.signal(number, end)
    return is_over


def fire(url: str) -> None:
    """Run the timer once and wait until it ran; what came of it is in the log."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=FIRST_RUN_SECONDS)
    try:
        connection.request("POST", "/admin/functions/SnapshotTimer", headers={"Prefer": "wait"})
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def greeting(url: str, azurite: Azurite, simulator: Simulator) -> str:
    """What a person needs to know while it runs."""
    margin = " " * 23
    others = fill(
        ", ".join(SCENARIOS), 100, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )
    return f"""
The usage summary      {url}/v1/usagesummary
{margin}curl -i {url}/v1/usagesummary
The simulated world    {simulator.url}, scenario {simulator.world.scenario}; to choose another, say down:
{margin}curl --cacert {shlex.quote(simulator.ca_bundle)} -X PUT {simulator.url}/simulator/scenario/down
{others}
The blob service       {azurite.url}
Ctrl-C ends it. Meanwhile the timer runs for the first time."""


def is_stored(azurite: Azurite, path: str) -> bool:
    """Whether today's snapshot is there."""
    account = BlobServiceClient.from_connection_string(azurite.connection_string, use_env_settings=False)
    try:
        with account:
            container, _, blob = path.partition("/")
            return account.get_blob_client(container, blob).exists()
    except AzureError:
        return False
