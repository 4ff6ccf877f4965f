#!/usr/bin/env bash
# fsspec deletes and reads another file than the one that was named.
#
# Guess: a name that exists is that file; patterns are for names that do not exist, or for glob(). At
# the latest the names that find() lists can be handed back to cat(), get() and rm() as they are.
# What happens: cat(), get() and rm() take any name with [ ] as a pattern, also in a list, also if the
# file exists, as exists() and cat_file() agree. With "scan[1].jpg" (so browsers name the second
# download) and "scan1.jpg" in a folder, cat(find(folder)) gives one of the two files and says nothing
# of the other, get() copies the bytes of scan1.jpg, and rm("scan[1].jpg") deletes scan1.jpg.
# Consequence: clean-up after processing deletes an image that was never read, and reading in bulk
# loses one. Call the calls for one file: cat_file, get_file, rm_file, for every name that is not yours.
# Versions: fsspec 2026.9.0 (memory, and local for reading; local's rm takes names as they are),
# Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when the named file is taken.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check fsspec==2026.9.0
mkdir "$folder/files" "$folder/files/"{store,memory,file}
"$folder/venv/bin/python" - "$folder/files" <<'PYTHON'
import os
import sys

import fsspec

print("fsspec", fsspec.__version__)
FILES = {"scan1.jpg": b"the first", "scan[1].jpg": b"the second"}


def names(paths):
    return sorted(os.path.basename(path) for path in paths)


surprising = True
for protocol, folder in (("memory", "/store"), ("file", f"{sys.argv[1]}/store")):
    fs = fsspec.filesystem(protocol)
    for name, data in FILES.items():
        fs.pipe_file(f"{folder}/{name}", data)
    second = f"{folder}/scan[1].jpg"
    listed = fs.find(folder)
    assert names(listed) == sorted(FILES) and fs.exists(second)
    assert fs.cat_file(second) == FILES["scan[1].jpg"]
    read = fs.cat(listed)
    print(f"  {protocol}: of {names(listed)} cat() gives {names(read)}")
    copies = f"{sys.argv[1]}/{protocol}"
    fs.get(second, f"{copies}/")
    copy = f"{copies}/{os.listdir(copies)[0]}"
    with open(copy, "rb") as file:
        copied = file.read()
    print(f"  {protocol}: get(scan[1].jpg) copies {copied}")
    surprising &= names(read) == ["scan1.jpg"] and copied == FILES["scan1.jpg"]
    if protocol == "memory":
        fs.rm(second)
        left = names(fs.find(folder))
        print(f"  {protocol}: after rm(scan[1].jpg) these are left: {left}")
        surprising &= left == ["scan[1].jpg"]
sys.exit(0 if surprising else 1)
PYTHON
