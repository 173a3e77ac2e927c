import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dev import npm
from dev.environment import ROOT, InstallError, install, make, wrong_version
from dev.ports import PortError, listen
from dev.run import RunError, check
from tests.threads import PATIENCE_WITH_A_PROCESS


@dataclass
class Installer:
    """Stands for venv and pip: makes the directory, and fails at the step it is told to."""

    venv: Path
    fails_at: str = ""
    steps: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str], _inherited: tuple[int, ...]) -> None:
        self.steps.append(command[2])
        self.venv.mkdir(exist_ok=True)
        if command[2] == self.fails_at:
            raise InstallError("no such package")


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    file = tmp_path / "dev" / "requirements.txt"
    file.parent.mkdir()
    file.write_text("a==1\n")
    return file


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return tmp_path / ".venv"


def run_dev(*arguments: str, pretend: str = "pass") -> subprocess.CompletedProcess[str]:
    start = "runpy.run_module('dev', run_name='__main__')"
    script = f"import runpy, sys; {pretend}; sys.argv[1:] = {arguments!r}; {start}"
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_WITH_A_PROCESS, check=False
    )


def test_another_interpreter_is_one_line_and_exit_code_2() -> None:
    done = run_dev("run", pretend="sys.version_info = (3, 12, 4, 'final', 0)")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python3 -m dev needs Python 3.13, and this is 3.12.4: start it with a python3.13\n"


def test_any_release_of_the_right_version_will_do() -> None:
    assert wrong_version((3, 13, 99)) is None


def test_an_option_that_is_none_is_refused_before_anything_is_installed() -> None:
    done = run_dev("check", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --nonsense" in done.stderr


def test_it_is_installed_once(venv: Path, requirements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installer = Installer(venv)
    make(venv, requirements, installer)
    make(venv, requirements, installer)
    assert installer.steps == ["venv", "pip"]
    assert capsys.readouterr().out == "making .venv from dev/requirements.txt, about a minute\n"


def test_it_is_installed_again_when_the_requirements_change(venv: Path, requirements: Path) -> None:
    installer = Installer(venv)
    make(venv, requirements, installer)
    requirements.write_text("a==2\n")
    make(venv, requirements, installer)
    assert installer.steps == ["venv", "pip"] * 2


def test_an_install_that_failed_is_begun_anew(venv: Path, requirements: Path) -> None:
    with pytest.raises(InstallError):
        make(venv, requirements, Installer(venv, fails_at="pip"))
    again = Installer(venv)
    make(venv, requirements, again)
    assert again.steps == ["venv", "pip"]


def test_a_change_that_failed_to_install_leaves_no_old_stamp(venv: Path, requirements: Path) -> None:
    make(venv, requirements, Installer(venv))
    requirements.write_text("a==2\n")
    with pytest.raises(InstallError):
        make(venv, requirements, Installer(venv, fails_at="venv"))
    requirements.write_text("a==1\n")
    again = Installer(venv)
    make(venv, requirements, again)
    assert again.steps == ["venv", "pip"]


def test_of_two_at_once_one_installs_and_the_other_waits(venv: Path, requirements: Path) -> None:
    installer = Installer(venv)
    threads = [threading.Thread(target=make, args=(venv, requirements, installer)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installer.steps == ["venv", "pip"]


def test_an_installer_is_heard_only_when_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    install([sys.executable, "-c", "print('collecting')"], ())
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InstallError, match="collecting\nno such package"):
        install([sys.executable, "-c", "print('collecting', flush=True); exit('no such package')"], ())


@pytest.mark.parametrize("name", npm.NAMES)
def test_what_comes_from_npm_is_pinned_by_hash_and_by_no_host(name: str) -> None:
    _, *packages = json.loads(npm.lock_file(name).read_text(encoding="utf-8"))["packages"].values()
    assert packages
    for package in packages:
        assert "resolved" not in package
        assert package["integrity"].startswith("sha512-")


def test_an_unknown_scenario_is_one_line_that_lists_them() -> None:
    with pytest.raises(RunError, match=r"^there is no scenario nonsense; there are healthy, .*\bdown\b.*$"):
        check("nonsense", {})


def test_a_port_that_is_taken_or_given_twice_is_named_with_its_option() -> None:
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"^port {port} is in use; choose another with --blob-port$"):
            check("healthy", {"--port": 0, "--blob-port": port})
    with pytest.raises(PortError, match=f"^port {port} is in use; choose another with --simulator-port$"):
        check("healthy", {"--port": port, "--simulator-port": port})


def test_ctrl_c_ends_everything_without_a_word_and_frees_the_ports() -> None:
    script = "import sys; from dev.run import run; sys.exit(run(0, 0, 0, 'healthy'))"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        said = "".join(iter(process.stdout.readline, "The log of both functions:\n"))
        process.send_signal(signal.SIGINT)
        assert not re.search("^Traceback", process.stdout.read(), re.MULTILINE)
        assert process.wait(PATIENCE_WITH_A_PROCESS) == 0
    ports = {int(port) for port in re.findall(r"https?://127\.0\.0\.1:(\d+)", said)}
    assert len(ports) == 3
    for port in ports:
        listen(port).close()
