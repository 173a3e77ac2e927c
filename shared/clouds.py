"""Microsoft's national clouds and where each keeps Partner Center and its sign-in.

Sources: learn.microsoft.com/partner-center/developer/partner-center-rest-urls,
learn.microsoft.com/entra/identity-platform/authentication-national-cloud.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud: API host, sign-in authority, the resource tokens are for, and why it may be refused."""

    base_url: str
    authority: str
    resource: str
    token_exchange_audience: str
    refused: str | None = None


_GLOBAL = "https://api.partnercenter.microsoft.com"
_CHINA = "https://partner.partnercenterapi.microsoftonline.cn"

CLOUDS = {
    "global": Cloud(_GLOBAL, "https://login.microsoftonline.com", _GLOBAL, "api://AzureADTokenExchange"),
    "usgov": Cloud(_GLOBAL, "https://login.microsoftonline.us", _GLOBAL, "api://AzureADTokenExchangeUSGov"),
    "germany": Cloud(
        _GLOBAL,
        "https://login.microsoftonline.de",
        _GLOBAL,
        "api://AzureADTokenExchange",
        refused="Microsoft Cloud Germany was closed on 2021-10-29",
    ),
    "china": Cloud(
        _CHINA,
        "https://login.partner.microsoftonline.cn",
        _CHINA,
        "api://AzureADTokenExchangeChina",
        refused="Azure in China, operated by 21Vianet, does not offer the usage summary",
    ),
}
