"""State files: their stored form, and the put that lets one of several writers win.

Small ones are JSON with a version, read strictly. Keys added by later releases are ignored; a file
of a later table version is refused.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from textspot_ray.errors import StorageError, TableError
from textspot_ray.storage.stores import Store
from textspot_ray.tables.schema import TABLE_VERSION

T = TypeVar("T")


def put_once(store: Store, path: str, data: bytes) -> bool:
    """Put a file that several writers may put at once; the first one wins.

    Args:
        store: The output folder.
        path: Its path.
        data: Bytes that no other writer has, because they contain the random name of an attempt. So
            a put whose reply was lost recognises its own file.

    Returns:
        Whether the file that lies there now is this one.

    Raises:
        StorageError: Storage refuses, and there is no such file.
        FileNotFoundError: A file was there and is gone, so that it is unknown whose it was.
    """
    try:
        if store.put_if_absent(path, data):
            return True
    except StorageError:
        if not store.exists(path):
            raise
    return store.read(path) == data


class _Versioned(msgspec.Struct):
    version: int


def encode_record(value: Any) -> bytes:
    """A record as indented JSON, with the table version."""
    facts = {**msgspec.to_builtins(value), "version": TABLE_VERSION}
    return msgspec.json.format(msgspec.json.encode(facts, order="sorted"), indent=1)


def decode_record(data: bytes, kind: type[T], where: str, what: str) -> T:
    """Read a record.

    Args:
        data: The file's bytes.
        kind: The record's class.
        where: The file's place, for messages.
        what: What the file is, for messages.

    Raises:
        TableError: It is damaged, or of a newer version.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version > TABLE_VERSION:
            raise TableError(
                f"{where} was written by a newer textspot-ray (table version {version}, this one "
                f"reads up to {TABLE_VERSION}): upgrade textspot-ray"
            )
        return msgspec.json.decode(data, type=kind)
    except TableError as exc:  # a newer version, or a file name that is not ours
        raise exc if where in str(exc) else TableError(f"{where}: {exc}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise TableError(f"{where} is a damaged {what} ({exc}); run textspot verify") from exc
