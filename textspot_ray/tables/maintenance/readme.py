"""Files in a table's folder for people and tools that do not know this package.

``README.md`` explains the folder; its header (``configs``) is for Hugging Face's `datasets`, so
that ``load_dataset(folder, "words")`` works. A table without rows has an empty file, so that
``errors/*.parquet`` always matches something.
"""

from __future__ import annotations

from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import empty_path
from textspot_ray.tables.commit.data_files import empty_file
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.schema import TABLES

README = "README.md"
_CONFIGS = "".join(
    f"- config_name: {table}\n  data_files: {table}/*.parquet\n{default}"
    for table, default in (("words", "  default: true\n"), ("images", ""), ("errors", ""))
)
_TEXT = f"""---
configs:
{_CONFIGS}---
# Words in images

Tables by textspot-ray: `words` (a row per word),
`images` (a row per image or page) and `errors` (a row per image that failed).

```python
pandas.read_parquet("words")                      # in this folder
datasets.load_dataset(".", "words")              # a table without rows: with streaming=True
duckdb.sql("SELECT text, count(*) FROM 'words/*.parquet' GROUP BY ALL")
```

While a job runs, and after one that was killed, a folder may hold files that do not count yet or
no longer: then read what `textspot files` lists, or use `textspot query`. `words_by_text` is a
copy of some words in the order of their text, for look-ups; `_textspot` holds the plan and which
files count. Do not delete or change files by hand.
"""


def describe_table(ledger: Ledger) -> None:
    """Put the files that are missing; an existing README is not changed."""
    store = ledger.store
    if not store.exists(README):
        store.put_if_absent(README, _TEXT.encode())
    there = ledger.on_latest(lambda: _tables_with_rows(ledger))
    for table in TABLES:
        if table not in there:
            _put_empty(store, table)


def _tables_with_rows(ledger: Ledger) -> set[str]:
    there: set[str] = set()
    for part in ledger.files():
        there.add(part.table)
        if len(there) == len(TABLES):  # a large table has millions of files
            break
    return there


def _put_empty(store: Store, table: str) -> None:
    path = empty_path(table)
    if not store.exists(path):
        store.put_if_absent(path, empty_file(table))
