"""Builds the Cython modules, those of `sslsock.core` and `sslsock._ssl`, in one shared object.

One object, not one per module, because OpenSSL may be linked statically: its state (error queue, providers, random
generator) has to exist once, and a pointer that one module makes is used by another. `sslsock/core/__init__.py` loads the
modules out of it.

Environment
    SSLSOCK_OPENSSL_PREFIX   an OpenSSL installation to use in place of the one that pkg-config names
    SSLSOCK_OPENSSL_STATIC   "1": link that installation's static libraries even if shared ones lie beside them, as wheels do;
                             certificates are then looked for where any distribution has them (core/trust_store.py)
    SSLSOCK_POLLER           "epoll" or "kqueue": what the loop waits with; by default the system's own. A kqueue on Linux is
                             that of libkqueue, which pkg-config has to know (ci/kqueue)
    SSLSOCK_DEBUG            "1": assertions and object counts compiled in, no optimisation
    SSLSOCK_SANITIZE         a list for -fsanitize=, for example "address,undefined"
    SSLSOCK_WERROR           "1": warnings of the C compiler are errors
    SSLSOCK_CYTHON_CACHE     a folder in which Cython keeps the C that it makes, for several builds of the same sources
"""

import functools
import hashlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
FOLDERS = ("core", "_ssl")
MACOS = sysconfig.get_platform().startswith("macosx")  # what is built for, which need not be what builds
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MODULES = sorted((folder, path.stem) for folder in FOLDERS for path in (ROOT / "src/sslsock" / folder).glob("*.pyx"))
C_SOURCES = (
    "include/window_bio.c", "include/ticket_keys.c", "include/poller_epoll.c", "include/poller_kqueue.c", "include/scratch.c",
    "include/hello_digest.c", "include/distrusted_keys.c", "include/record_buffers.c", "include/known_chains.c",
    "include/key_decoders.c", "include/fork_gate.c", "include/worker_pool.c", "include/source_table.c",
    "include/shared_lock.c", "include/room_table.c",
)
EXPORTS = "include/exports.macos" if MACOS else "include/exports.map"
GENERATED = "build/generated"
# docs/threads.md. What older ones make for `cdef public` attributes takes no lock.
DECLARES_FREE_THREADS = tuple(int(number) for number in re.findall(r"\d+", Cython.__version__)[:2]) >= (3, 3)


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def openssl_from_prefix(prefix: Path) -> dict:
    """Flags for the installation under `prefix`, whose libraries lie in lib64 or lib."""
    folders = [prefix / "lib64", prefix / "lib", *sorted((prefix / "lib").glob("*-linux-gnu*"))]
    shared = next((d for d in folders if (d / ("libssl.dylib" if MACOS else "libssl.so")).exists()), None)
    static = next((d for d in folders if (d / "libssl.a").exists()), None)
    if not (prefix / "include/openssl/ssl.h").exists() or not (shared or static):
        sys.exit(f"sslsock: no OpenSSL under SSLSOCK_OPENSSL_PREFIX={prefix}: it lacks include/openssl/ssl.h or lib*/libssl.*")
    include = [str(prefix / "include")]
    if static and (flag("SSLSOCK_OPENSSL_STATIC") or not shared):
        return {
            "include_dirs": include,
            "define_macros": [("SSLSOCK_STATIC", "1")],
            "extra_objects": [str(static / "libssl.a"), str(static / "libcrypto.a")],
            "extra_link_args": ["-Wl,-dead_strip"] if MACOS else ["-Wl,--gc-sections", "-ldl", "-lpthread"],
        }
    return {
        "include_dirs": include,
        "library_dirs": [str(shared)],
        "runtime_library_dirs": [str(shared)],
        "libraries": ["ssl", "crypto"],
    }


def from_pkg_config(libraries: list, wanted: list) -> "dict | None":
    """Flags for `libraries`, if pkg-config finds all that is `wanted`."""
    tool = os.environ.get("PKG_CONFIG") or shutil.which("pkg-config")
    if tool is None or subprocess.run([tool, "--exists", *wanted]).returncode:
        return None

    def words(option: str) -> list:
        return shlex.split(subprocess.check_output([tool, option, *libraries], text=True))

    return {"extra_compile_args": words("--cflags"), "extra_link_args": words("--libs")}


def openssl_from_pkg_config() -> dict:
    found = from_pkg_config(["libssl", "libcrypto"], ["libssl >= 3.0", "libcrypto >= 3.0"])
    if found is None:
        sys.exit(
            "sslsock: OpenSSL 3.0 or newer was not found by pkg-config.\n"
            "  Debian, Ubuntu:  apt-get install libssl-dev pkg-config\n"
            "  Fedora:          dnf install openssl-devel pkgconf\n"
            "  macOS:           brew install openssl@3 pkgconf\n"
            "  elsewhere:       set SSLSOCK_OPENSSL_PREFIX to an OpenSSL installation"
        )
    return found


def poller_options() -> dict:
    """What the loop waits with: macros, and flags where it is a library."""
    poller = os.environ.get("SSLSOCK_POLLER") or ("kqueue" if MACOS else "epoll")
    if poller not in ("epoll", "kqueue") or (MACOS and poller == "epoll"):
        sys.exit(f"sslsock: SSLSOCK_POLLER={poller}: it can be epoll (on Linux) or kqueue")
    if poller == "epoll":
        return {}
    found = {} if MACOS else from_pkg_config(["libkqueue"], ["libkqueue"])
    if found is None:
        sys.exit("sslsock: SSLSOCK_POLLER=kqueue: libkqueue was not found by pkg-config (ci/kqueue builds one)")
    return {"define_macros": [("SSLSOCK_KQUEUE", "1")], **found}


def core_extension() -> Extension:
    """As the sdist needs it, which is made without a compiler and without OpenSSL."""
    return Extension(
        "sslsock.core._native",
        [*(f"src/sslsock/{folder}/{name}.pyx" for folder, name in MODULES), *C_SOURCES],
        depends=[*(str(path.relative_to(ROOT)) for path in (ROOT / "include").glob("*.h")), EXPORTS],
        language="c",
    )


def configure(extension: Extension) -> None:
    """What only a build needs to know: C in place of Cython, the compiler's flags, where OpenSSL is."""
    if sysconfig.get_config_var("Py_GIL_DISABLED") and not DECLARES_FREE_THREADS:
        sys.exit(f"sslsock: free-threaded CPython needs Cython 3.3 or newer; this is {Cython.__version__}")
    prefix = os.environ.get("SSLSOCK_OPENSSL_PREFIX")
    options = openssl_from_prefix(Path(prefix).resolve()) if prefix else openssl_from_pkg_config()
    for name, words in poller_options().items():
        options[name] = [*options.get(name, []), *words]
    debug, sanitize = flag("SSLSOCK_DEBUG"), os.environ.get("SSLSOCK_SANITIZE", "")

    compile_args = ["-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    # Only the modules' entries are seen from outside, so that a second libssl in the process (the interpreter's own) is never
    # mistaken for one that is linked in here.
    link_args = [f"-Wl,-exported_symbols_list,{ROOT / EXPORTS}" if MACOS else f"-Wl,--version-script={ROOT / EXPORTS}"]
    compile_args += ["-O0", "-g"] if debug else ["-O2"]
    if flag("SSLSOCK_WERROR"):
        compile_args.append("-Werror")
    if sanitize:
        compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g"]
        link_args.append(f"-fsanitize={sanitize}")

    options.setdefault("extra_compile_args", []).extend(compile_args)
    options.setdefault("extra_link_args", []).extend(link_args)
    options.setdefault("include_dirs", []).insert(0, "include")
    macros = [("SSLSOCK_DEBUG", "1" if debug else "0"), ("CYTHON_CLINE_IN_TRACEBACK", "0"), *options.pop("define_macros", [])]

    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": False,
        "embedsignature": False,  # inspect.signature knows it
        "auto_pickle": False,  # what can be pickled says so itself
        "freethreading_compatible": DECLARES_FREE_THREADS,
    }
    # cythonize looks at the times of the sources only. What else the C depends on is written beside it.
    generated = ROOT / "build/cython"
    made_with, now = generated / "made-with", f"Cython {Cython.__version__} {directives}\n"
    if made_with.exists() and made_with.read_text() != now:
        shutil.rmtree(generated)
    generated.mkdir(parents=True, exist_ok=True)
    made_with.write_text(now)
    modules = cythonize(
        [Extension(f"sslsock.{folder}.{name}", [f"src/sslsock/{folder}/{name}.pyx"]) for folder, name in MODULES],
        include_path=["include", "src"],
        build_dir="build/cython",
        nthreads=CORES,
        cache=os.environ.get("SSLSOCK_CYTHON_CACHE") or False,
        compiler_directives=directives,
    )
    extension.sources = [*(source for module in modules for source in module.sources), *C_SOURCES]
    extension.define_macros = macros
    for name, value in options.items():
        setattr(extension, name, value)


def error_names(macros: "dict[str, str]") -> "tuple[dict[int, str], dict[tuple[int, int], str]]":
    """The names that OpenSSL's headers give to its libraries (`ERR_LIB_SSL`: 20 is "SSL") and to the reasons of their errors
    (`SSL_R_BAD_LENGTH`: (20, 271) is "BAD_LENGTH"). `macros`: what they define.
    """
    no_library = ("NONE", "USER", "MASK", "OFFSET")  # of err.h: the first that users may take, and how codes are packed
    prefix = "ERR_LIB_"
    numbers = {name[len(prefix) :]: int(text) for name, text in macros.items() if name.startswith(prefix) and text.isdigit()}
    numbers = {name: number for name, number in numbers.items() if name not in no_library}
    reasons = {}
    for macro in sorted(macros):
        library, _, name = macro.partition("_R_")
        if name and library in numbers and macros[macro].isdigit():
            reasons[numbers[library], int(macros[macro])] = name
    return {number: name for name, number in sorted(numbers.items(), reverse=True)}, reasons


def error_names_header(libraries: "dict[int, str]", reasons: "dict[tuple[int, int], str]") -> str:
    """Sorted, for a binary search."""
    return "\n".join(
        [
            "/* Made by setup.py from the headers of the OpenSSL that is compiled against. */",
            "struct error_name { int library, reason; const char *name; };",
            "static const struct error_name library_names[] = {",
            *(f'    {{{number}, 0, "{name}"}},' for number, name in sorted(libraries.items())),
            "};",
            "static const struct error_name reason_names[] = {",
            *(f'    {{{library}, {reason}, "{name}"}},' for (library, reason), name in sorted(reasons.items())),
            "};",
            "enum {",
            "    LIBRARY_NAMES = sizeof library_names / sizeof *library_names,",
            "    REASON_NAMES = sizeof reason_names / sizeof *reason_names",
            "};",
            "",
        ]
    )


@functools.cache
def digest(path: str) -> str:
    """Of a file's content; empty if it cannot be read."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def up_to_date(target: str, record: Path, command: str) -> bool:
    """Whether `command` would make `target` again from the same contents. Times would not tell: who leaves a branch and comes
    back to it has new times, and nothing to compile.
    """
    if not os.path.exists(target) or not record.exists():
        return False
    made_by, *inputs = record.read_text().splitlines()
    return made_by == command and all(digest(path) == known for known, _, path in (line.partition(" ") for line in inputs))


def write_record(record: Path, command: str, inputs: "Iterable[str]", begun: float) -> None:
    """For `up_to_date`. begun: a file that was written since then may be another than the compiler has read: no record."""
    if all(os.path.getmtime(path) < begun for path in inputs):
        record.write_text("\n".join([command, *(f"{digest(path)} {path}" for path in inputs)]))


def included(dependencies: Path) -> "list[str]":
    """The files that a compiler's -MD names."""
    _, _, files = dependencies.read_text().replace("\\\n", " ").partition(": ")
    return [re.sub(r"\\(.)", r"\1", name) for name in re.findall(r"(?:\\.|\S)+", files)]


def programs(command: "list[str]") -> "list[str]":
    """The files of the programs that begin a command: "ccache", "gcc"."""
    found = (shutil.which(word) for word in itertools.takewhile(lambda word: not word.startswith("-"), command))
    return [path for path in found if path]


class NativeBuild(build_ext):
    """Compiles the files of the one extension side by side, which setuptools does for several extensions only, and of them only
    those that would yield another object. Before that it makes the header with the names of OpenSSL's errors, which none of
    OpenSSL's functions tells.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:  # setuptools' own choice is a new folder each time, in which nothing has been compiled
            self.build_temp = f"build/temp.{self.plat_name}-{sys.implementation.cache_tag}"

    def preprocessed(self, extension: Extension, text: str, *options: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "headers.c"), Path(folder, "headers.i")
            source.write_text(text)
            self.compiler.preprocess(
                str(source),
                output_file=str(target),
                macros=extension.define_macros,
                include_dirs=extension.include_dirs,
                extra_postargs=[*extension.extra_compile_args, *options],
            )
            return target.read_text(errors="replace")

    def write_error_names(self, extension: Extension) -> None:
        lines = self.preprocessed(extension, "#include <openssl/err.h>\n")
        found = re.search(r'^# *\d+ "(.*/openssl)/err\.h"', lines, re.MULTILINE)
        if found is None:
            sys.exit("sslsock: the compiler does not tell where openssl/err.h is")
        headers = sorted(path.name for path in Path(found[1]).glob("*err.h"))
        text = "".join(f"#include <openssl/{name}>\n" for name in headers)
        defined = re.findall(r"^#define (\w+) (.*)$", self.preprocessed(extension, text, "-dM"), re.MULTILINE)
        header = error_names_header(*error_names({name: value.strip() for name, value in defined}))
        target = Path(GENERATED, "openssl_error_names.h")
        if not target.exists() or target.read_text() != header:  # its time says whether to compile anew
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(header)
        extension.include_dirs.append(GENERATED)
        extension.depends.append(str(target))

    def build_extension(self, extension: Extension) -> None:
        configure(extension)
        self.write_error_names(extension)
        compiler, force = self.compiler, self.force
        compile_all, compile_one, link = compiler.compile, compiler._compile, compiler.link_shared_object

        def compile_beside(sources: list, **options: object) -> list:
            with ThreadPoolExecutor(CORES) as pool:  # each waits for a process of the compiler
                return [made for objects in pool.map(lambda one: compile_all([one], **options), sources) for made in objects]

        def compile_changed(target: str, source: str, kind: str, arguments: list, late_arguments: list, options: list) -> None:
            command = shlex.join([*compiler.compiler_so, *arguments, source, *late_arguments])
            record, dependencies = Path(f"{target}.made"), Path(f"{target}.d")
            if not force and up_to_date(target, record, command):
                return
            record.unlink(missing_ok=True)
            begun = time.time()
            compile_one(target, source, kind, arguments, [*late_arguments, "-MD", "-MF", str(dependencies)], options)
            write_record(record, command, [*included(dependencies), *programs(compiler.compiler_so)], begun)

        def link_changed(objects: list, target: str, **options: object) -> None:
            command = shlex.join([*compiler.linker_so, *objects, target, repr(sorted(options.items()))])
            record = Path(self.build_temp, "linked.made")  # beside the target it would go into wheels
            if not force and up_to_date(target, record, command):
                return
            record.unlink(missing_ok=True)
            begun = time.time()
            link(objects, target, **options)
            write_record(record, command, [*objects, EXPORTS, *programs(compiler.linker_so)], begun)

        compiler.compile, compiler._compile, compiler.link_shared_object = compile_beside, compile_changed, link_changed
        self.force = compiler.force = True  # setuptools' own look at times, which knows neither headers nor options
        super().build_extension(extension)


def description() -> str:
    """The README as an index shows it, where relative links lead nowhere: they are made links to the source's home."""
    source = re.search(r'^Source = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert source is not None
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?=[\w.]+[/.)])", rf"\1{source[1]}/raw/main/", text)
    return re.sub(r"(?<=\]\()(?=[\w.]+[/.)])(?!https?:)", f"{source[1]}/blob/main/", text)


if __name__ == "__main__":  # cythonize's processes may import this file: from CPython 3.14 on they are no forks
    setup(
        ext_modules=[core_extension()],
        cmdclass={"build_ext": NativeBuild},
        long_description=description(),
        long_description_content_type="text/markdown",
    )
