#!/bin/sh
# Guess: who reads one Parquet file by its name gets the columns of the file. A folder named text=1 above
# it matters only to readers of whole partitioned data sets, and never against a column of the file.
#
# What happens: DuckDB's read_parquet of the one file gives the folder's value for every row, as a
# number, and the file's own texts are gone without a word; only hive_partitioning=false brings them
# back. pyarrow gives the file's values, or refuses when asked from the folder above. Polars gives the
# file's values for the file, and the folder's when asked from the folder above.
#
# Seen with duckdb 2.0.1, polars 2.1.0, pyarrow 26.0.1 on Python 3.11, Linux x86-64, on 28 November 2026.
# Ends with 0 as long as it is so, with 1 when one of them answers otherwise.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet duckdb==2.0.1 polars==2.1.0 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import sys

import duckdb
import polars
import pyarrow
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "polars", polars.__version__, "pyarrow", pyarrow.__version__)
os.makedirs("top/text=1")
path = "top/text=1/words.parquet"
pq.write_table(pyarrow.table({"text": ["exit", "sale"]}), path)


def by_pyarrow(name):
    try:
        return pq.read_table(name)["text"].to_pylist()
    except pyarrow.ArrowTypeError:
        return "refused"


def by_duckdb(options=""):
    query = f"SELECT text FROM read_parquet('{path}'{options})"
    return [text for (text,) in duckdb.sql(query).fetchall()]


seen = {
    "duckdb, the file": by_duckdb(),
    "duckdb, hive_partitioning=false": by_duckdb(", hive_partitioning=false"),
    "pyarrow, the file": by_pyarrow(path),
    "pyarrow, the folder above": by_pyarrow("top"),
    "polars, the file": polars.read_parquet(path)["text"].to_list(),
    "polars, the folder above": polars.read_parquet("top")["text"].to_list(),
}
for how, answer in seen.items():
    print(f"{how}: {answer}")
own = ["exit", "sale"]
sys.exit(0 if list(seen.values()) == [[1, 1], own, own, "refused", own, ["1", "1"]] else 1)
PYTHON
