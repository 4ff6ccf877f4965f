"""One table, one arithmetic: what of the machine changes results is in the fingerprint."""

from __future__ import annotations

import pytest

from textspot_ray.config import EngineConfig
from textspot_ray.engine import arithmetic
from textspot_ray.engine.arithmetic import INT8_KEY, arithmetic_of, check_arithmetic
from textspot_ray.errors import FingerprintError, UsageError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger


@pytest.fixture
def dot_product(monkeypatch: pytest.MonkeyPatch):
    def have(there: bool | None) -> None:
        monkeypatch.setattr(arithmetic, "has_int8_dot_product", lambda: there)

    return have


def test_what_is_usual_adds_nothing(dot_product) -> None:
    for there in (True, None):
        dot_product(there)
        assert arithmetic_of("int8", EngineConfig()) == {}
    dot_product(False)
    assert arithmetic_of("f32", EngineConfig()) == {}
    assert INT8_KEY in arithmetic_of("int8", EngineConfig())
    assert arithmetic_of("f32", EngineConfig(threads_per_inference=4)) == {
        "threads_per_inference": "4"
    }


def test_nodes_of_two_kinds_do_not_share_an_int8_table(dot_product) -> None:
    engine = EngineConfig()
    dot_product(False)
    old = {"precision": "int8", **arithmetic_of("int8", engine)}
    check_arithmetic(old, engine)
    with pytest.raises(UsageError, match="multiplies 8-bit numbers otherwise"):
        check_arithmetic({"precision": "int8"}, engine)
    check_arithmetic({"precision": "f32"}, engine)
    dot_product(True)
    with pytest.raises(UsageError, match="--precision f32"):
        check_arithmetic(old, engine)


def test_a_table_names_what_differs_and_not_the_checksums_that_follow_from_it() -> None:
    sums = {f"sha256 {part}": part * 16 for part in ("a", "b")}
    there = {"bundle": "x 1", "precision": "f32", **sums}
    store = open_store("memory://arithmetic")
    open_ledger(store, there)
    now = {**there, "precision": "int8", "sha256 a": "c" * 64, INT8_KEY: "without"}
    with pytest.raises(FingerprintError) as caught:
        open_ledger(store, now)
    assert "(precision: f32 there, int8 now; int8_arithmetic: absent there, without now)" in str(
        caught.value
    )
    with pytest.raises(FingerprintError, match=r"sha256 a: a{11}… there, c{11}… now"):
        open_ledger(store, {**there, "sha256 a": "c" * 64})
