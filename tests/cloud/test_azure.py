"""The output folder and sources on Azure's own emulator (Azurite), by adlfs.

Install it anywhere with ``npm install azurite`` and name its program in ``TEXTSPOT_AZURITE``, or
have it on PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fast_folder import fast_folder
from helpers.table_data import found, table_rows
from helpers.table_job import job, retry_job

from textspot_ray.archive.listing import list_items
from textspot_ray.archive.reader import Reader
from textspot_ray.archive.storage import open_store
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Item
from textspot_ray.tables.compact import compact
from textspot_ray.tables.plan import Plan
from textspot_ray.tables.runstatus import read_statuses
from textspot_ray.tables.sweep import finish
from textspot_ray.tables.verify import verify

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(300)]
pytest.importorskip("adlfs")
AZURITE = os.environ.get("TEXTSPOT_AZURITE") or shutil.which("azurite-blob")

# The account that every Azurite has; published in its documentation, and no secret.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, object]]]:
    if AZURITE is None:
        pytest.skip("no Azurite: npm install azurite, and TEXTSPOT_AZURITE=.../azurite-blob")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--skipApiVersionCheck", "--location", str(tmp_path_factory.mktemp("azurite"))]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    text = (
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
        f"AccountKey={_KEY};BlobEndpoint={endpoint};"
    )
    import adlfs

    chosen: dict[str, dict[str, object]] = {"az": {"connection_string": text}}
    adlfs.AzureBlobFileSystem(connection_string=text).mkdir("textspot")
    yield chosen
    server.terminate()
    server.wait(20)


def test_puts_are_exclusive_and_what_is_not_there_is_missing(options: dict) -> None:
    store = open_store("az://textspot/exclusive", options)
    assert store.probe_exclusive()
    assert store.put_if_absent("t.json", b"first")
    assert not store.put_if_absent("t.json", b"second")
    assert store.read("t.json") == b"first"
    store.put("t.json", b"third")
    assert store.read("t.json") == b"third" and store.size("t.json") == 5
    assert store.read_range("t.json", 1, 3) == b"hi" and store.read_range("t.json", 9, 12) == b""
    with pytest.raises(FileNotFoundError):
        store.read("none")
    assert not list(store.list("nothing/"))
    store.delete("none")
    (entry,) = store.list("")
    assert entry.path == "t.json" and abs(entry.mtime - time.time()) < 120


def test_of_many_writers_one_wins(options: dict) -> None:
    wins: list[int] = []

    def put(n: int) -> None:
        mine = open_store("az://textspot/race", options)
        if mine.put_if_absent("marker", str(n).encode()):
            wins.append(n)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = open_store("az://textspot/race", options).read("marker")
    assert [str(n).encode() for n in wins] == [kept]


def test_tables_are_those_of_a_disk(options: dict) -> None:
    store = open_store("az://textspot/tables", options)
    with fast_folder() as folder:
        local = open_store(str(folder / "out"), create=True)
        for one in (local, store):
            job(one, fold_at=3)
        assert table_rows(store, options) == table_rows(local)
        for one in (local, store):
            retry_job(one)
            compact(found(one))
            finish(found(one), grace_s=0)
        assert table_rows(store, options) == table_rows(local)
    assert verify(found(store), Plan(store)).sound
    assert read_statuses(store) == []


def test_images_are_listed_and_read(options: dict, tmp_path: Path) -> None:
    store = open_store("az://textspot/photos", options)
    head = b"\x89PNG\r\n\x1a\n"
    pictures = {f"{n % 3}/{n:02d} é.png": head + bytes([n]) * 500 for n in range(20)}
    for name, data in pictures.items():
        store.put(name, data)
    config = SourceConfig(uris=("az://textspot/photos",), storage_options=options)
    items = [item for item in list_items(config, ImageConfig()) if isinstance(item, Item)]
    assert len(items) == 20 and all(item.content_tag for item in items)
    with Reader(config, ImageConfig()) as reader:
        got = [encoded.data for encoded in reader.read(items)]
    assert got == [pictures[name] for name in sorted(pictures)]
