"""setup.py compiles what a change has to do with, and nothing else: tried on a package of three modules."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from types import ModuleType

import Cython
import pytest

from peers import needs_sources

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [needs_sources, pytest.mark.slow]

ENGINE = """
cdef extern from "limits_of_records.h":
    int LARGEST_RECORD

cdef class Engine:
    cpdef int limit(self):
        return LARGEST_RECORD
"""
CONTEXT = """
from sslsock.core.engine cimport Engine

def limit(Engine engine):
    return engine.limit()
"""
PROJECT = """
[project]
name = "sslsock"
version = "0"
dynamic = ["readme"]

[project.urls]
Source = "https://example.com/sslsock"
"""
FILES = {
    "pyproject.toml": PROJECT,
    "README.md": "A package.\n",
    "src/sslsock/__init__.py": "",
    "src/sslsock/core/__init__.py": "",
    "src/sslsock/_ssl/__init__.py": "",
    "include/exports.map": "{ global: PyInit_*; local: *; };\n",
    "include/limits_of_records.h": "#define LARGEST_RECORD 16384\n",
    "src/sslsock/core/engine.pyx": ENGINE,
    "src/sslsock/core/engine.pxd": "cdef class Engine:\n    cpdef int limit(self)\n",
    "src/sslsock/core/context.pyx": CONTEXT,
    "src/sslsock/_ssl/memory_bio.pyx": "def pending():\n    return 0\n",
}
ALL = {"engine", "context", "memory_bio", "scratch", "_native"}


def load_setup() -> ModuleType:
    """The project's setup.py, as a module."""
    spec = importlib.util.spec_from_file_location("sslsock_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    return setup


class Package:
    """A small package that the project's own setup.py builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ROOT / "setup.py", folder)
        for name, text in FILES.items():
            self.write(name, text)
        names = load_setup().C_SOURCES  # of which one stands for all
        for name in names:
            self.write(name, f"extern int {Path(name).stem}_unused;\n")
        self.others = {Path(name).stem for name in names} - {"scratch"}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def products(self) -> list[Path]:
        """Objects, and the shared object that is linked of them."""
        found = [*self.folder.glob("build/temp*/**/*.o"), *self.folder.glob("build/lib*/**/_native.*")]
        assert len([path for path in found if path.suffix == ".so"]) <= 1
        return found

    def build(self, *options: str, command: str = "build_ext", status: int = 0, **environment: str) -> set[str]:
        """Builds, and returns the names of what was written."""
        for path in self.products():
            os.utime(path, (1, 1))
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", command, *options],
            cwd=self.folder,
            env={**os.environ, "SSLSOCK_WERROR": "", "SSLSOCK_SANITIZE": "", "SSLSOCK_DEBUG": "1", **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == status, done.stderr
        return {path.name.partition(".")[0] for path in self.products() if path.stat().st_mtime > 1} - self.others

    def touch(self) -> None:
        """New times for all sources, as after a change of branches and back."""
        for path in [*self.folder.glob("src/**/*.p[yx]*"), *self.folder.glob("include/*")]:
            os.utime(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Path]:
    """A package that is built, and a copy of its folder."""
    package = Package(tmp_path_factory.mktemp("package"))
    assert package.build() == ALL
    return package, shutil.copytree(package.folder, tmp_path_factory.mktemp("kept") / "package")


@pytest.fixture
def package(built: tuple[Package, Path]) -> Package:
    """For each test as it was built, in the same place."""
    package, kept = built
    shutil.rmtree(package.folder)
    shutil.copytree(kept, package.folder)  # with its times
    return package


def test_nothing_is_written_when_nothing_has_changed(package: Package) -> None:
    assert package.build() == set()
    package.touch()
    assert package.build() == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "written"),
    [
        ("src/sslsock/_ssl/memory_bio.pyx", "0", "1", {"memory_bio", "_native"}),
        ("src/sslsock/core/context.pyx", "engine.limit()", "engine.limit() + 1", {"context", "_native"}),
        ("src/sslsock/core/engine.pxd", "    cpdef", "    cdef int more\n    cpdef", {"engine", "context", "_native"}),
        ("include/limits_of_records.h", "16384", "16385", {"engine", "_native"}),
        ("include/scratch.c", "extern", "static int waits; extern", {"scratch", "_native"}),
        ("include/exports.map", "PyInit_*", "PyInit_engine", {"_native"}),
    ],
)
def test_what_depends_on_a_file_is_compiled(package: Package, name: str, old: str, new: str, written: set[str]) -> None:
    before = (package.folder / name).read_text()
    assert old in before
    package.write(name, before.replace(old, new))
    assert package.build() == written
    assert package.build() == set()


def test_other_options_compile_all(package: Package) -> None:
    assert package.build(SSLSOCK_DEBUG="0") == ALL
    assert package.build(SSLSOCK_DEBUG="0") == set()


def test_an_editable_install_finds_what_is_compiled(package: Package) -> None:
    """`pip install --editable`, whose folders setuptools makes anew each time."""
    assert package.build(command="editable_wheel") == set()
    assert [path.name.partition(".")[0] for path in package.folder.glob("src/**/*.so")] == ["_native"]


def test_a_source_distribution_needs_neither_openssl_nor_a_compiler(package: Package) -> None:
    assert package.build("--formats=tar", command="sdist", SSLSOCK_OPENSSL_PREFIX="/nowhere", CC="/nowhere") == set()
    with tarfile.open(package.folder / "dist/sslsock-0.tar") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"src/sslsock/core/engine.pyx", "src/sslsock/_ssl/memory_bio.pyx", "include/scratch.c"} <= names
    assert not any(name.startswith("build/") for name in names), "C that Cython has made is not for others"


def test_other_directives_make_the_c_again(package: Package) -> None:
    before = (package.folder / "setup.py").read_text()
    assert '"boundscheck": False' in before
    package.write("setup.py", before.replace('"boundscheck": False', '"boundscheck": True'))
    made = package.folder / "build/cython/src/sslsock/core/engine.c"
    written = made.stat().st_mtime_ns
    package.build()  # their objects may be the same
    assert made.stat().st_mtime_ns > written
    assert package.build() == set()


def test_another_cython_makes_the_c_again(package: Package) -> None:
    record = package.folder / "build/cython/made-with"
    now = record.read_text()
    record.write_text("Cython 3.0.0" + now[now.index(" {") :])
    made = package.folder / "build/cython/src/sslsock/core/engine.c"
    before = made.stat().st_mtime_ns
    package.build()
    assert made.stat().st_mtime_ns > before
    assert record.read_text() == now


def test_force_compiles_all(package: Package) -> None:
    assert package.build("--force") == ALL


def test_a_file_that_did_not_compile_is_compiled_again(package: Package) -> None:
    good = (package.folder / "include/scratch.c").read_text()
    package.write("include/scratch.c", "#error what is this\n")
    assert package.build(status=1) == set()
    package.write("include/scratch.c", good)
    assert package.build() >= {"scratch"}
    assert package.build() == set()


def test_what_was_removed_is_made_again(package: Package) -> None:
    removed = next(path for path in package.products() if path.name.startswith("context."))
    removed.unlink()
    assert package.build() >= {"context"}


def test_wheels_hold_no_records(package: Package) -> None:
    """What lies under build/lib goes into them."""
    assert [path.name for path in package.folder.glob("build/lib*/**/*") if path.suffix in (".made", ".d", ".o")] == []


def test_the_modules_declare_that_they_need_no_gil(package: Package) -> None:
    """With a Cython that makes them so; what another one makes is built for CPythons with a GIL only."""
    text = (package.folder / "build/cython/src/sslsock/core/engine.c").read_text()
    declared = re.findall(r"#define __Pyx_FREETHREADING_COMPATIBLE (\w+)", text)[-1]
    assert declared == ("Py_MOD_GIL_NOT_USED" if load_setup().DECLARES_FREE_THREADS else "Py_MOD_GIL_USED")


@pytest.mark.parametrize(
    ("cython", "declares"), [("3.1.0", False), ("3.2.4", False), ("3.3.0", True), ("3.10.1", True), ("4.0.0a1", True)]
)
@pytest.mark.parametrize("free_threaded", [0, 1, None])  # None: CPython 3.12 and older
def test_free_threaded_cpython_needs_a_new_cython(
    monkeypatch: pytest.MonkeyPatch, cython: str, declares: bool, free_threaded: int | None
) -> None:
    known = sysconfig.get_config_var

    def told(name: str) -> object:
        return free_threaded if name == "Py_GIL_DISABLED" else known(name)

    monkeypatch.setattr(Cython, "__version__", cython)
    monkeypatch.setattr(sysconfig, "get_config_var", told)
    monkeypatch.setenv("SSLSOCK_OPENSSL_PREFIX", "/nowhere")  # what is asked for next
    setup = load_setup()
    assert setup.DECLARES_FREE_THREADS is declares
    refused = free_threaded and not declares
    with pytest.raises(SystemExit, match=f"needs Cython 3.3 or newer; this is {cython}$" if refused else "no OpenSSL under"):
        setup.configure(setup.core_extension())
