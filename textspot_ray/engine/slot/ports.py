"""The interface between the runner and a worker process.

A worker is a process with models: the detector, the recogniser, or both. The runner uses it only
through `Worker`, which the engines implement. Answers arrive as events on one queue, so that the
runner has a single place to wait.
"""

from __future__ import annotations

import io
import queue
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from textspot_ray.errors import TextspotError
from textspot_ray.records import DetectedPage, Encoded, Readings, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textspot_ray.engine.sizing import Threads
    from textspot_ray.spotting.settings import SpotterSettings
    from textspot_ray.tables.commit.commit_record import CommitRecord

# Reserved for a page's features until the detector has found them: 100 boxes of the published
# detector, its worst case of one pass. Pages of many tiles or lines may have more.
EXPECTED_FEATURE_BYTES: Final = 100 * 64 * 28 * 28 * 4


@dataclass(frozen=True, slots=True)
class PageWork:
    """The expected work of a page for the detector.

    Attributes:
        passes: Runs of the model.
        n_bytes: Pixels and features, held until the features are handed on.
    """

    passes: float = 1.0
    n_bytes: int = 0


class Detects(Protocol):
    """What a worker uses of a `PageDetector`; called from several threads at once."""

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, Any]:
        """Decode a page; its regions, and features that only a recogniser understands."""


class Reads(Protocol):
    """What a worker uses of a recogniser."""

    def read(self, features: Any) -> Readings:
        """Read each row."""

    def blank(self) -> Any:
        """Features of one empty region."""


class Models(Protocol):
    """A picklable recipe: models are built in the process that uses them."""

    def detector(self) -> Detects:
        """Load the detector."""

    def recognizer(self) -> Reads:
        """Load the recogniser."""

    def sized(self, threads: Threads) -> Models:
        """The same models with the inference threads of a slot."""


@dataclass(frozen=True, slots=True)
class BundleModels:
    """The recipe of a real run."""

    settings: SpotterSettings
    recognizer_threads: int

    def detector(self) -> Detects:
        """Compile the bundle's detector."""
        from textspot_ray.spotting.spotter import PageDetector

        return PageDetector(self.settings)

    def recognizer(self) -> Reads:
        """Compile the bundle's recogniser."""
        from textspot_ray.spotting.spotter import family_named, load_recognizer

        family = family_named(self.settings.model)
        threads = family.recognizer_threads(self.settings.threads, self.recognizer_threads)
        return load_recognizer(replace(self.settings, threads=threads, streams=1))

    def sized(self, threads: Threads) -> BundleModels:
        """The same models with the inference threads of a slot."""
        settings = replace(self.settings, threads=threads.detector, streams=threads.streams)
        return BundleModels(settings, threads.recognizer)


class Worker(Protocol):
    """A process that can be started, called and killed; no method blocks.

    A call may have up to ``max_batch`` pages; each is answered by its own event.
    """

    name: str
    stages: frozenset[Stage]
    max_batch: int

    @property
    def pid(self) -> int | None:
        """Its process id on this machine, once it is known."""

    def start(self, generation: int) -> None:
        """Start a fresh process; `Started`, `Refused` or `Died` follows."""

    def detect(self, pages: Sequence[tuple[int, bytes, int]]) -> None:
        """Detect the boxes on pages; `Answered`, `Raised` or `Died` follows.

        Args:
            pages: Number of the attempt, the encoded image, and which page of it, from 0.
        """

    def recognise(self, pages: Sequence[tuple[int, Any]]) -> None:
        """Read the words of pages, given their features as `Answered` had them."""

    def kill(self) -> None:
        """Kill the process; nothing more comes from this generation."""


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has loaded its models."""

    worker: str
    generation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker cannot load its models, and trying again would not help."""

    worker: str
    generation: int
    error: TextspotError


@dataclass(frozen=True, slots=True)
class Answered:
    """A page is done. ``features`` is opaque: it is what `Worker.recognise` takes."""

    worker: str
    generation: int
    ticket: int
    value: DetectedPage | Readings
    features: Any = None
    uss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Raised:
    """A page ended in an exception; ``lost``: because its input was lost on the way."""

    worker: str
    generation: int
    ticket: int
    message: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """The process is gone. ``system``: for a reason that is no image's fault (it was killed)."""

    worker: str
    generation: int
    reason: str
    system: bool = False


@dataclass(frozen=True, slots=True)
class ItemRead:
    """The reader has the next item of a shard."""

    shard_key: int
    index: int
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class ReaderFailed:
    """The reader raised an exception, which it never should: a bug."""

    reader: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit ended; without record and error, another attempt was faster."""

    shard_key: int
    record: CommitRecord | None
    error: BaseException | None = None


Event = Started | Refused | Answered | Raised | Died | ItemRead | ReaderFailed | Committed
Events = queue.SimpleQueue[Event]


def blank_png(width: int = 1280, height: int = 768) -> bytes:
    """An all-grey PNG: what a worker is tested with after it died more than once."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (width, height), 128).save(out, "PNG")
    return out.getvalue()
