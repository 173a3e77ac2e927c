"""One number repeats a run: the order of its tests, and the examples that hypothesis tries.

Hooks of pytest. Every run prints its number, also without a header and with several workers.
"""

from random import Random

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw the number before the plugins read it; what a person has given is kept."""
    option, drawn = config.option, Random().getrandbits(32)  # noqa: S311  # no secret
    if getattr(option, "randomly_seed", None) == "default":
        option.randomly_seed = drawn
    order = getattr(option, "randomly_seed", None)
    if option.hypothesis_seed is None:
        option.hypothesis_seed = str(order if isinstance(order, int) else drawn)


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # a worker has none
        reporter.write_line(_seed(session.config))


def _seed(config: pytest.Config) -> str:
    order, examples = getattr(config.option, "randomly_seed", None), config.option.hypothesis_seed
    again = f"--hypothesis-seed={examples}"
    if order is None:
        return f"no random order; the examples again: -p no:randomly {again}"
    own = "" if str(order) == examples else f" {again}"
    return f"seed {order}; the same order and examples again: --randomly-seed={order}{own}"
