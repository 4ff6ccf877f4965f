"""What a kind of container is: how it is recognised, how it lists, how an item's bytes are read.

A new kind is one module beside this one and its name in `kinds.KINDS`. It subclasses

* `Kind`, or `ArchiveKind` for what holds members: names and first bytes it goes by, and `list`
  (or `members`), which yields an `Item` for each image and a `Skipped` for everything else;
* `Ranged` or `Streamed` for each container name that its items are stored under: how the bytes of
  such an item are read, in any order by ranges, or from one open source in the order listed.

Whatever is wrong with one member is a `MemberError`, with the whole container a `ContainerError`;
faults of storage are the driver's own exceptions. All become rows of the errors table.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, ClassVar

from textspot_ray.errors import MissingExtraError, TextspotError
from textspot_ray.images.formats import NameKind, is_image_head, name_kind
from textspot_ray.records import ErrorKind, ImageError, Item, Skipped, Stage
from textspot_ray.sources.identity import RepeatedNames, member_id, member_text
from textspot_ray.sources.selection import NESTED, NOT_AN_IMAGE
from textspot_ray.storage.faults import SourceChangedError, error_kind, reason_of
from textspot_ray.storage.filesystem import LOCAL
from textspot_ray.storage.volume import FileInfo, Volume

if TYPE_CHECKING:
    from textspot_ray.sources.listing import Lister
    from textspot_ray.sources.uris import Glob

Beat = Callable[[], None]
ReadRange = Callable[[int, int], bytes]
MAX_DECODER_BYTES = 128 << 20  # of a decompressor's window or dictionary; `zstd --long` takes that
HEAD_BYTES = 512


class ContainerError(Exception):
    """A container cannot be read, or not further; what came before is good."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.BROKEN_ARCHIVE) -> None:
        super().__init__(message)
        self.kind = kind


class MemberError(Exception):
    """One member cannot be read; its neighbours may."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def changed(detail: str) -> MemberError:
    """The source is not what was planned."""
    return MemberError(
        ErrorKind.CHANGED,
        f"changed since it was planned ({detail}): run again with --on-changed redo",
    )


def too_large(size: int | None, max_bytes: int) -> MemberError:
    """More bytes than ``image.max_bytes`` allows."""
    what = f"{size} bytes" if size is not None else "the file"
    return MemberError(ErrorKind.TOO_LARGE, f"{what}: more than image.max_bytes = {max_bytes}")


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list: the URI as written, the id it gives, its other columns as JSON.

    With ``error`` it stands for a row that cannot be used; ``number`` (from 1) names it.
    """

    uri: str
    image_id: str | None = None
    extra: str | None = None
    error: str | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to list.

    Attributes:
        kind: What it is.
        protocol: Of its volume.
        path: Where the driver finds it.
        info: What the store says of it, if it was asked.
        glob: Pattern on paths below a folder, or None for all.
        row: The row of a list that names it.
        is_named: Whether the user or a list named it, or it was found in a folder.
        given_as: As it was named, for messages.
    """

    kind: Kind
    protocol: str
    path: str
    info: FileInfo | None = None
    glob: Glob | None = None
    row: ListRow | None = None
    is_named: bool = False
    given_as: str = ""


class SourceFile:
    """A file's bytes.

    Transient faults are tried again by others: in a listing by its volumes, in a run by the reader.

    Args:
        volume: Where it is.
        path: Its driver's path.
        info: What is known of it.
        max_bytes: Of one item.
        image_column: Of a table, as the user chose it.

    Attributes:
        known: What its store said of it, None if it was not asked.
    """

    def __init__(
        self,
        volume: Volume,
        path: str,
        info: FileInfo | None = None,
        max_bytes: int = 1 << 62,
        image_column: str | None = None,
    ) -> None:
        self.volume = volume
        self.path = path
        self.max_bytes = max_bytes
        self.image_column = image_column
        self.known = info

    @property
    def is_local(self) -> bool:
        """Whether a read costs next to nothing."""
        return self.volume.protocol == LOCAL

    def info(self) -> FileInfo:
        """What its store says of it."""
        if self.known is None:
            self.known = self.volume.info(self.path)
        return self.known

    def stamp(self) -> object:
        """What tells two states of it apart; asked anew each time."""
        return self.volume.stamp(self.path)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """For what lists it: sees to it that the file is the same behind the block as before.

        Raises:
            SourceChangedError: It is not.
        """
        known = self.known
        is_told = known is not None and known.tag is not None
        before = (known.size, known.tag) if known is not None and is_told else self.stamp()
        yield
        if self.stamp() != before:
            raise SourceChangedError(self.path)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes from ``start`` to ``stop``, fewer if the file ends before."""
        return self.volume.read(self.path, start, stop)

    def open(self) -> IO[bytes]:
        """A seekable file that is not shared with other callers."""
        return self.volume.open(self.path)


class Access(ABC):  # noqa: B024 (what a kind adds is in `Ranged` and `Streamed`)
    """How the items of one container name are read."""

    def bytes_held(self, item: Item) -> int | None:
        """Bytes that an item takes in memory, as far as the plan knows."""
        return item.size


class Whole(Access):
    """Items that are whole files of their own."""


class Ranged(Access):
    """Items that are stretches of their source: read in any order, neighbours by one read.

    ``reads_more``: `content` takes the first bytes of a large item for its span and asks for the
    rest, so that they are not copied.
    """

    reads_more: ClassVar[bool] = False

    @abstractmethod
    def span(self, item: Item) -> tuple[int, int]:
        """First and last byte to fetch; `content` can ask for more."""

    @abstractmethod
    def content(self, item: Item, part: memoryview, more: ReadRange, max_bytes: int) -> bytes:
        """The image's bytes.

        Args:
            item: What to read.
            part: The bytes of its span, fewer if the source ends before.
            more: Reads other bytes of the source.
            max_bytes: Of the result.

        Raises:
            MemberError: It is not there, or larger, or damaged.
        """


class ItemStream(ABC):
    """One open source whose items are read in the order listed."""

    def is_past(self, item: Item) -> bool:
        """Whether the item can only be read by opening the source anew."""
        return False

    @abstractmethod
    def read(self, item: Item) -> bytes:
        """The bytes of an item that it is not past.

        Raises:
            MemberError: This item cannot be read.
            ContainerError: Nor can what follows.
        """

    def close(self) -> None:  # noqa: B027 (nothing to do for most)
        """Let go of what is held besides the file."""


class Streamed(Access):
    """Items that are read from one open source.

    ``is_ordered``: going back costs a start from the beginning, so that one process should take
    all shards of the source, in order, and its first item may be long in coming.
    """

    is_ordered: ClassVar[bool] = False

    @abstractmethod
    def open(self, file: IO[bytes], source: SourceFile, item: Item, beat: Beat) -> ItemStream:
        """Begin to read.

        Args:
            file: The open source; the caller closes it.
            source: The same source, for reads by ranges.
            item: The first that is wanted.
            beat: To be called while nothing comes of long work, so that it is not taken to hang.
        """


class Kind(ABC):
    """A kind of thing that items are listed from.

    Attributes:
        label: For messages.
        suffixes: Ends of file names that tell the kind, lower case, without the first dot.
        access: Container names that its items are stored under, and how those are read. Plans and
            tables hold these names: they never change.
        holds_members: Whether it is a file with items inside.
    """

    label: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    access: ClassVar[Mapping[str, Access]] = {}
    holds_members: ClassVar[bool] = False

    def recognises(self, head: bytes) -> bool:
        """Whether a file begins like one of this kind; ``head`` is its first 512 bytes."""
        return False

    @abstractmethod
    def list(self, source: Source, lister: Lister) -> Iterator[Item | Skipped]:
        """Everything in a source: images, and what is skipped and why.

        Args:
            source: What to list.
            lister: Selection, volumes, and other kinds for what is found inside.

        Raises:
            SourceError: The user named something that cannot be used at all.
        """


class ArchiveKind(Kind):
    """A file with members; damage becomes an item with an error, behind what came before it."""

    holds_members = True

    @abstractmethod
    def members(self, archive: Archive) -> Iterator[Item | Skipped]:
        """Its members (`Archive.item`), in the order stored.

        Raises:
            ContainerError: It cannot be read, or not further.
        """

    def list(self, source: Source, lister: Lister) -> Iterator[Item | Skipped]:
        archive = Archive(self, source, lister)
        try:
            if archive.file.info().size == 0:
                raise ContainerError("the file is empty (0 bytes)")
            with archive.file.unchanged():
                yield from self.members(archive)
        except ContainerError as exc:
            yield archive.broken(exc.kind, str(exc))
        except MissingExtraError as exc:
            yield archive.broken(ErrorKind.UNSUPPORTED, str(exc))
        except TextspotError:
            raise
        except Exception as exc:
            reason = f"{reason_of(exc)} (run again to list the rest)"
            yield archive.broken(error_kind(exc), reason)


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the archive has it.

    Attributes:
        name: As stored.
        offset: Where its reader finds it.
        size: Of its data in the archive, in bytes.
        tag: Changes when its content does.
        skip: Why it is no regular file, or None.
        head: First bytes of its content, where `Archive.wants_head`.
        error: Why its data cannot be read, or None.
    """

    name: bytes
    offset: int | None = None
    size: int | None = None
    tag: str | None = None
    skip: str | None = None
    head: bytes = b""
    error: MemberError | None = None


class Archive:
    """One archive being listed: its members' ids, which of them are images, and what is skipped.

    Attributes:
        file: Its bytes.
        source: What is listed.
        id: What its members' ids start with.
        uri: Its canonical URI.
        container: The name that items are stored under.
        extra: Columns that the list which names it has for it, as JSON.
        count: Members so far.
    """

    def __init__(self, kind: Kind, source: Source, lister: Lister) -> None:
        self.source = source
        self.lister = lister
        self.file = lister.file(source)
        self.id = lister.item_id(source)
        self.uri = lister.uri(source)
        self.container = next(iter(kind.access))
        self.extra = source.row.extra if source.row is not None else None
        self.count = 0
        self._label = kind.label
        self._names = RepeatedNames()

    def wants_head(self, name: bytes) -> bool:
        """Whether only its first bytes can tell if a member is an image."""
        text = _plain(name)
        return (
            name_kind(text) is NameKind.UNKNOWN
            and not self.lister.is_archive(text)
            and self.lister.selection.skipped(text) is None
        )

    def item(self, member: Member) -> Item | Skipped:
        """A member's item, or why there is none."""
        self.count += 1
        reason = member.skip or self._skipped(member)
        if reason is not None:
            return Skipped(member_id(self.id, member.name), reason)
        error = member.error
        return Item(
            self._names.name(member_id(self.id, member.name)),
            self.uri,
            self.container,
            member=member_text(member.name),
            offset=member.offset,
            size=member.size,
            content_tag=member.tag,
            extra=self.extra,
            error=None if error is None else ImageError(Stage.LIST, error.kind, str(error)),
        )

    def broken(self, kind: ErrorKind, reason: str, span: tuple[int, int] | None = None) -> Item:
        """An item that stands for what cannot be listed.

        Args:
            kind: What is wrong.
            reason: In one line.
            span: First byte and end of what is left out, where the listing goes on behind it.
        """
        before = f"; {self.count} entries before that are read" if self.count else ""
        message = f"{self._label}: {reason}{before if span is None else ''}"
        return Item(
            self.id if span is None else span_id(self.id, span),
            self.uri,
            self.container,
            content_tag=self.file.known.tag if self.file.known is not None else None,
            extra=self.extra,
            error=ImageError(Stage.LIST, kind, message),
        )

    def gap(self, span: tuple[int, int], reason: str) -> Skipped:
        """Bytes that are no member; counted, with offset and size in the name."""
        return Skipped(span_id(self.id, span), reason)

    def _skipped(self, member: Member) -> str | None:
        text = _plain(member.name)
        reason = self.lister.selection.skipped(text)
        if reason is not None:
            return reason
        if self.lister.is_archive(text):
            return NESTED
        kind = name_kind(text)
        if kind is NameKind.IMAGE:
            return None
        if kind is NameKind.UNKNOWN and (is_image_head(member.head) or member.error is not None):
            return None
        return NOT_AN_IMAGE


def span_id(archive_id: str, span: tuple[int, int]) -> str:
    """Name of a stretch of bytes; no member's id looks like it, for ``~`` is encoded there.

    >>> span_id("s3://b/a.tar", (512, 1024))
    's3://b/a.tar#~bytes=512-1024'
    """
    return f"{archive_id}#~bytes={span[0]}-{span[1]}"


def _plain(raw: bytes) -> str:
    """A name to judge by; archives made on Windows may have backslashes."""
    return raw.decode("utf-8", "replace").replace("\\", "/")
