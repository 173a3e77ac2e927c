"""The usage summary for a person: from the deployed app, or from Partner Center directly."""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from ops.access import (
    PATIENCE,
    partner_center_settings,
    read_secret,
    setting_and_ca_bundle,
    vault_of,
    with_client_secret,
)
from ops.checks import usage_summary
from ops.report import Report
from shared.deadlines import CONNECT_TIMEOUT, session_for
from shared.entra import Entra
from shared.errors import ConfigurationError, UpstreamInvalidError, UpstreamRefusedError, UpstreamReply
from shared.problems import PROBLEMS
from shared.settings import GivenRefreshToken, is_on_this_machine
from shared.usage_summary import SIZE_LIMIT, Json, dump, read_usage_summary

KEY = "USAGE_SUMMARY_KEY"
"""The environment variable with the function's key."""

_PATH = "/v1/usagesummary"
_TIME_ALLOWED = timedelta(seconds=70)  # the app answers within a minute and a few seconds
_DAY = timedelta(days=1)


class _Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Period(NamedTuple):
    """A billing period and where in it a day is; days are counted from 1."""

    start: str
    end: str
    day: int
    days: int


def show(report: Report, *, url: str | None) -> None:
    """Report the figures, the billing period, and how old the data is. Raises an error of this app."""
    body = _of_partner_center() if url is None else _of_app(endpoint(url), report)
    if body is None:
        report.add("usageData", "Usage data", value=False, said="Partner Center has none for this partner")
        return
    members = read_usage_summary(body).members
    now = datetime.now(UTC)
    report.add("resourceName", "Partner", members.get("resourceName"))
    report.add("resourceId", "Tenant", members.get("resourceId"))
    report.add("totalCost", "Cost so far", members["totalCost"], said=money(members))
    for name in ("currencyCode", "currencyLocale"):
        report.add(name, "", members.get(name), said="")
    period = billing_period(members, now)
    if period is not None:
        said = f"{period.start} to {period.end}, day {period.day} of {period.days}"
        report.add("billingPeriod", "Billing period", dict(period._asdict()), said=said)
    changed = _instant(members.get("lastModifiedDate"))
    if changed is not None:
        report.add("lastModifiedDate", "Data of", members["lastModifiedDate"], said=_aged(changed, now))
    for name, label in (
        ("customersWithUsageBasedSubscription", "Customers"),
        ("customersOverBudget", "… over budget"),
        ("customersTrendingOver", "… trending over it"),
    ):
        report.add(name, label, members.get(name))
    left_out = "customers with an Azure plan; and it is an estimate, not the invoice"
    report.add("leftOut", "Not in the cost", ["Azure plan"], said=left_out)


def endpoint(url: str) -> str:
    """Where the app answers, given its address, with or without the path.

    A trailing /api is dropped: it is the platform's default prefix, and this app has none.
    Raises ConfigurationError.
    """
    try:
        parts = urlsplit(url)
        is_whole = (
            parts.hostname and parts.port != 0 and not (parts.username or parts.query or parts.fragment)
        )
    except ValueError:
        is_whole = False
    if not is_whole or not (parts.scheme == "https" or (parts.scheme == "http" and is_on_this_machine(url))):
        raise ConfigurationError("--url wants an https address alone: https://<app>.azurewebsites.net")
    path = parts.path.rstrip("/")
    path = path if path.endswith(_PATH) else path.removesuffix("/api") + _PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


def currency(members: Mapping[str, Json]) -> str:
    """The currency's code, or for legacy offers the culture that stands for one, or nothing."""
    named = (members.get(name) for name in ("currencyCode", "currencyLocale"))
    return next((each for each in named if isinstance(each, str) and each), "")


def money(members: dict[str, Json]) -> str:
    """The cost with its currency."""
    unit = currency(members) or "(no currency given)"
    if unit == members.get("currencyLocale"):
        unit = f"in the currency of {unit}"
    return f"{dump(members['totalCost']).decode()} {unit}"


def billing_period(members: dict[str, Json], now: datetime) -> Period | None:
    """The period by the calendar dates as they are written, and the day in it by the same clock.

    A period that ends on the day of the month on which it began ends as that day begins. Before and after the
    period the day is its first and its last.
    """
    start, end = _instant(members.get("billingStartDate")), _instant(members.get("billingEndDate"))
    if start is None or end is None:
        return None
    days = max((end.date() - start.date()).days + (0 if start.day == end.day else 1), 1)
    day = (now.astimezone(start.tzinfo).date() - start.date()).days + 1
    return Period(start.date().isoformat(), end.date().isoformat(), max(1, min(day, days)), days)


def _instant(value: Json) -> datetime | None:
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return instant.replace(tzinfo=UTC) if instant is not None and instant.tzinfo is None else instant


def _aged(instant: datetime, now: datetime) -> str:
    age = now - instant
    words = f"{age / _DAY:.1f} days" if age >= 2 * _DAY else f"{age / timedelta(hours=1):.1f} hours"
    return f"{instant:%Y-%m-%d %H:%M %Z}, {words} ago"


def _of_partner_center() -> bytes | None:
    """The summary by the stored token, which is left as it is."""
    settings = partner_center_settings()
    given = settings.refresh_token
    vault = None if isinstance(given, GivenRefreshToken) else vault_of(settings)[0]
    settings = with_client_secret(settings)
    with session_for(PATIENCE, settings.ca_bundle) as session:
        token = given.value if isinstance(given, GivenRefreshToken) else ""
        if vault is not None:
            token = vault.read(session).value
        tokens = Entra(settings, session).redeem(token, f"{settings.cloud.resource}/.default")
    fetched = usage_summary(settings, tokens)
    return fetched.body if fetched.no_usage_data is None else None


def _of_app(url: str, report: Report) -> bytes | None:
    key, trusted = setting_and_ca_bundle(KEY)
    response = _get(url, key, trusted)
    if response.status == HTTPStatus.UNAUTHORIZED and not key:
        key = read_secret("The function's key")
        response = _get(url, key, trusted) if key else response
    if response.status == HTTPStatus.UNAUTHORIZED:
        raise ConfigurationError(
            "the app wants another function key" if key else "the app wants its function key",
            hint=f"Set {KEY}, or pipe the key into this command; the portal shows it under App keys.",
        )
    if response.status == HTTPStatus.OK:
        report.add("app", "From", url)
        age = response.headers.get("Age", "")
        if re.fullmatch(r"[0-9]{1,10}", age):
            report.add("ageInSeconds", "Asked", int(age), said=f"{int(age) // 60} minutes ago")
        report.add("cacheStatus", "Cache-Status", response.headers.get("Cache-Status"))
        return response.body
    _raise_problem(response)
    return None


def _get(url: str, key: str, trusted: str | None) -> _Reply:
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("the function's key has characters that no key has")
    headers = {"Accept": "application/json", "MS-CorrelationId": str(uuid.uuid4())}
    if key:
        headers["x-functions-key"] = key
    with session_for(_TIME_ALLOWED, trusted) as session:
        timeout = (CONNECT_TIMEOUT, None)
        response = session.get(url, headers=headers, allow_redirects=False, stream=True, timeout=timeout)
        body = b""
        for chunk in response.iter_content(SIZE_LIMIT):
            body += chunk
            if len(body) > SIZE_LIMIT:
                raise UpstreamInvalidError("the answer is larger than 1 MiB")
        return _Reply(response.status_code, response.headers, body)


def _raise_problem(response: _Reply) -> None:
    """Raise the error that a problem of the app stands for; no usage data is none."""
    try:
        problem = json.loads(response.body)
    except (ValueError, RecursionError):
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    code = str(problem.get("code"))
    if code == "no-usage-data":
        return
    kinds = {each.code: kind for kind, each in PROBLEMS.items()}
    kind = kinds.get(code, UpstreamRefusedError)
    said = f"the app answered {response.status}" + (f" {code}" if code in kinds else "")
    detail = (
        problem.get("detail")
        if code in kinds
        else "Check --url: nothing there answers as this app does, whose path has no /api."
    )
    reply = UpstreamReply(response.status, request_id=problem.get("requestId")) if code in kinds else None
    raise kind(said, hint=None if detail is None else str(detail), reply=reply)
