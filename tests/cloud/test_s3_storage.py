from __future__ import annotations

from collections.abc import Iterator

import pytest

from textspot_ray.archive.storage import open_store

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

Options = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def options() -> Iterator[Options]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "s3": {
            "key": "test",
            "secret": "test",
            "endpoint_url": f"http://{host}:{port}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
    }
    server.stop()


@pytest.fixture(scope="module")
def bucket(options: Options) -> str:
    import s3fs

    s3fs.S3FileSystem(**options["s3"]).call_s3("create_bucket", Bucket="archive")
    return "s3://archive"


def test_put_if_absent_is_exclusive(bucket: str, options: Options) -> None:
    store = open_store(f"{bucket}/exclusive", options)
    assert store.probe_exclusive()
    assert store.put_if_absent("t.json", b"first")
    assert not store.put_if_absent("t.json", b"second")
    assert store.read("t.json") == b"first"


def test_list_passes_pages_and_is_never_cached(bucket: str, options: Options) -> None:
    store = open_store(f"{bucket}/pages", options)
    for i in range(1100):
        store.put(f"d/{i:05d}", b"x")
    assert [e.path for e in store.list("d/")] == [f"d/{i:05d}" for i in range(1100)]
    store.put("d/99999", b"xyz")
    last = list(store.list("d/"))[-1]
    assert (last.path, last.size) == ("d/99999", 3)
    assert last.mtime > 1e9
    with pytest.raises(FileNotFoundError):
        store.read("d/none")
    assert store.read_range("d/99999", 1, 9) == b"yz"
    assert store.read_range("d/99999", 5, 9) == b""
