"""What an answer of Partner Center means, status by status."""

import json
from datetime import timedelta

import pytest

from shared.errors import (
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.replies import Fetched, Response, broke_off, read_reply, reply_of

OURS, ECHOED = "6f1f1a0e-4a55-4d0c-9e61-0a6a3c3b9d01", "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"
CORRELATION = "0d9f1f0e-3c5e-4a55-9d0a-6a4f3f1f2b11"
BODY = b'{"totalCost":1.10}'
KB = 1024


def answered(status: int, body: bytes = b"", *, is_whole: bool = True, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): text for name, text in headers.items()}, body, is_whole)


def coded(status: int, code: object) -> Response:
    return answered(status, json.dumps({"code": code}).encode())


def read(response: Response) -> Fetched:
    return read_reply(response, reply_of(response, OURS), CORRELATION, 1000.5)


def failure(response: Response) -> UsageSummaryError:
    with pytest.raises(UsageSummaryError) as raised:
        read(response)
    assert raised.value.reply == reply_of(response, OURS)
    return raised.value


def test_a_usage_summary_is_its_bytes_and_the_call() -> None:
    assert read(answered(200, BODY)) == Fetched(BODY, None, OURS, CORRELATION, 1000.5, None)
    assert read(answered(299, BODY)).body == BODY


@pytest.mark.parametrize(("echoed", "expected"), [(ECHOED, ECHOED), ("", OURS), ("XXXX", OURS)])
def test_the_request_id_is_partner_centers_if_it_is_one(echoed: str, expected: str) -> None:
    assert read(answered(200, BODY, MS_RequestId=echoed)).request_id == expected


@pytest.mark.parametrize(("text", "expected"), [("", None), ("True", True), ("true", True), ("false", False)])
def test_whether_the_token_comes_of_mfa_is_told_where_it_was_asked(
    text: str, *, expected: bool | None
) -> None:
    assert read(answered(200, BODY, isMfaCompliant=text)).is_mfa_compliant is expected


@pytest.mark.parametrize("status", [400, 404])
def test_code_3000_says_that_there_is_no_usage_data(status: int) -> None:
    fetched = read(coded(status, 3000))
    assert (fetched.body, fetched.no_usage_data) == (b"", UpstreamReply(status, "3000", OURS))


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (answered(200, BODY, is_whole=False), UpstreamInvalidError, "the answer broke off"),
        (answered(200, b"[]"), UpstreamInvalidError, "the answer is not a JSON object"),
        (answered(199), UpstreamRefusedError, "Partner Center answered 199"),
        (answered(300, BODY), UpstreamRefusedError, "Partner Center answered 300"),
        (coded(400, 2000), UpstreamRefusedError, "Partner Center answered 400 with code 2000"),
        (coded(403, 3000), UpstreamRefusedError, "Partner Center answered 403 with code 3000"),
        (coded(401, 3000), UpstreamRefusedError, "Partner Center answered 401 with code 3000"),
        (coded(403, 900421), UpstreamRefusedError, "Partner Center answered 403 with code 900421"),
        (answered(499), UpstreamRefusedError, "Partner Center answered 499"),
        (answered(500), UpstreamUnavailableError, "Partner Center answered 500"),
        (coded(503, "2001"), UpstreamUnavailableError, "Partner Center answered 503 with code 2001"),
    ],
)
def test_anything_else_is_an_error(response: Response, kind: type[UsageSummaryError], message: str) -> None:
    error = failure(response)
    assert (type(error), error.message, error.retry_after) == (kind, message, None)


@pytest.mark.parametrize("code", ["900421", "10001"])
def test_a_token_without_mfa_needs_a_new_consent(code: str) -> None:
    error = failure(coded(401, int(code)))
    said = f"Partner Center answered 401 with code {code}: the consent was given without MFA"
    assert (type(error), error.message) == (ConsentRequiredError, said)
    assert error.hint is not None


@pytest.mark.parametrize("seconds", [0, 20])
@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_again_is_kept(status: int, seconds: int) -> None:
    assert failure(answered(status, Retry_After=f"{seconds}")).retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize("response", [answered(429), answered(429, Retry_After="soon"), coded(429, 2000)])
def test_a_429_that_names_no_time_asks_for_a_minute(response: Response) -> None:
    error = failure(response)
    assert (type(error), error.retry_after) == (UpstreamUnavailableError, timedelta(minutes=1))


@pytest.mark.parametrize(
    ("body", "is_whole", "expected"),
    [
        (b"[", False, True),
        (BODY, False, True),
        (b"[", True, False),
        (b"[]", None, False),
        (b"\xef\xbb\xbfnull", None, False),
        (b"", None, True),
        (b"<html>", None, True),
        (BODY[:-1], None, True),
        pytest.param(b"[" * 60_000, None, True, id="absurd nesting"),
        pytest.param(b"[".ljust(1024 * KB + 1), None, False, id="larger than a summary may be"),
    ],
)
def test_an_answer_broke_off_if_its_framing_says_so_or_else_if_it_is_no_json(
    body: bytes, *, is_whole: bool | None, expected: bool
) -> None:
    assert broke_off(Response(200, {}, body, is_whole)) is expected


def test_a_refusal_has_the_hint_of_its_code_or_of_its_status() -> None:
    hints = [failure(each).hint for each in (coded(403, 900308), answered(403), answered(401), answered(418))]
    assert hints[3] is None
    assert None not in hints[:3]
    assert len(set(hints[:3])) > 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"code":2000}', "2000"),
        (b'{"code":"2000"}', "2000"),
        (b'\xef\xbb\xbf{"code":2000}', "2000"),
        (b'{"code":"1234567890"}', "1234567890"),
        (b'{"code":"12345678901"}', None),
        (b'{"code":""}', None),
        ('{"code":"٢"}'.encode(), None),
        (b'{"code":"2000 "}', None),
        (b'{"code":null}', None),
        (b"{}", None),
        (b"[2000]", None),
        (b"<html>", None),
        (b"\xff", None),
        pytest.param(b"[" * 30_000, None, id="absurd nesting"),
        pytest.param(b'{"code":2000}'.ljust(64 * KB), "2000", id="64 KiB"),
        pytest.param(b'{"code":2000}'.ljust(64 * KB + 1), None, id="a byte more"),
    ],
)
def test_an_error_code_is_a_number_of_some_digits_in_a_small_document(body: bytes, code: str | None) -> None:
    assert reply_of(answered(500, body), OURS) == UpstreamReply(500, code, OURS)
    for success in (200, 299):
        assert reply_of(answered(success, body), OURS).code is None
    assert reply_of(answered(300, body), OURS).code == code
