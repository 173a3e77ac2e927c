"""GUIDs as Partner Center and Entra write them: five groups of hexadecimal digits, without braces."""

import re

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_guid(text: str) -> bool:
    """Whether a text is a GUID and nothing else."""
    return _GUID.fullmatch(text) is not None
