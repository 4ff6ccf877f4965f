"""What the user's URIs stand for: files, folders, globs, lists and archives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from textspot_ray.errors import SourceError, UsageError, did_you_mean
from textspot_ray.images.formats import SNIFF_BYTES, NameKind, describe, name_kind
from textspot_ray.sources.kinds import FILE, FOLDER, KINDS, kind_of_head, kind_of_name
from textspot_ray.sources.kinds.base import Kind, Source
from textspot_ray.sources.uris import (
    Glob,
    expand_braces,
    file_name,
    has_pattern,
    parse,
    split_glob,
)
from textspot_ray.storage.faults import Fault, fault_of, hint_for, reason_with_hint
from textspot_ray.storage.filesystem import LOCAL, WEB
from textspot_ray.storage.urls import public_url
from textspot_ray.storage.volume import FileInfo, Volume
from textspot_ray.storage.volumes import Volumes

_BESIDE = 5000  # names that are searched for the one that was meant


def resolve_uri(uri: str, volumes: Volumes) -> Iterator[Source]:
    """What a URI of the user's stands for; more than one thing for braces.

    Args:
        uri: As the user wrote it.
        volumes: Where to look.

    Raises:
        SourceError: It is not there, cannot be looked at, or is nothing we list.
        UsageError: Its scheme is unknown or its driver is missing.
    """
    protocol, path = parse(uri)
    if protocol == LOCAL and os.path.lexists(path):
        yield _resolve_one(uri, protocol, path, volumes)
        return
    for expanded in expand_braces(uri):
        protocol, path = parse(expanded)
        yield _resolve_one(expanded, protocol, path, volumes)


def _resolve_one(uri: str, protocol: str, path: str, volumes: Volumes) -> Source:
    volume = volumes.get(protocol)
    shown = public_url(uri)
    is_pattern = protocol not in WEB and has_pattern(path)
    if is_pattern and not (protocol == LOCAL and os.path.lexists(path)):
        folder, pattern = split_glob(path)
        _look(shown, volume, folder)
        return Source(FOLDER, protocol, folder, glob=Glob(pattern), is_named=True, given_as=shown)
    info = _look(shown, volume, path)
    if info.is_folder:
        return Source(FOLDER, protocol, path, is_named=True, given_as=shown)
    name = file_name(protocol, path)
    kind = kind_of_name(name)
    if kind is None and name_kind(name) is NameKind.IMAGE:
        kind = FILE
    if kind is None:
        kind = _sniff(shown, volume, path)
    return Source(kind, protocol, path, info, is_named=True, given_as=shown)


def _look(uri: str, volume: Volume, path: str) -> FileInfo:
    try:
        return volume.info(path)
    except UsageError:
        raise
    except Exception as exc:
        if fault_of(exc) is Fault.MISSING:
            raise SourceError(f"no such file or folder: {uri}{_hint(uri)}") from exc
        if volume.protocol != LOCAL:
            exc = _better_error(volume, path, exc)
        reason = reason_with_hint(exc, volume.protocol == LOCAL)
        raise SourceError(f"cannot look at {uri}: {reason}") from exc


def _better_error(volume: Volume, path: str, exc: Exception) -> Exception:
    """The first request was a HEAD, whose answer has no body and so no reason: a listing has."""
    if volume.protocol in WEB or fault_of(exc) is Fault.TIMEOUT:
        return exc
    try:
        next(iter(volume.walk(path)), None)
    except Exception as better:
        if hint_for(better) and fault_of(better) is not Fault.MISSING:
            return better
    return exc


def _hint(uri: str) -> str:
    if has_pattern(uri):
        return "; quote patterns, so that the shell passes them on"
    if "://" in uri:
        return ""
    path = Path(uri)
    try:
        with os.scandir(path.parent) as beside:
            names = [entry.name for entry in islice(beside, _BESIDE)]
    except (OSError, ValueError):
        return ""
    return did_you_mean(path.name, names)


def _sniff(uri: str, volume: Volume, path: str) -> Kind:
    """What a file is whose name does not tell."""
    try:
        head = volume.read(path, 0, SNIFF_BYTES)
    except Exception as exc:
        raise SourceError(
            f"cannot read {uri}: {reason_with_hint(exc, volume.protocol == LOCAL)}"
        ) from exc
    kind = kind_of_head(head)
    if kind is None:
        archives = ", ".join(k.label for k in KINDS if k.holds_members)
        raise SourceError(
            f"{uri} is no source we know but {describe(head)}: give a folder, an image, an archive "
            f"({archives}) or a list (.txt, .csv, .jsonl)"
        )
    return kind
