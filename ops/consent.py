"""A person signs in with MFA, in a browser; what comes of it is tried, then stored."""

import os
import sys
import webbrowser
from datetime import timedelta

from ops.access import PATIENCE, partner_center_settings, vault_of, with_client_secret
from ops.checks import check, store, stored
from ops.redirect import listening
from ops.report import Report
from shared.deadlines import session_for
from shared.entra import Entra
from shared.errors import ConsentRequiredError, UsageSummaryError
from shared.refusals import refusal

_TIME_TO_SIGN_IN = timedelta(minutes=15)


def consent(report: Report, *, port: int, browser: bool) -> None:
    """Sign in by authorization code with PKCE and store the refresh token. Raises an error of this app."""
    settings = partner_center_settings()
    vault, address = vault_of(settings)
    settings = with_client_secret(settings)
    with session_for(PATIENCE, settings.ca_bundle) as session:
        stored(vault, session)  # who may not use the vault learns it before a person signs in
    report.add("secret", "Refresh token", address)
    scope = f"{settings.cloud.resource}/.default"
    with session_for(PATIENCE, settings.ca_bundle) as session:
        mode = "form_post" if browser else "query"
        flow = Entra(settings, session).begin_sign_in(f"http://localhost:{port}", mode, scope)
    with listening(port, flow["state"]) as redirect:
        url = (
            f"{flow['auth_uri']}&amr_values=mfa"  # as Microsoft's sample of the Secure Application Model asks
        )
        report.say(_instructions(url, port, browser=browser))
        if browser:
            _open(url)
        answer = redirect.wait(_TIME_TO_SIGN_IN, paste=not browser)
    try:
        if "error" in answer:
            refused = refusal(answer, settings.client_authentication)
            raise ConsentRequiredError(refused.message, hint=refused.hint)
        with session_for(PATIENCE, settings.ca_bundle) as session:
            tokens = Entra(settings, session).finish_sign_in(flow, answer)
        refresh_token, tags = check(settings, tokens, report)
        store(settings, vault, refresh_token, {**tags, "source": "consent"}, report)
    except UsageSummaryError:
        report.say("Nothing has been stored.")
        raise
    report.say("A running app uses it within a minute, without a restart.")


def _open(url: str) -> None:
    """Open a browser, whose own words go to standard error: standard output is for one JSON object."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        webbrowser.open(url)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _instructions(url: str, port: int, *, browser: bool) -> str:
    who = "Sign in with the account that has the role Admin agent in Partner Center, with MFA"
    if browser:
        return f"{who}, in the browser that opens, or at\n{url}\n"
    return (
        f"{who}, in any browser, at\n{url}\n"
        f"The last page is on http://localhost:{port}. If that browser is on another machine, forward the\n"
        f"port to this one (ssh -L {port}:localhost:{port}), or paste that page's address here:"
    )
