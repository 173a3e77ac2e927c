"""python3 -m ops show: from Partner Center, and from the app over HTTP."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import azure.functions as func
import pytest

import shared.app
from dev.simulator.world import SECRET_NAME
from ops.report import exit_code
from shared.app import App
from shared.problems import PROBLEMS
from shared.usage_summary import SIZE_LIMIT
from tests.conftest import ManualClock
from tests.terminal import Terminal
from tests.test_functions import load

COST = "120.5682999999995904716"
PATH = "/v1/usagesummary"

type Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Site:
    """What listens where the app is deployed; the platform in front of it may ask for a key."""

    answer: Callable[[dict[str, str]], Answer]
    key: str | None = None
    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def reply(self, path: str, headers: dict[str, str]) -> Answer:
        self.asked.append((path, headers))
        if path != PATH:
            return 404, {}, b""
        if self.key not in (None, headers.get("x-functions-key")):
            return 401, {}, b""
        return self.answer(headers)

    @property
    def keys(self) -> list[str | None]:
        """The keys that came along, in order."""
        return [headers.get("x-functions-key") for _, headers in self.asked]


@pytest.fixture
def site() -> Iterator[Site]:
    """A site on this machine; what it answers with, a test says."""
    served = Site(lambda _: (200, {}, b""))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, sent, body = served.reply(self.path, headers)
            self.send_response(status)
            for name, value in {**sent, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest's output is for the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="site")
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def app(
    site: Site, environ: dict[str, str], manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Site:
    """The site with the app itself behind it: its real function, called as the worker calls it."""
    monkeypatch.setattr(shared.app, "app", App(environ, manual_clock.clock()))
    function = load("GetUsageSummary", monkeypatch)

    def answer(headers: dict[str, str]) -> Answer:
        request = func.HttpRequest("GET", site.url + PATH, headers=headers, body=b"")
        for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):  # the platform's, which the command had not
            monkeypatch.setenv(name, environ[name])
        response = asyncio.run(function.main(request))
        return response.status_code, dict(response.headers), response.get_body()

    site.answer = answer
    return site


@pytest.mark.parametrize("is_federated", [False, True])
def test_partner_center_s_own_figure_is_shown_with_every_digit(
    terminal: Terminal,
    is_federated: bool,  # noqa: FBT001
) -> None:
    world = terminal.world
    changed, stdin = (terminal.federated, f"{world.client_secret}\n") if is_federated else ({}, "")

    done = terminal.run("show", stdin=stdin, changed=changed)

    assert (done.code, done.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert lines["Partner"] == json.loads(world.document)["resourceName"]
    assert f"Cost so far             {COST} in the currency of da-DK\n" in done.out
    assert "Billing period          2026-10-28 to 2026-11-27, day " in done.out
    assert "Data of                 2026-11-20 22:41 UTC, " in done.out
    assert "Azure plan" in done.out
    assert "estimate" in done.out
    assert "nordlys.example" not in done.out  # whom to notify is personal
    assert terminal.crossed() == [
        f"key-vault GET {SECRET_NAME}",
        "POST token",
        "partner-center GET usagesummary",
    ]
    assert len(terminal.versions) == 1
    assert world.complaints == []


def test_the_figure_as_json_keeps_every_digit(terminal: Terminal) -> None:
    done = terminal.run("show", "--json")

    assert f'"totalCost": {COST}' in done.out
    assert done.facts["billingPeriod"].keys() == {"start", "end", "day", "days"}
    assert "nordlys.example" not in done.out


def test_a_given_refresh_token_is_enough_for_showing(terminal: Terminal) -> None:
    given = {"PARTNER_CENTER_REFRESH_TOKEN": terminal.world.refresh_token()}

    done = terminal.run("show", changed={"PARTNER_CENTER_REFRESH_TOKEN_SECRET": "", **given})

    assert (done.code, COST in done.out) == (0, True)
    assert terminal.crossed() == ["POST token", "partner-center GET usagesummary"]


@pytest.mark.parametrize(
    ("scenario", "code", "word"),
    [
        ("forbidden", 2, "Admin agent"),
        ("role-missing", 2, "Admin agent"),
        ("mfa-missing", 3, "sign in with MFA"),
        ("consent-revoked", 3, "AADSTS50173"),
        ("vault-empty", 3, "python3 -m ops consent"),
        ("vault-forbidden", 2, "Key Vault Secrets Officer"),
        ("secret-expired", 2, "AADSTS7000222"),
        ("not-found", 2, "404 with code 1000"),
        ("unauthorized", 2, "API access"),
        ("redirect", 2, "302"),
        ("down", 1, "503"),
        ("html", 1, "not JSON"),
        ("no-total", 1, "totalCost"),
        ("half-document", 1, "broke off"),
        ("entra-down", 1, "503"),
        ("connection-reset", 1, "connection failed"),
    ],
)
def test_why_there_is_no_figure_is_said(terminal: Terminal, scenario: str, code: int, word: str) -> None:
    terminal.world.choose(scenario)

    done = terminal.run("show")

    assert (done.code, word in done.err, done.out) == (code, True, "")


@pytest.mark.parametrize("scenario", ["no-usage-data", "no-usage-data-400"])
def test_that_there_is_no_usage_data_is_an_answer(terminal: Terminal, app: Site, scenario: str) -> None:
    terminal.world.choose(scenario)

    for arguments in (["show"], ["show", "--url", app.url]):
        done = terminal.run(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "Partner Center has none for this partner" in done.out
        assert terminal.run(*arguments, "--json").facts == {"usageData": False}


@pytest.mark.parametrize("path", ["", "/", "/api", "/api/", PATH, f"{PATH}/"])
def test_the_deployed_app_s_figure_is_shown_by_its_address_with_or_without_a_path(
    terminal: Terminal, app: Site, path: str
) -> None:
    nothing = {name: "" for name in terminal.environ if name.startswith("PARTNER_CENTER_")}

    done = terminal.run("show", "--url", app.url + path, changed=nothing)

    assert (done.code, done.err) == (0, "")
    assert [path for path, _ in app.asked] == [PATH]
    assert f"From                    {app.url}{PATH}\n" in done.out
    assert f"Cost so far             {COST} in the currency of da-DK\n" in done.out
    assert "Asked                   0 minutes ago\n" in done.out
    assert "Cache-Status            usage-summary; fwd=uri-miss; fwd-status=200; stored\n" in done.out


def test_the_deployed_app_s_figure_as_json_keeps_every_digit_and_tells_its_age(
    terminal: Terminal, app: Site, manual_clock: ManualClock
) -> None:
    terminal.run("show", "--url", app.url)
    manual_clock.advance(seconds=125)

    assert "Asked                   2 minutes ago\n" in terminal.run("show", "--url", app.url).out
    done = terminal.run("show", "--json", "--url", app.url)

    assert f'"totalCost": {COST}' in done.out
    assert done.facts["ageInSeconds"] == 125
    assert done.facts["app"] == app.url + PATH


def test_the_key_comes_from_the_environment(terminal: Terminal, app: Site) -> None:
    app.key = "k" * 56

    done = terminal.run("show", "--url", app.url, changed={"USAGE_SUMMARY_KEY": app.key})

    assert (done.code, app.keys) == (0, [app.key])
    assert app.key not in done.out + done.err


def test_a_key_that_is_an_unresolved_reference_is_sent_nowhere(terminal: Terminal, app: Site) -> None:
    reference = "@Microsoft.KeyVault(SecretUri=https://contoso.vault.azure.net/secrets/key)"
    done = terminal.run("show", "--url", app.url, changed={"USAGE_SUMMARY_KEY": reference})
    assert (done.code, app.keys) == (2, [])
    assert "USAGE_SUMMARY_KEY is a reference that the platform could not resolve" in done.err


def test_the_key_comes_from_standard_input_after_a_401(terminal: Terminal, app: Site) -> None:
    app.key = "k" * 56

    done = terminal.run("show", "--url", app.url, stdin=f" {app.key}\n")

    assert (done.code, app.keys) == (0, [None, app.key])
    assert app.key not in done.out + done.err


def test_no_key_is_sent_to_an_app_that_asks_for_none(terminal: Terminal, app: Site) -> None:
    assert terminal.run("show", "--url", app.url, stdin="a-key\n").code == 0
    assert app.keys == [None]


@pytest.mark.parametrize(
    ("environment", "stdin", "sent", "word"),
    [
        ("wrong-key", "", ["wrong-key"], "another function key"),
        ("wrong-key", "right-key\n", ["wrong-key"], "another function key"),
        ("", "wrong-key\n", [None, "wrong-key"], "another function key"),
        ("", "", [None], "wants its function key"),
    ],
)
def test_without_the_right_key_the_operator_is_told_where_it_is(
    terminal: Terminal, app: Site, environment: str, stdin: str, sent: list[str | None], word: str
) -> None:
    app.key = "right-key"

    done = terminal.run("show", "--url", app.url, stdin=stdin, changed={"USAGE_SUMMARY_KEY": environment})

    assert (done.code, word in done.err, "USAGE_SUMMARY_KEY" in done.err) == (2, True, True)
    assert app.keys == sent
    assert "wrong-key" not in done.out + done.err


def test_a_key_that_cannot_be_one_is_a_wrong_key(terminal: Terminal, app: Site) -> None:
    assert terminal.run("show", "--url", app.url, changed={"USAGE_SUMMARY_KEY": "ключ"}).code == 2


@pytest.mark.parametrize(
    ("scenario", "code", "words"),
    [
        ("consent-revoked", 3, ["502 consent-required", "python3 -m ops consent"]),
        ("role-missing", 2, ["502 upstream-refused", "Admin agent"]),
        ("vault-forbidden", 2, ["500 configuration", "Key Vault Secrets Officer"]),
        ("html", 1, ["502 upstream-invalid"]),
        ("down", 1, ["503 upstream-unavailable"]),
    ],
)
def test_the_deployed_app_s_problem_is_told_with_what_to_do(
    terminal: Terminal, app: Site, scenario: str, code: int, words: list[str]
) -> None:
    terminal.world.choose(scenario)

    done = terminal.run("show", "--url", app.url)

    assert (done.code, [word for word in words if word not in done.err]) == (code, [])
    assert done.out == ""
    assert ("request id" in done.err) == (scenario in {"role-missing", "html", "down"})
    facts = terminal.run("show", "--url", app.url, "--json").facts
    assert facts["error"] == words[0].partition(" ")[2]
    assert facts["hint"]


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.__name__)
def test_each_problem_ends_as_the_error_that_it_stands_for(
    terminal: Terminal, site: Site, kind: type
) -> None:
    problem = PROBLEMS[kind]
    body = json.dumps({"code": problem.code, "detail": "What to do.", "status": problem.status}).encode()
    site.answer = lambda _: (problem.status, {"Content-Type": "application/problem+json"}, body)

    done = terminal.run("show", "--url", site.url)

    assert done.code == exit_code(kind("the same"))
    assert done.err == f"{problem.code}: the app answered {problem.status:d} {problem.code}\nWhat to do.\n"


PAGE = b"<!DOCTYPE html><html><body>Your Functions app is up and running</body></html>"
STRANGERS: list[Answer] = [
    (404, {"Content-Type": "text/html"}, PAGE),
    (403, {"Content-Type": "text/html"}, b"Site disabled"),
    (500, {}, b""),
    (302, {"Location": "https://elsewhere.invalid/"}, b""),
    (404, {"Content-Type": "application/json"}, b'{"code": "of-tomorrow", "detail": "x"}'),
    (404, {"Content-Type": "application/json"}, b'["no-usage-data"]'),
    (204, {}, b""),
]


@pytest.mark.parametrize("answer", STRANGERS, ids=lambda answer: f"{answer[0]} {answer[2][:20]!r}")
def test_something_else_at_the_address_is_recognised(terminal: Terminal, site: Site, answer: Answer) -> None:
    site.answer = lambda _: answer

    done = terminal.run("show", "--url", site.url)

    assert (done.code, "Check --url" in done.err) == (2, True)
    assert f"the app answered {answer[0]}" in done.err
    assert "<" not in done.out + done.err


@pytest.mark.parametrize("body", [PAGE, b"", b"[]", b'{"totalCost": "7"}', b"\xff"])
def test_a_page_with_status_200_is_no_figure(terminal: Terminal, site: Site, body: bytes) -> None:
    site.answer = lambda _: (200, {"Content-Type": "text/html", "Age": "soon"}, body)

    done = terminal.run("show", "--url", site.url)

    assert (done.code, "upstream-invalid: " in done.err, "Cost" in done.out) == (1, True, False)


def test_an_address_where_nobody_listens_is_unavailable(terminal: Terminal) -> None:
    done = terminal.run("show", "--url", f"http://127.0.0.1:{terminal.port}")

    assert (done.code, "upstream-unavailable" in done.err) == (1, True)


def test_what_partner_center_leaves_out_is_left_out(terminal: Terminal) -> None:
    terminal.world.document = b'{"totalCost":-0.10,"currencyCode":"EUR","billingStartDate":"soon"}'

    done = terminal.run("show")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Cost so far             -0.10 EUR\nNot in the cost")
    assert terminal.run("show", "--json").facts == {
        "totalCost": "-0.10",
        "currencyCode": "EUR",
        "leftOut": ["Azure plan"],
    }


STRANGE: dict[str, tuple[Answer, int, str]] = {
    "a code that is a list": ((503, {}, b'{"code": ["x"]}'), 2, "answers as this app does"),
    "JSON without an end": ((503, {}, b"[" * 100_000), 2, "answers as this app does"),
    "a redirect": ((302, {"Location": "https://elsewhere.invalid"}, b""), 2, "answered 302"),
    "more than a summary": ((200, {}, b"x" * (2 * SIZE_LIMIT)), 1, "larger than 1 MiB"),
    "a page": ((200, {}, b"<html></html>"), 1, "not JSON"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_answer_is_a_clear_error(terminal: Terminal, site: Site, name: str) -> None:
    answer, code, words = STRANGE[name]
    site.answer = lambda _: answer

    done = terminal.run("show", "--url", site.url)

    assert (done.code, words in done.err) == (code, True)
    assert "Traceback" not in done.err


def test_foreign_text_commands_no_terminal(terminal: Terminal, site: Site) -> None:
    body = b'{"totalCost": 1, "resourceName": "a\\u001b[31mb", "currencyCode": {"a": 1}}'
    site.answer = lambda _: (200, {"Cache-Status": "x\x1b[2Jy", "Age": "9" * 5000}, body)

    done = terminal.run("show", "--url", site.url)

    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    assert "a\N{REPLACEMENT CHARACTER}[31mb" in done.out
    assert "1 (no currency given)" in done.out


def test_what_nobody_foresaw_is_told_without_its_words(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"Bearer {terminal.world.canary}")

    monkeypatch.setattr("ops.show.read_usage_summary", fail)

    done, told = terminal.run("show"), terminal.run("show", "--json")

    assert (done.code, "defect: ValueError at" in done.err) == (1, True)
    assert (told.code, json.loads(told.out)["error"]) == (1, "defect")
    assert terminal.world.canary not in done.out + done.err + told.out + told.err
