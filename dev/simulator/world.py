"""The world around the app: what Entra, Partner Center, Key Vault and the identity endpoint know.

Tests in the same process move its fields directly. Refresh and access tokens live on World.clock. What
libraries with a clock of their own handle (tokens of the managed identity, id tokens, client assertions by
certificate) lives on the machine's, so that moving World.clock by 91 days ages the consent and nothing else.

Every secret holds World.canary as plain text, the signed tokens too: the canary is the base64 of a claim that
stands where the encoding of the token begins a new group of three bytes.
"""

import base64
import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt

from dev.simulator.scenarios import SCENARIOS, Refusal
from dev.simulator.wire import Fault, Service

PARTNER_CENTER = "https://api.partnercenter.microsoft.com"
KEY_VAULT = "https://vault.azure.net"
STORAGE = "https://storage.azure.com/"
TOKEN_EXCHANGE = "api://AzureADTokenExchange"  # noqa: S105 an audience
SECRET_NAME = "partner-center-refresh-token"  # noqa: S105 a name
REFRESH_TOKEN_LIFE = timedelta(days=90)  # learn.microsoft.com, entra/identity-platform/refresh-tokens
IDENTITY_TOKEN_LIFE = timedelta(hours=24)
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

logger = logging.getLogger(__name__)


def now() -> datetime:
    """The machine's clock, UTC."""
    return datetime.now(UTC)


@dataclass
class RefreshToken:
    """A consent that still stands: who gave it, whether with MFA, when (UTC), and why it is refused."""

    user: str
    mfa: bool
    issued: datetime
    refused: Refusal | None = None


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
class Exchange:
    """What crossed the wire. Header names are in lower case; a status of None is an answer never sent."""

    service: Service
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    status: int | None = None


@dataclass(eq=False, repr=False)
class World:
    """The state that all parts share. Its repr shows no secret."""

    clock: Callable[[], datetime] = now
    tenant_id: str = field(default_factory=lambda: str(uuid4()))
    client_id: str = field(default_factory=lambda: str(uuid4()))
    managed_identity_client_id: str = field(default_factory=lambda: str(uuid4()))
    user: str = "partner.service@nordlys.example"
    marker: bytes = field(default_factory=lambda: b"canary" + secrets.token_hex(3).encode())
    client_secret: str = ""
    identity_header: str = ""
    certificate: str | None = None  # PEM; the app registration's
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    secrets: dict[str, list[SecretVersion]] = field(default_factory=dict)
    document: bytes = DOCUMENT  # without BOM
    bom: bool = True
    access_token_life: timedelta = timedelta(minutes=75)  # Entra: 60 to 90 minutes
    refresh_in: timedelta | None = None
    delay: float = 3.0  # seconds, of Delivery.LATE
    drip: float = 0.2  # seconds a byte, of Delivery.DRIPPING
    scenario: str = "healthy"
    faults: dict[Service, Fault] = field(default_factory=dict)
    app_only: bool = False
    secret_expired: bool = False
    vault_forbidden: bool = False
    exchanges: list[Exchange] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    observer: Callable[[Exchange], None] = lambda _: None
    withdrawn: set[str] = field(default_factory=set)  # access tokens that no longer count
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _minted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Consent once, so that a new world is a healthy one."""
        self.client_secret = self.client_secret or f"sim~{self.canary}~client"
        self.identity_header = self.identity_header or f"{self.canary}-identity"
        self._minted += [self.client_secret, self.identity_header]
        self.consent()
        self.choose(self.scenario)

    @property
    def canary(self) -> str:
        """The text that every secret of this world holds."""
        return base64.b64encode(self.marker).decode()

    def canaries(self) -> set[str]:
        """Every secret so far: client secret, identity header, refresh, access, id and identity's tokens."""
        return {*self._minted, self.client_secret, self.identity_header, *self.refresh_tokens}

    def choose(self, name: str) -> None:
        """Heal the world, then let the scenario happen. Raises ValueError, with the names, for others."""
        if name not in SCENARIOS:
            raise ValueError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
        self.scenario = name
        self.faults.clear()
        self.bom, self.app_only, self.secret_expired, self.vault_forbidden = True, False, False, False
        for token in self.refresh_tokens.values():
            token.refused, token.mfa = None, True
        if SECRET_NAME not in self.secrets:
            self.consent()
        scenario = SCENARIOS[name]
        if scenario.fault:
            self.faults[scenario.fault.service] = dataclasses.replace(scenario.fault)
        if scenario.effect:
            scenario.effect(self)

    def fault(self, service: Service, method: str) -> Fault | None:
        """What goes wrong with this call, counted."""
        fault = self.faults.get(service)
        if fault is None or fault.times == 0 or fault.method not in {None, method}:
            return None
        if fault.times is not None:
            fault.times -= 1
        return fault

    def complain(self, text: str) -> None:
        """Keep what the app did wrong without being refused for it."""
        self.complaints.append(text)
        logger.warning("simulator_complaint text=%r", text)

    def consent(self, *, mfa: bool = True) -> str:
        """A person signs in and consents: a new refresh token, stored in the vault as a new version."""
        token = self.refresh_token(mfa=mfa)
        self.store(SECRET_NAME, token)
        return token

    def refresh_token(self, *, mfa: bool = True, user: str | None = None) -> str:
        """A new live refresh token, in nobody's hands yet."""
        token = f"1.{self.canary}.{secrets.token_urlsafe(32)}"
        self.refresh_tokens[token] = RefreshToken(user or self.user, mfa, self.clock())
        self._minted.append(token)
        return token

    def store(self, name: str, value: str) -> SecretVersion:
        """Put a new version of a secret into the vault."""
        instant = int(self.clock().timestamp())
        version = SecretVersion(value, instant, instant)
        self.secrets.setdefault(name, []).append(version)
        return version

    def refuse_consents(self, refusal: Refusal) -> None:
        """Refuse every consent so far from now on, and the access tokens made of it."""
        for token in self.refresh_tokens.values():
            token.refused = refusal
        self.withdraw_access_tokens()

    def withdraw_access_tokens(self) -> None:
        """Partner Center answers 401 to every token so far, so that a change of sign-in shows at once."""
        self.withdrawn.update(self._minted)

    def access_token(
        self,
        *,
        audience: str = PARTNER_CENTER,
        mfa: bool = True,
        app_only: bool = False,
        life: timedelta | None = None,
        user: str | None = None,
    ) -> str:
        """An access token as Entra mints it for this app; a negative life makes an expired one."""
        user = user or self.user
        who: dict[str, Any] = (
            {"idtyp": "app", "roles": ["Partner.Read"]}
            if app_only
            else {"upn": user, "amr": ["pwd", "mfa"] if mfa else ["pwd"], "scp": "user_impersonation"}
        )
        instant = self.clock()
        until = instant + (self.access_token_life if life is None else life)
        return self.sign({"aud": audience, "appid": self.client_id, **who}, instant, until)

    def identity_token(self, resource: str, client_id: str) -> str:
        """A token of the managed identity, on the machine's clock."""
        audience = STORAGE if resource.rstrip("/") == STORAGE.rstrip("/") else resource
        instant = now()
        claims = {"aud": audience, "appid": client_id, "idtyp": "app"}
        return self.sign(claims, instant, instant + IDENTITY_TOKEN_LIFE)

    def sign(self, claims: dict[str, Any], issued: datetime, expires: datetime) -> str:
        """A JWT of this world, remembered as a secret."""
        # {"uti":"- is nine bytes: what follows begins a group of base64.
        token = jwt.encode(
            {
                "uti": f"-{self.marker.decode()}{secrets.token_hex(4)}",
                "iss": f"https://sts.windows.net/{self.tenant_id}/",
                "tid": self.tenant_id,
                "oid": str(uuid4()),
                "iat": int(issued.timestamp()),
                "nbf": int(issued.timestamp()),
                "exp": int(expires.timestamp()),
                **claims,
            },
            self._key,
            algorithm="HS256",
        )
        self._minted.append(token)
        return token

    def claims(self, token: str, at: float | None = None) -> dict[str, Any]:
        """The claims of a token of this world that has not ended at that instant (default: the machine's).

        Raises jwt.InvalidTokenError.
        """
        claims: dict[str, Any] = jwt.decode(
            token,
            self._key,
            algorithms=["HS256"],
            options={"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
        if claims["exp"] <= (time.time() if at is None else at):
            raise jwt.ExpiredSignatureError("expired")
        return claims
