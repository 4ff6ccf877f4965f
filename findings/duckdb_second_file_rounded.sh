#!/usr/bin/env bash
# DuckDB rounds the confidences of one Parquet file because another file holds whole numbers.
#
# Guess: reading files of which one has the column as integers and another as doubles gives doubles, or
# an error, as pyarrow, pandas and Polars raise one.
# What happens: the first file decides. If its confidences happen to be integers (0 and 1, from a writer
# that infers types: pandas, CSV, JSON), those of every later file are rounded: 0.7 becomes 1 and 0.4
# becomes 0, without a warning, and "confidence >= 0.9" takes words at 0.7. Which file is first is a
# matter of names, so that one more file changes the answers about all the others.
# union_by_name=true, which is for files that lack columns, gives the true values.
# Consequence: state the schema when writing, and read tables of several writers by union_by_name.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, polars 2.1.0, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when the values are kept or the files refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "pyarrow", pa.__version__, "polars", polars.__version__)
FILES = {"a": [1, 0], "b": [0.7, 0.5, 0.4]}
for name, confidences in FILES.items():
    words = pa.table({"word": [f"{name}{i}" for i in range(len(confidences))], "confidence": confidences})
    pq.write_table(words, f"{name}.parquet")


def by_duckdb(source, where="true"):
    query = f"SELECT confidence FROM {source} WHERE word LIKE 'b%' AND {where} ORDER BY word"
    return [value for (value,) in duckdb.sql(query).fetchall()]


def refused(read, error):
    try:
        read()
    except error:
        return True
    return False


seen = {
    "b alone": by_duckdb("read_parquet('b.parquet')"),
    "b after a": by_duckdb("read_parquet(['a.parquet', 'b.parquet'])"),
    "b before a": by_duckdb("read_parquet(['b.parquet', 'a.parquet'])"),
    "*.parquet": by_duckdb("read_parquet('*.parquet')"),
    "*.parquet, at least 0.9": by_duckdb("read_parquet('*.parquet')", "confidence >= 0.9"),
    "*.parquet, union_by_name": by_duckdb("read_parquet('*.parquet', union_by_name=true)"),
}
for how, values in seen.items():
    print(f"  {how}: {values}")
others = {
    "pyarrow": refused(lambda: pq.read_table(["a.parquet", "b.parquet"]), pa.ArrowInvalid),
    "polars": refused(lambda: polars.read_parquet("*.parquet"), polars.exceptions.SchemaError),
}
print(f"  refused by: {[name for name, answer in others.items() if answer]}")
rounded = seen["*.parquet"]
sys.exit(
    0
    if seen["b alone"] == seen["b before a"] == seen["*.parquet, union_by_name"] == FILES["b"]
    and rounded == seen["b after a"]
    and rounded[0] == 1
    and all(isinstance(value, int) for value in rounded)
    and all(others.values())
    else 1
)
PYTHON
