"""The deployment package: what lies in it, and that it runs with nothing else around it."""

import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from pathspec import GitIgnoreSpec

from dev.__main__ import parser
from dev.azurite import Azurite
from dev.environment import ROOT
from dev.package import FOLDER, PACKAGES, build, deployed_files, unpack
from tests.clients import blob_container
from tests.test_repository import tracked_files

APP = {"host.json", "requirements.txt", "GetUsageSummary", "SnapshotTimer", "shared"}
LIBRARIES = f"{PACKAGES.as_posix()}/"

pytestmark = pytest.mark.timeout(900)  # without uv's cache the packages are fetched

# dev.host with the sys.path that Azure's worker has. What only the host needs is imported before the app and
# comes after the packages of the zip; when the app is loaded it cannot be found any more.
HOST = """
import asyncio, json, sys
from pathlib import Path

root, packages, *tools = sys.argv[1:]
sys.path += [packages, *tools]
import httptools, uvicorn.loops.auto, uvicorn.protocols.http.auto
from dev import host, ports

sys.path[:] = [*(entry for entry in sys.path if entry not in tools), root]
host.start_logging()
asyncio.run(host.serve(Path(root), ports.listen(0), until_eof=True))
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({name: file for name, file in files.items() if file}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("package") / "app.zip"
    build(output)
    return output


@pytest.fixture(scope="module")
def entries(package: Path) -> dict[str, bytes]:
    with ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def unzipped(package: Path, tmp_path: Path) -> Path:
    with ZipFile(package) as archive:
        archive.extractall(tmp_path / "wwwroot")
    return tmp_path / "wwwroot"


def sources_of(entries: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in entries.items() if "/__pycache__/" not in name}


def test_it_holds_the_files_of_the_app_as_they_are_and_its_packages(entries: dict[str, bytes]) -> None:
    own = {name: content for name, content in sources_of(entries).items() if not name.startswith(LIBRARIES)}

    assert {name.split("/")[0] for name in entries} == {*APP, PACKAGES.parts[0]}
    assert own == {name: (ROOT / name).read_bytes() for name in tracked_files() if name.split("/")[0] in APP}


def test_it_holds_every_pinned_package_built_for_azure(entries: dict[str, bytes]) -> None:
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==(\S+) (?!; sys_platform == 'win32')", requirements, re.MULTILINE)
    installed = {
        match[1] for name in entries if (match := re.match(rf"{LIBRARIES}([^/]+)\.dist-info/", name))
    }
    tags = re.findall(
        rb"^Tag: \S+-(\S+)",
        b"\n".join(content for name, content in entries.items() if name.endswith(".dist-info/WHEEL")),
        re.MULTILINE,
    )

    assert installed == {f"{name.replace('-', '_')}-{version}" for name, version in pins}
    assert {tag for tag in tags if not re.fullmatch(rb"any|manylinux\w+_x86_64", tag)} == set()
    assert any(name.endswith(".abi3.so") for name in entries)


def test_nothing_in_it_names_the_machine_that_made_it(entries: dict[str, bytes]) -> None:
    assert [name for name, content in entries.items() if sys.prefix.encode() in content] == []
    assert [name for name in entries if name.startswith(f"{LIBRARIES}bin/")] == []


def test_every_module_is_compiled_and_holds_whatever_the_time_of_its_file(entries: dict[str, bytes]) -> None:
    compiled = {name: content for name, content in entries.items() if name.endswith(".pyc")}
    expected = {importlib.util.cache_from_source(name) for name in entries if name.endswith(".py")}

    assert compiled.keys() == expected
    assert {content[:8] for content in compiled.values()} == {
        importlib.util.MAGIC_NUMBER + b"\x01\0\0\0"  # by hash, not checked: PEP 552
    }


def test_the_same_files_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "again.zip"
    script = (
        "from pathlib import Path; from dev.package import package; "
        f"package(Path({str(output)!r}), for_azd=False)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu"},
        umask=0o077,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert output.read_bytes() == package.read_bytes()
    with ZipFile(output) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert said == f"{output}: {len(names)} files, {output.stat().st_size / 1e6:.1f} MB\n"


def test_azd_finds_the_same_in_a_folder_and_leaves_nothing_out(
    entries: dict[str, bytes], package: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dist" / "app"
    (folder / "of-the-last-time").mkdir(parents=True)
    unpack(package, folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    azure = (ROOT / "azure.yaml").read_text(encoding="utf-8")

    assert found == {*entries, ".funcignore"}  # which azd reads and does not deploy
    ignored = GitIgnoreSpec.from_lines((folder / ".funcignore").read_text().splitlines())
    assert not any(ignored.match_files(found))
    assert f"\n    dist: {FOLDER.relative_to(ROOT).as_posix()}\n" in azure
    assert "\n    remoteBuild: false\n" in azure
    commands = re.findall(r"^ +run: python3? -m dev (.*)$", azure, re.MULTILINE)
    assert [parser().parse_args(arguments.split()).for_azd for arguments in commands] == [True, True]


def test_what_people_and_tools_leave_lying_about_is_not_deployed(tmp_path: Path) -> None:
    for name in (".gitignore", ".funcignore"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    default = parser().parse_args(["package"]).output
    for name in (
        *("host.json", "shared/app.py", "local.settings.json", "local.settings.other.json", ".venv-2/a.py"),
        *(
            ".git/config",
            ".vscode/settings.json",
            "shared/__pycache__/app.cpython-313.pyc",
            "shared/NOTES.md",
        ),
        *("tests/test_app.py", "dev/run.py", "infra/main.bicep", str(default)),
        *("record/usagesummary/v1/2026/11/21/usagesummary.json", "snapshot.json", "function_app.py"),
        *(".env", "app.pfx", "main_env/pyvenv.cfg", "Other/function.json"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert set(deployed_files(tmp_path)) == {Path("host.json"), Path("shared/app.py")}


@pytest.fixture
def host(unzipped: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The app as it lies in the zip, in an interpreter without site-packages."""
    tools = [sysconfig.get_path("purelib"), str(ROOT)]
    arguments = [str(unzipped), str(unzipped / PACKAGES), *tools]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-u", "-c", HOST, *arguments],
        cwd=unzipped,
        env={"PATH": "", "SNAPSHOT_SCHEDULE": "0 0 0 1 1 *", **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_the_app_runs_from_it_alone(
    host: subprocess.Popen[str], unzipped: Path, environ: dict[str, str], azurite: Azurite
) -> None:
    assert host.stdout
    said = ""
    for line in host.stdout:
        said += line
        if line.startswith("listening on "):
            break
    port = said.strip().rpartition(":")[2]
    assert port.isdecimal(), said

    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("GET", "/v1/usagesummary")
    with connection.getresponse() as answer:
        assert answer.status == 200
        document = json.load(answer)
    connection.request("POST", "/admin/functions/SnapshotTimer", headers={"Prefer": "wait"})
    with connection.getresponse() as fired:
        assert fired.status == 200
    connection.close()

    assert document["attributes"] == {"objectType": "PartnerUsageSummary"}
    name = f"usagesummary/v1/{datetime.now(UTC):%Y/%m/%d}/usagesummary.json"
    with blob_container(azurite.connection_string, environ["USAGE_SNAPSHOT_CONTAINER"]) as container:
        assert json.loads(container.download_blob(name).readall())["schemaVersion"] == 1

    rest, _ = host.communicate()
    files: dict[str, str] = json.loads(rest.splitlines()[-1])
    here = {module for module, file in files.items() if Path(file).is_relative_to(unzipped)}
    tools = {
        module.split(".")[0]
        for module, file in files.items()
        if module not in here and not Path(file).is_relative_to(sysconfig.get_path("stdlib"))
    }
    packages = {path.stem for path in (unzipped / PACKAGES).iterdir()}
    assert here >= {"shared.app", "azure.functions", "azure.storage.blob", "azure_functions_runtime_v1"}
    assert here >= {"__app__.GetUsageSummary", "__app__.SnapshotTimer", "msal", "requests", "cryptography"}
    assert "uvicorn" in tools
    assert tools & {*packages, "shared", "__app__"} == set()
