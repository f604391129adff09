"""The tables in docs/design/modules.md are true: every module stands in one layer, and imports only go down.

How they are read: "## Layer 2: …" begins a layer, "### …" a group of it. A row's first cell names modules, each between
backquotes; "### `folder/`: …" says where those of a group lie, and `folder/` in a cell stands for everything in it. Groups of
one layer know nothing of each other; within a group imports may go either way, but in no circle.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from peers import SOURCES, needs_sources

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
HERE = "docs/design/modules.md"

LAYER = re.compile(r"## Layer (\d):")
GROUP = re.compile(r"### (?:`(\w+)/`)?")
STRING = re.compile(r'("""|\'\'\').*?\1', re.S)
CYTHON_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?c?import[ \t]+(?:\(([\w, \t\n]+)\)|([\w., \t]+))", re.M)

pytestmark = needs_sources


class Group(NamedTuple):
    """Modules of one layer that may know each other."""

    layer: int
    number: int

    def __str__(self) -> str:
        return f"layer {self.layer}"


class Import(NamedTuple):
    """module, imported: dotted, without "sslsock."; include/x.pxd is "include.x". at_once: with the module."""

    module: str
    imported: str
    where: str
    at_once: bool


# The tables


def read_tables(text: str) -> dict[str, Group]:
    """The group of each module or folder ("commands/") that they name."""
    groups: dict[str, Group] = {}
    group, folder = Group(-1, 0), ""
    for line in text.splitlines():
        layer, begins = LAYER.match(line), GROUP.match(line)
        if layer is not None:
            group, folder = Group(int(layer[1]), group.number + 1), ""
        elif begins is not None:
            group, folder = Group(group.layer, group.number + 1), f"{begins[1]}." if begins[1] else ""
        elif line.startswith("| `"):
            for name in re.findall(r"`([^`]*)`", line.split("|")[1]):
                assert re.fullmatch(r"\w+/?", name), f"{HERE}: {name!r} is no module or folder"
                known = folder + name
                assert known not in groups, f"{HERE} names {known} twice"
                groups[known] = group
    assert groups, f"{HERE} has no tables of modules"
    return groups


def tables() -> dict[str, Group]:
    return read_tables((ROOT / HERE).read_text())


def group_of(module: str, groups: dict[str, Group]) -> Group | None:
    """The one that names it, or the folder that it lies in."""
    if module in groups:
        return groups[module]
    folder = module.partition(".")[0] + "/"
    return groups.get(folder)


# The code


def modules() -> dict[str, list[Path]]:
    """The files of each module; a package is its __init__, and that of a folder the folder's."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*SOURCES.rglob("*.py"), *SOURCES.rglob("*.pyx"), *SOURCES.rglob("*.pxd")]):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found.setdefault(".".join(parts), []).append(path)
    return found


def resolve(dotted: str, names: list[str], known: dict[str, list[Path]]) -> Iterator[str]:
    """What `from dotted import names` means of ours: modules where names are some, else the module that has the names."""
    if dotted and (INCLUDE / f"{dotted}.pxd").is_file():
        yield f"include.{dotted}"
        return
    if dotted != "sslsock" and not dotted.startswith("sslsock."):
        return
    inner = dotted[len("sslsock.") :]
    for name in names or [""]:
        whole = ".".join(filter(None, (inner, name)))
        package = f"{inner}.__init__" if inner else "__init__"
        for candidate in (whole, f"{whole}.__init__", inner, package):
            if candidate in known:
                yield candidate
                break


def imports_of(module: str, path: Path, known: dict[str, list[Path]]) -> Iterator[Import]:
    text = path.read_text()
    if path.suffix == ".py":
        yield from python_imports(module, path, ast.parse(text), known)
        return
    text = STRING.sub(lambda string: "\n" * string[0].count("\n"), text)
    for match in CYTHON_IMPORT.finditer(text):
        where = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        names = [name.split()[0] for name in (match[2] or match[3]).split(",") if name.strip()]
        of = [(match[1], names)] if match[1] else [(name, []) for name in names]
        for dotted, parts in of:
            for imported in dict.fromkeys(resolve(dotted, parts, known)):
                yield Import(module, imported, where, not match[0].startswith((" ", "\t")))


def python_imports(module: str, path: Path, tree: ast.AST, known: dict[str, list[Path]]) -> Iterator[Import]:
    package = ["sslsock", *module.split(".")[:-1]]
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or (isinstance(node, ast.If) and names_type_checking(node))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            wanted = [(".".join([*base, *filter(None, [node.module])]), [name.name for name in node.names])]
        elif isinstance(node, ast.Import):
            wanted = [(name.name, []) for name in node.names]
        else:
            continue
        for dotted, names in wanted:
            for imported in dict.fromkeys(resolve(dotted, names, known)):
                yield Import(module, imported, f"{path.relative_to(ROOT)}:{node.lineno}", id(node) not in later)


def names_type_checking(node: ast.If) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "TYPE_CHECKING" for part in ast.walk(node.test))


def all_imports() -> list[Import]:
    known = modules()
    return [one for module, paths in known.items() for path in paths for one in imports_of(module, path, known)]


# What holds


def test_every_module_stands_in_one_layer() -> None:
    groups = tables()
    known = modules()
    folders = {module.partition(".")[0] + "/" for module in known if "." in module} | {"include/"}
    homeless = [module for module in known if group_of(module, groups) is None and not module.endswith(".__init__")]
    assert not homeless, (
        f"{HERE} has no place for {', '.join(homeless)}: write the last part of the name into a table of its folder, in "
        "the layer whose modules it may be imported by"
    )
    gone = [name for name in groups if name not in known and name not in folders]
    assert not gone, f"{HERE} names what is not there: {', '.join(gone)}: take it out, or write what it has become"
    twice = [name for name in groups if "." in name and name.partition(".")[0] + "/" in groups]
    assert not twice, f"{HERE} names a folder as a whole and {', '.join(twice)} in it"


def test_imports_only_go_down() -> None:
    groups = tables()
    wrong = []
    for one in all_imports():
        above, below = group_of(one.module, groups), group_of(one.imported, groups)
        if above is None or below is None or above == below:
            continue  # of a folder's __init__, which only says what the folder is and how it is loaded
        if below.layer > above.layer:
            wrong.append(f"{one.where}: {one.module} ({above}) imports {one.imported} ({below}), which is above it")
        elif below.layer == above.layer:
            wrong.append(f"{one.where}: {one.module} imports {one.imported}, which is of another table of {above}")
    assert not wrong, "\n".join([*wrong, f"What both need belongs beneath both, in a module of its own ({HERE} says where)."])


def test_a_folders_init_imports_nothing_of_other_folders() -> None:
    """It is run whichever of the folder's modules is imported, so it may import only what each of them may."""
    wrong = [one for one in all_imports() if one.module.endswith(".__init__") and group_of(one.module, tables()) is None]
    assert not wrong, "\n".join(f"{one.where}: {one.module} imports {one.imported}" for one in wrong)


def test_no_circle() -> None:
    assert_no_circle((one.module, one.imported) for one in all_imports() if one.at_once)


def test_no_circle_of_the_proxys_folders() -> None:
    """Each can be read without those that use it. What lies beside the folders is a folder of its own here."""

    def folder(module: str) -> str:
        return ".".join(module.split(".")[:2])

    assert_no_circle(
        (folder(one.module), folder(one.imported))
        for one in all_imports()
        if one.at_once and one.module.startswith("proxy.") and one.imported.startswith("proxy.")
    )


def assert_no_circle(imports: Iterable[tuple[str, str]]) -> None:
    graph: dict[str, set[str]] = {}
    for importing, imported in imports:
        if importing != imported:
            graph.setdefault(importing, set()).add(imported)
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"imports in a circle: {' → '.join([*way[way.index(module) :], module])}"
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_tls_and_the_system_are_apart() -> None:
    """The engine never sees a descriptor or a clock, the loop knows nothing of TLS, and nobody above layer 2 sees OpenSSL."""
    groups = tables()
    loop, engine = groups["core.loop"], groups["core.engine"]
    wrong = [
        one
        for one in all_imports()
        for group in [group_of(one.module, groups)]
        if (group == loop and one.imported.startswith("include.openssl"))
        or (group == engine and one.imported == "include.system")
        or (group is not None and group.layer > 2 and one.imported.startswith("include."))
    ]
    assert not wrong, "\n".join(f"{one.where}: {one.module} must not see {one.imported}" for one in wrong)


# The test itself


def returns_in_except(text: str) -> list[int]:
    """The lines on which an `except` clause returns, not those of a function in it."""
    found, clause, function = [], None, None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if function is not None and indent > function:
            continue
        function = None
        if clause is None or indent <= clause:
            clause = indent if re.match(r"\s*except\b.*:", line) else None
        elif re.match(r"\s*def\b", line):
            function = indent
        elif re.match(r"\s*return\b", line):
            found.append(number)
    return found


CONTAINER = r"dict|list|set|bytearray|OrderedDict|deque"
SECTION = re.compile(r"critical_section\(([^)]*)\)")


def containers_as_locks(text: str, declarations: str) -> list[str]:
    """What `text` takes the critical section of and is a container after `declarations`: declared so, or made so."""
    named = {name.strip() for names in SECTION.findall(text) for name in names.split(",")}
    declared = {
        name
        for name in named
        for last in [re.escape(name.rpartition(".")[2])]
        if re.search(rf"\b(?:{CONTAINER}) {last}\b|\b{last} = (?:[\[{{]|(?:{CONTAINER})\()", declarations)
    }
    return sorted(declared)


def compiled_sources() -> list[Path]:
    return [path for folder in ("core", "_ssl") for path in (SOURCES / folder).glob("*.pyx")]


def test_no_container_is_a_lock() -> None:
    # Each of its operations takes its critical section, and on CPython 3.13 who takes one twice waits for itself and lets go
    # of all it has (docs/threads.md). An OrderedDict does so alone, in one operation: no other section helps.
    found = {}
    for path in compiled_sources():
        text, header = path.read_text(), path.with_suffix(".pxd")
        if wrong := containers_as_locks(text, text + (header.read_text() if header.exists() else "")):
            found[path.name] = wrong
        assert "OrderedDict" not in text, f"{path.name}: use a dict, which is in order too"
    assert not found, "give them an object of their own, whose critical section it is"


def test_how_containers_are_found() -> None:
    text = "with cython.critical_section(self, self.kept):\n critical_section(mine)\n critical_section(lock)\nmine = {}\n"
    assert containers_as_locks(text, text + "cdef dict kept, other\ncdef object lock = object()\n") == ["mine", "self.kept"]


def test_no_except_of_cython_returns() -> None:
    # The code that Cython 3.3 makes for it releases a traceback that is NULL where memory has run out.
    found = {path.name: lines for path in compiled_sources() if (lines := returns_in_except(path.read_text()))}
    assert not found, "take the `return` out of the `except`: its traceback may be NULL (docs/design.md, the rules)"


def test_how_returns_are_found() -> None:
    text = "try:\n    return 1\nexcept A:\n    if b:\n        return 2\n\n    return 3\nfinally:\n    pass\nreturn 4\n"
    assert returns_in_except(text) == [5, 7]
    text = "try:\n    pass\nexcept A:\n    class B:\n        def c():\n            return 1\n    return 2\n"
    text += "def d():\n    try:\n        pass\n    except A: pass\n    except B:\n        return 3\n"
    assert returns_in_except(text) == [7, 13]


def test_how_the_tables_are_read() -> None:
    text = """
## Layer 2: all of a folder

| modules | what they do |
|---|---|
| `upper/` | words, and `code` |

## Layer 1: two groups

### `one/`: words

| modules | what they do |
|---|---|
| `a` · `b` | words |
| `c` | more |

### `one/`: another

| `d` | words |

Prose with `names` alone.

## Layer 0: nothing beneath

| `leaf` · `bottom/` | words |
"""
    groups = read_tables(text)
    assert {name: group.layer for name, group in groups.items()} == {
        "upper/": 2,
        "one.a": 1,
        "one.b": 1,
        "one.c": 1,
        "one.d": 1,
        "leaf": 0,
        "bottom/": 0,
    }
    assert groups["one.a"] == groups["one.b"] == groups["one.c"] != groups["one.d"]


def test_how_imports_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    known = {name: [Path(name)] for name in ("__init__", "core.loop", "core.link", "core.__init__", "sockets.stream")}
    cython = tmp_path / "x.pyx"
    cython.write_text('''
"""
import sslsock.sockets.stream
"""
from system cimport recv
from sslsock.core.link cimport (
    Link,
    Side,
)
cimport sslsock.core.loop as l
cdef f():
    from sslsock.core import link
''')
    assert [(one.imported, one.at_once) for one in imports_of("core.x", cython, known)] == [
        ("include.system", True),
        ("core.link", True),
        ("core.loop", True),
        ("core.link", False),
    ]
    python = tmp_path / "y.py"
    python.write_text("""
from __future__ import annotations
import os
from . import stream
from .. import run
from ..core.loop import Loop
if TYPE_CHECKING:
    from ..core import link
def f():
    import sslsock.core.loop
""")
    assert [(one.imported, one.at_once) for one in imports_of("sockets.y", python, known)] == [
        ("sockets.stream", True),
        ("__init__", True),
        ("core.loop", True),
        ("core.link", False),
        ("core.loop", False),
    ]
