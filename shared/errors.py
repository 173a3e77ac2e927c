"""The error tree, by whose fault it is.

UsageSummaryError
├── OperatorError              somebody must act
│   ├── ConfigurationError     settings, client authentication or the vault's permission are wrong
│   └── ConsentRequiredError   a person has to sign in again
├── UpstreamError              Partner Center, or the sign-in before it
│   ├── UpstreamRefusedError      says no
│   ├── UpstreamInvalidError      says something that is no usage summary
│   ├── UpstreamUnavailableError  does not say anything useful just now
│   └── UpstreamTimeoutError      does not say anything in time
├── NotCachedError             the request allows a stored answer only, and there is none that it allows
└── StorageError               Blob Storage
    ├── BlobConflictError      somebody else wrote first
    ├── StorageRefusedError    the identity has no role for that
    ├── BlobUnreadableError    a blob cannot be read as it is; others can
    ├── ContainerMissingError  the dated snapshots are gone, and their history is there
    └── RecordError            the record could not be written, or a run has nothing to record

A code is the problem's that callers see; storage's errors never reach one, and have codes for the log and the
operators' commands. A message is for the operator: it may name settings and codes and never holds a token, a
secret or a body. A hint says what the operator does about it, and holds nothing private.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """What Microsoft's support asks for: the answer that caused an error."""

    status: int
    code: str | None = None
    request_id: str | None = None


class UsageSummaryError(Exception):
    """Whatever goes wrong in this app; raise one of its leaves."""

    code: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        reply: UpstreamReply | None = None,
        retry_after: timedelta | None = None,
        hint: str | None = None,
        asked: bool = True,
    ) -> None:
        """`asked` is False when no call was made: then no service needs a rest."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reply = reply
        self.retry_after = retry_after
        self.asked = asked


class OperatorError(UsageSummaryError):
    """Waiting does not help; somebody must act."""


class ConfigurationError(OperatorError):
    """Settings are missing or contradictory, Entra refuses the client, or the vault refuses the app."""

    code = "configuration"


class ConsentRequiredError(OperatorError):
    """The stored consent no longer works, or none is stored."""

    code = "consent-required"


class UpstreamError(UsageSummaryError):
    """Partner Center or the sign-in before it did not give a usage summary."""


class UpstreamRefusedError(UpstreamError):
    """Partner Center refuses the request."""

    code = "upstream-refused"


class UpstreamInvalidError(UpstreamError):
    """A success that holds no usage summary."""

    code = "upstream-invalid"


class UpstreamUnavailableError(UpstreamError):
    """No useful answer now; `retry_after` where the upstream named a time."""

    code = "upstream-unavailable"


class UpstreamTimeoutError(UpstreamError):
    """No answer within the budget."""

    code = "upstream-timeout"


class NotCachedError(UsageSummaryError):
    """`only-if-cached`, and nothing is stored that the request allows."""

    code = "not-cached"


class StorageError(UsageSummaryError):
    """Blob Storage failed or refused."""

    code = "storage"


class BlobConflictError(StorageError):
    """The condition of a write did not hold: somebody else wrote first."""


class StorageRefusedError(StorageError):
    """The identity may not do this; somebody must give it a role."""


class BlobUnreadableError(StorageError):
    """A blob cannot be read through its own fault: it is archived, for example. Others can be read."""


class ContainerMissingError(StorageError):
    """The container of the dated snapshots is missing, while its history is there: somebody must act."""

    code = "record"


class RecordError(StorageError):
    """A run could not bring the record up to date."""

    code = "record"
