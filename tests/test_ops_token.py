"""python3 -m ops token: status, rotate, import."""

from datetime import UTC, datetime, timedelta

import pytest

from dev.simulator import Refusal
from dev.simulator.world import SECRET_NAME, now
from tests.terminal import Terminal

DAY = timedelta(days=1)


def stored_days_ago(terminal: Terminal, days: float, **tags: str) -> datetime:
    """The only version was written so many days ago, with these tags; when that was."""
    world, instant = terminal.world, datetime.now(UTC).replace(microsecond=0) - days * DAY
    world.secrets.clear()
    world.clock = lambda: instant
    world.consent()
    world.clock = now
    (version,) = terminal.versions
    version.tags = tags
    return instant


def test_the_status_tells_age_end_and_next_write_back_and_redeems_nothing(terminal: Terminal) -> None:
    issued_at = stored_days_ago(terminal, 0.5, source="app", mfa="true")

    done = terminal.run("token", "status")

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"Refresh token           {terminal.environ['PARTNER_CENTER_REFRESH_TOKEN_SECRET']}",
        f"Version                 {terminal.versions[0].version}",
        "Stored by               written back by the app",
        f"Last use known          {issued_at:%Y-%m-%dT%H:%M:%SZ}",
        "Age                     0.5 days",
        f"Expires                 {issued_at + 90 * DAY:%Y-%m-%dT%H:%M:%SZ}",
        "Left                    89.5 days",
        "With MFA                yes",
        f"Next write-back         {issued_at + DAY:%Y-%m-%dT%H:%M:%SZ}",
    ]
    assert terminal.crossed() == [f"key-vault GET {SECRET_NAME}"]


def test_the_status_is_complete_as_json(terminal: Terminal) -> None:
    issued_at = stored_days_ago(terminal, 10, source="consent", mfa="false")

    facts = terminal.run("token", "status", "--json").facts

    assert facts == {
        "secret": terminal.environ["PARTNER_CENTER_REFRESH_TOKEN_SECRET"],
        "version": terminal.versions[0].version,
        "source": "consent",
        "lastUse": f"{issued_at:%Y-%m-%dT%H:%M:%SZ}",
        "ageInDays": "10.0",
        "expiresOn": f"{issued_at + 90 * DAY:%Y-%m-%dT%H:%M:%SZ}",
        "daysLeft": "80.0",
        "mfa": False,
        "nextWriteBack": f"{issued_at + DAY:%Y-%m-%dT%H:%M:%SZ}",
    }


@pytest.mark.parametrize(("days", "is_due"), [(0.99, False), (1.01, True), (40, True)])
def test_a_write_back_is_due_after_a_day(terminal: Terminal, days: float, is_due: bool) -> None:  # noqa: FBT001
    stored_days_ago(terminal, days)

    done = terminal.run("token", "status")

    assert (done.code, "due: when the app next signs in" in done.out) == (0, is_due)


@pytest.mark.parametrize("source", ["", "somebody"])
def test_what_no_tag_tells_is_unknown(terminal: Terminal, source: str) -> None:
    stored_days_ago(terminal, 1, **({"source": source} if source else {}))

    done = terminal.run("token", "status")

    assert "With MFA                unknown\n" in done.out
    assert "Stored by               unknown\n" in done.out
    assert "mfa" not in terminal.run("token", "status", "--json").facts


def test_the_tag_is_older_than_the_version_where_a_token_was_stored_late(terminal: Terminal) -> None:
    stored_days_ago(terminal, 1, issued_at=(datetime.now(UTC) - 30 * DAY).isoformat())

    assert "Age                     30.0 days" in terminal.run("token", "status").out


def test_an_expired_token_needs_a_person(terminal: Terminal) -> None:
    stored_days_ago(terminal, 90.5)

    done = terminal.run("token", "status")

    assert (done.code, "Left                    -0.5 days" in done.out) == (3, True)
    assert "has expired" in done.err
    assert "python3 -m ops consent" in done.err
    assert terminal.redemptions() == []


@pytest.mark.parametrize("command", ["status", "rotate"])
@pytest.mark.parametrize("scenario", ["vault-empty", "vault-deleted"])
def test_without_a_stored_token_a_person_is_needed(terminal: Terminal, scenario: str, command: str) -> None:
    terminal.world.choose(scenario)

    done = terminal.run("token", command)

    assert (done.code, "no consent is stored yet" in done.err) == (3, True)
    assert "python3 -m ops consent" in done.err
    assert terminal.redemptions() == []


def test_a_disabled_secret_is_no_consent_until_somebody_enables_it_or_consents_anew(
    terminal: Terminal,
) -> None:
    terminal.versions[0].attributes["enabled"] = False

    done = terminal.run("token", "status")

    assert (done.code, "SecretDisabled" in done.err, "Enable" in done.err) == (3, True, True)
    assert terminal.consent().code == 0
    assert terminal.run("token", "status").code == 0


@pytest.mark.parametrize("is_federated", [False, True])
def test_rotating_redeems_once_and_stores_one_version(terminal: Terminal, is_federated: bool) -> None:  # noqa: FBT001
    stored_days_ago(terminal, 30, mfa="true", source="consent", team="finance")
    (former,) = terminal.versions
    changed = terminal.federated if is_federated else {}

    began = datetime.now(UTC).replace(microsecond=0)
    done = terminal.run("token", "rotate", stdin=f"{terminal.world.client_secret}\n", changed=changed)

    assert (done.code, done.err) == (0, "")
    former, newest = terminal.versions
    (form,) = terminal.redemptions()
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", former.value)
    assert newest.value == list(terminal.world.refresh_tokens)[-1]
    assert (former.attributes["enabled"], newest.attributes["enabled"]) == (False, True)
    issued_at = datetime.fromisoformat(newest.tags.pop("issued_at"))
    assert began <= issued_at <= datetime.now(UTC)
    assert newest.tags == {"mfa": "true", "source": "rotate", "team": "finance"}
    assert newest.attributes["exp"] == (issued_at + 90 * DAY).timestamp()
    assert newest.version in done.out
    assert terminal.crossed() == [
        f"key-vault GET {SECRET_NAME}",
        "POST token",
        f"key-vault GET {SECRET_NAME}",
        f"key-vault PUT {SECRET_NAME}",
        f"key-vault PATCH {former.version}",
    ]


def test_rotating_sees_that_mfa_is_gone(terminal: Terminal) -> None:
    stored_days_ago(terminal, 1, mfa="true")
    terminal.world.choose("mfa-missing")

    assert "With MFA                no\n" in terminal.run("token", "rotate").out
    assert terminal.versions[-1].tags["mfa"] == "false"


@pytest.mark.parametrize(
    ("scenario", "code", "word"),
    [
        ("consent-revoked", 3, "AADSTS50173"),
        ("consent-expired", 3, "AADSTS700082"),
        ("mfa-required", 3, "sign in with MFA"),
        ("secret-expired", 2, "AADSTS7000222"),
        ("entra-down", 1, "503"),
        ("entra-throttled", 1, "429"),
        ("entra-garbage", 1, "no JSON object"),
        ("vault-read-only", 2, "Key Vault Secrets Officer"),
        ("vault-forbidden", 2, "Key Vault Secrets Officer"),
        ("vault-throttled", 1, "429"),
    ],
)
def test_a_token_that_cannot_be_rotated_stays_as_it_is(
    terminal: Terminal, scenario: str, code: int, word: str
) -> None:
    terminal.world.choose(scenario)

    done = terminal.run("token", "rotate")

    assert (done.code, word in done.err, "Stored" in done.out) == (code, True, False)
    assert [each.attributes["enabled"] for each in terminal.versions] == [True]


@pytest.mark.parametrize("is_federated", [False, True])
def test_an_imported_token_is_redeemed_and_tried_and_its_successor_stored(
    terminal: Terminal,
    is_federated: bool,  # noqa: FBT001
) -> None:
    world = terminal.world
    world.secrets.clear()
    given = world.refresh_token()
    changed = terminal.federated if is_federated else {}

    done = terminal.run("token", "import", stdin=f"  {given}\n{world.client_secret}\n", changed=changed)

    assert (done.code, done.err) == (0, "")
    (version,) = terminal.versions
    assert version.value in world.refresh_tokens.keys() - {given}
    assert {"mfa": "true", "source": "import"}.items() <= version.tags.items()
    assert version.content_type == "OAuth 2.0 refresh token"
    assert world.user in done.out
    (form,) = terminal.redemptions()
    assert form["refresh_token"] == given
    crossed = terminal.crossed()
    assert crossed.index("partner-center GET usagesummary") < crossed.index(f"key-vault PUT {SECRET_NAME}")


@pytest.mark.parametrize("stdin", ["", "\n", "   \n"])
def test_nothing_on_standard_input_is_nothing_to_import(terminal: Terminal, stdin: str) -> None:
    done = terminal.run("token", "import", stdin=stdin)

    assert (done.code, "no refresh token on standard input" in done.err) == (2, True)
    assert terminal.world.exchanges == []


def test_what_is_no_token_of_this_app_is_not_stored(terminal: Terminal) -> None:
    done = terminal.run("token", "import", stdin="garbage-from-a-clipboard\n")

    assert (done.code, "AADSTS70000" in done.err) == (3, True)
    assert "garbage" not in done.out + done.err
    assert len(terminal.versions) == 1


@pytest.mark.parametrize(("mfa", "role", "code"), [(False, True, 3), (True, False, 2)])
def test_a_token_that_partner_center_does_not_accept_is_not_imported(
    terminal: Terminal,
    mfa: bool,  # noqa: FBT001
    role: bool,  # noqa: FBT001
    code: int,
) -> None:
    terminal.world.has_partner_role = role

    done = terminal.run("token", "import", stdin=f"{terminal.world.refresh_token(mfa=mfa)}\n")

    assert (done.code, len(terminal.versions)) == (code, 1)


def test_an_imported_token_that_is_revoked_is_not_stored(terminal: Terminal) -> None:
    given = terminal.world.refresh_token()
    terminal.world.refuse_consents(Refusal.REVOKED)

    done = terminal.run("token", "import", stdin=f"{given}\n")

    assert (done.code, len(terminal.versions)) == (3, 1)
