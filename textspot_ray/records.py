"""The records that travel between the rooms: frozen, picklable, free of heavy imports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Stage(StrEnum):
    """Where in the pipeline something happened."""

    LIST = "list"
    READ = "read"
    DECODE = "decode"
    DETECT = "detect"
    RECOGNISE = "recognise"
    WRITE = "write"


# Stages whose seconds are measured for every image, as in the columns ``<stage>_s``.
TIMED_STAGES = tuple(map(str, (Stage.READ, Stage.DECODE, Stage.DETECT, Stage.RECOGNISE)))


class Status(StrEnum):
    """Result of an image."""

    WORDS = "words"
    EMPTY = "empty"
    FAILED = "failed"


class ErrorKind(StrEnum):
    """Why an image failed. The names are stored in tables and must stay stable."""

    MISSING = "missing"  # gone between plan and read
    CHANGED = "changed"  # content tag differs from the plan's
    DENIED = "denied"
    TIMEOUT = "timeout"
    STORAGE = "storage"  # transient storage fault after all retries
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"  # pixels or bytes over the limit
    UNSUPPORTED = "unsupported"  # an image, but of a format we cannot read
    NOT_AN_IMAGE = "not_an_image"
    BROKEN_ARCHIVE = "broken_archive"
    CRASHED = "crashed"  # killed its process twice, alone
    STALLED = "stalled"  # met its deadline twice, alone
    INTERNAL = "internal"

    @property
    def transient(self) -> bool:
        """Whether `retry-failed` tries this kind again without ``--all``."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {
        ErrorKind.MISSING,
        ErrorKind.DENIED,
        ErrorKind.TIMEOUT,
        ErrorKind.STORAGE,
        ErrorKind.CRASHED,
        ErrorKind.STALLED,
        ErrorKind.INTERNAL,
    }
)


@dataclass(frozen=True, slots=True)
class ImageError:
    """A failure of one image, as a value."""

    stage: Stage
    kind: ErrorKind
    message: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Item:
    """One planned unit of input: a file, an archive member or a table row that is an image.

    Attributes:
        image_id: Canonical percent-encoded URI, ``#member`` for archive members; unique in a table.
        source: Canonical, percent-encoded URI (the archive's for members); driver and path by
            `sources.identity.locate`.
        container: How it is read: a name that one of `sources.kinds` keeps items under, such as
            ``file``, ``tar`` or ``zip``. Plans hold these names.
        member: Name inside the archive as found there, or the row number of a Parquet table.
        offset: Where its kind finds the member: the offset of its data in a tar (decompressed, if
            it is compressed), of its local header in a zip, its number in a 7z; else None.
        size: Bytes of the (compressed, for zip) data if known.
        content_tag: Changes when the content does; None where the store provides nothing.
        extra: Pass-through columns of a source list, as a JSON object, or None.
        error: Set when the item is known at listing time to be unreadable (broken archive).
    """

    image_id: str
    source: str
    container: str = "file"
    member: str | None = None
    offset: int | None = None
    size: int | None = None
    content_tag: str | None = None
    extra: str | None = None
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something listed that is not an image; counted by reason, never silently dropped."""

    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """An item's encoded bytes, or why there are none.

    ``sha256`` is the hex digest of ``data``; None where it was not computed.
    """

    item: Item
    data: bytes | None
    error: ImageError | None = None
    read_s: float = 0.0
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One word as read.

    Attributes:
        text: Lower-case text over the bundle's alphabet; never empty in tables.
        text_confidence: Product of the per-step softmax, end step included.
        char_confidences: One softmax value a character.
        detection_confidence: The detector's score.
        box: x_min, y_min, x_max, y_max in pixels of the upright original image.
        polygon: x0, y0, ... x3, y3, clockwise from the text's top left.
        angle_deg: Angle of the polygon's top edge, clockwise from the x axis, in (-180, 180].
        line: Number of the text line that the model read the word from, within its image; None
            where the model knows no lines. Not the reading order: that is found from geometry.
    """

    text: str
    text_confidence: float
    char_confidences: tuple[float, ...] = field(repr=False)  # long: lists of words are looked at
    detection_confidence: float
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...] = field(repr=False)
    angle_deg: float
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One kept box before reading; fields as in `Word`."""

    confidence: float
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...]
    angle_deg: float


@dataclass(frozen=True, slots=True)
class PageInfo:
    """What decoding found out about a page. Width and height are those of the upright image.

    ``damage`` is what a decoder reported although it gave pixels, in one line; None if sound.
    """

    width: int
    height: int
    format: str
    exif_orientation: int
    pages: int = 1
    tiles: int = 1
    saturated: bool = False
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class DetectedPage:
    """The detector's result for one page; the features travel beside it, row for row.

    ``detections[i]`` belongs to ``features[i]``, which take ``feature_bytes`` in all. With
    ``error`` set there are no detections.
    """

    info: PageInfo | None
    detections: tuple[Detection, ...]
    error: ImageError | None = None
    decode_s: float = 0.0
    detect_s: float = 0.0
    feature_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """The recogniser's answer for one box; ``text`` may be empty.

    Attributes:
        text: A word, or a whole line as it stands from left to right, with its spaces.
        confidence: Product of ``char_confidences`` and whatever ends the text.
        char_confidences: One a character of ``text``.
        places: Of lines: each character's centre along the box, as a share of its length.
        turned: Of lines: it was read upside down, from the polygon's third corner.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    places: tuple[float, ...] = ()
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of one call, row for row with the features."""

    readings: tuple[Reading, ...]
    recognise_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The result of one page: its words or its error, never both."""

    item: Item
    page: int
    info: PageInfo | None
    words: tuple[Word, ...] = ()
    n_unread: int = 0
    error: ImageError | None = None
    read_s: float = 0.0
    decode_s: float = 0.0
    detect_s: float = 0.0
    recognise_s: float = 0.0
    sha256: str | None = None

    @property
    def status(self) -> Status:
        """Words found, none found, or failed."""
        if self.error is not None:
            return Status.FAILED
        return Status.WORDS if self.words else Status.EMPTY


@dataclass(frozen=True, slots=True)
class ShardId:
    """Permanent name of a shard."""

    plan: int
    index: int

    def __str__(self) -> str:
        return f"{self.plan:06d}-{self.index:06d}"


@dataclass(frozen=True, slots=True)
class Shard:
    """A unit of work and commit."""

    id: ShardId
    items: tuple[Item, ...]
    generation: int = 0
    reason: str = "run"


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums that add up over shards.

    ``damaged`` images were read, perhaps in part, although a decoder reported damage. Records of
    earlier versions lack it: it is a lower bound, and not part of equality.
    """

    items: int = 0
    images: int = 0
    with_words: int = 0
    empty: int = 0
    failed: int = 0
    words: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    damaged: int = field(default=0, compare=False)

    def __add__(self, other: Counts) -> Counts:
        return self._combined(other, 1)

    def __sub__(self, part: Counts) -> Counts:
        """Without those of a part."""
        return self._combined(part, -1)

    def _combined(self, other: Counts, sign: int) -> Counts:
        mine, theirs = self.failures, other.failures
        kinds = {k: mine.get(k, 0) + sign * theirs.get(k, 0) for k in {**mine, **theirs}}
        sums: dict[str, Any] = {
            each.name: getattr(self, each.name) + sign * getattr(other, each.name)
            for each in fields(self)
            if each.name != "failures"
        }
        sums["failures"] = {kind: n for kind, n in kinds.items() if n}
        sums["damaged"] = max(0, sums["damaged"])  # older records lack it
        return Counts(**sums)

    def stored(self) -> dict[str, Any]:
        """As records of commits and of runs hold it, where ``empty`` is called ``none``."""
        facts = asdict(self)
        facts["none"] = facts.pop("empty")
        return facts


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did; `counts` are of the whole table, `run_counts` of this run alone.

    ``signal`` is the one that ended it early, 0 if none did.
    """

    out: str
    run_id: str
    counts: Counts
    run_counts: Counts
    shards_done: int
    shards_total: int
    skipped: dict[str, int]
    elapsed_s: float
    signal: int = 0


if TYPE_CHECKING:
    Image = NDArray[np.uint8]  # H x W x 3, BGR
    Features = NDArray[np.float32]  # N x 64 x 28 x 28
