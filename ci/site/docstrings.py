"""What the reference shows of the package: an extension of griffe, which reads the sources and the stubs.

Compiled classes have their signatures in stubs and their docstrings in the module; griffe is given both. A class shows what its
bases without a public name bring as its own. All that it shows has to be explained: a warning, which ends a strict build, says
what has no docstring.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Any, Optional, Union

import griffe

Member = Union[griffe.Attribute, griffe.Function]

PUBLIC = ("sslsock", "sslsock.aio", "sslsock.proxy_protocol")  # the modules whose names are the public ones
FACE = "sslsock.ssl"  # and this, of which the names that the interpreter's `ssl` lacks on some version
FIELD = re.compile(r"(\*{0,2}[a-z]\w*(?:, \w+)*): (?=\S)")
CODE = re.compile(r"(?<![\[`])`(\w+)(?:\.(\w+))?(?:\(\))?`(?![\]`])")
HANDLED = {"Seconds": "float", "Flag": "bool"}  # the types of what descriptors hold


def markdown(text: str) -> str:
    """A docstring as Markdown: a paragraph of fields, `name: what it is`, becomes a list, what is indented is Python."""
    blocks: list[str] = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        begin = next((number for number, line in enumerate(lines) if FIELD.match(line)), len(lines))
        if all(line.startswith("    ") for line in lines):
            code = inspect.cleandoc(block)
            if blocks and blocks[-1].startswith("```"):  # an empty line in it
                code = blocks.pop()[len("```python\n") : -len("```")] + "\n" + code
            blocks.append(f"```python\n{code}\n```")
            continue
        behind = begin == 0 or lines[begin - 1].endswith((".", ":"))  # else the colon is one of a sentence
        if behind and (begin == 0 or all(FIELD.match(line) or line.startswith(" ") for line in lines[begin:])):
            listed = [
                f"- {names(found[1])}: {line[found.end() :]}" if (found := FIELD.match(line)) else f"    {line.strip()}"
                for line in lines[begin:]
            ]
            lines = [*lines[:begin], "", *listed]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def names(listed: str) -> str:
    return ", ".join(f"`{name}`" for name in listed.split(", "))


def object_at(path: str) -> Any:
    """What the installed package has there; None for what only a type checker sees."""
    parts = path.split(".")
    thing: Any = None
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            thing = inspect.getattr_static(thing, part, None)
        break
    return thing


def docstring_of(path: str) -> str:
    thing = object_at(path)
    if isinstance(thing, (staticmethod, classmethod)):
        thing = thing.__func__
    text = getattr(thing, "__doc__", None)
    if not isinstance(text, str) or (not inspect.isclass(thing) and text == type(thing).__doc__):
        return ""
    return inspect.cleandoc(text)


def explain(obj: griffe.Object) -> None:
    """Give an object the docstring that it has at run time: one of a stub, which may say less, and a handler."""
    of_handler = obj.is_attribute and str(getattr(obj.value, "function", "")) == "Handler"  # it has its text as an argument
    if (of_handler or obj.filepath.suffix == ".pyi") and not obj.name.startswith("__"):  # type: ignore[union-attr]
        text = docstring_of(obj.path)
        if text:
            obj.docstring = griffe.Docstring(text, parent=obj)


def target(obj: Any) -> Any:
    return obj.final_target if obj.is_alias else obj


def union(parts: list[Any]) -> Any:
    flat: list[Any] = []
    for part in parts:
        flat += alternatives(part)
    different = list({str(part): part for part in flat}.values())
    joined = different[0]
    for part in different[1:]:
        joined = griffe.ExprBinOp(joined, "|", part)
    return joined


def alternatives(expression: Any) -> list[Any]:
    if isinstance(expression, griffe.ExprBinOp) and expression.operator == "|":
        return [*alternatives(expression.left), *alternatives(expression.right)]
    return [expression]


def spelled(expression: Any, module: griffe.Module) -> Any:
    """A type, with what private names in it stand for."""
    if isinstance(expression, griffe.ExprName):
        named = module.members.get(expression.name)
        found = target(named) if named is not None and (not named.is_alias or named.target_path.startswith("sslsock")) else None
        if found is not None and found.is_class and found.name.startswith("_"):
            return found.name.lstrip("_")  # of a stub alone
        value = getattr(found, "value", None)
        if isinstance(value, (griffe.ExprSubscript, griffe.ExprBinOp, griffe.ExprName)):
            return spelled(value, found.module)
        return value if isinstance(value, str) and not value.startswith(("'", '"')) else expression
    if isinstance(expression, griffe.ExprSubscript) and str(expression.left) in ("Optional", "Union"):
        parts = expression.slice.elements if isinstance(expression.slice, griffe.ExprTuple) else [expression.slice]
        parts = [spelled(part, module) for part in parts] + (["None"] if str(expression.left) == "Optional" else [])
        return union(parts)
    if isinstance(expression, griffe.Expr):
        new = copy.copy(expression)
        for field in fields(new):
            value = getattr(new, field.name)
            if isinstance(value, (list, tuple)):
                setattr(new, field.name, type(value)(spelled(one, module) for one in value))
            elif isinstance(value, griffe.Expr):
                setattr(new, field.name, spelled(value, module))
        return new
    return expression


def spell_types(member: Member) -> None:
    if isinstance(member, griffe.Function):
        shown = [parameter for parameter in member.parameters if not parameter.name.startswith("_")]
        member.parameters = griffe.Parameters(*shown)
        member.returns = spelled(member.returns, member.module)
        for parameter in member.parameters:
            parameter.annotation = spelled(parameter.annotation, member.module)
            parameter.default = spelled(parameter.default, member.module)
        return
    annotation = spelled(member.annotation, member.module)
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Handler":
        annotation = union([annotation.slice, "None"])
        member.labels = {"handler"}
        member.value = None
    elif isinstance(member.value, griffe.ExprCall) and str(member.value.function) in HANDLED:
        annotation, member.value = HANDLED[str(member.value.function)], None
        member.labels = {"writable"}
    member.annotation = annotation
    member.labels -= {"class-attribute", "instance-attribute", "module-attribute"}


def rank(member: Member) -> int:
    """What comes first: handlers, then all else that is read, then what is called."""
    return 2 if member.is_function else 0 if "handler" in member.labels else 1


class Docstrings(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.path != "sslsock":
            return
        self.shown: dict[str, griffe.Object] = {}  # by the path that they are written about with
        for path in PUBLIC:
            module = pkg.modules_collection[path]
            listed = [name for name in module.exports or () if not name.startswith("__")]
            self.shown |= {f"{path}.{name}": target(module[name]) for name in listed}
        own = pkg.modules_collection[FACE].members.items()
        self.shown |= {f"{FACE}.{name}": one for name, one in own if not one.is_alias and not name.startswith("_")}
        self.classes = {one.path for one in self.shown.values() if one.is_class}
        for obj in list(self.shown.values()):
            explain(obj)
            if isinstance(obj, griffe.Class):
                self.complete(obj)
            elif isinstance(obj, griffe.Attribute) and str(getattr(obj.value, "function", "")) == "with_loop":
                self.give_loop(obj, pkg)
            elif isinstance(obj, griffe.Function):
                spell_types(obj)
        self.link()

    def give_loop(self, attribute: griffe.Attribute, pkg: griffe.Module) -> None:
        """A method of the loop that is called as a function, with the loop as its first argument: in place of the attribute."""
        method = pkg["aio.connecting.Connecting"][attribute.name]
        function = copy.copy(method)
        function.parent, function.docstring = attribute.parent, attribute.docstring
        first, *rest = method.parameters
        loop = copy.copy(first)
        loop.name, loop.annotation = "loop", "asyncio.AbstractEventLoop"
        function.parameters = griffe.Parameters(loop, *rest)
        pkg["aio"].members[attribute.name].target = function
        self.shown[f"sslsock.aio.{attribute.name}"] = function

    def complete(self, cls: griffe.Class) -> None:
        if any(str(base).startswith(("IntEnum", "IntFlag", "NamedInt")) for base in cls.bases):
            self.tabulate(cls)
            return
        hidden, public = self.split_bases(cls)
        members: dict[str, Member] = {}
        for owner in (cls, *hidden):
            for name, member in owner.members.items():
                if name in members or member.is_alias or not isinstance(member, (griffe.Attribute, griffe.Function)):
                    continue
                explain(member)
                if member.docstring is None and self.known_elsewhere(cls, name):
                    continue
                if owner is not cls:
                    member = copy.copy(member)
                    member.parent = cls
                members[name] = member
        if "__new__" in members and "__init__" not in members:
            members["__init__"] = copy.copy(members["__new__"])
            members["__init__"].name = "__init__"
            members["__init__"].returns = None
        twins = sorted(name for name in members if name.endswith("_async"))
        given = (
            {parameter.name: parameter.annotation for parameter in members["__init__"].parameters}
            if "__init__" in members
            else {}
        )
        for member in members.values():
            if member.is_attribute and member.annotation is None and isinstance(member.value, griffe.ExprName):
                member.annotation = given.get(str(member.value))  # `self.error = error`
            spell_types(member)
        for number, member in enumerate(sorted(members.values(), key=rank)):
            member.lineno = number  # it is shown in this order
        self.divide_fields(cls, members)
        cls.members = {name: one for name, one in members.items() if name not in twins}
        cls.bases = public[:1]
        if cls.docstring is not None and twins:
            cls.docstring.value += f"\n\n**Thread-safe twins:** {names(', '.join(twins))}."

    def known_elsewhere(self, cls: griffe.Class, name: str) -> bool:
        """Whether a base that is documented elsewhere has it: one with a public name, or one of the standard library."""
        if name.startswith("__"):
            return False
        if any(name in base.members for base in cls.mro() if base.path in self.classes):
            return True
        bases = object_at(cls.path).__mro__[1:]
        return any(name in vars(base) for base in bases if not base.__module__.startswith("sslsock."))

    def split_bases(self, cls: griffe.Class) -> tuple[list[griffe.Class], list[Any]]:
        """The bases without a public name, and expressions for those that have one, both in the order of lookup."""
        hidden, public = [], []
        known: set[str] = set()
        for base in cls.mro():
            if base.path in known or not base.path.startswith("sslsock."):
                continue
            if base.path in self.classes:
                public.append(griffe.ExprName(base.name, parent=base.module))
                known |= {one.path for one in base.mro()}
            else:
                hidden.append(base)
        if not public:
            paths = [getattr(base, "canonical_path", "sslsock") for base in cls.bases]
            public = [path for path in paths if not path.startswith("sslsock")]
        return hidden, public

    def divide_fields(self, cls: griffe.Class, members: dict[str, Member]) -> None:
        """What the docstring of a class says of an attribute, by a field, stands at the attribute."""
        text = inspect.cleandoc(cls.docstring.value) if cls.docstring else ""
        for found in re.finditer(r"^(\w+): ((?:.+)(?:\n[ ]+.*)*)", text, re.M):
            member = members.get(found[1])
            if member is not None and member.docstring is None:
                member.docstring = griffe.Docstring(re.sub(r"\s+", " ", found[2]), parent=member)

    def tabulate(self, cls: griffe.Class) -> None:
        """The members of an enumeration are a table of its docstring."""
        rows = ["| name | value | meaning |", "|---|---|---|"]
        for name, member in cls.members.items():
            if member.is_attribute and not name.startswith("_"):
                if member.docstring is None:
                    griffe.logger.warning(f"{cls.path}.{name} is not explained")
                meaning = re.sub(r"\s+", " ", member.docstring.value) if member.docstring else ""
                rows.append(f"| `{name}` | {member.value} | {meaning} |")
        assert cls.docstring is not None, cls.path
        cls.docstring.value = inspect.cleandoc(cls.docstring.value) + "\n\n" + "\n".join(rows)
        cls.members = {}
        flags = any(str(base) == "IntFlag" for base in cls.bases)
        cls.bases = [griffe.ExprName("IntFlag" if flags else "IntEnum", parent=cls.module)]

    def link(self) -> None:
        """Make names in docstrings links to their entries; say which have none."""
        paths = {path.rpartition(".")[2]: path for path in sorted(self.shown, key=len, reverse=True)}
        for path, obj in self.shown.items():
            for place, one in self.entries(path, obj):
                if one.docstring is None:
                    griffe.logger.warning(f"{place} has no docstring")
                    continue
                linked = partial(self.reference, path=path, obj=obj, place=place, paths=paths)
                text = CODE.sub(linked, markdown(inspect.cleandoc(one.docstring.value)))
                one.docstring = griffe.Docstring(text, parent=one)

    def entries(self, path: str, obj: griffe.Object) -> Iterator[tuple[str, griffe.Object]]:
        yield path, obj
        for name, member in obj.members.items() if obj.is_class else ():
            if not name.startswith("_") and not name.isupper():
                yield f"{path}.{name}", member

    def reference(self, found: re.Match[str], *, path: str, obj: griffe.Object, place: str, paths: dict[str, str]) -> str:
        first, second = found[1], found[2]
        way: Optional[str] = None
        if second is None and obj.is_class and not first.startswith("_"):
            for cls in (obj, *obj.mro()):
                if first in cls.members and not first.isupper():
                    owner = next((path for path, one in self.shown.items() if one is cls), None)
                    way = owner and f"{owner}.{first}"
                    break
        if way is None and first in paths and first not in ("ssl", "run", "stop", "serve"):
            way = paths[first]
            if second is not None:
                members = self.shown[way].members
                way = f"{way}.{second}" if second in members and not second.isupper() else way if not members else None
        return found[0] if way is None or way == place else f"[{found[0]}][{way}]"
