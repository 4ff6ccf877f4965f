"""Object stores on loopback: moto as S3, Azurite as Azure's, gcp-storage-emulator as Google's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from textspot_ray.storage.filesystem import open_filesystem

Options = dict[str, dict[str, Any]]

# The account that every Azurite has; published in its documentation, and no secret.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Cloud:
    """A store that runs: how to reach it, and where tests may write."""

    kind: str
    options: Options
    root: str
    no_bucket: str

    def put(self, files: dict[str, bytes]) -> None:
        """Write many files at once; paths are below the root."""
        protocol, bucket = self.root.split("://")
        fs = open_filesystem(protocol, self.options)
        fs.pipe({f"{bucket}/{path}": data for path, data in files.items()})


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 emulator."""
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture(scope="session")
def s3_options(moto: tuple[str, int]) -> Options:
    """Storage options that reach the S3 emulator."""
    pytest.importorskip("s3fs")
    endpoint = f"http://{moto[0]}:{moto[1]}"
    client = {"region_name": "us-east-1"}
    return {"s3": {"key": "t", "secret": "t", "endpoint_url": endpoint, "client_kwargs": client}}


@contextlib.contextmanager
def _s3(request: pytest.FixtureRequest, _: Path) -> Iterator[Cloud]:
    options = request.getfixturevalue("s3_options")
    import s3fs

    s3fs.S3FileSystem(**options["s3"]).call_s3("create_bucket", Bucket="textspot")
    yield Cloud("s3", options, "s3://textspot", "s3://nowhere")


@contextlib.contextmanager
def _azure(_: pytest.FixtureRequest, folder: Path) -> Iterator[Cloud]:
    adlfs = pytest.importorskip("adlfs")
    program = os.environ.get("TEXTSPOT_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no Azurite: npm install azurite, and TEXTSPOT_AZURITE=.../azurite-blob")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--skipApiVersionCheck", "--location", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.2)
        text = (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
        adlfs.AzureBlobFileSystem(connection_string=text).mkdir("textspot")
        yield Cloud("azure", {"az": {"connection_string": text}}, "az://textspot", "az://nowhere")
    finally:
        server.terminate()
        server.wait(20)


@contextlib.contextmanager
def plain_gcsfs() -> Iterator[None]:
    """Have gcsfs speak to an emulator: its default asks by gRPC which kind of bucket it is."""
    import fsspec

    core = pytest.importorskip("gcsfs.core")
    known = fsspec.registry.get("gs")
    fsspec.register_implementation("gs", core.GCSFileSystem, clobber=True)
    yield
    fsspec.register_implementation("gs", known or "gcsfs.GCSFileSystem", clobber=True)


@contextlib.contextmanager
def _gcs(_: pytest.FixtureRequest, __: Path) -> Iterator[Cloud]:
    pytest.importorskip("gcp_storage_emulator", reason="pip install gcp-storage-emulator")
    from tests.support.gcs_emulator import GcsEmulator

    emulator = GcsEmulator()
    emulator.make_bucket("textspot")
    emulator.start()
    options = {"gs": {"endpoint_url": emulator.url, "token": "anon", "project": "p"}}
    with plain_gcsfs():
        yield Cloud("gcs", options, "gs://textspot", "gs://nowhere")
    emulator.stop()


_CLOUDS: dict[str, Callable[..., contextlib.AbstractContextManager[Cloud]]] = {
    "s3": _s3,
    "azure": _azure,
    "gcs": _gcs,
}


@pytest.fixture(scope="module", params=list(_CLOUDS))
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    """Each kind of store there is an emulator for."""
    with _CLOUDS[request.param](request, tmp_path_factory.mktemp(request.param)) as found:
        yield found
