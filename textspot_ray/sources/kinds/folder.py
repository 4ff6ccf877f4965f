"""Folders, with everything below them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textspot_ray.errors import SourceError
from textspot_ray.images.formats import SNIFF_BYTES, NameKind, is_image_head, name_kind
from textspot_ray.records import ImageError, Item, Skipped, Stage
from textspot_ray.sources.identity import canonical
from textspot_ray.sources.kinds.base import Kind, Source
from textspot_ray.sources.selection import NOT_AN_IMAGE, not_read
from textspot_ray.storage.faults import error_kind, reason_of, reason_with_hint
from textspot_ray.storage.filesystem import LOCAL
from textspot_ray.storage.urls import public_url
from textspot_ray.storage.volume import FileInfo, SkippedEntry

if TYPE_CHECKING:
    from textspot_ray.sources.listing import Lister


class FolderKind(Kind):
    """A folder, or what a glob pattern matches below one."""

    label = "folder"

    def list(self, source: Source, lister: Lister) -> Iterator[Item | Skipped]:
        volume = lister.volumes.get(source.protocol)
        root = source.path.rstrip("/") + "/"
        given_as = public_url(source.given_as or source.path)
        pruned: list[Skipped] = []
        found_any = False

        def descend(path: str) -> bool:
            relative = path[len(root) :]
            reason = lister.selection.hidden(relative)
            if reason is not None:
                pruned.append(Skipped(canonical(source.protocol, path), reason))
            return reason is None and (source.glob is None or source.glob.may_match_below(relative))

        try:
            for entry in volume.walk(source.path, descend):
                yield from pruned
                pruned.clear()
                relative = entry.path[len(root) :]
                if source.glob is not None and not source.glob.matches(relative):
                    continue
                found_any = True
                if isinstance(entry, SkippedEntry):
                    yield _not_looked_into(source, entry, lister)
                else:
                    yield from _found(source, entry, relative, lister)
            yield from pruned
        except (OSError, TimeoutError) as exc:
            if isinstance(exc, FileNotFoundError):
                raise SourceError(f"no such folder: {given_as}") from exc
            reason = reason_with_hint(exc, source.protocol == LOCAL)
            raise SourceError(f"cannot list {given_as}: {reason}") from exc
        if source.glob is not None and not found_any:
            raise SourceError(f"nothing matches {given_as}")


def _not_looked_into(source: Source, entry: SkippedEntry, lister: Lister) -> Item | Skipped:
    uri = canonical(source.protocol, entry.path)
    if entry.fault is None:
        return Skipped(uri, entry.reason)
    # What cannot be looked into may hold images: a row says so, or they would just be missing.
    message = f"{entry.reason}: {reason_of(entry.fault)}"
    error = ImageError(Stage.LIST, error_kind(entry.fault), message)
    return Item(lister.without_base(uri), uri, error=error)


def _found(
    source: Source, entry: FileInfo, relative: str, lister: Lister
) -> Iterator[Item | Skipped]:
    protocol = source.protocol
    kind = lister.kind_of_name(relative)
    is_container = kind is not None and kind.holds_members
    reason = lister.selection.skipped(relative, is_container=is_container)
    if reason is not None:
        yield Skipped(canonical(protocol, entry.path), reason)
        return
    if kind is not None and is_container:
        yield from lister.expand(Source(kind, protocol, entry.path, entry))
        return
    by_name = NameKind.OTHER if kind is not None else name_kind(relative)
    if by_name is NameKind.IMAGE:
        yield from lister.expand(Source(lister.file_kind, protocol, entry.path, entry))
    elif by_name is NameKind.UNKNOWN and entry.size != 0:
        yield from _sniffed(source, entry, relative, lister)
    else:
        yield Skipped(canonical(protocol, entry.path), NOT_AN_IMAGE)


def _sniffed(
    source: Source, entry: FileInfo, relative: str, lister: Lister
) -> Iterator[Item | Skipped]:
    uri = canonical(source.protocol, entry.path)
    found = Source(lister.file_kind, source.protocol, entry.path, entry)
    try:
        head = lister.file(found).read(0, SNIFF_BYTES)
    except Exception as exc:
        error = ImageError(Stage.LIST, error_kind(exc), reason_of(exc))
        yield Item(lister.without_base(uri), uri, error=error)
        return
    if is_image_head(head):
        yield from lister.expand(found)
    else:
        yield Skipped(uri, not_read(relative))
