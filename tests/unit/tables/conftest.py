"""Output folders in memory."""

from __future__ import annotations

import pytest

from tests.support.fast_folder import fast_folder


@pytest.fixture
def tmp_path():
    with fast_folder() as folder:
        yield folder
