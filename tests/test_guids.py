"""GUIDs: those that the app makes, and what it takes for one."""

import uuid
from collections.abc import Callable

import pytest

from shared.guids import is_guid, new_guid


def test_a_new_one_is_random_and_of_version_4() -> None:
    made = [new_guid() for _ in range(1000)]
    assert len(set(made)) == 1000
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
    fixed = {14, 19}  # the version and the variant
    for place in set(range(36)) - fixed:
        assert {text[place] for text in made} in ({"-"}, set("0123456789abcdef"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "5b0c4c8e7f1d4f0a9a532d1c6b0e8a47",
        "{5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47}",
        "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47\n",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_guid(text)


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_either_case_is_one(change: Callable[[str], str]) -> None:
    assert is_guid(change("5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"))
