from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.insight_tables import FINGERPRINT, MakeTable, Page, write_shard
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Write a table of shards of pages and give its folder."""

    def make(*shards: Sequence[Page], name: str = "out", where: str | None = None) -> str:
        uri = where or str(tmp_path / name)
        store = open_store(uri, create=True)
        open_ledger(store, FINGERPRINT)
        for index, pages in enumerate(shards):
            write_shard(store, pages, index)
        return uri

    return make
