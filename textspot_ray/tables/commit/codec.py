"""State files: their stored form, and the put by which one of several writers wins.

Small ones are JSON with a version, read strictly. Keys that a later release has added are passed
over; a file of a later table version is refused.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from textspot_ray.errors import StorageError, TableError
from textspot_ray.storage.stores import Store
from textspot_ray.tables.schema import TABLE_VERSION

T = TypeVar("T")


def put_once(store: Store, path: str, data: bytes) -> bool:
    """Put a file that several writers may put at once; the first one's stays.

    Args:
        store: The output folder.
        path: Where.
        data: Bytes that no other writer has: they hold the random name of an attempt. So a put
            whose reply was lost on the way knows its own file again.

    Returns:
        Whether the file that lies there now is this one.

    Raises:
        StorageError: Storage refuses, and there is no such file.
        FileNotFoundError: Somebody's was there and is gone, so nothing tells whose it was.
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
        where: The file, for the message.
        what: What it is, likewise.

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
    except TableError as exc:  # of a newer version, or names what is no file of a table
        raise exc if where in str(exc) else TableError(f"{where}: {exc}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise TableError(f"{where} is a damaged {what} ({exc}); run textspot verify") from exc
