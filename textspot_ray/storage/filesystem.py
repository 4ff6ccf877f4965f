"""fsspec file systems by URI: drivers, options, streamed listings."""

from __future__ import annotations

import datetime as dt
import errno
import inspect
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textspot_ray.errors import ConfigError, MissingExtraError, StorageError, UsageError
from textspot_ray.storage.faults import hint_for, reason_of

LOCAL = "file"
WEB = ("http", "https")
_ALIASES = {"": LOCAL, "local": LOCAL, "s3a": "s3", "gcs": "gs", "abfss": "abfs"}
_OPTION_NAMES = {
    "s3": ("s3", "s3a"),
    "gs": ("gs", "gcs"),
    "az": ("az", "abfs", "abfss"),
    "abfs": ("abfs", "abfss", "az"),
    "http": WEB,
    "https": ("https", "http"),
    LOCAL: (LOCAL, "local"),
}
_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure", "abfs": "azure", "http": "http", "https": "http"}
_PAGE_TIMEOUT_S = 300.0  # drivers have time-outs of their own; this is for when they hang
_PAGE = 1000  # entries fetched from an asynchronous listing at a time


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One file as a listing shows it; ``info`` is the driver's own record."""

    path: str
    size: int | None
    info: Mapping[str, Any]


def split_uri(uri: str) -> tuple[str, str]:
    """Protocol and the rest of a URI; a plain path is of protocol ``file``.

    Raises:
        UsageError: A chained URI (``zip://a::s3://b``), which we never open.
    """
    protocol, sep, rest = uri.partition("://")
    if not sep or not protocol.replace("+", "").replace("-", "").replace(".", "").isalnum():
        return LOCAL, uri
    if "::" in rest and "://" in rest:
        inner = rest.rpartition("::")[2]
        raise UsageError(f"chained URI {uri!r}: give the archive itself ({inner})")
    protocol = protocol.lower()
    return _ALIASES.get(protocol, protocol), rest


def open_filesystem(protocol: str, options: Mapping[str, Any] | None = None) -> Any:
    """The fsspec file system of a protocol, with the options given for it.

    Args:
        protocol: As `split_uri` gives it.
        options: fsspec storage options by protocol, as in ``source.storage_options``.

    Raises:
        MissingExtraError: The driver is not installed.
        UsageError: No such protocol, or its driver needs other options.
        StorageError: The driver cannot reach its server.
        ConfigError: Options are not nested by protocol.
    """
    chosen: dict[str, Any] = {}
    for name in _OPTION_NAMES.get(protocol, (protocol,)):
        value = (options or {}).get(name)
        if value is not None:
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"storage_options.{name} must be a section of fsspec options, as in "
                    f"storage_options: {{{name}: {{anon: true}}}}"
                )
            chosen = dict(value)
            break
    if protocol != LOCAL and protocol != "memory":
        # Another process may write at any time: a listing or size kept from before is wrong.
        chosen.setdefault("use_listings_cache", False)
    if protocol == "gs" and (log := logging.getLogger("gcsfs")).level == logging.NOTSET:
        log.setLevel(logging.CRITICAL)  # it logs a traceback for every refusal
    try:
        import fsspec  # and asyncio, ssl: for local files nobody waits for them

        return fsspec.filesystem(protocol, **chosen)
    except ImportError as exc:
        extra = _EXTRAS.get(protocol)
        if extra is None:
            raise UsageError(f"{protocol}:// needs a driver: {exc}") from exc
        raise MissingExtraError(f"{protocol}://", extra) from exc
    except ValueError as exc:
        if "not known" not in str(exc):
            raise StorageError(f"cannot open {protocol}://: {exc}") from exc
        raise UsageError(f"unknown scheme {protocol}:// (s3, gs, az, https, file, ...)") from exc
    except TypeError as exc:  # of a driver's __init__: an option is missing, or it knows no such
        said = str(exc).partition("() ")[2] or str(exc)
        raise UsageError(f"storage_options.{protocol}: {said}") from exc
    except Exception as exc:  # some drivers connect at once
        hint = hint_for(exc)
        tail = f" ({hint})" if hint else ""
        raise StorageError(f"cannot open {protocol}://: {reason_of(exc)}{tail}") from exc


def native_path(protocol: str, rest: str) -> str:
    """The path as the driver wants it, from the part of a URI behind ``://``."""
    if protocol in WEB:
        return f"{protocol}://{rest}"
    if protocol == LOCAL:
        return str(Path(rest).absolute())
    if protocol == "memory":
        return "/" + rest.strip("/")
    return rest.rstrip("/")


def exclusive_put_options(fs: Any) -> dict[str, Any] | None:
    """Arguments with which a driver's ``pipe_file`` creates a file atomically, if none is there.

    None if it cannot: fsspec's default checks and then writes, and two writers can both pass the
    check.
    """
    method = getattr(fs, "_pipe_file", None) or fs.pipe_file
    import fsspec

    if not fs.async_impl and type(fs).pipe_file is fsspec.AbstractFileSystem.pipe_file:
        return None
    parameters = inspect.signature(method).parameters
    if "mode" in parameters:
        return {"mode": "create"}
    if "overwrite" in parameters:  # adlfs, whose older versions know no mode
        return {"overwrite": False}
    return None


def is_memory(fs: Any) -> bool:
    """Whether it is fsspec's memory store, which gives the same file object to all who open one."""
    return hasattr(fs, "store") and hasattr(fs, "pseudo_dirs")


def walk_remote(fs: Any, root: str) -> Iterator[RemoteEntry]:
    """All files below a folder of a remote store, in a fixed order, streamed where it can be.

    On S3, Google's and Azure's stores the pages of one flat listing (in key order) are passed on as
    they come. Other drivers are asked level by level, sorted, so that one folder level is in memory
    at a time.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if hasattr(fs, "_iterdir") and hasattr(fs, "split_path"):
        yield from _walk_pages(fs, _pages_of_s3(fs, root))
    elif hasattr(fs, "_call") and hasattr(fs, "_process_object"):
        yield from _walk_pages(fs, _pages_of_gcs(fs, root))
    elif hasattr(fs, "service_client") and hasattr(fs, "_details"):
        yield from _walk_pages(fs, _pages_of_azure(fs, root))
    elif is_memory(fs):
        # It scans all it has on each ls(): one find() instead.
        for path, info in fs.find(root, detail=True).items():
            yield RemoteEntry(path, info.get("size"), info)
    else:
        yield from _walk_levels(fs, root)


def modified_s(info: Mapping[str, Any]) -> float:
    """Modification time in seconds since the epoch from a driver's record; 0 if it has none."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, dt.datetime):
            return value.timestamp()
        if isinstance(value, str):
            try:
                return dt.datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return 0.0


def content_tag(info: Mapping[str, Any]) -> str | None:
    """A tag that changes with an object's content; None where the store has none."""
    for key in ("generation", "ETag", "etag", "content_md5", "md5Hash"):
        value = info.get(key)
        if value:
            return f"{key.lower()}:{str(value).strip(chr(34))}"
    stamp = modified_s(info)
    return f"stat:{info.get('size')}-{stamp:.6f}" if stamp else None


Pages = AsyncIterator[list[dict[str, Any]]]


def _walk_pages(fs: Any, pages: Pages) -> Iterator[RemoteEntry]:
    import asyncio

    async def take() -> list[dict[str, Any]] | None:
        return await anext(pages, None)

    while True:
        try:
            page = asyncio.run_coroutine_threadsafe(take(), fs.loop).result(_PAGE_TIMEOUT_S)
        except OSError:
            raise
        except Exception as exc:  # not all drivers' own are
            raise OSError(str(exc)) from exc
        if page is None:
            return
        for info in page:
            name, size = str(info["name"]), info.get("size")
            # Consoles make folders as empty objects whose names end in a slash.
            if info.get("type") == "file" and (size or not name.endswith("/")):
                yield RemoteEntry(name, size, info)


async def _pages_of_s3(fs: Any, root: str) -> Pages:
    bucket, prefix = _bucket_and_prefix(fs, root)
    page: list[dict[str, Any]] = []
    async for info in fs._iterdir(bucket, delimiter="", prefix=prefix):
        page.append(info)
        if len(page) >= _PAGE:
            yield page
            page = []
    yield page


async def _pages_of_gcs(fs: Any, root: str) -> Pages:
    bucket, prefix = _bucket_and_prefix(fs, root)
    options: dict[str, Any] = {"prefix": prefix or None, "maxResults": _PAGE}
    while True:
        answer = await fs._call("GET", "b/{}/o", bucket, json_out=True, **options)
        yield [fs._process_object(bucket, found) for found in answer.get("items", [])]
        options["pageToken"] = answer.get("nextPageToken")
        if not options["pageToken"]:
            return


async def _pages_of_azure(fs: Any, root: str) -> Pages:
    container, prefix = _bucket_and_prefix(fs, root)
    async with fs.service_client.get_container_client(container) as client:
        # with metadata, which tells the folders of a hierarchical account from files
        blobs = client.list_blobs(
            name_starts_with=prefix or None, include=["metadata"], results_per_page=_PAGE
        )
        try:
            async for page in blobs.by_page():
                yield await fs._details([blob async for blob in page])
        except Exception as exc:
            if getattr(exc, "error_code", None) == "ContainerNotFound":
                raise FileNotFoundError(errno.ENOENT, "no such container", container) from exc
            raise


def _bucket_and_prefix(fs: Any, root: str) -> tuple[str, str]:
    bucket, key, _ = fs.split_path(root)
    return bucket, f"{key.rstrip('/')}/" if key else ""


def _walk_levels(fs: Any, root: str) -> Iterator[RemoteEntry]:
    # A stack of iterators: folders may be nested deeper than Python recurses.
    stack = [iter(_level(fs, root))]
    while stack:
        info = next(stack[-1], None)
        if info is None:
            stack.pop()
        elif info.get("type") == "directory":
            if str(info["name"]).rstrip("/") != root.rstrip("/"):
                stack.append(iter(_level(fs, str(info["name"]))))
        else:
            yield RemoteEntry(str(info["name"]), info.get("size"), info)


def _level(fs: Any, path: str) -> list[dict[str, Any]]:
    return sorted(fs.ls(path, detail=True), key=lambda info: str(info["name"]))
