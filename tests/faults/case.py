"""A row of the table of faults: what breaks, what callers see meanwhile, how it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from shared.app import App
from shared.problems import Response
from tests.faults.acts import Act, as_always
from tests.faults.scene import NEW, STORED, Scene

STATUS = {
    "no-usage-data": 404,
    "configuration": 500,
    "consent-required": 502,
    "upstream-refused": 502,
    "upstream-invalid": 502,
    "upstream-unavailable": 503,
    "upstream-timeout": 504,
}
NO_DATA, CONFIGURATION, CONSENT, REFUSED, INVALID, UNAVAILABLE, TIMEOUT = STATUS

_NAMES = {NEW: "new", STORED: "stored"}


class State(Enum):
    """What there is when the app starts."""

    NOTHING = "nothing stored"
    STALE = "stale stored"


@dataclass(frozen=True)
class Seen:
    """What a caller sees: a problem's code, or a document and its Cache-Status without name and ttl."""

    code: str = ""
    document: bytes = b""
    how: str = ""
    upstream: int | None = None
    """Partner Center's status, where the problem comes of its answer."""
    number: int | None = None
    """Partner Center's own code."""

    @property
    def status(self) -> int:
        return STATUS[self.code] if self.code else 200

    @property
    def waiting_helps(self) -> bool:
        """Whether callers are told when to come again."""
        return self.code not in {NO_DATA, CONFIGURATION, CONSENT}

    def __str__(self) -> str:
        if self.code:
            return f"{self.status} `{self.code}`"
        return f"200, {_NAMES[self.document]}" + (f", `{self.how}`" if self.document == STORED else "")


@dataclass(frozen=True)
class Recovery:
    """How long it takes, at most, until callers get what Partner Center says by then, and what else it takes.

    `tries` refreshes at equal distances, of which the last one works; or, `behind` a caller who is served
    first, the one that works.
    """

    seconds: int
    when: str
    tries: int = 1
    behind: bool = False
    rests: bool = True
    """Whether nobody asks again at once."""
    retry_after: int | None = None
    """Seconds, which callers are told; None where no more is promised than that they are told some."""

    def __str__(self) -> str:
        return self.when.format(self.seconds)


ITSELF = Recovery(20, "by itself, within {} s")
REPAIRED = Recovery(60, "within {} s of the repair")
UNNOTICED = Recovery(3 * 3600, "no caller notices")
SHARED_AGAIN = Recovery(3 * 3600, "no caller notices; the next answer is shared again")


def told(seconds: int) -> Recovery:
    """Partner Center or Entra has said when to come again; storage's clock, by which that goes, is coarse."""
    when = f"by itself, when the {seconds} s of Retry-After are over"
    return Recovery(seconds + 2, when, retry_after=seconds)


@dataclass(frozen=True)
class Effect:
    """What callers see in each state, and how it ends."""

    nothing: Seen
    stale: Seen
    recovery: Recovery


def stored(how: str) -> Seen:
    """The stale document."""
    return Seen(document=STORED, how=how)


def fails(
    code: str, upstream: int | None = None, number: int | None = None, recovery: Recovery | None = None
) -> Effect:
    """A refresh fails, by an answer of Partner Center where its status is given."""
    how = "fwd=stale" + (f"; fwd-status={upstream}" if upstream else "")
    usual = REPAIRED if code in {CONFIGURATION, CONSENT} else ITSELF
    return Effect(Seen(code, upstream=upstream, number=number), stored(how), recovery or usual)


FETCHED = Seen(document=NEW, how="fwd=uri-miss; fwd-status=200; stored")
RENEWED = Seen(document=NEW, how="fwd=stale; fwd-status=200; stored")
FINE = Effect(FETCHED, RENEWED, UNNOTICED)


@dataclass(frozen=True)
class Case:
    """A fault: how it begins before the app starts, what comes of it, and how it ends."""

    what: str
    begin: Act
    effect: Effect
    end: Act = Scene.heal
    gate: str = ""
    """The setting whose service is behind the gate."""
    ask: Callable[[Scene, App], Response] = Scene.ask
    proof: Act = as_always
    """What else is right when all is over."""

    def seen(self, state: State) -> Seen:
        return self.effect.nothing if state is State.NOTHING else self.effect.stale
