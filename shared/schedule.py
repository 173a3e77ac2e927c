"""The timer's schedule, pure: NCRONTAB as the platform reads it.

Source: github.com/atifaziz/NCrontab, CrontabFieldImpl.cs. Day of month and day of week must both fit.
"""

from datetime import datetime

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "sunday monday tuesday wednesday thursday friday saturday"


def has_tick(schedule: str, instant: datetime) -> bool:
    """Whether a schedule has a tick at an instant of whole seconds, in UTC; False for what is no NCRONTAB."""
    fields = schedule.lower().split()
    if len(fields) == 5:  # noqa: PLR2004  # without seconds
        fields.insert(0, "0")
    values = (
        (instant.second, 0, 59, ""),
        (instant.minute, 0, 59, ""),
        (instant.hour, 0, 23, ""),
        (instant.day, 1, 31, ""),
        (instant.month, 1, 12, _MONTHS),
        (instant.isoweekday() % 7, 0, 6, _DAYS),
    )
    try:
        return all(
            value in _values(field, least, most, names)
            for field, (value, least, most, names) in zip(fields, values, strict=True)
        )
    except ValueError:
        return False


def _values(field: str, least: int, most: int, names: str) -> set[int]:
    """What a field stands for. Raises ValueError for what is none."""

    def number(text: str) -> int:
        """A number, or a name or the beginning of one."""
        named = [each.startswith(text) for each in names.split()] if text else []
        value = least + named.index(True) if True in named else int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    found = set[int]()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            ends = [least, most]
        else:
            ends = sorted([number(first), number(last) if dash else most if slash else number(first)])
        found.update(range(ends[0], ends[1] + 1, max(int(step), 1) if slash else 1))
    return found
