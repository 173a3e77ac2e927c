"""What Entra signs in this world, and every secret that the world has given out.

Refresh and access tokens live on World.clock. What libraries with a clock of their own handle (tokens of the
managed identity and of operators, id tokens, client assertions by certificate) lives on the machine's, so
that moving World.clock by 91 days ages the consent and nothing else.

Every secret holds the canary as plain text, the signed tokens too: the canary is the base64 of a claim that
stands where the encoding of the token begins a new group of three bytes.
"""

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import jwt

from dev.simulator.records import EVERY_USER, PARTNER_CENTER, STORAGE, TOKEN_EXCHANGE, now

IDENTITY_TOKEN_LIFE = timedelta(hours=24)
OPERATOR_TOKEN_LIFE = timedelta(minutes=75)
AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"  # Microsoft Azure CLI, in every tenant


@dataclass(eq=False, repr=False)
class Issuer:
    """A tenant with its app, its managed identity and its people. Its repr shows no secret."""

    clock: Callable[[], datetime] = now
    tenant_id: str = field(default_factory=lambda: str(uuid4()))
    client_id: str = field(default_factory=lambda: str(uuid4()))
    managed_identity_client_id: str = field(default_factory=lambda: str(uuid4()))
    managed_identity_object_id: str = field(default_factory=lambda: str(uuid4()))
    user: str = "partner.service@nordlys.example"
    operator: str = "operator@nordlys.example"
    directory_roles: list[str] = field(default_factory=lambda: [EVERY_USER])  # role template ids of the user
    token_exchange_audience: str = TOKEN_EXCHANGE  # the federated credential's, which depends on the cloud
    access_token_life: timedelta = timedelta(minutes=75)  # Entra: 60 to 90 minutes
    marker: bytes = field(default_factory=lambda: b"canary" + secrets.token_hex(3).encode())
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _minted: dict[str, int] = field(default_factory=dict)  # every secret, and how many were before it
    _withdrawn: int = 0  # how many of those count no longer

    @property
    def canary(self) -> str:
        """The text that every secret of this world holds."""
        return base64.b64encode(self.marker).decode()

    @property
    def federation_issuer(self) -> str:
        """Who signs what a managed identity may be exchanged for."""
        return f"https://login.microsoftonline.com/{self.tenant_id}/v2.0"

    def remember(self, secret: str) -> str:
        """Count a text among the secrets. It comes back."""
        self._minted.setdefault(secret, len(self._minted))
        return secret

    def withdraw_access_tokens(self) -> None:
        """Partner Center answers 401 to every token so far, so that a change of sign-in shows at once."""
        self._withdrawn = len(self._minted)

    def is_withdrawn(self, token: str) -> bool:
        """Whether Partner Center has been told to take this token no longer."""
        return self._minted.get(token, self._withdrawn) < self._withdrawn

    def object_id(self, user: str) -> str:
        """The id of a person in the directory, always the same."""
        return str(uuid5(NAMESPACE_URL, f"{self.tenant_id}/{user}"))

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
        who = (
            {"idtyp": "app", "roles": ["Partner.Read"]}
            if app_only
            else {"scp": "user_impersonation", **self._person(user or self.user, mfa=mfa)}
        )
        instant = self.clock()
        until = instant + (self.access_token_life if life is None else life)
        return self.sign({"aud": audience, "appid": self.client_id, **who}, instant, until)

    def id_token(self, issuer: str, user: str, nonce: str | None) -> str:
        """What tells the app who signed in, on the machine's clock."""
        who = {"sub": self.object_id(user), "oid": self.object_id(user), "preferred_username": user}
        claims = {"iss": issuer, "aud": self.client_id, "ver": "2.0", "name": user.partition("@")[0], **who}
        instant = now()
        return self.sign(
            claims | ({"nonce": nonce} if nonce else {}), instant, instant + self.access_token_life
        )

    def identity_token(self, resource: str, client_id: str) -> str:
        """A token of the managed identity, on the machine's clock."""
        oid = self.managed_identity_object_id
        if client_id != self.managed_identity_client_id:
            oid = str(uuid5(NAMESPACE_URL, f"{self.tenant_id}/{client_id}"))
        claims = {"aud": _audience(resource), "appid": client_id, "idtyp": "app", "sub": oid, "oid": oid}
        if resource == self.token_exchange_audience:
            claims["iss"] = self.federation_issuer
        instant = now()
        return self.sign(claims, instant, instant + IDENTITY_TOKEN_LIFE)

    def operator_token(self, resource: str, tenant_id: str | None = None) -> str:
        """A token of a person after `az login`, on the machine's clock; a guest's in another tenant."""
        tenant_id = tenant_id or self.tenant_id
        claims = {"aud": _audience(resource), "appid": AZURE_CLI, "scp": "user_impersonation"}
        claims |= {"tid": tenant_id, "iss": f"https://sts.windows.net/{tenant_id}/"}
        instant = now()
        return self.sign(
            claims | self._person(self.operator, mfa=True), instant, instant + OPERATOR_TOKEN_LIFE
        )

    def _person(self, user: str, *, mfa: bool) -> dict[str, Any]:
        roles = self.directory_roles if user == self.user else [EVERY_USER]
        amr = ["pwd", "mfa"] if mfa else ["pwd"]
        return {"upn": user, "oid": self.object_id(user), "amr": amr, "wids": roles}

    def sign(self, claims: dict[str, Any], issued: datetime, expires: datetime) -> str:
        """A JWT of this world, remembered as a secret."""
        # {"uti":"- is nine bytes: what follows begins a group of base64.
        return self.remember(
            jwt.encode(
                {
                    "uti": f"-{self.marker.decode()}{secrets.token_hex(4)}",
                    "iss": f"https://sts.windows.net/{self.tenant_id}/",
                    "tid": self.tenant_id,
                    "iat": int(issued.timestamp()),
                    "nbf": int(issued.timestamp()),
                    "exp": int(expires.timestamp()),
                    **claims,
                },
                self._key,
                algorithm="HS256",
            )
        )

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


def _audience(resource: str) -> str:
    return STORAGE if resource.rstrip("/") == STORAGE.rstrip("/") else resource
