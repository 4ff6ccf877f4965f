#!/usr/bin/env bash
# DuckDB finds no NaN in a Parquet file that holds one, and lets it through a range check.
#
# Guess: a query gives the same rows from a Parquet file as from a table that was loaded from that file.
# What happens: Parquet's statistics leave NaN out, as the format says; DuckDB reasons from them as if
# they bounded every value. Over a file by pyarrow, isnan(confidence) gives no row, count_if of it 0, and
# "confidence BETWEEN 0 AND 1", which the statistics seem to prove for all, gives the NaN row too. The
# table loaded from the file answers both questions rightly, and so does a file without statistics or
# one that DuckDB wrote itself.
# Consequence: a check for broken confidences, run straight over the word files, passes. Load them
# into a table first, or compare as text (confidence::VARCHAR = 'nan'), or check while writing.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when file and table agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "pyarrow", pa.__version__)
words = pa.table({"word": ["exit", "sale", "taxi"], "confidence": [float("nan"), 0.25, 0.75]})
pq.write_table(words, "words.parquet")
pq.write_table(words, "plain.parquet", write_statistics=False)
duckdb.sql("CREATE TABLE loaded AS FROM 'words.parquet'")
duckdb.sql("COPY loaded TO 'own.parquet'")
SOURCES = ("'words.parquet'", "loaded", "'plain.parquet'", "'own.parquet'")
CHECKS = ("isnan(confidence)", "confidence BETWEEN 0 AND 1", "NOT confidence <= 1")
seen = {}
for check in CHECKS:
    for source in SOURCES:
        found = duckdb.sql(f"SELECT word FROM {source} WHERE {check} ORDER BY word").fetchall()
        seen[check, source] = [word for (word,) in found]
        print(f"  {check}, {source}: {seen[check, source]}")
counted = duckdb.sql("SELECT count_if(isnan(confidence)) FROM 'words.parquet'").fetchall()[0][0]
print(f"  count_if(isnan(confidence)), 'words.parquet': {counted}")
as_text = duckdb.sql("SELECT word FROM 'words.parquet' WHERE confidence::VARCHAR = 'nan'").fetchall()
print(f"  confidence::VARCHAR = 'nan', 'words.parquet': {as_text}")
nan, others = ["exit"], ["sale", "taxi"]
right = all(
    [seen[check, source] for check in CHECKS] == [nan, others, nan] for source in SOURCES[1:]
)
surprising = [seen[check, SOURCES[0]] for check in CHECKS] == [[], nan + others, []]
sys.exit(0 if right and surprising and counted == 0 and as_text == [('exit',)] else 1)
PYTHON
