"""What the world remembers, and the names and numbers that its parts agree on."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from dev.simulator.wire import Service

PARTNER_CENTER = "https://api.partnercenter.microsoft.com"
KEY_VAULT = "https://vault.azure.net"
STORAGE = "https://storage.azure.com/"
TOKEN_EXCHANGE = "api://AzureADTokenExchange"  # noqa: S105 an audience
SECRET_NAME = "partner-center-refresh-token"  # noqa: S105 a name
REFRESH_TOKEN_LIFE = timedelta(days=90)  # learn.microsoft.com, entra/identity-platform/refresh-tokens
CODE_LIFE = timedelta(minutes=10)  # ditto, v2-oauth2-auth-code-flow
RETENTION = timedelta(days=90)  # learn.microsoft.com, azure/key-vault/general/soft-delete-overview
EVERY_USER = "b79fbf4d-3ef9-4689-8143-76b194e85509"  # the directory role that wids names for every user
BOM = b"\xef\xbb\xbf"

DOCUMENT = (
    '{"resourceId":"5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47","id":"5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47",'
    '"resourceName":"Nordlys Ærø · Северное сияние · 北光雲端 · نور الشمال",'
    '"name":"Nordlys Ærø · Северное сияние · 北光雲端 · نور الشمال",'
    '"customersOverBudget":2,"customersTrendingOver":5,"customersWithUsageBasedSubscription":37,'
    '"emailsToNotify":["regnskab@nordlys.example","счета@nordlys.example"],'
    '"billingStartDate":"2026-10-28T00:00:00-07:00","billingEndDate":"2026-11-27T00:00:00-08:00",'
    '"totalCost":120.5682999999995904716,"currencyLocale":"da-DK",'
    '"lastModifiedDate":"2026-11-20T22:41:07.1934527+00:00",'
    '"links":{"self":{"uri":"/usagesummary","method":"GET","headers":[]}},'
    '"attributes":{"objectType":"PartnerUsageSummary"}}'
).encode()


def now() -> datetime:
    """The machine's clock, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class RefreshToken:
    """A consent: who gave it, whether with MFA, when (UTC), and which of the world's it is, counted from 0.

    Whether it still counts is the world's to say: World.refusal, World.has_mfa.
    """

    user: str
    mfa: bool
    issued: datetime
    number: int


@dataclass
class AuthorizationCode:
    """A sign-in that waits for its redemption, and what that is bound to."""

    user: str
    mfa: bool
    issued: datetime
    redirect_uri: str
    challenge: str
    nonce: str | None
    scopes: frozenset[str]
    redeemed: bool = False


@dataclass
class SecretVersion:
    """One version of a secret in the vault; instants are seconds since 1970, as on the wire."""

    value: str
    created: int
    updated: int
    version: str = field(default_factory=lambda: uuid4().hex)
    content_type: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, int | bool] = field(default_factory=lambda: {"enabled": True})


@dataclass
class DeletedSecret:
    """A soft-deleted secret: its versions, and when it went, seconds since 1970."""

    versions: list[SecretVersion]
    deleted: int


@dataclass
class Exchange:
    """What crossed the wire. Header names are in lower case; a status of None is an answer never sent."""

    service: Service
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    status: int | None = None
