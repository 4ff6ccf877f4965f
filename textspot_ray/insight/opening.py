"""From an output folder to the list of files that count, as one consistent state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from textspot_ray.archive.storage import Store, open_store
from textspot_ray.errors import StorageError
from textspot_ray.insight.relations import TableFiles
from textspot_ray.tables.ledger import RUNS, Ledger, open_ledger
from textspot_ray.tables.schema import TABLES

THRESHOLD_KEY = "text_threshold"


def table_files(uri: str, options: Mapping[str, Any] | None = None) -> TableFiles:
    """The committed files of an output folder at this moment.

    Raises:
        TableError: It is no table of ours, or one of a newer version.
        StorageError: Storage refuses.
    """
    store = open_store(uri, options)
    ledger = open_ledger(store, create=False)
    parts: dict[str, list[str]] = {table: [] for table in TABLES}
    for part in ledger.files():
        parts[part.table].append(part.path)
    by_text = [part.path for part in ledger.snapshot.by_text]
    base = {part.path for part in ledger.snapshot.base}
    return TableFiles(
        store=store,
        parts=parts,
        by_text=by_text,
        recent_words=[path for path in parts["words"] if path not in base] if by_text else (),
        markers=ledger.markers,
        fingerprint=ledger.fingerprint,
        text_threshold=_text_threshold(store, ledger),
    )


def _text_threshold(store: Store, ledger: Ledger) -> float:
    """The bundle's text threshold, as the table or its newest run that knows it tells; else 0."""
    found = ledger.fingerprint.get(THRESHOLD_KEY)
    if found is None:
        for facts in sorted(run_records(store), key=_started, reverse=True):
            if THRESHOLD_KEY in facts:
                found = facts[THRESHOLD_KEY]
                break
    try:
        return float(found) if found is not None else 0.0
    except (TypeError, ValueError):
        return 0.0


def run_records(store: Store) -> list[dict[str, Any]]:
    """What the runs recorded about themselves; damaged records are passed over."""
    records = []
    for entry in store.list(RUNS):
        if not entry.path.endswith(".json"):
            continue
        try:
            facts = json.loads(store.read(entry.path))
        except (ValueError, FileNotFoundError, StorageError):
            continue
        if isinstance(facts, dict):
            records.append(facts)
    return records


def _started(facts: Mapping[str, Any]) -> float:
    value = facts.get("started_at", 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
