"""Tables as earlier versions wrote them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from textspot_ray.storage.stores import Store
from textspot_ray.tables.schema import BY_TEXT, SCHEMAS, parquet_options, schema_of


def make_version(store: Store, version: int) -> None:
    """Turn a local table into what an earlier version would have left in its place.

    Commit records and snapshots are followed, manifests are not: the table must not have been
    folded since its files were last compacted.
    """
    written: dict[str, dict[str, Any]] = {}
    for table in (*SCHEMAS, BY_TEXT):
        for entry in store.list(f"{table}/"):
            written[entry.path] = _rewrite(Path(str(store.local_path(entry.path))), table, version)
    for folder, names in (("done", ("files",)), ("snap", ("base", "by_text"))):
        for entry in store.list(f"_textspot/{folder}/"):
            if entry.path.endswith(".json"):
                data = json.loads(store.read(entry.path))
                for part in (part for name in names for part in data[name]):
                    part.update(written[part["path"]])
                store.put(entry.path, json.dumps(data | {"version": version}).encode())
    data = json.loads(store.read("_textspot/table.json"))
    store.put("_textspot/table.json", json.dumps(data | {"version": version}).encode())


def _rewrite(file: Path, table: str, version: int) -> dict[str, Any]:
    schema = schema_of(table, version)
    options = parquet_options(table)
    for name in ("use_dictionary", "write_statistics"):
        options[name] = [column for column in options[name] if column in schema.names]
    rows = pq.read_table(file).select(schema.names).cast(schema)
    if table == BY_TEXT:
        rows = rows.sort_by("text")
    pq.write_table(rows, file, **options)
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}
