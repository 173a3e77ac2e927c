"""GUIDs as Partner Center and Entra write them: five groups of hexadecimal digits, without braces."""

import re
from random import randbytes

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def new_guid() -> str:
    """A random GUID of version 4 (RFC 9562); uuid4 would cost a hit as much as all its other work."""
    digits = randbytes(16).hex()  # noqa: S311  # it tells calls apart and guards nothing
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def is_guid(text: str) -> bool:
    """Whether a text is a GUID and nothing else."""
    return _GUID.fullmatch(text) is not None
