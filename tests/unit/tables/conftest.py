"""Output folders in memory."""

from __future__ import annotations

import pytest

from tests.support.fast_folder import fast_folder
from textspot_ray.storage.stores import open_store


@pytest.fixture
def tmp_path():
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"), create=True)
