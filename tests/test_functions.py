"""Both function folders, loaded as Azure's worker loads them, with real requests and the simulated world."""

import asyncio
import importlib.util
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import azure.functions as func
import hypothesis
import pytest
from azure.functions.http import HttpResponseConverter
from azure.functions.timer import TimerRequest
from hypothesis import given
from hypothesis import strategies as st

import shared.app
from dev.simulator import Service, Simulator
from shared.app import App
from shared.errors import ConfigurationError, UpstreamUnavailableError
from shared.guids import is_guid
from tests.conftest import ManualClock, events
from tests.test_answers import Storage
from tests.threads import settle

ROOT = Path(__file__).parent.parent
SDK_REQUEST = ROOT / "tests" / "field" / "clients" / "dotnet-sdk-3.4.http"
"""As Microsoft's SDK 3.4 for .NET sends it, with the app's host as its root URL."""

type Caller = Callable[..., func.HttpResponse]


def load(folder: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A function folder as a module below `__app__`, as the worker names it."""
    name = f"__app__.{folder}"
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def app(
    environ: dict[str, str], manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Start the app anew, with some settings changed: `get` calls one function, `snapshot` the other."""

    def start(**changed: str) -> SimpleNamespace:
        monkeypatch.setattr(shared.app, "app", App({**environ, **changed}, manual_clock.clock()))
        http, timer = load("GetUsageSummary", monkeypatch), load("SnapshotTimer", monkeypatch)

        def get(method: str = "GET", **headers: str) -> func.HttpResponse:
            sent = {name.replace("_", "-").lower(): value for name, value in headers.items()}
            url = "http://localhost/v1/usagesummary"
            response: func.HttpResponse = asyncio.run(
                http.main(func.HttpRequest(method, url, headers=sent, body=b""))
            )
            return response

        return SimpleNamespace(get=get, snapshot=lambda: timer.main(TimerRequest(past_due=False)))

    return start


def problem(response: func.HttpResponse) -> dict[str, Any]:
    """A problem, checked for what all of them have in common."""
    document: dict[str, Any] = json.loads(response.get_body())
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert document["status"] == response.status_code
    assert document["description"] == document["detail"]
    assert document["type"] == f"urn:usage-summary:problem:{document['code']}"
    assert document["correlationId"] == response.headers["MS-CorrelationId"]
    assert None not in document.values()
    return document


def test_a_caller_gets_the_document_as_it_came_but_for_the_byte_order_mark(
    app: Callable[..., SimpleNamespace], simulator: Simulator
) -> None:
    response = app().get()

    assert response.status_code == 200
    assert response.get_body() == simulator.world.document
    assert dict(response.headers) | {"ETag": "", "MS-CorrelationId": "", "MS-RequestId": ""} == {
        "Content-Type": "application/json; charset=utf-8",
        "ETag": "",
        "Cache-Control": "private, max-age=3600",
        "Age": "0",
        "Cache-Status": "usage-summary; fwd=uri-miss; fwd-status=200; stored",
        "MS-CorrelationId": "",
        "MS-RequestId": "",
        "X-Content-Type-Options": "nosniff",
    }
    assert simulator.world.complaints == []


def test_a_caller_who_has_the_document_gets_304_without_content_type(
    app: Callable[..., SimpleNamespace],
) -> None:
    started = app()
    etag = started.get().headers["ETag"]

    response = started.get(If_None_Match=f'"other", W/{etag}')

    assert response.status_code == 304
    assert response.get_body() == b""
    assert "Content-Type" not in response.headers
    assert response.headers["ETag"] == etag


@pytest.mark.parametrize(
    ("status", "sent", "content_type"),
    [
        (200, {}, "application/json; charset=utf-8"),
        (304, {"If_None_Match": "*"}, None),
        (412, {"If_Match": '"other"'}, "application/problem+json"),
        (504, {"Cache_Control": "only-if-cached, no-cache"}, "application/problem+json"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_runtime_is_handed_the_apps_headers_and_no_empty_content_type(
    app: Callable[..., SimpleNamespace],
    method: str,
    status: int,
    sent: dict[str, str],
    content_type: str | None,
) -> None:
    started = app()
    started.get()
    response = started.get(method, **sent)
    returned = dict(response.headers)

    handed = HttpResponseConverter.encode(response, expected_type=func.HttpResponse).value

    assert handed["status_code"].value == str(status)
    headers = {name: datum.value for name, datum in handed["headers"].items()}
    assert headers == returned
    assert headers.get("Content-Type") == content_type
    assert "" not in headers.values()


def test_head_is_get_without_a_body(app: Callable[..., SimpleNamespace], simulator: Simulator) -> None:
    started = app()
    got, head = started.get(MS_CorrelationId=str(uuid.UUID(int=1))), started.get("HEAD")

    assert head.get_body() == b""
    assert head.headers["Content-Length"] == str(len(simulator.world.document))
    for name in ("ETag", "Content-Type", "Cache-Control", "MS-RequestId"):
        assert head.headers[name] == got.headers[name]


def test_the_callers_guid_goes_upstream_and_comes_back(
    app: Callable[..., SimpleNamespace], simulator: Simulator
) -> None:
    guid = str(uuid.uuid4())

    response = app().get(MS_CorrelationId=guid)

    assert response.headers["MS-CorrelationId"] == guid
    upstream = [each for each in simulator.world.exchanges if each.service is Service.PARTNER_CENTER]
    assert [each.headers["ms-correlationid"] for each in upstream] == [guid]


@pytest.mark.parametrize("text", ["", "abc", "{6f1f1a0e-4a55-4d0c-9e61-0a6a3c3b9d01}", "0" * 36, "x" * 5000])
def test_anything_else_than_a_guid_is_replaced(app: Callable[..., SimpleNamespace], text: str) -> None:
    echoed = app().get(MS_CorrelationId=text).headers["MS-CorrelationId"]

    assert echoed != text
    assert str(uuid.UUID(echoed)) == echoed


def test_the_callers_authorization_goes_nowhere(
    app: Callable[..., SimpleNamespace], simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    assert app().get(Authorization="Bearer of-the-caller").status_code == 200

    assert "of-the-caller" not in caplog.text
    assert all("of-the-caller" not in str(each.headers) for each in simulator.world.exchanges)


def test_what_microsofts_net_sdk_sends_is_neither_forwarded_nor_logged(
    app: Callable[..., SimpleNamespace], simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    _, *lines = SDK_REQUEST.read_text(encoding="ascii").splitlines()
    sent = dict(line.split(": ") for line in lines if line)
    own = {"Authorization", "MS-RequestId", "X-Locale", "MS-PartnerCenter-Client", "MS-SdkVersion"}

    response = app().get(**{name.replace("-", "_"): value for name, value in sent.items()})

    assert response.status_code == 200
    assert response.headers["MS-CorrelationId"] == sent["MS-CorrelationId"]
    said = caplog.text + str([(each.headers, each.query, each.form) for each in simulator.world.exchanges])
    assert sent["MS-CorrelationId"] in said
    for name in {*own, "x-functions-key"}:
        assert sent[name] not in said, name


@pytest.mark.parametrize(("scenario", "status"), [("no-usage-data", 404), ("no-usage-data-400", 400)])
def test_no_usage_data_is_an_answer_that_is_kept(
    app: Callable[..., SimpleNamespace], simulator: Simulator, scenario: str, status: int
) -> None:
    simulator.world.choose(scenario)
    started = app()

    first, second = started.get(), started.get(If_None_Match="*")

    for response in (first, second):
        document = problem(response)
        assert (response.status_code, document["code"]) == (404, "no-usage-data")
        assert (document["upstreamStatus"], document["upstreamCode"]) == (status, 3000)
        assert uuid.UUID(document["requestId"])
    upstream = [each for each in simulator.world.exchanges if each.service is Service.PARTNER_CENTER]
    assert len(upstream) == 1


def test_a_stored_answer_stands_in_for_a_failing_upstream(
    app: Callable[..., SimpleNamespace], simulator: Simulator, manual_clock: ManualClock
) -> None:
    started = app()
    body = started.get().get_body()
    simulator.world.choose("down")
    manual_clock.advance(hours=3)

    response = started.get()

    assert (response.status_code, response.get_body()) == (200, body)
    age = int(response.headers["Age"])
    assert 10800 < age < 10810
    assert response.headers["Cache-Status"] == f"usage-summary; fwd=stale; fwd-status=503; ttl={3600 - age}"


def test_a_failed_precondition_asks_nobody_and_is_412(
    app: Callable[..., SimpleNamespace], simulator: Simulator
) -> None:
    started = app()
    etag = started.get().headers["ETag"]

    assert started.get(If_Match=f'"other", {etag}').status_code == 200
    for tags in ('"other"', f"W/{etag}"):
        response = started.get(If_Match=tags, If_None_Match=etag)
        assert (response.status_code, problem(response)["code"]) == (412, "precondition-failed")
        assert "Retry-After" not in response.headers
    assert sum(each.service is Service.PARTNER_CENTER for each in simulator.world.exchanges) == 1


def test_only_if_cached_asks_nobody(app: Callable[..., SimpleNamespace], simulator: Simulator) -> None:
    response = app().get(Cache_Control="only-if-cached")

    assert (response.status_code, problem(response)["code"]) == (504, "not-cached")
    assert simulator.world.exchanges == []


def test_wrong_settings_are_one_problem_and_one_log_line(
    app: Callable[..., SimpleNamespace], caplog: pytest.LogCaptureFixture
) -> None:
    started = app(PARTNER_CENTER_TENANT_ID="", USAGE_CACHE_FRESH_SECONDS="soon")

    response = started.get()

    assert (response.status_code, problem(response)["code"]) == (500, "configuration")
    assert "PARTNER_CENTER" not in response.get_body().decode()
    [line] = events(caplog, "configuration.wrong")
    assert "PARTNER_CENTER_TENANT_ID" in line["message"]
    assert "USAGE_CACHE_FRESH_SECONDS" in line["message"]
    with pytest.raises(ConfigurationError):
        started.snapshot()


def test_a_run_that_failed_raises(app: Callable[..., SimpleNamespace], simulator: Simulator) -> None:
    simulator.world.choose("down")

    with pytest.raises(UpstreamUnavailableError):
        app().snapshot()


def test_a_run_of_the_timer_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, bool]] = []
    monkeypatch.setattr(shared.app, "app", SimpleNamespace(take_snapshot=lambda **how: said.append(how)))
    load("SnapshotTimer", monkeypatch).main(TimerRequest(past_due=False))
    assert said == [{"by_timer": True}]


def test_a_hit_and_a_304_touch_no_storage_and_start_no_thread(
    app: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, threads, start = app(), list[str](), threading.Thread.start
    etag = started.get().headers["ETag"]
    settle()

    def watched(thread: threading.Thread) -> None:
        threads.append(thread.name)
        start(thread)

    storage = Storage(monkeypatch)
    monkeypatch.setattr(threading.Thread, "start", watched)
    for _ in range(500):
        assert (started.get().status_code, started.get(If_None_Match=etag).status_code) == (200, 304)
    assert (storage.done, threads) == ([], [])


LOADED = """
import asyncio, json, sys
from azure.functions import HttpRequest
from GetUsageSummary import main

def loaded():
    return [name for name in ("requests", "msal", "azure.identity", "azure.storage") if name in sys.modules]

before = loaded()
response = asyncio.run(main(HttpRequest("GET", "http://localhost/", headers={}, body=b"")))
print(json.dumps([response.headers["Cache-Status"].split(";")[1].strip(), before, loaded()]))
"""


def test_a_new_process_loads_only_what_it_needs(
    app: Callable[..., SimpleNamespace], environ: dict[str, str]
) -> None:
    assert app().get().status_code == 200

    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == ["hit", [], ["requests", "azure.storage"]]


def test_shared_is_loaded_once() -> None:
    assert [name for name in sys.modules if name.startswith("__app__.shared")] == []


DIRECTIVES = st.lists(
    st.one_of(
        st.sampled_from(["no-cache", "only-if-cached", "no-store", "max-stale", "max-age", "private"]),
        st.builds("{}={}".format, st.sampled_from(["max-age", "MIN-FRESH", "max-stale"]), st.integers()),
        st.builds('{}="{}"'.format, st.sampled_from(["max-age", "x"]), st.text(max_size=8)),
        st.text(max_size=12),
    ),
    max_size=4,
).map(", ".join)
TAGS = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from(['"a,b"', 'W/"x"', "*", "ETAG"])).map(",".join)
)


def test_no_request_header_makes_an_error_or_a_forbidden_fetch(
    app: Callable[..., SimpleNamespace], simulator: Simulator
) -> None:
    started = app(USAGE_CACHE_MIN_REFRESH_SECONDS="1000")
    etag = started.get().headers["ETag"]

    @given(
        cache_control=DIRECTIVES,
        if_none_match=TAGS,
        correlation_id=st.text(max_size=40) | st.uuids().map(str),
    )
    def ask(cache_control: str, if_none_match: str, correlation_id: str) -> None:
        listed = if_none_match.replace("ETAG", etag)
        response = started.get(
            Cache_Control=cache_control, If_None_Match=listed, MS_CorrelationId=correlation_id
        )
        if response.status_code == 504:
            assert "only-if-cached" in cache_control
        else:
            assert response.status_code in {200, 304}
            assert response.headers["Cache-Status"].startswith("usage-summary; hit; ttl=")
        echoed = response.headers["MS-CorrelationId"]
        assert str(uuid.UUID(echoed)) == echoed.lower()
        assert echoed == correlation_id.strip() or not is_guid(correlation_id.strip())

    ask()
    assert len([each for each in simulator.world.exchanges if each.service is Service.PARTNER_CENTER]) == 1


def test_no_request_header_makes_an_error_or_more_than_one_call_above_the_floor(
    app: Callable[..., SimpleNamespace], simulator: Simulator, manual_clock: ManualClock
) -> None:
    started = app()
    started.get()

    def calls() -> int:
        settle()
        return sum(each.service is Service.PARTNER_CENTER for each in simulator.world.exchanges)

    @hypothesis.settings(max_examples=40)
    @given(cache_control=DIRECTIVES, if_none_match=TAGS, minutes=st.sampled_from([1, 59, 61, 121]))
    def ask(cache_control: str, if_none_match: str, minutes: int) -> None:
        manual_clock.advance(minutes=minutes)
        before = calls()
        response = started.get(Cache_Control=cache_control, If_None_Match=if_none_match)
        assert response.status_code in {200, 304} | ({504} if "only-if-cached" in cache_control else set())
        assert calls() - before <= 1

    ask()
