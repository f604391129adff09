"""`python -m sslsock run`: a program sees what it would see below Python itself, with `sslsock.ssl` for `ssl`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from command_helpers import ENVIRONMENT, TIMEOUT

SEEN = """\
import json, os, sys, ssl
main = sys.modules["__main__"]
print(json.dumps({
    "ours": ssl.SSLContext.__module__ == "sslsock.ssl",
    "name": __name__, "file": __file__, "argv": sys.argv, "first": sys.path[0], "package": __package__,
    "spec": __spec__ and __spec__.name, "loader": type(__loader__).__name__, "main": vars(main) is globals(),
    "builtins": type(__builtins__).__name__, "doc": __doc__,
}))
"""

ARGUMENTS = ["-h", "--x", "--", "-m", "run", "a b", ""]


def start(*arguments: object, sslsock: bool = True, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    way = ["-m", "sslsock", "run"] if sslsock else []
    environment = {**ENVIRONMENT, "PYTHONWARNINGS": "default", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *options.pop("flags", []), *way, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, **options,
    )  # fmt: skip


def both(*arguments: object, folder: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program has seen below `run`, and below Python itself."""
    seen = []
    for sslsock in (True, False):
        result = start(*arguments, sslsock=sslsock, folder=folder, **options)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        seen.append(json.loads(result.stdout))
        for name in ("file", "first"):  # how far Python tidies a path depends on its version
            seen[-1][name] = os.path.abspath(folder / seen[-1][name])
    assert (seen[0].pop("ours"), seen[1].pop("ours")) == (True, False)
    return seen[0], seen[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs: a script, a package, a folder, a zip file, and a link to the script from elsewhere."""
    (tmp_path / "script.py").write_text('"""What it is for."""\n' + SEEN)
    (tmp_path / "module.py").write_text(SEEN)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/__main__.py").write_text(SEEN)
    (tmp_path / "package/inner.py").write_text("from . import __init__\n" + SEEN)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link.py").symlink_to("../script.py")
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as program:
        program.writestr("__main__.py", SEEN)
    return tmp_path


@pytest.mark.parametrize(
    "program",
    [["script.py"], ["./script.py"], ["work/link.py"], ["package"], ["program.zip"], ["-m", "module"], ["-m", "package"],
     ["-m", "package.inner"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("arguments", [[], ARGUMENTS], ids=["", "arguments"])
def test_a_program_sees_what_it_sees_below_python(folder: Path, program: list[str], arguments: list[str]) -> None:
    ours, pythons = both(*program, *arguments, folder=folder)
    assert ours == pythons


def test_an_absolute_path(folder: Path) -> None:
    ours, pythons = both(folder / "work/link.py", "x", folder=folder / "work")
    assert ours == pythons


def test_compiled_code(folder: Path) -> None:
    import py_compile

    py_compile.compile(str(folder / "script.py"), str(folder / "compiled.pyc"))
    ours, pythons = both("compiled.pyc", folder=folder)
    assert ours == pythons


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with CPython 3.11")
def test_a_safe_path_stays_safe(folder: Path) -> None:
    ours, pythons = both("script.py", folder=folder, flags=["-P"])
    assert ours == pythons


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit", "raise SystemExit(7)", "raise SystemExit('words')", "1 / 0", "def f():\n    1 / 0\nf()", "a b",
     "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "raise KeyboardInterrupt",
     "import atexit\natexit.register(print, 1)",
     "try:\n    1 / 0\nexcept ZeroDivisionError as exc:\n    raise ValueError('second') from exc",
     "import threading\nthreading.Thread(target=print, args=('thread',)).start()", "import nothing_of_this_name",
     "import sys\nsys.stdout.close()", "raise BrokenPipeError", "import sys\nprint(sys.stdin.read())"],
)  # fmt: skip
@pytest.mark.parametrize("module", [False, True], ids=["script", "module"])
def test_how_a_program_ends(tmp_path: Path, body: str, module: bool) -> None:
    """Its status, what it prints, and the traceback: line by line as Python has it."""
    (tmp_path / "program.py").write_text(f"print('begins')\n{body}\n")
    program = ["-m", "program"] if module else ["program.py"]
    compare(program, tmp_path, input="input")


def compare(program: list[str], folder: Path, **options: Any) -> None:
    ours, pythons = (start(*program, sslsock=sslsock, folder=folder, **options) for sslsock in (True, False))
    assert ours.returncode == pythons.returncode
    assert ours.stdout == pythons.stdout
    # CPython 3.13 ends with the exception of a status that is too large still set, and what trips over it is left to chance.
    if "OverflowError" not in ours.stderr + pythons.stderr:
        assert ours.stderr == without_runpy(pythons.stderr)


def without_runpy(text: str) -> str:
    """A traceback without the lines in which Python shows how it has come to a module, folder or zip file."""
    lines = text.splitlines(keepends=True)
    for number in reversed([number for number, line in enumerate(lines) if "runpy" in line]):
        del lines[number : number + (2 if lines[number + 1].startswith("    ") else 1)]
    return "".join(lines)


EXITS = ("None", "True", "0", "-1", "259", "1 << 70", "1.5", "('a', 1)", "''", "b'bytes'")


@pytest.mark.parametrize("value", EXITS)
def test_the_status_of_a_program(tmp_path: Path, value: str) -> None:
    compare(["-c", f"import sys; sys.exit({value})"], tmp_path)


PROGRAMS = {
    "arguments.py": "import sys; print(sys.argv)",
    "input.py": "print(input('> '))",
    "standard_input.py": "import sys; print(sys.stdin and sys.stdin.read())",
    "names.py": "import sys; print(sorted(globals()), __main__ if '__main__' in globals() else None)",
    "thread.py": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()",
    "interrupted.py": "import asyncio, os, signal\nasync def main():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    "    await asyncio.sleep(100)\nasyncio.run(main())",
    "handled.py": "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
    "except KeyboardInterrupt:\n    raise SystemExit(9)",
    "source.py": "import inspect\ndef f():\n    pass\nprint(inspect.getsource(f), inspect.getmodule(f).__name__)",
    "classes.py": "import pickle\nclass A:\n    pass\ndone = pickle.dumps(A())\nprint(done, type(pickle.loads(done)))",
    "again.py": "if __name__ == '__main__':\n    import again, sys\n    print(again is sys.modules['__main__'])",
    "hook.py": "import sys\nprint(sys.excepthook is sys.__excepthook__)\nsys.excepthook = lambda *a: print(a[:2])\n1 / 0",
    "warns.py": "import warnings\nwarnings.warn('one')\nwarnings.warn('two', DeprecationWarning)",
    "annotated.py": "from __future__ import annotations\nx: nothing = 3\nprint(x)",
    "byte_order.py": "\ufeffprint('mark')",
    "latin.py": "# coding: utf-8\nprint(ascii('\u00e9'))",
    "empty.py": "",
    "indented.py": "if 1:\nprint(1)",
    "broken/__main__.py": "import sys\nprint(sys.argv, __package__, __file__)\n1 / 0",
    "inside/__init__.py": "",
    "inside/__main__.py": "from . import other\nprint(other.value, __spec__.name)",
    "inside/other.py": "value = 1",
    "folder/program.py": "import beside\nprint(beside.value)",
    "folder/beside.py": "value = 2",
}
ROWS: list[tuple[list[str], str]] = [
    *(([name], "line\n") for name in PROGRAMS if "/" not in name),
    (["arguments.py", "--", "a", "-m", "--", "-c"], ""),
    (["--", "arguments.py", "--"], ""),
    (["input.py"], ""),
    (["folder/program.py"], ""), (["broken"], ""), (["broken/", "x"], ""), (["broken.zip", "x"], ""),
    (["-m", "inside"], ""), (["-minside"], ""), (["-m", "inside", "-m", "-h"], ""), (["-m", "folder.program"], ""),
    (["-c", "import sys; print(sys.argv, sys.path[0], __name__, __spec__, __loader__, __package__, vars().get('__file__'))",
      "-c", "-h", "--"], ""),
    (["-c1 / 0"], ""), (["-c", "def f():\n    1 / 0\nf()"], ""), (["-c", "a b"], ""), (["-c", ""], ""),
    (["-"], "import sys; print(sys.argv, sys.path[0], __name__)"), (["-", "a", "-"], "1 / 0"), (["-"], ""),
    (["/dev/stdin"], "print(1)"),
    (["-m", "json.tool"], '{"a": 1}'), (["-m", "pdb", "arguments.py", "x"], "c\nq\n"),
]  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n" if text else "", encoding="utf-8")
    with zipfile.ZipFile(folder / "broken.zip", "w") as program:
        program.write(folder / "broken/__main__.py", "__main__.py")
    return folder


@pytest.mark.parametrize(("program", "told"), ROWS, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "")
def test_a_program_does_what_it_does_below_python(programs: Path, program: list[str], told: str) -> None:
    compare(program, programs, input=told)


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_closed_standard_stream(programs: Path, descriptor: int) -> None:
    """Python finds none; what runs below us finds an empty one, for no socket may get its number."""
    command = [sys.executable, "-m", "sslsock", "run", "arguments.py"]
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}>&-', "sh", *command],
        cwd=programs, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout == ("" if descriptor == 1 else "['arguments.py']\n")


def test_a_hook_for_exceptions_gets_what_python_gives_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "def hook(kind, exc, traceback):\n"
        "    print(kind, exc, traceback.tb_lineno, traceback.tb_next, exc.__traceback__ is traceback)\n"
        "sys.excepthook = hook\n"
        "{}[1]\n"
    )
    ours, pythons = (start("program.py", sslsock=sslsock, folder=tmp_path) for sslsock in (True, False))
    assert ours.stdout == pythons.stdout == "<class 'KeyError'> 1 5 None True\n"
    assert ours.returncode == pythons.returncode == 1 and ours.stderr == pythons.stderr == ""


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        (["missing.py"], 2, "sslsock: missing.py: No such file or directory\n"),
        (["sh"], 2, f"sslsock: sh: No such file or directory; the command of this name: run {shutil.which('sh')}\n"),
        (["http", "app:app"], 2, "sslsock: http: No such file or directory; the module of this name: run -m http\n"),
        (["-m", "missing"], 1, "sslsock: No module named missing\n"),
        (["-m", "empty"], 1, "sslsock: No module named empty.__main__; 'empty' is a package and cannot be directly executed\n"),
        (["-m", "missing.inner"], 1, "sslsock: while looking for the module 'missing.inner': ModuleNotFoundError: "),
        (["-m", "_socket"], 1, "sslsock: the module _socket has no Python code that could be run\n"),
        (["empty"], 1, "sslsock: there is no '__main__' module in 'empty'\n"),
        ([], 2, "usage: python -m sslsock run "),
        (["-c"], 2, "usage: python -m sslsock run "),
        (["-u", "missing.py"], 2, "usage: python -m sslsock "),
        (["-m"], 2, "usage: python -m sslsock run "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run(tmp_path: Path, program: list[str], status: int, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/__init__.py").write_text("")
    result = start(*program, folder=tmp_path)
    assert result.returncode == status and result.stdout == "" and result.stderr.startswith(words), result.stderr
    assert ("options of Python itself stand before" in result.stderr) == (program[:1] == ["-u"])


def test_a_package_that_fails_when_imported(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/__init__.py").write_text("1 / 0\n")
    result = start("-m", "broken", folder=tmp_path)
    assert result.returncode == 1 and result.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "broken/__init__.py" in result.stderr and "sslsock" not in result.stderr


def test_the_first_import_of_a_package_finds_ours(tmp_path: Path) -> None:
    (tmp_path / "eager").mkdir()
    (tmp_path / "eager/__init__.py").write_text("import ssl\nfirst = ssl.create_default_context()\n")
    (tmp_path / "eager/__main__.py").write_text("from . import first\nprint(type(first).__module__)\n")
    result = start("-m", "eager", folder=tmp_path)
    assert (result.stdout, result.stderr) == ("sslsock.ssl\n", "")


WORKERS = """
import multiprocessing, pickle, ssl, sys

class Local:
    pass

def work(queue, method):
    import ssl
    queue.put((ssl.SSLContext.__module__, __name__, Local()))

def nested(queue, method):
    inner = multiprocessing.get_context(method).Process(target=work, args=(queue, method))
    inner.start()
    inner.join()

if __name__ == "__main__":
    assert isinstance(pickle.loads(pickle.dumps(Local())), Local)
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        for target in (work, nested):
            queue = context.Queue()
            process = context.Process(target=target, args=(queue, method))
            process.start()
            module, name, local = queue.get()
            assert isinstance(local, Local)
            process.join()
            print(method, module, process.exitcode)
"""


@pytest.mark.parametrize("module", [False, True], ids=["script", "module"])
def test_processes_of_multiprocessing_have_ours_too(tmp_path: Path, module: bool) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    result = start(*(["-m", "workers"] if module else ["workers.py"]), folder=tmp_path)
    assert result.stderr == ""
    assert result.stdout == "".join(f"{method} sslsock.ssl 0\n" * 2 for method in ("fork", "spawn", "forkserver"))


def test_an_interrupt(tmp_path: Path) -> None:
    # It does not wait in pause(): a signal that comes just before that call would not end it.
    (tmp_path / "waits.py").write_text("print('waits', flush=True)\nwhile True:\n    pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "sslsock", "run", "waits.py"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGINT
    assert error.rstrip().endswith("KeyboardInterrupt") and "sslsock" not in error


def test_help() -> None:
    result = start("--help", folder=Path.cwd())
    assert result.returncode == 0 and "a Python program as Python would" in " ".join(result.stdout.split())


LOOP = """\
import asyncio, importlib.util, multiprocessing, sys, ssl
async def main(): return type(asyncio.get_running_loop()).__module__
def child(queue): queue.put(asyncio.run(main()))
def factories():
    yield asyncio.new_event_loop
    yield asyncio.SelectorEventLoop
    if importlib.util.find_spec("uvloop"):
        import uvloop
        yield uvloop.new_event_loop
def run(factory):
    loop = factory()
    try: return loop.run_until_complete(main())
    finally: loop.close()
if __name__ == "__main__":
    assert ssl.SSLContext.__module__ == "sslsock.ssl"
    assert sys.argv[1:] == ["--loop", "x"]
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(queue,))
    process.start()
    print(asyncio.run(main()), queue.get(), *map(run, factories()))
    process.join()
"""


@pytest.mark.parametrize(("options", "name"), [([], "asyncio.unix_events"), (["--loop"], "sslsock.aio.event_loop")])
def test_asyncios_loops_are_ours_if_it_is_said(options: list[str], name: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(LOOP)
    result = start(*options, "program.py", "--loop", "x", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.replace("uvloop" if not options else "", "").split()) == {name}
