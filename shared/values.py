"""Values of settings, each of a kind: read from a mapping and checked, all faults reported at once.

An empty value is a missing one. A fault names the setting and what it allows, never the value given:
a secret may have been pasted into the wrong place.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from shared.errors import ConfigurationError
from shared.guids import is_guid
from shared.settings import is_on_this_machine

_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_REFERENCE = re.compile(r"[\"']?@Microsoft\.(KeyVault|AppConfiguration)\s*\(", re.IGNORECASE)
_PROXIES = [f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")]
_PROXIES += [name.lower() for name in _PROXIES]
_SECONDS = re.compile(r"[0-9]{1,20}")
_LONGEST = 2**31 - 1  # seconds; the largest number of them that all of HTTP understands (RFC 9111, 1.2.2)


class Values:
    """The values of a mapping, each checked as it is read; what comes back beside a fault is never used."""

    def __init__(self, environ: Mapping[str, str], exists: Callable[[str], bool]) -> None:
        self._environ = environ
        self._exists = exists
        self.faults: list[str] = []
        self._unresolved: set[str] = set()
        for name in ("SSL_CERT_FILE", *_PROXIES):  # which libraries read
            self.text(name)
        self.ca_bundle = self.file("REQUESTS_CA_BUNDLE") or self.file("SSL_CERT_FILE")

    def text(self, name: str) -> str:
        """A value without the white space around it; empty where there is none.

        A reference that the platform has left as it is, is a fault, and the only one of its setting.
        Source: learn.microsoft.com/azure/app-service/app-service-key-vault-references, "Troubleshoot".
        """
        value = self._environ.get(name, "").strip()
        if _REFERENCE.match(value) and name not in self._unresolved:
            self._unresolved.add(name)
            self.faults.append(
                f"{name} is a reference that the platform could not resolve: check its address, and that the "
                "app's identity may read what it names"
            )
        return value

    def fault(self, name: str, allowed: str) -> None:
        """Note what is wrong with a setting, and what it allows."""
        value = self.text(name)
        if name not in self._unresolved:
            self.faults.append(f"{name} {'is wrong' if value else 'is missing'}: {allowed}")

    def raise_faults(self) -> None:
        """Raise ConfigurationError with all faults, if there are any."""
        if self.faults:
            raise ConfigurationError("; ".join(self.faults))

    def such(self, name: str, allowed: str, is_right: Callable[[str], object], default: str = "") -> str:
        """A value for which `is_right` is truthy."""
        value = self.text(name) or default
        if is_right(value):
            return value
        self.fault(name, allowed)
        return default

    def file(self, name: str) -> str | None:
        """The path of a file that is there."""
        allowed = "the path of a file that exists"
        return self.such(name, allowed, lambda path: not path or self._exists(path)) or None

    def container(self, name: str, default: str) -> str:
        """A container's name."""
        allowed = "a container's name: 3 to 63 lower-case letters, digits and single hyphens"
        return self.such(name, allowed, _CONTAINER.fullmatch, default)

    def seconds(self, name: str, default: str, *, at_least: int = 0) -> timedelta:
        """Whole seconds."""

        def is_right(text: str) -> bool:
            return _SECONDS.fullmatch(text) is not None and at_least <= int(text) <= _LONGEST

        allowed = f"whole seconds, from {at_least} to {_LONGEST}"
        return timedelta(seconds=int(self.such(name, allowed, is_right, default)))

    def guid(self, name: str, whose: str) -> str:
        """A GUID."""
        return self.such(name, f"{whose}: a GUID", is_guid)

    def address(self, name: str, *, plain_on_loopback: bool = True) -> str:
        """An https address without query; http is taken only where it cannot leave this machine."""

        def is_right(text: str) -> bool:
            try:
                url = urlsplit(text)
                url.port  # noqa: B018  # raises where the port is no number
            except ValueError:
                return False
            plain = plain_on_loopback and url.scheme == "http" and is_on_this_machine(text)
            whole = url.hostname and not (url.query or url.fragment or url.username or url.password)
            return bool(whole and (url.scheme == "https" or plain))

        allowed = "an https address without user, query or fragment"
        return self.such(name, allowed, is_right).rstrip("/")

    def exactly_one(self, *names: str) -> str | None:
        """Which of these is set; none is a fault, and so are two."""
        given = [name for name in names if self.text(name)]
        if len(given) == 1:
            return given[0]
        problem = f"{' and '.join(given)} exclude each other" if given else "missing"
        self.faults.append(f"exactly one of {', '.join(names)} must be set: {problem}")
        return None
