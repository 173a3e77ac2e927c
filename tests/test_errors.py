"""The error tree: drawn as it is, and known to callers leaf by leaf."""

import inspect
from datetime import timedelta

import pytest

from shared import errors
from shared.errors import StorageError, UpstreamReply, UsageSummaryError
from shared.problems import PROBLEMS

TREE = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, UsageSummaryError) and kind.__module__ == errors.__name__
]
LEAVES = [kind for kind in TREE if not any(other is not kind and issubclass(other, kind) for other in TREE)]


def test_every_error_that_can_reach_a_caller_has_a_problem_of_its_own() -> None:
    assert PROBLEMS.keys() == {kind for kind in LEAVES if not issubclass(kind, StorageError)}
    assert len({problem.code for problem in PROBLEMS.values()}) == len(PROBLEMS)


def test_the_code_in_the_log_is_that_of_the_problem() -> None:
    assert {kind: problem.code for kind, problem in PROBLEMS.items()} == {
        kind: kind.code for kind in PROBLEMS
    }


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        names = [word for word in line.split() if word.endswith("Error")]
        if names:
            depth = line.index(names[0]) // 4
            path[depth:] = [names[0]]
            drawn[names[0]] = path[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in TREE if kind.__base__}


@pytest.mark.parametrize("kind", LEAVES)
def test_an_error_carries_what_is_known_of_its_cause(kind: type[UsageSummaryError]) -> None:
    reply, wait = UpstreamReply(429, "1", "id"), timedelta(seconds=5)
    error = kind("what happened", reply=reply, retry_after=wait, hint="Act.")
    assert (str(error), error.message) == ("what happened", "what happened")
    assert (error.reply, error.retry_after, error.hint) == (reply, wait, "Act.")
    plain = kind("what happened")
    assert (plain.reply, plain.retry_after, plain.hint, plain.asked) == (None, None, None, True)
    assert not kind("what happened", asked=False).asked
