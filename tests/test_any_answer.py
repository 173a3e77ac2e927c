"""Whatever Partner Center answers, from the wire to the caller."""

import json
import math
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simplejson import RawJSON

from dev.simulator import Fault, Service, Simulator
from shared.usage_summary import dump
from tests.conftest import ManualClock
from tests.memory import Memory
from tests.test_functions import app, problem
from tests.test_usage_summary import BOM, documents, names, numbers

__all__ = ["app"]  # a fixture

PC = Service.PARTNER_CENTER
BRIEF = {
    "USAGE_CACHE_FRESH_SECONDS": "1",
    "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": "0",
    "USAGE_CACHE_STALE_IF_ERROR_SECONDS": "0",
    "USAGE_CACHE_MIN_REFRESH_SECONDS": "1",
}
LONGEST_REST = timedelta(seconds=65)

CODES = [3000, "3000", 900421, "10001", 1000, 2000, None, True, 3000.0, "x", [3000]]
KINDS = st.sampled_from(["PartnerUsageSummary", "CustomerUsageSummary", None, 7])
SUMMARIES = st.builds(
    lambda others, rest: dump(others | rest),
    st.dictionaries(names, documents, max_size=3),
    st.fixed_dictionaries(
        {"totalCost": numbers.map(RawJSON) | numbers.map(RawJSON) | documents},
        optional={"attributes": documents | st.fixed_dictionaries({"objectType": KINDS})},
    ),
)
REFUSALS = st.sampled_from([json.dumps({"code": code, "description": "…"}).encode() for code in CODES])
BODIES = st.builds(
    lambda mark, body, end: mark + body[:end],
    st.sampled_from([b"", b"", BOM, BOM + BOM, b" ", b"\xff"]),
    SUMMARIES | REFUSALS | st.binary(max_size=60),
    st.sampled_from([None, None, None, -1, 9]),
)
STATUSES = st.sampled_from([*[200] * 6, 201, 206, 302, 400, 401, 403, 404, 404, 409, 429, 500, 503, 599])
RETRY_AFTER = st.sampled_from([None, "3", "30", "soon", "-1", "Sat, 99 Nov 2026 08:00:00 GMT"])


class Number(str):
    """A number of a JSON document, as it is written."""

    __slots__ = ()


def members_of(body: bytes) -> dict[str, Any]:
    """Those of a JSON object, by other means than the app's own; none where it is no such thing."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(body.decode(), parse_int=Number, parse_float=Number, parse_constant=refuse)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def expected(status: int, body: bytes) -> tuple[int, str | None]:
    """Status and code of the response, by the contract, when nothing usable is stored."""
    members = members_of(body.removeprefix(BOM))
    code, total, attributes = (members.get(name) for name in ("code", "totalCost", "attributes"))
    if status in {200, 201, 206}:
        kind = attributes.get("objectType") if isinstance(attributes, dict) else None
        is_summary = isinstance(total, Number) and math.isfinite(float(total))
        is_ours = kind in (None, "PartnerUsageSummary")
        return (200, None) if is_summary and is_ours else (502, "upstream-invalid")
    if status in {400, 404} and code == "3000":
        return 404, "no-usage-data"
    if status == 401 and code in ("900421", "10001"):
        return 502, "consent-required"
    return (503, "upstream-unavailable") if status == 429 or status >= 500 else (502, "upstream-refused")


def test_it_is_the_callers_byte_for_byte_or_the_contracts_problem(
    app: Callable[..., SimpleNamespace],  # the fixture
    simulator: Simulator,
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Memory(lambda: manual_clock.instant)
    monkeypatch.setattr("shared.app.Container", lambda *_: cache)
    started = app(**BRIEF)

    @settings(max_examples=60)
    @given(STATUSES, BODIES, RETRY_AFTER)
    def answer(status: int, body: bytes, retry_after: str | None) -> None:
        headers = {} if retry_after is None else {"retry-after": retry_after}
        simulator.world.faults[PC] = Fault(PC, status, lambda _: body, headers)
        manual_clock.instant += LONGEST_REST

        response = started.get()

        if response.status_code == 200:
            assert response.get_body() == body.removeprefix(BOM)
            found = 200, None
        else:
            found = response.status_code, problem(response)["code"]
        assert found == expected(status, body)

    answer()
