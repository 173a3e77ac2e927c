"""The whole product as a person starts it: python3 -m dev run, over HTTP, until Ctrl-C."""

import csv
import io
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from dev.azurite import ACCOUNT, ACCOUNT_KEY
from tests.clients import blob_service
from tests.test_http import complaints
from tests.threads import PATIENCE, PATIENCE_WITH_A_PROCESS, begin_a_new_day

ROOT = Path(__file__).parent.parent

DOCUMENT = """{
  "resourceId": "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47",
  "resourceName": "Nordlys \\"A/S\\", Ærø · Северное · 北光 · نور",
  "customersOverBudget": 123456789012345678901234567890,
  "customersTrendingOver": 1e5,
  "emailsToNotify": ["somebody@nordlys.example"],
  "billingStartDate": "2026-10-28T00:00:00-07:00",
  "billingEndDate": "2026-11-27T00:00:00-08:00",
  "totalCost": 120.5682999999995904716,
  "currencyLocale": "da-DK",
  "usdTotalCost": 1.0,
  "tomorrow": {"unknown": [0.10, -0]},
  "attributes": {"objectType": "PartnerUsageSummary"}
}"""
HIT = "usage-summary; hit"


class Reply(NamedTuple):
    status: int
    headers: Message
    body: bytes


class Running:
    """A dev run, and what it said of itself."""

    def __init__(self, *arguments: str, settings: dict[str, str]) -> None:
        ports = ["--port", "0", "--blob-port", "0", "--simulator-port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dev", "run", *ports, *arguments],
            cwd=ROOT,
            env={"PATH": "", **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        for line in self.process.stdout or ():
            self.said += line
            if "The log of both functions" in line:
                break
        self.url = self._find(r"curl -i (http://\S+)")
        self.simulator = self._find(r"simulated world\s+(https://[^\s,]+)")
        self.ca_bundle = self._find(r"--cacert (\S+)")
        self.blobs = self._find(r"blob service\s+(http://\S+)")

    def _find(self, pattern: str) -> str:
        match = re.search(pattern, self.said)
        assert match, self.said
        return match[1]

    def ask(self, method: str = "GET", **headers: str) -> Reply:
        """A reply, in which REDbot's linter finds nothing to complain of."""
        reply = self._exchange(method, headers)
        headers = dict(reply.headers.items())
        assert complaints(reply.status, headers, reply.body, is_head=method == "HEAD") == []
        return reply

    def _exchange(self, method: str, headers: Mapping[str, str]) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url, method=method, headers=sent)  # noqa: S310  # http, ours
        try:
            with urllib.request.urlopen(request, timeout=70) as reply:  # noqa: S310  # the same
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as reply:
            with reply:
                return Reply(reply.code, reply.headers, reply.read())

    def change_world(self, path: str, body: bytes = b"") -> None:
        request = urllib.request.Request(f"{self.simulator}/simulator/{path}", body, method="PUT")  # noqa: S310
        context = ssl.create_default_context(cafile=self.ca_bundle)
        urllib.request.urlopen(request, context=context, timeout=PATIENCE).close()  # noqa: S310

    def snapshot(self) -> int:
        """Fire the timer; the status of the run."""
        url = self.url.replace("/v1/usagesummary", "/admin/functions/SnapshotTimer")
        request = urllib.request.Request(url, b"", {"Prefer": "wait"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=70) as reply:  # noqa: S310
                return int(reply.status)
        except urllib.error.HTTPError as reply:
            with reply:
                return reply.code

    def stored(self, *containers: str) -> dict[str, bytes]:
        """All blobs of containers, by container/name."""
        account = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={self.blobs}"
        with blob_service(account) as service:
            return {
                f"{container}/{name}": service.get_blob_client(container, name).download_blob().readall()
                for container in containers
                for name in service.get_container_client(container).list_blob_names()
            }

    def stop(self) -> str:
        """Press Ctrl-C; the rest of what it said."""
        self.process.send_signal(signal.SIGINT)
        rest = "".join(self.process.stdout or ())
        self.process.wait(PATIENCE_WITH_A_PROCESS)
        return rest


@pytest.fixture
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    begin_a_new_day(ends=timedelta(seconds=PATIENCE_WITH_A_PROCESS))
    started = Running(*getattr(request, "param", ()), settings={"USAGE_CACHE_MIN_REFRESH_SECONDS": "1"})
    yield started
    if started.process.poll() is None:
        started.stop()
    if started.process.stdout:
        started.process.stdout.close()


def test_the_whole_product_runs_on_one_machine_and_leaves_nothing_behind(running: Running) -> None:
    got = running.ask()
    head, unchanged = running.ask("HEAD"), running.ask(If_None_Match=got.headers["ETag"])
    today = f"{datetime.now(UTC):%Y/%m/%d}"

    assert got.status == head.status == 200
    assert json.loads(got.body)["attributes"] == {"objectType": "PartnerUsageSummary"}
    expected = {
        "content-type": r"application/json; charset=utf-8",
        "etag": r'"[0-9a-f]{32}"',
        "cache-control": r"private, max-age=3600",
        "age": r"\d+",
        "cache-status": r"usage-summary; hit; ttl=3\d{3}",
        "ms-correlationid": r"[0-9a-f-]{36}",
        "ms-requestid": r"[0-9a-f-]{36}",
        "x-content-type-options": r"nosniff",
    }
    for name, pattern in expected.items():
        assert re.fullmatch(pattern, got.headers[name]), name
        assert re.fullmatch(pattern, head.headers[name]), name
        if name != "content-type":
            assert re.fullmatch(pattern, unchanged.headers[name]), name
    assert (head.body, head.headers["content-length"]) == (b"", str(len(got.body)))
    assert (unchanged.status, unchanged.body, unchanged.headers["content-type"]) == (304, b"", None)
    assert running.ask("HEAD", If_None_Match=got.headers["ETag"]).status == 304
    assert running.ask("POST").status == 404
    assert set(running.stored("usage", "usage-history")) == {
        f"usage/usagesummary/v1/{today}/usagesummary.json",
        "usage-history/latest.json",
        "usage-history/manifest.json",
        "usage-history/usagesummary.csv",
        "usage-history/usagesummary.ndjson",
    }

    ports = [
        int(url.rsplit(":", 1)[1].split("/")[0]) for url in (running.url, running.simulator, running.blobs)
    ]
    assert running.stop().count("Traceback") == 0
    assert running.process.returncode == 0
    for port in ports:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))


def test_every_digit_and_every_script_survives_and_personal_data_is_not_recorded(running: Running) -> None:
    running.change_world("document", DOCUMENT.encode())
    running.change_world("scenario/bom")

    ends = monotonic() + PATIENCE
    while (fetched := running.ask(Cache_Control="no-cache")).headers["Cache-Status"].startswith(HIT):
        assert monotonic() < ends, "one second is the floor"
    assert fetched.body == DOCUMENT.encode()
    assert running.snapshot() == 200

    record = running.stored("usage", "usage-history")
    [revision] = [name for name in record if re.search(r"/usagesummary\.\d{6}Z\.json$", name)]
    digits = ["120.5682999999995904716", "123456789012345678901234567890", "1e5"]
    for name in (revision, "usage-history/latest.json", "usage-history/usagesummary.ndjson"):
        assert all(f":{number}," in record[name].decode() for number in digits), name
        assert "Ærø · Северное · 北光 · نور" in record[name].decode()
    assert '"usdTotalCost":1.0,"tomorrow":{"unknown":[0.10,-0]}' in record[revision].decode()
    [row] = csv.DictReader(io.StringIO(record["usage-history/usagesummary.csv"].decode(), newline=""))
    assert [row["totalCost"], row["customersOverBudget"], row["customersTrendingOver"]] == digits
    assert row["resourceName"] == json.loads(DOCUMENT)["resourceName"]
    assert (row["billingStartDate"], row["billingEndDate"]) == ("2026-10-28", "2026-11-27")
    assert row["currencyCode"] == row["lastModifiedDate"] == ""
    assert "nordlys.example" in fetched.body.decode()
    assert not any(b"nordlys.example" in content for content in record.values())


@pytest.mark.parametrize("running", [["--scenario", "down"]], indirect=True)
def test_a_world_that_is_down_is_said_and_a_failed_run_is_a_failed_execution(running: Running) -> None:
    assert "is not there, the log says why" in running.said

    refused = running.ask()

    assert (refused.status, json.loads(refused.body)["code"]) == (503, "upstream-unavailable")
    head = running.ask("HEAD")
    assert (head.status, head.body, head.headers["content-type"]) == (503, b"", "application/problem+json")
    missing = running.ask(Cache_Control="only-if-cached")
    assert (missing.status, json.loads(missing.body)["code"]) == (504, "not-cached")
    assert running.snapshot() == 500
    assert running.stop().count('"event": "snapshot.failed"') == 2
