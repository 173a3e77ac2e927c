"""What a command found out: lines for a person as they come, or one JSON object at the end."""

import sys
from collections.abc import Mapping
from datetime import datetime

import simplejson
from tabulate import tabulate

from shared.errors import (
    ConsentRequiredError,
    ContainerMissingError,
    OperatorError,
    RecordError,
    StorageRefusedError,
    UpstreamRefusedError,
    UsageSummaryError,
)
from shared.usage_summary import Json

type Fact = Json | float | datetime

_WIDTH = 24


class Report:
    """Facts by name; never a token, a secret or a key among them."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._facts: dict[str, Fact] = {}

    def add(self, name: str, label: str, value: Fact, *, said: str | None = None) -> None:
        """A fact: its name in JSON, its label, and words for a person where the value says too little."""
        if isinstance(value, datetime):
            value = value.isoformat(timespec="seconds").replace("+00:00", "Z")
        self._facts[name] = value
        if not self._as_json:
            text = _words(value if said is None else said)
            if text:
                print(f"{label:<{_WIDTH}}{text}", flush=True)

    def line(self, label: str, text: str) -> None:
        """A fact's words for a person; no part of the JSON."""
        if not self._as_json:
            print(f"{label:<{_WIDTH}}{_words(text)}", flush=True)

    def table(
        self, name: str, rows: list[dict[str, Json]], headers: Mapping[str, str], said: list[list[str]]
    ) -> None:
        """Rows: as objects in JSON, as a table of words for a person."""
        self._facts[name] = [*rows]
        if not self._as_json:
            cells = [list(map(_words, row)) for row in said]
            print(tabulate(cells, list(headers.values()), disable_numparse=True, stralign="right"))

    def say(self, text: str) -> None:
        """What a person has to know or do meanwhile; no part of the JSON."""
        print(text, file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def fail(self, error: UsageSummaryError) -> None:
        """Why the command did not do its work, and what to do about it."""
        reply = error.reply
        self._facts |= {
            "error": error.code,
            "message": error.message,
            "hint": error.hint,
            "requestId": reply.request_id if reply else None,
        }
        if not self._as_json:
            print(f"{error.code}: {error.message.replace('; ', '\n  ')}", file=sys.stderr)
            if reply and reply.request_id:
                print(f"Partner Center's request id: {_words(str(reply.request_id))}", file=sys.stderr)
            if error.hint:
                print(_words(error.hint), file=sys.stderr)

    def defect(self, where: str) -> None:
        """A failure that nobody foresaw."""
        self._facts |= {"error": "defect", "message": where}
        if not self._as_json:
            print(f"defect: {where}; please report it", file=sys.stderr)

    def end(self) -> None:
        """Print the JSON, if that is wanted."""
        if self._as_json:
            facts = {name: value for name, value in self._facts.items() if value is not None}
            print(simplejson.dumps(facts, ensure_ascii=False))


class NotSoundError(RecordError):
    """The record has been looked at, and is not sound."""


def exit_code(error: UsageSummaryError) -> int:
    """4 when the record is not sound or lacks its container, 3 when a person has to sign in.

    2 when settings or roles are wrong, 1 when trying again may help.
    """
    if isinstance(error, (NotSoundError, ContainerMissingError)):
        return 4
    if isinstance(error, ConsentRequiredError):
        return 3
    return 2 if isinstance(error, (OperatorError, UpstreamRefusedError, StorageRefusedError)) else 1


def _words(value: Fact) -> str:
    match value:
        case None | []:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_words, value))
        case str():  # which may come of others, and command a terminal
            return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
        case _:
            return simplejson.dumps(value, ensure_ascii=False)
