"""The output folder: whole files put atomically, some of them only if absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textspot_ray.storage.base import TMP, Entry, Store
from textspot_ray.storage.faults import RetryPolicy
from textspot_ray.storage.filesystem import LOCAL, native_path, open_filesystem, split_uri
from textspot_ray.storage.local import LocalStore
from textspot_ray.storage.remote import RemoteStore

__all__ = ["TMP", "Entry", "LocalStore", "RemoteStore", "Store", "open_store"]


def open_store(
    uri: str,
    options: Mapping[str, Any] | None = None,
    create: bool = False,
    retry: RetryPolicy | None = None,
) -> Store:
    """Open a folder for reading and writing whole files.

    Args:
        uri: Path or fsspec URI of the folder.
        options: fsspec options by protocol, for example ``{"s3": {"endpoint_url": ...}}``.
        create: Make the folder (object stores have none to make).
        retry: How transient faults are tried again.

    Raises:
        UsageError: Unknown scheme or missing driver (`MissingExtraError`).
        StorageError: The folder cannot be made.

    >>> store = open_store("memory://docs/example")
    >>> store.put_if_absent("a.txt", b"first"), store.put_if_absent("a.txt", b"second")
    (True, False)
    """
    protocol, rest = split_uri(uri)
    if protocol == LOCAL:
        store: Store = LocalStore(Path(rest).absolute(), retry or RetryPolicy(attempts=3))
    else:
        fs = open_filesystem(protocol, options)
        root = native_path(protocol, rest)
        store = RemoteStore(uri.rstrip("/"), fs, root, retry or RetryPolicy())
    if create:
        store.mkdir()
    return store
