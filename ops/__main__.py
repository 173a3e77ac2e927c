"""The commands for operators: python3 -m ops."""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ops.report import Report

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
Exit codes: 0 done; 1 failed, try again; 2 settings, roles or arguments are wrong; 3 a person has to sign in.
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object, for machines"
    )
    root = argparse.ArgumentParser(
        prog="python3 -m ops",
        parents=[common],
        description="Sign the app in to Partner Center, look after its refresh token, show its figure.\n"
        "Begin with: python3 -m ops consent --help",
        epilog=f"{_SETTINGS}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(to: "_Commands", name: str, text: str, description: str, *, federated: str = "") -> _Parser:
        epilog = [_federated(federated)] if federated else []
        return to.add_parser(
            name,
            parents=[common],
            help=text,
            description=description,
            epilog="\n".join([*epilog, _SETTINGS, _EXIT_CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    text = "sign in with MFA and store the refresh token"
    consent = add(commands, "consent", text, _CONSENT, federated="consent")
    text = "of the redirect URI on localhost (default: 8400)"
    consent.add_argument("--port", type=_port, default=8400, help=text)
    text = "print the address only; for a browser elsewhere"
    consent.add_argument("--no-browser", dest="browser", action="store_false", help=text)

    text = "the stored refresh token: status, rotate, import"
    token = add(commands, "token", text, "Look after the stored refresh token; it is never shown.")
    tokens = token.add_subparsers(dest="token", required=True, metavar="command")
    add(tokens, "status", "its age, its end, the next write-back", _STATUS)
    add(tokens, "rotate", "redeem it once, store the new one", _ROTATE, federated="token rotate")
    add(tokens, "import", "store one from standard input", _IMPORT)

    text = "the usage summary, from the app (--url) or from Partner Center"
    show = add(commands, "show", text, _SHOW, federated="show")
    show.add_argument("--url", help="the app: https://<app>.azurewebsites.net")
    return root


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:  # noqa: PLR2004  # TCP's
        raise ValueError(text)
    return port


def _federated(command: str) -> str:
    end = datetime.now(UTC) + timedelta(days=1)
    return _FEDERATED.format(command=command, end=f"{end:%Y-%m-%d}")


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    _use_packages()
    from ops.report import Report, exit_code
    from shared.errors import UsageSummaryError

    logging.disable()  # a command tells what came of it; libraries say too much, codes and tokens among it
    report = Report(as_json=getattr(options, "json", False))
    try:
        _run(options, report)
    except UsageSummaryError as error:
        report.fail(error)
        return exit_code(error)
    except Exception as defect:  # noqa: BLE001  # its text and its locals may hold a token
        frame = traceback.extract_tb(defect.__traceback__)[-1]
        report.defect(f"{type(defect).__name__} at {Path(frame.filename).name}:{frame.lineno}")
        return 1
    finally:
        report.end()
        logging.disable(logging.NOTSET)
    return 0


def _run(options: argparse.Namespace, report: "Report") -> None:
    match options.command, getattr(options, "token", None):
        case "consent", _:
            from ops.consent import consent

            consent(report, port=options.port, browser=options.browser)
        case "token", "status":
            from ops.tokens import status

            status(report)
        case "token", "rotate":
            from ops.tokens import rotate

            rotate(report)
        case "token", "import":
            from ops.tokens import import_token

            import_token(report)
        case "show", _:
            from ops.show import show

            show(report, url=options.url)


def _use_packages() -> None:
    """Go on with the packages of requirements.txt: this Python's, or those that `dev` installed."""
    if find_spec("msal"):
        return
    python = Path(__file__).parent.parent / ".venv" / "bin" / "python"
    if not python.exists():
        print("the packages are missing: python3 -m pip install -r requirements.txt", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), "-m", "ops", *sys.argv[1:]])  # noqa: S606  # this very command


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without the partner's script
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
