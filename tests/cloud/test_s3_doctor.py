"""The doctor on S3: what is wrong is one line with its fix; what is right leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from textspot_ray.doctor.finding import Level
from textspot_ray.doctor.storage import check_output, check_source

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
s3fs = pytest.importorskip("s3fs")

PHOTO = Path(__file__).parents[2] / "jobs" / "demo" / "photos" / "scene_9.jpg"


@pytest.fixture
def endpoint(moto: tuple[str, int]) -> str:
    return f"http://{moto[0]}:{moto[1]}"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_that_works(endpoint: str) -> None:
    store = s3fs.S3FileSystem(endpoint_url=endpoint)
    store.mkdir("healthy")
    store.put_file(str(PHOTO), "healthy/photos/a.jpg")
    options = {"s3": {"endpoint_url": endpoint}}
    (read,) = check_source("s3://healthy/photos/", options)
    assert read.level is Level.OK
    found = list(check_output("s3://healthy/tables", options))
    assert [(f.check, f.level) for f in found] == [
        ("output", Level.OK),
        ("exclusive", Level.OK),
        ("clock", Level.OK),
    ]
    store.invalidate_cache()
    assert store.find("healthy") == ["healthy/photos/a.jpg"]


def test_a_bucket_that_is_not_there(endpoint: str) -> None:
    options = {"s3": {"endpoint_url": endpoint}}
    for (finding,) in (
        check_output("s3://nowhere/tables", options),
        check_source("s3://nowhere/photos", options),
    ):
        assert finding.level is Level.FAIL
        assert "make the bucket first" in finding.line()
        assert "\n" not in finding.line()


def test_no_credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    (finding,) = check_output("s3://healthy/tables", {"s3": {"endpoint_url": endpoint}})
    assert finding.level is Level.FAIL
    assert "give credentials" in finding.line()
