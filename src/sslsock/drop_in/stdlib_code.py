"""The code of the interpreter's own `ssl`, executed once more over another `_ssl`.

So each version of Python keeps its own behaviour, and none of its code is copied. The `import _ssl` in it is answered by a
private `__import__`: `sys.modules` is never changed, and no other thread sees anything.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Optional


def execute(space: dict[str, Any], private: ModuleType) -> None:
    """Fill `space`, the globals of a module that is in sys.modules under its `__name__` (enum looks there), with all that `ssl`
    has. What the module says of itself (`__doc__`, `__file__`, …) stays.

    private: what `import _ssl` gives. ImportError if the interpreter's `ssl` has no code, or wants what `private` lacks.
    """

    def import_module(
        name: str,
        globals: Optional[Mapping[str, object]] = None,
        locals: Optional[Mapping[str, object]] = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if name == "_ssl" and level == 0:
            return private
        return builtins.__import__(name, globals, locals, fromlist, level)

    code = code_of_ssl()
    of_itself = {name: value for name, value in space.items() if name.startswith("__")}
    space["__builtins__"] = {**vars(builtins), "__import__": import_module}
    try:
        exec(code, space)
    finally:
        space.update(of_itself)


def code_of_ssl() -> CodeType:
    """From the loader, which has it without source too: from .pyc files, a zipped library, a frozen program."""
    spec = spec_of_ssl()
    get_code = getattr(spec.loader, "get_code", None)
    try:
        code = get_code("ssl") if get_code is not None else None
    except (ImportError, OSError, SyntaxError) as exc:
        raise ImportError(f"sslsock.ssl is made from the interpreter's own ssl, whose code cannot be read: {exc}") from exc
    if not isinstance(code, CodeType):
        raise ImportError(
            f"sslsock.ssl is made from the interpreter's own ssl, of which {type(spec.loader).__name__} has no Python code"
        )
    return code


def spec_of_ssl() -> ModuleSpec:
    """Of the one that is imported already, or that would be: something else may stand in sys.modules under its name."""
    spec = getattr(sys.modules.get("ssl"), "__spec__", None)
    if isinstance(spec, ModuleSpec) and spec.name == "ssl":
        return spec
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec("ssl", None) if find_spec is not None else None
        if spec is not None:
            found: ModuleSpec = spec
            return found
    raise ImportError("sslsock.ssl is made from the interpreter's own ssl, and this interpreter has none")
