"""One log line an outcome: a stable event name and values, as one JSON object.

Fields given as `extra=` do not reach Application Insights from a Python function; a JSON message does,
and a query reads it with `parse_json(message)`.
"""

import json
from datetime import datetime, timedelta


def event(name: str, /, **values: object) -> str:
    """The log line of an outcome; durations in seconds, what is None is left out.

    Values are facts (counts, names, ids), never a token, a secret, a body or personal data.
    """
    return json.dumps(
        {"event": name} | {key: value for key, value in values.items() if value is not None},
        ensure_ascii=False,
        default=_plain,
    )


def _plain(value: object) -> object:
    match value:
        case timedelta():
            return round(value.total_seconds(), 3)
        case datetime():
            return value.isoformat(timespec="seconds").replace("+00:00", "Z")
        case _:
            return str(value)
