"""`run`: a program as Python would run it, with `sslsock.ssl` in the place of `ssl`.

What a program can see of how it was started is as `python PROGRAM`, `python -m MODULE` and `python -c CODE` leave it: sys.argv,
sys.path[0], the module `__main__`, tracebacks, the exit status. Two things differ: there are frames of ours below the program's
first one, and sys.orig_argv is the whole command line.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import io
import linecache
import os
import pkgutil
import shutil
import sys
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, Optional, Union

from .. import ssl
from .common import CommandError, UsageError, print_error


def run(arguments: argparse.Namespace) -> int:
    switch(arguments.loop)
    sys.argv = ["", *arguments.arguments]
    try:
        code, module = load(arguments)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module  # multiprocessing has set the second by the first
        exec(code, vars(module))
    except CommandError as exc:
        print_error(str(exc))
        return exc.status
    except SystemExit:
        raise
    except BaseException:
        hide_frames()
        raise
    return 0


def hide_frames() -> None:
    """An exception that ends the program is shown without the frames that have led to it, by whatever hook shows it."""
    hook = sys.excepthook

    def show(kind: type[BaseException], exc: BaseException, traceback: Optional[TracebackType]) -> None:
        shown = one = traceback
        while one is not None:
            if one.tb_frame.f_code.co_filename == run.__code__.co_filename:
                shown = one.tb_next
            one = one.tb_next
        hook(kind, exc.with_traceback(shown), shown)

    sys.excepthook = show


# The program


def load(arguments: argparse.Namespace) -> tuple[CodeType, ModuleType]:
    if arguments.module is not None:
        return load_module(arguments.module)
    if arguments.code is not None:
        return load_text("-c", arguments.code, "<string>")
    sys.argv[0] = arguments.program
    if arguments.program == "-":
        return load_text("-", "" if sys.stdin is None else sys.stdin.buffer.read(), "<stdin>")
    return load_path(arguments.program)


def load_text(name: str, text: Union[str, bytes], file: str) -> tuple[CodeType, ModuleType]:
    """A program that is no file's."""
    sys.argv[0] = name
    begin_path("")
    if sys.version_info >= (3, 13) and isinstance(text, str):  # whose tracebacks show the lines of `-c`
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    code = compile(text, file, "exec", dont_inherit=True)
    module = main_module(None)
    module.__loader__ = BuiltinImporter
    return code, module


def load_module(name: str) -> tuple[CodeType, ModuleType]:
    """As `python -m` finds it; of a package that is its `__main__`."""
    sys.argv[0] = "-m"
    with contextlib.suppress(FileNotFoundError):  # of a working directory that is removed
        begin_path(os.getcwd())
    spec = spec_of(name)
    if spec.submodule_search_locations is not None:
        spec = spec_of(f"{name}.__main__", f"; {name!r} is a package and cannot be directly executed")
    code = code_of(spec)
    if spec.origin is not None:
        sys.argv[0] = spec.origin
    return code, main_module(spec)


def spec_of(name: str, why: str = "") -> ModuleSpec:
    try:
        spec = find_spec(name)
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        # find_spec imports the packages above it, and says in all these ways that one is none.
        raise CommandError(f"while looking for the module {name!r}: {type(exc).__name__}: {exc}") from None
    if spec is None:
        raise CommandError(f"No module named {name}{why}")
    return spec


def code_of(spec: ModuleSpec) -> CodeType:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if not isinstance(code, CodeType):
        raise CommandError(f"the module {spec.name} has no Python code that could be run")
    return code


def load_path(path: str) -> tuple[CodeType, ModuleType]:
    """A script, a .pyc file, or a folder or zip file with a `__main__` in it."""
    whole = os.path.abspath(path)
    if pkgutil.get_importer(whole) is not None:
        begin_path(whole)
        spec = PathFinder.find_spec("__main__", [whole])
        if spec is None:
            raise CommandError(f"there is no '__main__' module in {path!r}")
        return code_of(spec), main_module(spec)
    begin_path(os.path.dirname(os.path.realpath(path)))
    loader: Any
    try:
        if path.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", whole)
            code = loader.get_code("__main__")
        else:
            loader = SourceFileLoader("__main__", whole)
            with io.open_code(whole) as file:
                code = compile(file.read(), whole, "exec", dont_inherit=True)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror or exc}{meant_by(path)}") from None
    module = main_module(None)
    module.__file__, module.__loader__ = whole, loader
    return code, module


def meant_by(name: str) -> str:
    """What the user of a command, which no file here is named after, may have meant."""
    if name.isidentifier() and PathFinder.find_spec(name):
        return f"; the module of this name: run -m {name}"
    command = shutil.which(name)
    return f"; the command of this name: run {command}" if command else ""


def begin_path(folder: str) -> None:
    """The program's folder stands first in sys.path, where `python -m sslsock` has put the working directory, and `sslsock` its
    own folder. None of them does with -P and -I."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = folder


def main_module(spec: Optional[ModuleSpec]) -> ModuleType:
    module = ModuleType("__main__")
    space: dict[str, Any] = {"__builtins__": builtins, "__spec__": spec, "__package__": None}
    if "__annotations__" in vars(sys.modules["__main__"]):  # which Python has made; not from 3.14 on
        space["__annotations__"] = {}
    if spec is not None:
        space.update(__loader__=spec.loader, __package__=spec.parent, __file__=spec.origin)
    if sys.version_info < (3, 15):
        space["__cached__"] = spec.cached if spec is not None else None
    vars(module).update(space)
    return module


# Its processes


def switch(loop: bool) -> None:
    """Install, in this process and in those that multiprocessing starts anew: what it pickles for them first has `Switched` in
    it. loop: asyncio's loops are ours too."""
    from multiprocessing import spawn

    ssl.install()
    if loop:
        replace_loops()
    prepare = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**prepare(name), "sslsock": Switched(loop)}

    spawn.get_preparation_data = get_preparation_data


def replace_loops() -> None:
    """Who asks asyncio for a loop gets ours, and who makes one by the class or the function that servers take for a factory:
    uvicorn has asyncio.SelectorEventLoop, or uvloop's where that is installed. uvloop.run is left to whoever calls it."""
    import asyncio

    from .. import aio

    aio.install_policy()
    for name in ("SelectorEventLoop", "EventLoop"):  # the second from CPython 3.13 on
        if hasattr(asyncio, name):
            setattr(asyncio, name, aio.EventLoop)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop = aio.new_event_loop  # type: ignore[assignment, unused-ignore]


class Switched:
    """Unpickled, it is a call of `switch`."""

    def __init__(self, loop: bool) -> None:
        self.loop = loop

    def __reduce__(self) -> tuple[Any, ...]:
        return switch, (self.loop,)
