"""The command line of the operators' commands, and the words of its help."""

import argparse
from datetime import UTC, date, datetime, timedelta

type _Parser = argparse.ArgumentParser
type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # has no public name

_SETTINGS = """\
Settings are the app's: from the environment, or from local.settings.json here.
  PARTNER_CENTER_TENANT_ID, PARTNER_CENTER_CLIENT_ID   the partner's tenant, the app registration
  PARTNER_CENTER_CLIENT_SECRET, or …_CERTIFICATE_PATH, or …_MANAGED_IDENTITY
  PARTNER_CENTER_REFRESH_TOKEN_SECRET                  https://<vault>/secrets/<name>
The vault is used as the person who runs this (az login), who needs the role Key Vault Secrets Officer on it.
"""

_EXIT_CODES = """\
Exit codes: 0 done; 1 failed, try again; 2 settings, roles or arguments are wrong; 3 a person has to sign in;
4 the record is not sound.
"""

_FEDERATED = """\
Where the app signs in by a managed identity, there is none on this machine: a short-lived client secret is
read from standard input instead. The first command makes one and hands it on, the others delete it:
  az ad app credential reset --id $PARTNER_CENTER_CLIENT_ID --append --display-name ops \\
     --end-date {end} --query password --output tsv | python3 -m ops {command}
  az ad app credential list --id $PARTNER_CENTER_CLIENT_ID --query "[?displayName=='ops'].keyId" --output tsv
  az ad app credential delete --id $PARTNER_CENTER_CLIENT_ID --key-id <the id that list shows>
"""

_CONSENT = """\
A person signs in, once and with MFA. The refresh token goes into the vault; the app renews it from then on.
Before: register the platform Web with the redirect URI http://localhost:8400, and the delegated permission
user_impersonation of Microsoft Partner Center; take an account that has the role Admin agent and no more.
Nothing is stored unless Partner Center accepts the sign-in.
"""

_STATUS = """\
Tell how old the stored refresh token is and how long it lasts; nothing is redeemed.
"""

_ROTATE = """\
Redeem the stored refresh token once, and store the new one.
"""

_IMPORT = """\
Read a refresh token from standard input, redeem it, try it at Partner Center, and store the new one.
Where the app signs in by a managed identity, the next line is a client secret: see consent --help.
"""

_SHOW = """\
Show the usage summary. From the app (--url) it takes the function's key, where the app asks for one: from
USAGE_SUMMARY_KEY, or from standard input. Without --url Partner Center is asked, with the stored token.
"""


_SNAPSHOT = """\
Take a snapshot now, as the timer does: today's answer, of the app's cache or of Partner Center; the day's
first snapshot, or a revision if the figure differs; the history brought up to date. Safe beside the timer.
"""

_HISTORY = """\
Look after the record: the dated snapshots, and the history that is made of them.
"""

_VERIFY = """\
Read every dated snapshot (its MD5, its shape), and compare the history with what a rebuild would make.
Exit code 4 when a snapshot cannot be read or is of a day yet to come, when the history keeps a row that no
snapshot makes, when the history differs, or when the container of the snapshots is missing. What helps, in
this order: undelete the container or the snapshots, or restore or rehydrate them; then a run; then a rebuild,
if the history still differs. Days without a snapshot, and names that are no snapshot's, are named and are no
failure. Reading is all that is needed: Storage Blob Data Reader.
"""

_REBUILD = """\
Make the history again of all dated snapshots, with those that were brought in by hand; what is right already
is not written. Safe beside the timer. A row whose snapshot is gone or cannot be read is kept, and that is
said; so restore the snapshot. Only where such a row is wrong, name its day: --drop 2026-11-20. A day without
such a row is refused, and nothing is written then. In place of a dropped row comes that of an earlier
snapshot of the same day and billing period, where one can be read.
"""

_HISTORY_SHOW = """\
Show the last days of the history as a table, each with what it added to the day before.
"""

_STORAGE = """\
The record's account is USAGE_STORAGE, a connection string, or USAGE_STORAGE__blobServiceUri, which is used as
the person who runs this (az login), who needs Storage Blob Data Contributor on its containers, or Reader to
read; else AzureWebJobsStorage. USAGE_SNAPSHOT_CONTAINER and USAGE_HISTORY_CONTAINER, where set, name them.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object, for machines"
    )
    root = argparse.ArgumentParser(
        prog="python3 -m ops",
        parents=[common],
        description="Sign the app in to Partner Center, look after its refresh token and its record.\n"
        "Begin with: python3 -m ops consent --help",
        epilog=f"{_SETTINGS}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(to: _Commands, name: str, text: str, description: str, *settings: str) -> _Parser:
        return to.add_parser(
            name,
            parents=[common],
            help=text,
            description=description,
            epilog="\n".join([*settings, _EXIT_CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    text = "sign in with MFA and store the refresh token"
    consent = add(commands, "consent", text, _CONSENT, _federated("consent"), _SETTINGS)
    text = "of the redirect URI on localhost (default: 8400)"
    consent.add_argument("--port", type=_port, default=8400, help=text)
    text = "print the address only; for a browser elsewhere"
    consent.add_argument("--no-browser", dest="browser", action="store_false", help=text)

    text = "the stored refresh token: status, rotate, import"
    token = add(commands, "token", text, "Look after the stored refresh token; it is never shown.", _SETTINGS)
    tokens = token.add_subparsers(dest="token", required=True, metavar="command")
    add(tokens, "status", "its age, its end, the next write-back", _STATUS, _SETTINGS)
    add(tokens, "rotate", "redeem it once, store the new one", _ROTATE, _federated("token rotate"), _SETTINGS)
    add(tokens, "import", "store one from standard input", _IMPORT, _SETTINGS)

    text = "the usage summary, from the app (--url) or from Partner Center"
    show = add(commands, "show", text, _SHOW, _federated("show"), _SETTINGS)
    show.add_argument("--url", help="the app: https://<app>.azurewebsites.net")

    text = "take a snapshot now"
    snapshot = add(commands, "snapshot", text, _SNAPSHOT, _federated("snapshot"), _SETTINGS, _STORAGE)
    snapshot.add_argument(
        "--dry-run", action="store_true", help="tell what would be written, and write nothing"
    )

    history = add(commands, "history", "the record: verify, rebuild, show", _HISTORY, _STORAGE)
    histories = history.add_subparsers(dest="history", required=True, metavar="command")
    add(histories, "verify", "is the record sound?", _VERIFY, _STORAGE)
    rebuild = add(histories, "rebuild", "make the history again", _REBUILD, _STORAGE)
    text = "drop the kept row of a day (2026-11-20); may be repeated"
    rebuild.add_argument("--drop", type=_day, action="append", default=[], metavar="DAY", help=text)
    shown = add(histories, "show", "a table of the last days", _HISTORY_SHOW, _STORAGE)
    shown.add_argument("--days", type=_days, default=14, help="how many (default: 14)")
    return root


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:  # noqa: PLR2004  # TCP's
        raise ValueError(text)
    return port


def _days(text: str) -> int:
    days = int(text)
    if not 0 < days < 100_000:  # noqa: PLR2004  # no record is older
        raise ValueError(text)
    return days


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _federated(command: str) -> str:
    end = datetime.now(UTC) + timedelta(days=1)
    return _FEDERATED.format(command=command, end=f"{end:%Y-%m-%d}")
