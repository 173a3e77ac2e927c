"""No token, secret or key in any log, answer, blob or traceback, whatever goes wrong."""

import asyncio
import logging
import traceback
from collections.abc import Iterator

import pytest
from azure.storage.blob import BlobServiceClient

from dev.azurite import ACCOUNT_KEY
from dev.simulator import SCENARIOS, Simulator
from shared.app import App
from shared.configuration import read_settings
from shared.errors import UsageSummaryError
from shared.freshness import NO_DIRECTIVES
from shared.http import respond
from tests.conftest import ManualClock

SLOW = {"hanging", "dripping"}  # end by time, which other tests shorten


@pytest.fixture
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All loggers of all libraries at DEBUG, also those that the app keeps quiet."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    levels = [(each, each.level) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    for each, level in levels:
        each.setLevel(level)


WAYS = [("secret", name) for name in sorted(SCENARIOS.keys() - SLOW)]
WAYS += [
    ("managed identity", name) for name in ("healthy", "consent-revoked", "entra-garbage", "identity-down")
]


@pytest.mark.usefixtures("_everything_is_logged")
@pytest.mark.parametrize(("way", "scenario"), WAYS)
def test_nothing_secret_is_ever_said(
    way: str,
    scenario: str,
    simulator: Simulator,
    environ: dict[str, str],
    service: BlobServiceClient,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    simulator.world.delay = 0.1
    simulator.world.choose(scenario)
    if way == "managed identity":
        del environ["PARTNER_CENTER_CLIENT_SECRET"]
        environ["PARTNER_CENTER_CLIENT_MANAGED_IDENTITY"] = simulator.world.managed_identity_client_id
        secrets = {name for name, value in environ.items() if simulator.world.canary in value}
        assert secrets == {"IDENTITY_HEADER"}  # the platform's
    app = App(environ, manual_clock.clock())
    said: list[str] = [repr(app), repr(vars(app)), repr(read_settings(environ))]

    result = asyncio.run(app.get_usage_summary(NO_DIRECTIVES, "a-correlation-id"))
    response = respond(result, "a-correlation-id", app.freshness.fresh)
    said += [repr(result), str(response.headers), response.body.decode()]
    try:
        app.take_snapshot()
    except UsageSummaryError as error:
        said += [repr(error), *traceback.format_exception(error)]
    for name in ("USAGE_CACHE_CONTAINER", "USAGE_SNAPSHOT_CONTAINER", "USAGE_HISTORY_CONTAINER"):
        container = service.get_container_client(environ[name])
        for blob in container.list_blobs(include=["metadata"]) if container.exists() else []:
            said += [blob.name, str(blob.metadata)]
            said.append(container.download_blob(blob.name).readall().decode())
    said += [caplog.text, *map(str, (record.args for record in caplog.records)), *capfd.readouterr()]

    canaries = {*simulator.world.canaries(), simulator.world.canary, ACCOUNT_KEY}
    assert len(canaries) > 3
    assert len(caplog.records) > 1
    assert {canary for canary in canaries if any(canary in each for each in said)} == set()


def test_no_wrong_setting_shows_its_value(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    wrong = {name: f"canary {name}" for name in environ}

    asyncio.run(App(wrong, ManualClock().clock()).get_usage_summary(NO_DIRECTIVES, "a-correlation-id"))

    assert "is wrong" in caplog.text
    assert "canary" not in caplog.text
