#!/bin/sh
# Guess: pyarrow's data_page_size (1 MiB by default) bounds the pages of a Parquet file, so that a
# reader that takes row after row needs little more memory than a row.
#
# What happens: the size is looked at only after every write_batch_size values (1,024 by default).
# 1,000 images of 60 kB become one page of 57 MiB, which a reader has to decompress whole for the
# first row. Only write_batch_size=1 makes pages of the size asked for.
#
# Seen with pyarrow 26.0.1 on Python 3.11, Linux x86-64, on 28 November 2026.
# Ends with 0 as long as it is so, with 1 when a page of the first file is below 8 MiB.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def first_page_bytes(path):
    """Bytes of the first data page as its header says (fields 1 and 2, Thrift compact)."""
    with open(path, "rb") as file:
        file.seek(pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset)
        head = iter(file.read(32))

    def number():
        value = shift = 0
        while True:
            byte = next(head)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value >> 1

    assert next(head) == 0x15
    number()  # the type of the page
    assert next(head) == 0x15
    return number()


table = pa.table({"image": [os.urandom(60_000) for _ in range(1000)]})
sizes = {}
for batch in (None, 1):
    options = {} if batch is None else {"write_batch_size": batch}
    pq.write_table(table, "a.parquet", data_page_size=1 << 20, use_dictionary=False, **options)
    sizes[batch] = first_page_bytes("a.parquet")
    print(f"write_batch_size {batch or 'as it is'}: first page of {sizes[batch]} bytes")
assert pq.read_table("a.parquet").equals(table)
sys.exit(0 if sizes[None] > 50 << 20 and sizes[1] < 2 << 20 else 1)
PYTHON
