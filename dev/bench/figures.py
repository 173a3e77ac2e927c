"""Figures of rounds: in the middle, and how far they spread."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of all rounds, the lowest and the highest; formatted as `1.02 (0.97…1.10)`."""

    median: float
    lowest: float
    highest: float

    def __format__(self, spec: str) -> str:
        if self.lowest == self.highest:
            return format(self.median, spec)
        return f"{self.median:{spec}} ({self.lowest:{spec}}…{self.highest:{spec}})"


def spread(values: Iterable[float]) -> Spread:
    """How these spread; there is at least one."""
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1])


def ratio(values: Sequence[float], to: Sequence[float]) -> Spread:
    """How many times the other case's, round by round: what slows a round down slows both."""
    return spread(value / other for value, other in zip(values, to, strict=True))


def percentile(values: Iterable[float], percent: int) -> float:
    """The value below which so many of a hundred are."""
    known = sorted(values)
    return known[len(known) * percent // 100]
