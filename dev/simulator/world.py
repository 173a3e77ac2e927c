"""The world around the app: what Entra, Partner Center, Key Vault and the identity endpoint know.

Tests in the same process move its fields directly. No call takes longer for the tokens and exchanges of
before: 400 days of redemptions must stay cheap.
"""

import dataclasses
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from dev.simulator.issuer import Issuer
from dev.simulator.records import (
    BOM,
    DOCUMENT,
    PARTNER_CENTER,
    SECRET_NAME,
    TOKEN_EXCHANGE,
    AuthorizationCode,
    DeletedSecret,
    Exchange,
    RefreshToken,
    SecretVersion,
    now,
)
from dev.simulator.scenarios import SCENARIOS, Refusal
from dev.simulator.wire import Fault, Service

__all__ = [
    "BOM",
    "DOCUMENT",
    "PARTNER_CENTER",
    "SECRET_NAME",
    "TOKEN_EXCHANGE",
    "Exchange",
    "RefreshToken",
    "SecretVersion",
    "World",
    "now",
]

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class World(Issuer):
    """The state that all parts share. Its repr shows no secret.

    What scenarios break, and choosing another heals, stands together below.
    """

    client_secret: str = ""
    identity_header: str = ""
    certificate: str | None = None  # PEM; the app registration's
    redirect_uris: set[str] = field(default_factory=lambda: {"http://localhost"})
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    codes: dict[str, AuthorizationCode] = field(default_factory=dict)
    secrets: dict[str, list[SecretVersion]] = field(default_factory=dict)
    deleted_secrets: dict[str, DeletedSecret] = field(default_factory=dict)
    recovery: int = 0  # calls that find a recovered secret not there yet
    recovering: dict[str, int] = field(default_factory=dict)  # how many of those calls are left
    document: bytes = DOCUMENT  # without BOM
    refresh_in: timedelta | None = None
    delay: float = 3.0  # seconds, of Delivery.LATE
    drip: float = 0.2  # seconds a byte, of Delivery.DRIPPING
    exchanges: list[Exchange] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    observer: Callable[[Exchange], None] = lambda _: None

    scenario: str = "healthy"
    faults: dict[Service, Fault] = field(default_factory=dict)
    bom: bool = True
    app_only: bool = False
    secret_expired: bool = False
    sign_in_error: tuple[str, int] | None = None  # OAuth's word, and the number after AADSTS
    person_has_mfa: bool = True
    has_partner_role: bool = True
    vault_forbidden: bool = False  # to everybody
    vault_read_only: bool = False  # to everybody
    operator_has_role: bool = True  # at the vault
    operator_signed_in: bool = True  # by `az login`
    _refused: tuple[int, Refusal | None] = (0, None)  # that many refresh tokens, and why
    _mfa: tuple[int, bool] = (0, True)  # that many refresh tokens have it, or have not
    _consents: int = 0  # refresh tokens so far

    def __post_init__(self) -> None:
        """Consent once, so that a new world is a healthy one."""
        self.client_secret = self.client_secret or f"sim~{self.canary}~client"
        self.identity_header = self.identity_header or f"{self.canary}-identity"
        self.remember(self.client_secret)
        self.remember(self.identity_header)
        self.consent()
        self.choose(self.scenario)

    def canaries(self) -> set[str]:
        """Every secret so far: client secret, identity header, codes, refresh, access, id, other tokens."""
        return {*self._minted, self.client_secret, self.identity_header}

    def choose(self, name: str) -> None:
        """Heal the world, then let the scenario happen. Raises ValueError, with the names, for others."""
        if name not in SCENARIOS:
            raise ValueError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
        self.scenario = name
        self._heal()
        scenario = SCENARIOS[name]
        if scenario.fault:
            self.faults[scenario.fault.service] = dataclasses.replace(scenario.fault)
        if scenario.effect:
            scenario.effect(self)

    def _heal(self) -> None:
        self.faults.clear()
        self.bom, self.app_only, self.secret_expired = True, False, False
        self.sign_in_error, self.person_has_mfa, self.has_partner_role = None, True, True
        self.vault_forbidden, self.vault_read_only = False, False
        self.operator_has_role, self.operator_signed_in = True, True
        self._refused, self._mfa = (self._consents, None), (self._consents, True)
        self.recovering.clear()
        if SECRET_NAME in self.deleted_secrets:
            self.secrets[SECRET_NAME] = self.deleted_secrets.pop(SECRET_NAME).versions
        if SECRET_NAME not in self.secrets:
            self.consent()

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
        token = self.remember(f"1.{self.canary}.{secrets.token_urlsafe(32)}")
        self.refresh_tokens[token] = RefreshToken(user or self.user, mfa, self.clock(), self._consents)
        self._consents += 1
        return token

    def authorization_code(self, code: AuthorizationCode) -> str:
        """The text that this code is redeemed by."""
        text = self.remember(f"0.{self.canary}.{secrets.token_urlsafe(32)}")
        self.codes[text] = code
        return text

    def refusal(self, token: RefreshToken) -> Refusal | None:
        """Why Entra takes this refresh token no longer, its age apart."""
        before, refusal = self._refused
        return refusal if token.number < before else None

    def has_mfa(self, token: RefreshToken) -> bool:
        """Whether what is redeemed by this refresh token bears the claim of MFA."""
        before, mfa = self._mfa
        return mfa if token.number < before else token.mfa

    def refuse_consents(self, refusal: Refusal) -> None:
        """Refuse every consent so far from now on, and the access tokens made of it."""
        self._refused = (self._consents, refusal)
        self.withdraw_access_tokens()

    def forget_mfa(self) -> None:
        """Every consent so far was given without MFA; the access tokens made of it count no longer."""
        self._mfa = (self._consents, False)
        self.withdraw_access_tokens()

    def store(self, name: str, value: str) -> SecretVersion:
        """Put a new version of a secret into the vault, even if it is deleted there."""
        if name in self.deleted_secrets:
            self.secrets[name] = self.deleted_secrets.pop(name).versions
        self.recovering.pop(name, None)
        instant = int(self.clock().timestamp())
        version = SecretVersion(value, instant, instant)
        self.secrets.setdefault(name, []).append(version)
        return version

    def delete_secret(self, name: str) -> DeletedSecret:
        """Soft-delete a secret with all its versions. Raises KeyError when there is none."""
        deleted = DeletedSecret(self.secrets.pop(name), int(self.clock().timestamp()))
        self.deleted_secrets[name] = deleted
        return deleted

    def recover_secret(self, name: str) -> SecretVersion:
        """Bring a deleted secret back, which `recovery` calls do not see yet. Raises KeyError."""
        self.secrets[name] = self.deleted_secrets.pop(name).versions
        if self.recovery:
            self.recovering[name] = self.recovery
        return self.secrets[name][-1]
