"""One page on its way through a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textspot_ray.cluster.openshard import OpenShard
from textspot_ray.records import DetectedPage, Encoded, ImageError, ImageResult


@dataclass(slots=True, eq=False)
class PageTask:
    """A page, what is known of it so far, and what its workers met with.

    Attributes:
        ticket: Number of the present try; late answers carry older ones.
        reserved: Bytes of features set aside for it.
        suspect: It was in flight when a worker ended, and must run alone.
        deaths_alone: How often a worker ended while this was the only image in flight.
        faults_alone: The same, by faults that no image causes.
        attempt: The how-manyth try this is, from 1.
    """

    ticket: int
    shard: OpenShard
    index: int
    page: int
    encoded: Encoded
    detected: DetectedPage | None = None
    features: Any = None
    reserved: int = 0
    suspect: bool = False
    deaths_alone: int = 0
    faults_alone: int = 0
    attempt: int = 1

    def failed(self, error: ImageError) -> ImageResult:
        """The page's account when it has come to nothing."""
        encoded = self.encoded
        return ImageResult(encoded.item, self.page, None, error=error, read_s=encoded.read_s)

    def reset(self, ticket: int) -> None:
        """Forget what was found, for another try."""
        self.ticket = ticket
        self.detected = self.features = None
        self.suspect = True
        self.attempt += 1
