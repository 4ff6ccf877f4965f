from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import make_stub_bundle


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models of tests never meet the user's cache; shared by a run's tests for speed."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("TEXTSPOT_CACHE", str(cache))


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Stub bundles by their options, each made once."""
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = make_stub_bundle(tmp_path_factory.mktemp("bundle"), **options)
        return made[key]

    return make
