"""What is written about the app is true, and what is deployed is what runs."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import ops
import shared
from dev import audit
from shared import errors
from shared.configuration import read_settings
from shared.problems import NO_USAGE_DATA, PRECONDITION_FAILED, PROBLEMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLE = json.loads((ROOT / "local.settings.sample.json").read_text(encoding="utf-8"))["Values"]

PLATFORMS = {"AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME"}
OURS = re.compile(r"(?:PARTNER_CENTER|USAGE|SNAPSHOT)(?:_[A-Z]+)+(?:__\w+)?")


def tracked_files() -> list[str]:
    """All files but what .gitignore names."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = {".git", *(line.rstrip("/") for line in lines if not line.startswith("#"))}
    found = []
    for directory, below, files in ROOT.walk():
        below[:] = [name for name in below if name not in ignored]
        found += [(directory / name).relative_to(ROOT).as_posix() for name in files if name not in ignored]
    return found


def settings_in(text: str) -> set[str]:
    return set(OURS.findall(text))


def settings_in_code() -> set[str]:
    files = [
        ROOT / "shared" / "configuration.py",
        ROOT / "shared" / "values.py",
        *ROOT.glob("*/function.json"),
    ]
    names = settings_in("".join(file.read_text(encoding="utf-8") for file in files))
    return names | {"USAGE_STORAGE__blobServiceUri", "USAGE_STORAGE__clientId"}


def test_the_readme_tells_of_every_setting_and_of_no_other() -> None:
    table = README[README.index("## Settings") : README.index("## How it is built")]

    assert settings_in(table) == settings_in_code()


def test_the_mutants_said_to_survive_are_those_explained_and_of_lines_that_are_there() -> None:
    document = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
    explained = tomllib.loads((ROOT / "dev" / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    said = re.findall(r"^- `(.+)`\n  - was `(.+)`\n  - is `(.+)`\n  - (.+)$", document, re.MULTILINE)
    assert sorted((where, becomes, why) for where, _, becomes, why in said) == sorted(
        (each["where"], each["becomes"], each["why"]) for each in explained
    )
    for where, was, _, _ in said:
        code = (ROOT / "shared" / f"{where.split('.')[1]}.py").read_text(encoding="utf-8")
        assert " ".join(was.split()) in " ".join(code.split())


def test_the_licences_are_those_of_what_is_deployed() -> None:
    assert audit.listed() == audit.pins()


def test_the_sample_has_every_setting_and_no_other() -> None:
    assert SAMPLE.keys() - PLATFORMS == settings_in_code()


def test_the_sample_needs_nothing_but_what_a_person_must_fill_in() -> None:
    with pytest.raises(errors.ConfigurationError) as raised:
        read_settings(SAMPLE)

    assert settings_in(str(raised.value)) == {
        "PARTNER_CENTER_TENANT_ID",
        "PARTNER_CENTER_CLIENT_ID",
        "PARTNER_CENTER_CLIENT_SECRET",
        "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH",
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY",
        "PARTNER_CENTER_REFRESH_TOKEN_SECRET",
        "PARTNER_CENTER_REFRESH_TOKEN",
    }


def test_the_readme_tells_of_every_problem() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", README, re.MULTILINE)

    every = NO_USAGE_DATA, PRECONDITION_FAILED, *PROBLEMS.values()
    assert set(rows) == {(str(int(problem.status)), problem.code) for problem in every}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("package", ["dev", "ops", "ops token"])
def test_every_command_in_the_readme_exists(package: str) -> None:
    commands = set(re.findall(rf"python3 -m {package} (\w+)", README))
    help_text = subprocess.run(
        [sys.executable, "-m", *package.split(), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert commands
    assert {
        command for command in commands if not re.search(rf"^ +{command}\b", help_text, re.MULTILINE)
    } == set()


@pytest.mark.parametrize("package", [shared, ops])
def test_the_map_of_a_package_names_every_module(package: ModuleType) -> None:
    files = {file.stem for file in (ROOT / package.__name__).glob("*.py")} - {"__init__", "__main__"}

    assert set(re.findall(r"^(\w+)  +", package.__doc__ or "", re.MULTILINE)) == files


def test_the_repository_names_no_index_no_machine_and_holds_no_key() -> None:
    forbidden = re.compile(
        r"py(pi)\.org|npm(js)\.(org|com)|python(hosted)|/(root|work)/|/tmp/[a-z]|-----(BEGIN) [A-Z ]*PRIVATE"
    )
    found = [
        f"{name}: {match[0]}"
        for name in tracked_files()
        if name != "tests/test_repository.py"
        and (match := forbidden.search((ROOT / name).read_text(encoding="utf-8")))
    ]

    assert found == []


def test_the_requirements_are_pinned_with_hashes_and_the_runtime_among_them() -> None:
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==\S+", requirements, re.MULTILINE)

    assert "azure-functions-runtime-v1" in pins
    assert len(re.findall(r"^[a-z]", requirements, re.MULTILINE)) == len(pins)
    assert requirements.count("--hash=sha256:") >= len(pins)


def test_the_host_finds_the_app_and_no_other_package_of_its_names() -> None:
    assert Path(shared.__file__ or "").is_relative_to(ROOT)
    assert not list(ROOT.glob("function_app.py"))
