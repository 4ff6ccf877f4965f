"""The rooms of the package import one way only, and few files lie side by side in any of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "textspot_ray"
# each room imports from itself and from those before it
ORDER = (
    ("_version", "errors", "records", "machine", "redaction", "config", "import_path"),
    ("options",),
    ("reading_order", "text_key", "wording"),
    ("storage",),
    ("images",),
    ("sources",),
    ("spotting",),
    ("tables",),
    ("engine",),
    ("query",),
    ("export",),
    ("web",),
    ("evaluation",),
    ("deploy",),
    ("doctor",),
    ("api",),
    ("ray",),
    ("commands", "cli", "__main__", "__init__"),
)
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
ENTRIES = {"deploy.job_entry"}  # programs, as __main__ is: they run a command
MAX_FILES = 25  # side by side; commands/ has one a command


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``textspot_ray``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of the package's modules that code imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head, _, inside = name.partition(".")
            if head != "textspot_ray":
                continue
            while inside and inside not in MODULES:
                inside = inside.rpartition(".")[0]
            yield inside or "__init__"


class _AtRunTime(ast.NodeTransformer):
    """Takes out what only type checkers read: an annotation may name what uses the module."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_typing else self.generic_visit(node)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
GRAPH = {name: sorted(set(imports(tree)) - {name}) for name, tree in TREES.items()}
AT_RUN_TIME = {
    name: sorted(set(imports(_AtRunTime().visit(tree))) - {name}) for name, tree in TREES.items()
}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_has_a_room():
    assert {room(name) for name in MODULES} <= set(LEVELS)


def test_rooms_import_only_from_rooms_before_them():
    upward = [
        f"{name} imports {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if LEVELS[room(target)] > LEVELS[room(name)] and name not in ENTRIES
    ]
    assert not upward


def test_no_circle():
    """Depth-first search; modules that a function imports count."""
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, " -> ".join((*trail[trail.index(name) :], name))
        state[name] = 1
        for target in AT_RUN_TIME[name]:
            if MODULES[target].name != "__init__.py":  # a package's own docstring
                visit(target, (*trail, name))
        state[name] = 2

    for name in GRAPH:
        visit(name, ())


@pytest.mark.parametrize("name", ["ray"])
def test_only_three_rooms_import_ray(name: str):
    allowed = ("engine/ray/", "doctor/", "deploy/")
    offenders = []
    for path in MODULES.values():
        inside = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(n.split(".")[0] == name for n in names) and not inside.startswith(allowed):
                offenders.append(inside)
    assert not offenders


def test_no_room_is_crowded():
    folders = {path.parent for path in MODULES.values()} - {PACKAGE / "commands"}
    crowded = {folder.name: len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: n for name, n in crowded.items() if n > MAX_FILES} == {}


# one name for several things, on purpose
SHARED = {
    "Writer",  # of each export format
    "write",  # of those with pixels
    "run",  # of Python, of the engine, and of a job's entry
    "open_tables",  # the files alone, and with SQL, search and pictures
    "main",  # of each command
    "add_arguments",
}
SHARED_YET = {"cut", "merge"}  # of tables and of spotting


def test_no_two_things_have_one_name():
    """Classes and functions that a module lets out; methods are told apart by their class."""
    homes: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                homes.setdefault(node.name, set()).add(name)
    shared = {
        thing: sorted(where)
        for thing, where in homes.items()
        if len(where) > 1 and not thing.startswith("_") and thing not in SHARED | SHARED_YET
    }
    assert shared == {}


# rooms whose functions do not all say yet what their parameters are
NOT_YET = frozenset({"spotting"})
READER = ["job", "header", "found"]  # of `images.decode.READERS`, which says what they are


def test_three_parameters_are_explained():
    """Public functions with three or more parameters have ``Args``; overrides have their base's."""
    silent = [
        f"{name}.{title}"
        for name, tree in TREES.items()
        if room(name) not in NOT_YET
        for title, doc, parameters in _documented(tree.body)
        if len(parameters) >= 3
        and parameters != READER
        and not re.search(r"Args:|Attributes:|\b[Aa]s `", doc)
    ]
    assert not silent


def _documented(
    body: list[ast.stmt], owner: ast.ClassDef | None = None
) -> Iterator[tuple[str, str, list[str]]]:
    """Name, docstring and public parameters of what has a docstring; a class's are __init__'s."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _documented(node.body, node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        is_init = owner is not None and node.name == "__init__"
        doc = ast.get_docstring(owner if is_init and owner is not None else node)
        given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        public = [arg for arg in given if arg not in ("self", "cls") and not arg.startswith("_")]
        if doc is not None and (is_init or not node.name.startswith("_")):
            yield f"{owner.name}.{node.name}" if owner else node.name, doc, public
