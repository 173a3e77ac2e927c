"""python3 -m ops consent, from nothing to a stored consent; what is refused is in test_ops_refusals."""

import json
import socket
import stat
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from dev.simulator import Service
from dev.simulator.world import SECRET_NAME
from tests.terminal import SIGN_IN, Terminal
from tests.test_auth import pfx
from tests.threads import PATIENCE, PATIENCE_WITH_A_PROCESS

DAY = timedelta(days=1)
GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
BROWSER = """\
#!{python} -I
import html, re, ssl, sys, urllib.parse, urllib.request

tls = ssl.create_default_context(cafile={ca_bundle!r})
page = urllib.request.urlopen(sys.argv[1], context=tls, timeout=60).read().decode()
fields = {{name: html.unescape(value) for name, value in re.findall(r'name="(\\w+)" value="([^"]*)"', page)}}
action = re.search(r'action="([^"]+)"', page)[1]
try:
    urllib.request.urlopen(action, urllib.parse.urlencode(fields).encode(), timeout=60).read()
except urllib.error.HTTPError as refused:
    print("the port answered", refused.code, file=sys.stderr)
"""


def browser(terminal: Terminal) -> Path:
    """A program that does what a browser does: fetches the address and posts the form that it gets."""
    program = terminal.directory / "browser"
    program.write_text(BROWSER.format(python=sys.executable, ca_bundle=terminal.simulator.ca_bundle))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.mark.parametrize("way", ["secret", "certificate", "managed identity"])
def test_a_consent_is_stored_for_each_way_in_which_the_app_signs_in(
    terminal: Terminal, tmp_path: Path, way: str
) -> None:
    world = terminal.world
    world.secrets.clear()
    file, world.certificate = pfx()
    (tmp_path / "client.pfx").write_bytes(file)
    changed = {
        "secret": {},
        "certificate": {"PARTNER_CENTER_CLIENT_CERTIFICATE_PATH": str(tmp_path / "client.pfx")},
        "managed identity": {"PARTNER_CENTER_CLIENT_MANAGED_IDENTITY": world.managed_identity_client_id},
    }[way]
    if changed:
        changed["PARTNER_CENTER_CLIENT_SECRET"] = ""
    began = datetime.now(UTC).replace(microsecond=0)

    done = terminal.consent(
        stdin=f"{world.client_secret}\n" if way == "managed identity" else "", changed=changed
    )

    assert (done.code, done.err) == (0, "")
    (version,) = terminal.versions
    assert world.refresh_tokens[version.value].user == world.user
    assert version.content_type == "OAuth 2.0 refresh token"
    issued_at = datetime.fromisoformat(version.tags.pop("issued_at"))
    assert began <= issued_at <= datetime.now(UTC)
    assert version.tags == {"mfa": "true", "source": "consent"}
    assert version.attributes == {"enabled": True, "exp": (issued_at + 90 * DAY).timestamp()}
    for words in (world.user, world.tenant_id, version.version, f"{issued_at + 90 * DAY:%Y-%m-%d}"):
        assert words in done.out
    assert "With MFA                yes\n" in done.out
    (form,) = terminal.redemptions()
    assert ("client_secret" in form, "client_assertion" in form) == (
        way != "certificate",
        way == "certificate",
    )
    assert world.complaints == []


def test_the_person_is_asked_for_a_fresh_sign_in_with_mfa_bound_to_this_process(terminal: Terminal) -> None:
    assert terminal.consent().code == 0

    (asked,) = [each.query for each in terminal.world.exchanges if each.path.endswith("/authorize")]
    assert (
        asked.items()
        >= {
            "response_type": "code",
            "redirect_uri": f"http://localhost:{terminal.port}",
            "response_mode": "query",
            "code_challenge_method": "S256",
            "prompt": "login",
            "amr_values": "mfa",
        }.items()
    )
    assert asked["state"]
    assert asked["nonce"]
    assert "https://api.partnercenter.microsoft.com/.default" in asked["scope"].split()


def test_a_consent_is_tried_at_partner_center_before_it_is_stored(terminal: Terminal) -> None:
    (former,) = terminal.versions

    assert terminal.consent().code == 0

    (tried,) = [each for each in terminal.world.exchanges if each.service is Service.PARTNER_CENTER]
    assert tried.headers["validatemfa"] == "true"
    assert terminal.crossed() == [
        f"key-vault GET {SECRET_NAME}",  # whether the operator may, before anybody signs in
        "GET authorize",
        "POST token",
        "partner-center GET usagesummary",
        f"key-vault GET {SECRET_NAME}",
        f"key-vault PUT {SECRET_NAME}",
        f"key-vault PATCH {former.version}",
    ]
    assert [each.attributes["enabled"] for each in terminal.versions] == [False, True]


@pytest.mark.parametrize(
    "text", ["{address}", "  {address}  ", "\n\nhttp://localhost/?code=a&state=b\n{address}"]
)
def test_the_last_page_s_address_may_be_pasted_instead(terminal: Terminal, text: str) -> None:
    done = terminal.consent(browse=lambda url: text.format(address=terminal.location(url)))

    assert done.code == 0
    assert terminal.versions[-1].tags["source"] == "consent"
    assert done.err.count("not the address") == ("state=b" in text)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_is_no_address_at_all_may_be_pasted_before(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.consent._TIME_TO_SIGN_IN", timedelta(seconds=0.5))

    assert terminal.consent(browse=lambda url: f"https://[\n{terminal.location(url)}").code == 0


def test_a_pasted_address_may_follow_the_client_secret_on_standard_input(terminal: Terminal) -> None:
    world = terminal.world
    done = terminal.consent(
        browse=terminal.location,
        stdin=f"{world.client_secret}\n",
        changed=terminal.federated,
    )

    assert (done.code, len(terminal.versions)) == (0, 2)


def test_a_browser_on_this_machine_posts_the_answer(terminal: Terminal) -> None:
    world = terminal.world
    with terminal.spawn(
        "consent", "--port", str(terminal.port), BROWSER=f"{browser(terminal)} %s &"
    ) as process:
        out, err = process.communicate("", timeout=PATIENCE)

    assert (process.returncode, err) == (0, "")
    assert "in the browser that opens" in out
    (asked,) = [each.query for each in world.exchanges if each.path.endswith("/authorize")]
    assert asked["response_mode"] == "form_post"
    assert len(terminal.versions) == 2
    assert world.canary not in out


def test_a_browser_that_stays_in_the_foreground_posts_the_answer(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.consent._TIME_TO_SIGN_IN", timedelta(seconds=0.5))
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setattr("webbrowser._browsers", {})

    assert terminal.run("consent", changed={"BROWSER": str(browser(terminal))}).code == 0


def test_a_true_process_ends_while_its_standard_input_stays_open(terminal: Terminal) -> None:
    with terminal.spawn("consent", "--no-browser", "--port", str(terminal.port)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = ""
        for line in process.stdout:
            said += line
            if SIGN_IN.match(line):
                terminal.visit(line.strip())
        assert process.wait(PATIENCE_WITH_A_PROCESS) == 0
        assert process.stderr.read() == ""

    assert "Stored as version" in said
    assert terminal.world.canary not in said
    assert not set(said.split()) & terminal.world.canaries()


def test_an_answer_of_another_sign_in_is_refused_and_the_command_waits_on(terminal: Terminal) -> None:
    refused: list[int] = []

    def first_a_foreign_one(url: str) -> None:
        here = f"http://localhost:{terminal.port}"
        state = SIGN_IN.search(url) and url.partition("&state=")[2].partition("&")[0]
        queries = ["code=stolen&state=foreign", "error=access_denied&state=foreign", "code=stolen"]
        queries += [f"state={state}", ""]
        refused.extend(terminal.open(f"{here}/?{query}").status for query in queries)
        bodies = [b"code=stolen&state=foreign", b"\xff" * 100_000]
        refused.extend(terminal.open(here, body).status for body in bodies)
        terminal.visit(url)

    done = terminal.consent(browse=first_a_foreign_one)

    assert refused == [400] * 7
    assert (done.code, len(terminal.versions)) == (0, 2)
    assert "stolen" not in str(terminal.redemptions())


def test_nobody_who_signs_in_is_waited_for_so_long_only(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.consent._TIME_TO_SIGN_IN", timedelta(seconds=0.05))

    done = terminal.consent(browse=lambda _: None)

    assert (done.code, len(terminal.versions)) == (1, 1)
    assert "nobody signed in" in done.err


def test_the_port_is_free_again_and_is_on_the_loopback_address_only(terminal: Terminal) -> None:
    listening: list[bool] = []

    def look(url: str) -> None:
        with socket.socket() as other:  # 127.0.0.2 is loopback as well, and another address
            listening.append(other.connect_ex(("127.0.0.2", terminal.port)) == 0)
        terminal.visit(url)

    assert terminal.consent(browse=look).code == 0
    assert listening == [False]
    with socket.create_server(("127.0.0.1", terminal.port)):
        pass


@pytest.mark.parametrize(
    "recovery", [0, pytest.param(1, marks=pytest.mark.nightly)]
)  # the SDK looks every 2 s
def test_a_deleted_secret_is_recovered_and_that_is_said(terminal: Terminal, recovery: int) -> None:
    terminal.world.choose("vault-deleted")
    terminal.world.recovery = recovery

    done = terminal.consent()

    assert done.code == 0
    assert "Recovered               the secret had been deleted and is back\n" in done.out
    assert len(terminal.versions) == 2
    assert terminal.run("token", "status", "--json").facts["source"] == "consent"


def test_directory_roles_beyond_need_are_named(terminal: Terminal) -> None:
    terminal.world.directory_roles += [GLOBAL_ADMINISTRATOR, "11111111-2222-3333-4444-555555555555"]

    done = terminal.consent()

    assert done.code == 0
    roles = ["Global Administrator", "11111111-2222-3333-4444-555555555555"]
    assert f"Roles not needed        {', '.join(roles)}\n" in done.out
    assert terminal.consent("--json").facts["rolesNotNeeded"] == roles


def test_no_role_is_named_where_there_is_none_too_many(terminal: Terminal) -> None:
    assert "Roles" not in terminal.consent().out


def test_the_commands_end_with_a_consent_that_serves_the_next_ones(terminal: Terminal) -> None:
    terminal.world.secrets.clear()
    assert terminal.consent().code == 0
    for arguments in (("token", "status"), ("token", "rotate"), ("show",)):
        assert terminal.run(*arguments).code == 0

    issued = [terminal.world.refresh_tokens[each.value].issued for each in terminal.versions]
    assert all(earlier <= later for earlier, later in pairwise(issued))


def test_json_is_one_object_and_the_address_goes_to_the_other_stream(terminal: Terminal) -> None:
    done = terminal.consent("--json")

    assert done.code == 0
    assert SIGN_IN.search(done.err)
    (version,) = terminal.versions[-1:]
    expected = {
        "secret": terminal.environ["PARTNER_CENTER_REFRESH_TOKEN_SECRET"],
        "user": terminal.world.user,
        "tenantId": terminal.world.tenant_id,
        "mfa": True,
        "rolesMissing": [],
        "rolesNotNeeded": [],
        "permissionsNotNeeded": [],
        "usageData": True,
        "version": version.version,
        "expiresOn": datetime.fromtimestamp(version.attributes["exp"], UTC)
        .isoformat()
        .replace("+00:00", "Z"),
    }
    assert done.facts == expected
    assert json.loads(done.out) == expected
