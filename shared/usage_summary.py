"""What a usage summary is: decode it, check it, keep every digit.

A number is never made a float: it stays the text that came, in a RawJSON. Source of the fields:
learn.microsoft.com/partner-center/developer/customer-usage-resources, PartnerUsageSummary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import simplejson
from simplejson import RawJSON

from shared.errors import UpstreamInvalidError

SIZE_LIMIT = 1024 * 1024
"""Bytes; a real one has about 600."""

_BOM = b"\xef\xbb\xbf"
_SPARE_LEVELS = 20  # of nesting, for what is around it in a snapshot, and for whoever reads that one day

type Json = bool | str | RawJSON | list[Json] | dict[str, Json] | None


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """A usage summary: `body` for callers, as it came but for the byte-order mark, and its members.

    `members` lack emailsToNotify, at any depth: it is personal data, and members are what is recorded.
    """

    body: bytes = field(repr=False)
    members: dict[str, Json] = field(repr=False)


def read_usage_summary(body: bytes) -> UsageSummary:
    """The usage summary in the body of an upstream success, with or without byte-order mark.

    Raises UpstreamInvalidError when it is none: a usage summary is a JSON object in UTF-8 of at most 1 MiB
    with a finite number totalCost and, where there is one, attributes.objectType PartnerUsageSummary.
    """
    body = body.removeprefix(_BOM)
    if len(body) > SIZE_LIMIT:
        raise UpstreamInvalidError("the answer is larger than 1 MiB")
    try:
        document = parse(body)
        dump(parse(b"[" * _SPARE_LEVELS + body + b"]" * _SPARE_LEVELS))  # as deep as the record may need it
    except (ValueError, RecursionError):
        raise UpstreamInvalidError("the answer is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise UpstreamInvalidError("the answer is not a JSON object")
    if not is_finite(document.get("totalCost")):
        raise UpstreamInvalidError("the answer has no finite number totalCost")
    attributes = document.get("attributes")
    object_type = attributes.get("objectType") if isinstance(attributes, dict) else None
    if object_type not in (None, "PartnerUsageSummary"):
        raise UpstreamInvalidError("the answer's attributes.objectType is not PartnerUsageSummary")
    return UsageSummary(body, document)


def parse(text: bytes) -> Json:
    """JSON in UTF-8 to values, each number as it is written, without emailsToNotify.

    Raises ValueError or, for absurd nesting, RecursionError.
    """
    return _parse(text, _without_personal_data)


def has_personal_data(text: bytes) -> bool:
    """Whether JSON in UTF-8 has emailsToNotify, at any depth and however it is written; raises as parse."""
    names: list[str] = []
    _parse(text, lambda pairs: names.extend([name for name, _ in pairs]))
    return any(map(_is_personal, names))


def dump(value: Json, *, indent: int | None = None) -> bytes:
    """Values to JSON in UTF-8, each number as it was written; half a surrogate pair makes all of it ASCII."""
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return simplejson.dumps(value, ensure_ascii=False, indent=indent, separators=separators).encode()
    except UnicodeEncodeError:
        return simplejson.dumps(value, indent=indent, separators=separators).encode()


def is_finite(value: Json) -> bool:
    """Whether a value is a number that callers, who have IEEE doubles, read as finite."""
    return isinstance(value, RawJSON) and math.isfinite(float(value.encoded_json))


def _parse(text: bytes, hook: Callable[[list[tuple[str, Json]]], object]) -> Json:
    value: Json = simplejson.loads(
        text.decode(), parse_int=RawJSON, parse_float=RawJSON, object_pairs_hook=hook
    )
    return value


def _without_personal_data(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    return {name: value for name, value in pairs if not _is_personal(name)}


def _is_personal(name: str) -> bool:
    return name.casefold() == "emailstonotify"
