"""The examples of docs/extending.md are whole modules; here they are taken out and run."""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.support.archives import listed, names, picture, read_all
from tests.support.insight_tables import FINGERPRINT, Page, run_command, word, write_shard
from textspot_ray.export import formats
from textspot_ray.records import ErrorKind
from textspot_ray.sources import kinds
from textspot_ray.spotting.spotter import TextSpotter
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r'^```python title="(?P<name>\w+)\.py"\n(?P<code>.*?)^```$', re.M | re.S)
EXAMPLES = {
    block["name"]: block["code"] for block in _BLOCK.finditer((DOCS / "extending.md").read_text())
}
EVIL = 'a <b>&"x".jpg'
Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def module(name: str, package: str) -> ModuleType:
        """An example as the module that the page says it is."""
        made = ModuleType(f"{package}.{name}")
        monkeypatch.setitem(sys.modules, made.__name__, made)
        exec(compile(EXAMPLES[name], f"docs/extending.md:{name}.py", "exec"), made.__dict__)
        return made

    return module


def test_the_design_page_names_what_there_is() -> None:
    """``file.py::Class.name`` opens at once; a file or folder alone is there, too."""
    text = (DOCS / "design.md").read_text()
    places = re.findall(r"`([\w/]+\.py)(?:::([\w.]+))?`", text)
    assert len(places) > 30
    for file, name in places:
        path = DOCS.parent / ("" if file.startswith("tests/") else "textspot_ray") / file
        assert path.is_file(), file
        scope: ast.AST = ast.parse(path.read_text())
        for part in name.split(".") if name else ():
            found = [node for node in ast.iter_child_nodes(scope) if _is_named(node, part)]
            assert found, f"{file} has no {name}"
            scope = found[0]


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name


def test_the_page_holds_these_examples() -> None:
    assert sorted(EXAMPLES) == ["ar", "tally", "voc"]


def ar_bytes(members: list[tuple[str, bytes]], time: int = 0) -> bytes:
    out = io.BytesIO()
    out.write(b"!<arch>\n")
    for name, data in members:
        out.write(f"{name:16}{time:<12}{0:<6}{0:<6}{'100644':8}{len(data):<10}`\n".encode())
        out.write(data + b"\n" * (len(data) % 2))
    return out.getvalue()


@pytest.fixture
def ar(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load("ar", "textspot_ray.sources.kinds").ArKind()
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS[:-1], kind, kinds.KINDS[-1]))
    monkeypatch.setitem(kinds._BY_SUFFIX, "ar", kind)
    monkeypatch.setitem(kinds._ACCESS, "ar", kind.access["ar"])


def test_a_container_kind(ar: None, tmp_path: Path) -> None:
    first, second, bare = picture(1), picture(2, size=(41, 30)), picture(3, "PNG")
    members = [("a.jpg/", first), ("//", b"table\n"), ("b c.jpg", second), ("bare", bare)]
    data = ar_bytes([*members, ("readme.txt", b"words")])
    for name in ("x.ar", "x.bin"):  # by its name, and by its first bytes
        (tmp_path / name).write_bytes(data)
        items, reasons = listed(tmp_path / name)
        assert names(items) == [f"{name}#a.jpg", f"{name}#b%20c.jpg", f"{name}#bare"]
        assert sorted(reasons) == ["a table of ar", "not an image"]
        assert [encoded.data for encoded in read_all(items)] == [first, second, bare]
        assert [encoded.data for encoded in read_all(items[::-1])] == [bare, second, first]


def test_damage_of_a_container_kind_is_told(ar: None, tmp_path: Path) -> None:
    path = tmp_path / "x.ar"
    whole = ar_bytes([("a.jpg", picture(1)), ("b.jpg", picture(2))])
    path.write_bytes(whole)
    planned, _ = listed(path)
    for data in (b"", whole[:-40], whole[:8] + b"?" * 80, whole[:90]):
        path.write_bytes(data)
        items, _ = listed(path)
        assert items[-1].error is not None, data[:20]
        assert items[-1].error.kind is ErrorKind.BROKEN_ARCHIVE
    path.write_bytes(whole[:-40])
    assert [e.error and e.error.kind for e in read_all(planned)] == [None, ErrorKind.TRUNCATED]
    path.write_bytes(ar_bytes([("a.jpg", picture(1)), ("b.jpg", picture(2))], time=7))
    assert [e.error and e.error.kind for e in read_all(planned)] == [ErrorKind.CHANGED] * 2


def test_a_bundle(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("tally", "examples").write_bundle(tmp_path / "tally")
    image = np.zeros((480, 640, 3), np.uint8)
    image[200:260, 100:500, 2] = 255
    for x in (160, 260, 360):
        image[200:260, x : x + 30, 1] = 255
    words = TextSpotter.load(str(tmp_path / "tally"))(image)
    assert [found.text for found in words] == ["iii"]
    assert run_command("models", ["check", str(tmp_path / "tally")]) == 0
    assert "checksums are right" in capsys.readouterr().out


def test_an_export_format(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load("voc", "textspot_ray.export")
    monkeypatch.setitem(formats.FORMATS, "voc", "Pascal VOC")
    table = str(tmp_path / "table")
    store = open_store(table, create=True)
    open_ledger(store, FINGERPRINT)
    write_shard(store, [Page(EVIL, [word("<i>&", 10, 20)])])
    out = tmp_path / "voc"
    assert run_command("export", [table, "-f", "voc", "--out", f"{out}/"]) == 0
    (file,) = out.rglob("*.xml")
    tree = ET.parse(file)
    assert [name.text for name in tree.iterfind("object/name")] == ["<i>&"]
    assert (tree.findtext("filename") or "").endswith(EVIL)
    assert int(tree.findtext("object/bndbox/xmin") or -1) == 10
