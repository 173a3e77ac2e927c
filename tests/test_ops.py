"""python3 -m ops as a whole: its help, its JSON, where its settings come from, what it never says."""

import asyncio
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest

import shared.app
from dev.azurite import Azurite
from dev.simulator import SCENARIOS, Service, Simulator
from ops.__main__ import main
from shared.app import App
from tests.conftest import ManualClock, delete_shared_answer
from tests.terminal import ROOT, SIGN_IN, Terminal
from tests.test_functions import load
from tests.threads import PATIENCE_WITH_A_PROCESS

COMMANDS = ["consent", "token status", "token rotate", "token import", "show"]
BARE_PYTHON = [str(Path(sys.base_exec_prefix) / "bin" / "python3"), "-S"]  # no site: no packages

_started: list[str] = []  # the command lines of all children, once somebody looks
_looking = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _looking and event in {"subprocess.Popen", "os.exec", "os.posix_spawn"}:
        _started.append(str(arguments[:2]))


sys.addaudithook(_audit)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command lines of all children from now on."""
    monkeypatch.setattr(f"{__name__}._looking", True)
    _started.clear()
    return _started


@pytest.fixture
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All loggers of all libraries at DEBUG."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    levels = [(each, each.level) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    for each, level in levels:
        each.setLevel(level)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Each message and what it was made of."""
    return [f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records]


def typed(terminal: Terminal, command: str) -> str:
    """What standard input has for a command."""
    return f"{terminal.world.refresh_token()}\n" if command == "token import" else ""


# Help, and the command line


@pytest.mark.parametrize("command", ["", "token", *COMMANDS])
def test_every_command_has_help_that_tells_its_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])

    said = capsys.readouterr()
    assert (left.value.code, said.err) == (0, "")
    assert "Exit codes: 0 done" in said.out
    assert "PARTNER_CENTER_TENANT_ID" in said.out
    assert ("az ad app credential" in said.out) == (command in {"consent", "token rotate", "show"})


@pytest.mark.parametrize("arguments", [["--help"], ["consent", "--help"], ["token", "import", "--help"]])
def test_help_needs_no_packages(arguments: list[str]) -> None:
    done = subprocess.run(
        [*BARE_PYTHON, "-m", "ops", *arguments], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )

    assert "usage: python3 -m ops" in done.stdout


def test_without_packages_the_command_goes_on_with_those_of_the_project() -> None:
    done = subprocess.run(
        [*BARE_PYTHON, "-m", "ops", "token", "status", "--json"],
        cwd=ROOT,
        env={"PARTNER_CENTER_CLIENT_ID": "wrong"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (2, "")
    assert "PARTNER_CENTER_CLIENT_ID is wrong" in json.loads(done.stdout)["message"]


def test_without_any_packages_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ops", tmp_path / "ops")
    command = [*BARE_PYTHON, "-m", "ops", "show"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize(
    "command", ["", "token", "consents", "token show", "consent --port x", "show --key k", "show --ur x"]
)
def test_a_wrong_command_line_is_refused_with_its_usage(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(command.split())

    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert "usage: python3 -m ops" in said.err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_number_that_is_no_port_is_refused(terminal: Terminal, port: str) -> None:
    with pytest.raises(SystemExit) as left:
        terminal.run("consent", "--port", port)

    assert left.value.code == 2


# JSON


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_object_wherever_it_is_asked_for(terminal: Terminal, command: str) -> None:
    first, *rest = command.split()
    for arguments in ([first, *rest, "--json"], ["--json", first, *rest], [first, "--json", *rest]):
        stdin = typed(terminal, command)
        browse, options = (terminal.visit, ["--no-browser"]) if first == "consent" else (None, [])
        done = terminal.run(*arguments, *options, stdin=stdin, browse=browse)
        assert done.code == 0
        assert "secret" in done.facts or "totalCost" in done.facts
        assert bool(done.err) == (first == "consent")


FAILURES = {
    "consent": ("vault-forbidden", "configuration"),
    "token status": ("vault-empty", "consent-required"),
    "token rotate": ("consent-revoked", "consent-required"),
    "token import": ("role-missing", "upstream-refused"),
    "show": ("html", "upstream-invalid"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_json_tells_of_a_failure_too(terminal: Terminal, command: str) -> None:
    scenario, code = FAILURES[command]
    stdin = typed(terminal, command)
    terminal.world.choose(scenario)

    done = terminal.run(*command.split(), "--json", stdin=stdin)

    assert done.code > 0
    assert done.facts["error"] == code
    assert done.facts["message"]
    assert ("hint" in done.facts) == (code != "upstream-invalid")
    assert done.err == ""


def test_json_tells_that_nothing_was_stored_on_the_other_stream(terminal: Terminal) -> None:
    terminal.world.person_has_mfa = False

    done = terminal.consent("--json")

    assert (done.code, done.facts["error"]) == (3, "consent-required")
    assert SIGN_IN.search(done.err)
    assert "Nothing has been stored." in done.err


# Settings


def write_settings(terminal: Terminal, document: object) -> None:
    (terminal.directory / "local.settings.json").write_text(json.dumps(document), encoding="utf-8-sig")


def test_settings_may_stand_in_local_settings_json(terminal: Terminal) -> None:
    names = [name for name in terminal.environ if name.startswith(("PARTNER_CENTER_", "REQUESTS_"))]
    write_settings(
        terminal, {"IsEncrypted": False, "Values": {each: terminal.environ[each] for each in names}}
    )

    done = terminal.run("show", changed=dict.fromkeys(names, ""))

    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", [*COMMANDS, "snapshot", "history show", "history verify"])
def test_an_unresolved_reference_in_the_file_is_sent_nowhere(terminal: Terminal, command: str) -> None:
    names = ["PARTNER_CENTER_CLIENT_ID", "USAGE_STORAGE", "SSL_CERT_FILE"]
    reference = "@Microsoft.AppConfiguration(Endpoint=https://canary.azconfig.io; Key=a)"
    write_settings(terminal, {"Values": dict.fromkeys(names, reference)})

    done = terminal.run(*command.split(), changed=dict.fromkeys(names, ""), stdin="a\n")

    assert (done.code, done.out, "canary" in done.err) == (2, "", False)
    assert "SSL_CERT_FILE is a reference that the platform could not resolve" in done.err
    read = names[1 if command.startswith("history") else 0]
    assert f"{read} is a reference that the platform could not resolve" in done.err
    assert terminal.world.exchanges == []


def test_the_environment_goes_before_the_file(terminal: Terminal) -> None:
    values = {"PARTNER_CENTER_TENANT_ID": "of the file", "PARTNER_CENTER_CLIENT_ID": "of the file"}
    write_settings(terminal, {"Values": values})

    assert terminal.run("show").code == 0
    done = terminal.run("show", changed={"PARTNER_CENTER_CLIENT_ID": ""})
    assert (done.code, "PARTNER_CENTER_CLIENT_ID is wrong" in done.err) == (2, True)
    assert "TENANT_ID" not in done.err


def test_the_key_may_stand_in_the_file(terminal: Terminal) -> None:
    write_settings(terminal, {"Values": {"USAGE_SUMMARY_KEY": "a-key"}})

    done = terminal.run("show", "--url", f"http://127.0.0.1:{terminal.port}", stdin="another\n")

    assert (done.code, "a-key" in done.out + done.err) == (1, False)


def test_an_encrypted_file_is_not_read(terminal: Terminal) -> None:
    write_settings(terminal, {"IsEncrypted": True, "Values": {"PARTNER_CENTER_TENANT_ID": "CfDJ8"}})

    done = terminal.run("token", "status")

    assert (done.code, "encrypted" in done.err, "func settings decrypt" in done.err) == (2, True, True)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"Values": []}', b"\xff\xfe", b'"text"', b"null"]
)
def test_a_broken_file_is_said_to_be_broken(terminal: Terminal, text: bytes) -> None:
    (terminal.directory / "local.settings.json").write_bytes(text)

    done = terminal.run("token", "status")

    assert (done.code, "local.settings.json is no JSON object with Values" in done.err) == (2, True)


# Nothing secret is said


# One of each kind; the others, but for those that take their time, are for the night.
KINDS = {"down", "half-document", "healthy", "html", "no-usage-data", "mfa-missing", "role-missing"}
KINDS |= {"blocked", "consent-revoked", "entra-down", "entra-garbage", "secret-expired"}
KINDS |= {"vault-deleted", "vault-down", "vault-forbidden", "vault-read-only"}
SCENARIO = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.nightly)
    for name in sorted(SCENARIOS.keys() - {"hanging", "dripping"})
]


@pytest.mark.usefixtures("_everything_is_logged")
@pytest.mark.parametrize("scenario", SCENARIO)
def test_nothing_secret_is_said_logged_or_handed_to_a_child(
    terminal: Terminal,
    scenario: str,
    started: list[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    world = terminal.world
    world.delay = 0.05
    terminal.run("token", "status")  # the vault's challenge, which its SDK keeps, brings az onto the stage
    world.choose(scenario)
    fault = SCENARIOS[scenario].fault
    is_of_partner_center = fault is not None and fault.service is Service.PARTNER_CENTER

    said = [*map(str, terminal.consent(browse=terminal.location))]
    for command in COMMANDS[3:] if is_of_partner_center else COMMANDS[1:]:
        said += map(str, terminal.run(*command.split(), stdin=typed(terminal, command)))

    said += [*logged(caplog), *capfd.readouterr(), *started]
    canaries = {*world.canaries(), world.canary}
    assert len(canaries) > 5
    assert len(started) > 1  # az
    assert {canary for canary in canaries if any(canary in each for each in said)} == set()


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_true_process_says_the_same_where_warnings_are_errors(terminal: Terminal, command: str) -> None:
    with terminal.spawn(*command.split(), PYTHONWARNINGS="error", PYTHONDEVMODE="1") as process:
        out, err = process.communicate(typed(terminal, command), timeout=PATIENCE_WITH_A_PROCESS)

    assert (process.returncode, err) == (0, "")
    assert not [canary for canary in terminal.world.canaries() if canary in out]
    assert terminal.world.canary not in out


def test_a_consent_in_a_true_process_is_silent_where_warnings_are_errors(terminal: Terminal) -> None:
    command = ["consent", "--no-browser", "--port", str(terminal.port)]
    with terminal.spawn(*command, PYTHONWARNINGS="error", PYTHONDEVMODE="1") as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if SIGN_IN.match(line):
                terminal.visit(line.strip())
        assert process.stderr is not None
        assert (process.wait(PATIENCE_WITH_A_PROCESS), process.stderr.read()) == (0, "")

    assert terminal.world.canary not in said


# A running app


def test_a_running_app_whose_consent_ended_works_again_within_a_minute_of_a_new_one(
    terminal: Terminal,
    simulator: Simulator,
    azurite: Azurite,
    environ: dict[str, str],
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared.app, "app", App(environ, manual_clock.clock()))
    function = load("GetUsageSummary", monkeypatch)

    def get(**headers: str) -> func.HttpResponse:
        request = func.HttpRequest("GET", "http://localhost/v1/usagesummary", headers=headers, body=b"")
        response: func.HttpResponse = asyncio.run(function.main(request))
        return response

    assert get().status_code == 200
    simulator.world.choose("consent-revoked")
    manual_clock.advance(days=2)  # the stored answer stands in for a day
    simulator.world.exchanges.clear()

    refused = get()
    problem = json.loads(refused.get_body())
    assert (refused.status_code, problem["code"]) == (502, "consent-required")
    assert "python3 -m ops consent" in problem["detail"]
    attempt = terminal.redemptions()
    assert len(attempt) in {1, 2}  # the newest token of this process, then the vault's
    for _ in range(50):
        assert get(**{"Cache-Control": "no-cache"}).status_code == 502
    assert terminal.redemptions() == attempt

    assert terminal.consent().code == 0
    delete_shared_answer(azurite, environ)  # the fleet's back-off is by Azurite's clock, not by this one
    manual_clock.advance(seconds=60)
    recovered = get()
    assert (recovered.status_code, recovered.get_body()) == (200, simulator.world.document)
    assert re.search("fwd-status=200", recovered.headers["Cache-Status"])
