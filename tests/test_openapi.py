"""docs/openapi.yaml is sound, whole and true: its examples, and schemathesis against the local host."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from copy import deepcopy
from datetime import timedelta
from decimal import Decimal
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import azure.functions as func
import hypothesis
import pytest
import requests
import schemathesis
import yaml
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

import shared.app
from dev.children import child
from dev.simulator import Service, Simulator
from shared.app import App
from shared.guids import is_guid
from shared.problems import NO_USAGE_DATA, PRECONDITION_FAILED, PROBLEMS
from tests.conftest import ManualClock
from tests.faults import TABLE
from tests.faults.acts import scenarios_of
from tests.test_functions import SDK_REQUEST, load
from tests.threads import PATIENCE

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "openapi.yaml"
PATH = "/v1/usagesummary"

type Fuzz = Callable[[str, int], None]
"""So many requests to the app in a state of STATES."""

ALL_PROBLEMS = NO_USAGE_DATA, PRECONDITION_FAILED, *PROBLEMS.values()
CODES = {problem.code: int(problem.status) for problem in ALL_PROBLEMS}


class Exact(yaml.SafeLoader):  # type: ignore[misc]  # it ships no types
    """YAML, whose numbers keep their digits."""


Exact.add_constructor("tag:yaml.org,2002:float", lambda _, node: Decimal(node.value))

RAW: dict[str, Any] = Exact(DOCUMENT.read_text(encoding="utf-8")).get_single_data()
RESPONSES: dict[str, Any] = {
    status: RAW["components"]["responses"][reference["$ref"].rpartition("/")[2]]
    for status, reference in RAW["paths"][PATH]["get"]["responses"].items()
}
PRIMARY = "x-ms-primary-error-message"
"""Marks the member of which Kiota makes its exception's message."""

EXAMPLES: dict[str, Any] = {
    name: example["value"]
    for response in RESPONSES.values()
    for content in response.get("content", {}).values()
    for name, example in content["examples"].items()
}


def test_the_document_is_openapi() -> None:
    schemathesis.openapi.from_path(DOCUMENT).validate()
    assert RAW["openapi"].startswith("3.1.")


def test_the_path_is_partner_centers_own_on_the_apps_host() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))

    assert host["extensions"]["http"]["routePrefix"] == ""
    assert [server["url"] for server in RAW["servers"]] == ["https://{app}.azurewebsites.net"]


def test_the_document_has_the_functions_path_and_methods() -> None:
    declared = json.loads((ROOT / "GetUsageSummary" / "function.json").read_text(encoding="utf-8"))
    trigger = declared["bindings"][0]

    assert list(RAW["paths"]) == [f"/{trigger['route']}"]
    assert RAW["paths"][PATH].keys() - {"parameters"} == set(trigger["methods"])
    assert RAW["paths"][PATH]["get"]["responses"] == RAW["paths"][PATH]["head"]["responses"]


def test_the_document_has_every_problem_and_no_other() -> None:
    schema = RAW["components"]["schemas"]["Problem"]

    assert set(schema["properties"]["code"]["enum"]) == set(CODES)
    assert set(RESPONSES) == {"200", "304", "401"} | {str(status) for status in CODES.values()}
    for status, response in RESPONSES.items():
        codes = {code for code, its_status in CODES.items() if str(its_status) == status}
        assert {code for code in CODES if f"`{code}`:" in response["description"]} == codes
        types = {"application/problem+json"} if codes else {"application/json; charset=utf-8"}
        assert set(response.get("content", {})) == (set() if status in {"304", "401"} else types)


def test_generated_clients_keep_every_digit_and_have_a_message_and_a_type_for_everything() -> None:
    schemas = RAW["components"]["schemas"]
    amounts = [schemas["PartnerUsageSummary"]["properties"][name] for name in ("totalCost", "usdTotalCost")]

    assert [amount["format"] for amount in amounts] == ["decimal"] * 2  # a double without it
    assert {name for name, member in schemas["Problem"]["properties"].items() if PRIMARY in member} == {
        "detail"
    }
    for schema in mappings(RAW):
        assert "type" in schema or not {"const", "enum"} & schema.keys()


def test_the_document_says_which_problems_waiting_helps_against() -> None:
    headers = RAW["components"]["headers"]
    for status, response in RESPONSES.items():
        helps = {problem.waiting_helps for problem in PROBLEMS.values() if str(int(problem.status)) == status}
        header = response.get("headers", {}).get("Retry-After")
        assert (header is not None) == (True in helps)
        if header is not None:
            assert headers[header["$ref"].rpartition("/")[2]].get("required", False) == (False not in helps)


ANSWERED = [
    ("usage-summary", "healthy", {}),
    ("no-usage-data", "no-usage-data", {}),
    ("precondition-failed", "healthy", {"if-match": '"other"'}),
    ("configuration", "secret-expired", {}),
    ("consent-required", "mfa-missing", {}),
    ("upstream-refused", "forbidden", {}),
    ("upstream-invalid", "html", {}),
    ("upstream-unavailable", "down", {}),
    ("upstream-timeout", "hanging", {}),
    ("not-cached", "healthy", {"cache-control": "only-if-cached"}),
]
IDS = {"correlationId", "requestId"}


@pytest.mark.parametrize(("name", "scenario", "headers"), ANSWERED)
def test_an_example_is_what_the_app_answers(
    name: str,
    scenario: str,
    headers: dict[str, str],
    simulator: Simulator,
    environ: dict[str, str],
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if scenario == "hanging":
        monkeypatch.setattr("shared.client.ATTEMPT_TIME", timedelta(seconds=0.3))  # of 45
    simulator.world.choose(scenario)
    monkeypatch.setattr(shared.app, "app", App(environ, manual_clock.clock()))
    request = func.HttpRequest("GET", f"http://localhost{PATH}", headers=headers, body=b"")

    response = asyncio.run(load("GetUsageSummary", monkeypatch).main(request))

    answer = json.loads(response.get_body(), parse_float=Decimal)
    example = EXAMPLES[name]
    assert list(answer) == list(example)
    assert without_ids(answer) == without_ids(example)
    assert all(is_guid(document[member]) for document in (answer, example) for member in IDS & answer.keys())
    assert (
        name in RESPONSES[str(response.status_code)]["content"][response.headers["Content-Type"]]["examples"]
    )


def test_every_example_is_one_that_is_looked_at() -> None:
    assert set(EXAMPLES) == {name for name, _, _ in ANSWERED} == {"usage-summary", *CODES}


def mappings(node: object) -> Iterator[Mapping[str, Any]]:
    """All mappings of a document."""
    if isinstance(node, Mapping):
        yield node
    for child_node in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from mappings(child_node)


def without_ids(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in IDS}


class State(NamedTuple):
    """How the world is, what is stored and for how long that counts; the statuses that are right then."""

    scenario: str
    statuses: set[int]
    is_stored: bool = False
    settings: Mapping[str, str] = {}


BRIEF = {
    "USAGE_CACHE_FRESH_SECONDS": "1",
    "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": "0",
    "USAGE_CACHE_MIN_REFRESH_SECONDS": "1",
}
PROBLEMS_OF = {
    scenario: case.effect.nothing.status
    for cases in TABLE.values()
    for case in cases
    for scenario in scenarios_of(case.begin)
    if case.effect.nothing.code
}
SERVED = {200, 304, 412, 504}
"""By the request's conditions and directives."""

STATES = {
    "warm": State("healthy", SERVED, is_stored=True, settings={"USAGE_CACHE_MIN_REFRESH_SECONDS": "1"}),
    "empty-every-second": State(
        "healthy", SERVED, settings=BRIEF | {"USAGE_CACHE_STALE_IF_ERROR_SECONDS": "0"}
    ),
    "stale-every-second": State(
        "healthy",
        SERVED,
        is_stored=True,
        settings=BRIEF | {"USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": "3600"},
    ),
    "stale": State("throttled", SERVED, is_stored=True, settings=BRIEF),
    **{scenario: State(scenario, {status, 504}) for scenario, status in PROBLEMS_OF.items()},
}

# Of schemathesis's checks these do not apply:
CHECKS = {
    "ignored_auth": {"enabled": False},  # locally no key is asked for
    "negative_data_rejection": {"enabled": False},  # headers that make no sense are ignored, by contract
    "unsupported_method": {"enabled": False},  # the platform answers 404, not 405
}
FRAMING = {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
"""Headers for the server that a client is connected to: it refuses nonsense before the app sees any."""
DIRECTIVE = "(no-cache|only-if-cached|max-stale|(max-age|min-fresh|max-stale)=[0-9]{1,12})"
DIRECTIVES = st.from_regex(f"{DIRECTIVE}(, {DIRECTIVE})?", fullmatch=True)


@contextmanager
def running(environ: Mapping[str, str]) -> Iterator[str]:
    """The local host in a process of its own, which must not have failed at the end; yields its address."""
    command = [sys.executable, "-m", "dev.host", "--port", "0", "--environment-only", "--until-eof"]
    log = list[str]()
    with child(command, {**environ, "SNAPSHOT_SCHEDULE": "0 0 0 1 1 *"}) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        url = host.stdout.readline().removeprefix("listening on ").strip()
        assert url.startswith("http://"), url + host.stdout.read()
        reader = Thread(target=log.extend, args=[host.stdout])
        reader.start()
        try:
            yield url
        finally:
            host.stdin.close()  # which ends it
            reader.join(PATIENCE)
    assert [line for line in log if " ERROR " in line and "invocation" in line] == []


def reach(state: State, url: str, simulator: Simulator) -> None:
    """Bring an app that has just begun into a state."""
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=70)) as connection:

        def ask() -> str:
            connection.request("GET", PATH)
            response = connection.getresponse()
            response.read()
            return response.headers.get("Cache-Status", "")

        if state.is_stored:
            assert ask()
        simulator.world.choose(state.scenario)
        ends = monotonic() + PATIENCE
        while state.is_stored and state.scenario != "healthy" and "fwd=stale" not in ask():
            assert monotonic() < ends, "one second is how long an answer is fresh"


def schema_for(state: State) -> schemathesis.BaseSchema:
    """The document, made narrower: a problem has no member but those listed."""
    raw = deepcopy(dict(schemathesis.openapi.from_path(DOCUMENT).raw_schema))
    raw["components"]["schemas"]["Problem"]["additionalProperties"] = False
    expected = {"expected-statuses": sorted(state.statuses)}
    checks = CHECKS | dict.fromkeys(("not_a_server_error", "positive_data_acceptance"), expected)
    return schemathesis.openapi.from_dict(raw, config=schemathesis.Config.from_dict({"checks": checks}))


def ask_for_anything(state: State, url: str, requests_sent: int) -> None:
    """So many requests: GET and HEAD, as the document has them and not as it has them."""
    operations = schema_for(state)[PATH]
    cases = [operations[method].as_strategy(mode) for method in ("GET", "HEAD") for mode in GenerationMode]

    with requests.Session() as session:

        @hypothesis.settings(
            max_examples=requests_sent,
            database=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is no defect
        )
        @hypothesis.given(st.one_of(cases), st.none() | DIRECTIVES)
        def ask(case: Case[Any], cache_control: str | None) -> None:
            for name in [name for name in case.headers or {} if name.lower() in FRAMING]:
                del case.headers[name]
            if cache_control is not None:
                case.headers["Cache-Control"] = cache_control
            case.call_and_validate(url, session, timeout=70)

        ask()


@pytest.fixture
def fuzzed(simulator: Simulator, environ: dict[str, str]) -> Fuzz:
    def fuzz(name: str, requests_sent: int) -> None:
        state = STATES[name]
        with running({**environ, **state.settings}) as url:
            reach(state, url, simulator)
            ask_for_anything(state, url, requests_sent)
        assert simulator.world.complaints == []

    return fuzz


def test_microsofts_net_sdk_gets_the_document_at_the_path_that_it_asks_for(
    simulator: Simulator, environ: dict[str, str]
) -> None:
    request = SDK_REQUEST.read_bytes()

    with running(environ) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=70) as connection:
            connection.sendall(request)
            with closing(HTTPResponse(connection)) as response:
                response.begin()
                status, headers, body = response.status, response.headers, response.read()

    assert request.startswith(f"GET {PATH} HTTP/1.1\r\n".encode())
    assert (status, body) == (200, simulator.world.document)
    assert headers["Cache-Status"] == "usage-summary; fwd=uri-miss; fwd-status=200; stored"
    [call] = [each for each in simulator.world.exchanges if each.service is Service.PARTNER_CENTER]
    assert call.headers["ms-correlationid"] == headers["MS-CorrelationId"]
    assert headers["MS-CorrelationId"].encode() in request
    assert (
        not {"x-locale", "ms-partnercenter-client", "ms-sdkversion", "x-functions-key"} & call.headers.keys()
    )


@pytest.mark.parametrize(
    "name", ["warm", "empty-every-second", "stale", "forbidden", "no-usage-data", "throttled"]
)
def test_what_is_answered_is_documented(fuzzed: Fuzz, name: str) -> None:
    fuzzed(name, 25)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", STATES)
def test_whatever_is_asked_what_is_answered_is_documented(fuzzed: Fuzz, name: str) -> None:
    fuzzed(name, 400 if 200 in STATES[name].statuses else 40)
