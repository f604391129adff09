"""What the reference shows of the package: a griffe extension.

The signatures and types of compiled classes are those of the stubs, which have no docstrings; the docstrings are those of the
modules. Both are the package's own, so that the reference says what `help()` and a type checker say.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

SIGNATURE = re.compile(r"\A[\w.]+\(.*\)( -> .*)?(\n+|\Z)")  # the line that Cython puts in front
TYPE = re.compile(r"\A\w+: '?[\w\[\], .]+'?\Z")  # all that it has to say of an attribute
FIELD = re.compile(r"(\*?\w+(?:, \*?\w+)*): (?=\S)")


def markdown(text: str) -> str:
    """A docstring as Markdown: of a paragraph of fields, `name: what it is`, a list."""
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if FIELD.match(lines[0]) and not lines[0].startswith(" "):
            lines = [f"- {names(found[1])}: {line[found.end() :]}" if (found := FIELD.match(line)) else line for line in lines]
            lines.insert(0, "")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def names(listed: str) -> str:
    return ", ".join(f"`{name}`" for name in listed.split(", "))


def found_object(path: str) -> object:
    """What the package has under a dotted path; None if that is a type alias or the like, which only a checker sees."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            thing = inspect.getattr_static(thing, part, None)
        return thing
    return None


def docstring_of(path: str) -> str:
    thing = found_object(path)
    if isinstance(thing, (staticmethod, classmethod)):
        thing = thing.__func__
    text = getattr(thing, "__doc__", None)
    if not isinstance(text, str) or (not inspect.isclass(thing) and text == type(thing).__doc__):
        return ""
    text = SIGNATURE.sub("", inspect.cleandoc(text))
    return "" if TYPE.match(text) else text


class Docstrings(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None and obj.filepath.suffix == ".pyi" and not obj.is_module:
            text = docstring_of(obj.path)
            if text:
                obj.docstring = griffe.Docstring(text, parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = markdown(inspect.cleandoc(obj.docstring.value))
