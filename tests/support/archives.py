from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard
from PIL import Image

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Encoded, Item, Skipped
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.faults import RetryPolicy

FAST = RetryPolicy(attempts=3, base_s=0.001)
IMAGE = ImageConfig()


def picture(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    color = (seed * 7 % 256, seed * 31 % 256, seed // 256 % 256)
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def tar_bytes(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    options.setdefault("format", tarfile.GNU_FORMAT)
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = 0) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of repeated names, which are what we test
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def config(*uris: str | Path, **options: Any) -> SourceConfig:
    return SourceConfig(uris=tuple(str(u) for u in uris), **options)


def listed(*uris: str | Path, **options: Any) -> tuple[list[Item], Counter[str]]:
    """Items, and how often each reason for passing over came."""
    items: list[Item] = []
    reasons: Counter[str] = Counter()
    for found in list_items(config(*uris, **options), IMAGE, FAST):
        if isinstance(found, Skipped):
            reasons[found.reason] += 1
        else:
            items.append(found)
    assert len({item.image_id for item in items}) == len(items)
    for item in items:
        f"{item.image_id}{item.source}{item.member}{item.extra}".encode()  # storable as UTF-8
        assert item.image_id.isascii()
    return items, reasons


def names(items: Iterable[Item]) -> list[str]:
    """Ids without the path to their folder or archive."""
    return [item.image_id.rpartition("/")[2] for item in items]


def read_all(
    items: Iterable[Item], source: SourceConfig | None = None, **options: Any
) -> list[Encoded]:
    options.setdefault("retry", FAST)
    image = options.pop("image", IMAGE)
    with Reader(source or SourceConfig(), image, **options) as reader:
        return list(reader.read(items))
