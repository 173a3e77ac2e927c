"""The deployment package: the app and its packages in one zip, laid out as Azure's worker wants it.

In it are what .funcignore leaves of the files that .gitignore does not name and, under PACKAGES, what
requirements.txt pins, for the platform of Azure and not for this machine. The same files give the same bytes,
if the same build of Python compiles and compresses them.
"""

import shutil
import stat
import sys
import tempfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from pathspec import GitIgnoreSpec

from dev.environment import PYTHON, ROOT, install

# Where the worker looks: learn.microsoft.com/azure/azure-functions/python-build-options
PACKAGES = Path(".python_packages/lib/site-packages")
FOLDER = ROOT / "dist" / "app"
"""Where azure.yaml says that the package lies, for azd zips a folder of its own."""

# Flex Consumption has x86-64 only, and a glibc that is newer.
PLATFORM = "x86_64-manylinux_2_28"


def package(output: Path, *, for_azd: bool) -> int:
    """Build it and say what became of it; returns the exit code."""
    files = build(output)
    print(f"{output}: {files} files, {output.stat().st_size / 1e6:.1f} MB")
    if for_azd:
        unpack(output, FOLDER)
        print(f"{FOLDER.relative_to(ROOT)}: the same, unpacked")
    return 0


def build(output: Path) -> int:
    """Write the zip; returns the number of files in it. Raises InstallError, with what a tool said."""
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        for file in deployed_files(ROOT):
            (stage / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, stage / file)
        add_packages(stage)
        compile_all(stage)
        output.parent.mkdir(parents=True, exist_ok=True)
        return write_zip(stage, output)


def unpack(package: Path, folder: Path) -> None:
    """Replace a folder by what is in the zip, for azd."""
    shutil.rmtree(folder, ignore_errors=True)
    with ZipFile(package) as archive:
        archive.extractall(folder)
    # Without such a file azd leaves __pycache__ out: createDeployableZip in Azure/azure-dev.
    (folder / ".funcignore").write_text("# All of it is deployed.\n", encoding="utf-8")


def deployed_files(root: Path) -> list[Path]:
    """The app's own files, relative to its `root`."""
    ignored = [
        GitIgnoreSpec.from_lines((root / name).read_text(encoding="utf-8").splitlines())
        for name in (".gitignore", ".funcignore")
    ]

    def is_deployed(path: str) -> bool:
        return not any(spec.match_file(path) for spec in ignored)

    found = []
    for directory, below, files in root.walk():
        here = directory.relative_to(root)
        below[:] = [name for name in below if is_deployed(f"{(here / name).as_posix()}/")]
        found += [here / name for name in files if is_deployed((here / name).as_posix())]
    return found


def add_packages(stage: Path) -> None:
    """Install what the app's requirements.txt pins; raises InstallError."""
    target = stage / PACKAGES
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--system-certs"]
    command += ["--python", sys.executable, "--python-version", ".".join(str(part) for part in PYTHON)]
    command += ["--python-platform", PLATFORM, "--target", str(target)]
    command += ["--require-hashes", "--no-deps", "--no-build", "--no-compile-bytecode"]
    install([*command, "-r", str(stage / "requirements.txt")], ())
    # Commands begin with this machine's path to Python, and RECORD has their hashes. A package without RECORD
    # runs; installers leave it alone: packaging.python.org/specifications/recording-installed-packages
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)  # uv's own
    for record in target.glob("*.dist-info/RECORD"):
        record.unlink()


def compile_all(stage: Path) -> None:
    """Compile every module; raises InstallError.

    Each new instance starts from the package and would compile anew all that it imports. On two cores, with
    and without: both functions and all they use are imported in 0.42 and 1.29 s, an answer found in storage
    comes 0.46 and 1.16 s after the start of the process, and the zip has 12.2 and 7.9 MB.

    Bytecode that is not checked against its source holds whatever time the file has where it is unpacked;
    another Python than 3.13 passes it over. Only a process with nothing else in it gives the same bytes.
    """
    command = [sys.executable, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    install([*command, "-s", str(stage), str(stage)], ())


def write_zip(stage: Path, output: Path) -> int:
    """Zip what lies in `stage`, by name and without times; returns the number of files."""
    names = sorted(file.relative_to(stage).as_posix() for file in stage.rglob("*") if file.is_file())
    with ZipFile(output, "w", ZIP_DEFLATED) as archive:
        for name in names:
            entry = ZipInfo(name)  # of 1980-01-01
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, (stage / name).read_bytes())
    return len(names)
