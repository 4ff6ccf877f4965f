"""What bounds a slot: images, bytes, time and deaths."""

from __future__ import annotations

from dataclasses import dataclass

from textspot_ray.config import RunConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a slot.

    The fields are those of `EngineConfig`, with the bytes in flight divided among encoded images
    and features.
    """

    in_flight: int = 3
    max_encoded_bytes: int = 256 * 2**20
    max_feature_bytes: int = 256 * 2**20
    max_uss_bytes: int = 3 * 2**30
    max_pages: int = 10_000
    min_deadline_s: float = 60.0
    start_timeout_s: float = 120.0
    max_deaths: int = 5


def limits_from(config: RunConfig) -> Limits:
    """The limits that a configuration sets."""
    engine = config.engine
    half = engine.max_bytes_in_flight // 2
    return Limits(
        in_flight=max(engine.in_flight, engine.streams + 2),  # decoding, inferring, reading
        max_encoded_bytes=half,
        max_feature_bytes=half,
        max_uss_bytes=engine.actor_max_uss_bytes,
        max_pages=config.image.max_pages,
        min_deadline_s=engine.min_deadline_s,
        start_timeout_s=engine.start_timeout_s,
        max_deaths=engine.max_deaths,
    )
