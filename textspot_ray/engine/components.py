"""What a run is made of: the configured model bundle, the reader and the listing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from textspot_ray.engine.arithmetic import arithmetic_of
from textspot_ray.engine.sizing import available_cpus, share_threads
from textspot_ray.engine.slot.limits import limits_from
from textspot_ray.engine.slot.ports import EXPECTED_FEATURE_BYTES, BundleModels, PageWork
from textspot_ray.engine.slot.slot import Recipe
from textspot_ray.records import DetectedPage, Encoded, ImageResult, Readings
from textspot_ray.spotting.composite.contract import INPUT_HEIGHT, INPUT_WIDTH

if TYPE_CHECKING:
    from textspot_ray.config import EngineConfig, ImageConfig, RunConfig
    from textspot_ray.engine.planning import Listing
    from textspot_ray.spotting.family import WordsOf
    from textspot_ray.spotting.settings import Resolved

_COPIES: Final = 2  # of the pixels, while they are turned upright or resized


@dataclass(frozen=True, slots=True)
class Components:
    """What a run is made of; tests put their own models, readers and listings here.

    Attributes:
        recipe: How slots make their parts.
        fingerprint: Everything that changes results.
        listing: Lists the sources.
        text_threshold: The bundle's, kept with the run: readers of the table default to it.
    """

    recipe: Recipe
    fingerprint: Mapping[str, str]
    listing: Listing
    text_threshold: float = 0.0


def components_from(config: RunConfig) -> Components:
    """The parts that a configuration asks for.

    Raises:
        BundleError: The model cannot be used; raised before anything is read.
        ConfigError: The user's words cannot be read, or a threshold does nothing.
    """
    from textspot_ray.sources.listing import list_items
    from textspot_ray.sources.reader import Reader
    from textspot_ray.spotting.family import family_of
    from textspot_ray.spotting.settings import resolve, settings_from

    threads = share_threads(available_cpus(), config.engine)
    settings = settings_from(config, threads=threads.detector, streams=threads.streams)
    resolved = resolve(settings)  # checks the files' sha256
    spec = resolved.bundle.spec
    family = family_of(spec)
    # Checksums only show that the files match ``bundle.yaml``. Workers check the contract when
    # they load, but by then the run has planned and begun to read images.
    family.check_graphs(resolved)
    return Components(
        Recipe(
            # with its precision, which goes by the CPU, so that it is the same on every node
            BundleModels(resolved.settings, threads.recognizer),
            partial(
                Reader, config.source, config.image, ahead_bytes=limits_from(config).max_ahead_bytes
            ),
            partial(assemble_result, make_words=family.words_of(spec)),
            partial(estimate_work, rules=config.image),
        ),
        _fingerprint(resolved, config.engine),
        partial(list_items, config.source, config.image),
        spec.text_threshold,
    )


def fingerprint_of(config: RunConfig) -> dict[str, str]:
    """Everything that changes results, by name; all rows of a table share it.

    Raises:
        BundleError: The model cannot be used.
        ConfigError: As `components_from`.
    """
    from textspot_ray.spotting.settings import resolve, settings_from

    return _fingerprint(resolve(settings_from(config), verify=False), config.engine)


def _fingerprint(resolved: Resolved, engine: EngineConfig) -> dict[str, str]:
    from textspot_ray.spotting.settings import result_fingerprint

    return {**result_fingerprint(resolved), **arithmetic_of(resolved.precision, engine)}


def assemble_result(
    encoded: Encoded,
    page: int,
    detected: DetectedPage,
    readings: Readings | None,
    make_words: WordsOf,
) -> ImageResult:
    """The result of a page, as `spotting.spotter.assemble` makes it.

    Args:
        encoded: The item and its bytes' facts.
        page: Number within the item, from 0.
        detected: What the detector found.
        readings: The recogniser's; None where nothing was to be read.
        make_words: How the bundle's readings become words.
    """
    from textspot_ray.spotting.spotter import assemble

    read_s = encoded.read_s
    result = assemble(encoded.item, page, detected, readings, read_s, make_words=make_words)
    return replace(result, sha256=encoded.sha256)


def estimate_work(data: bytes, rules: ImageConfig) -> PageWork:
    """How much work an encoded image is for the detector, judged by its header.

    Used for deadlines and memory only, so the published input size stands for every bundle's. A
    deadline is 20 times the usual time; at least a tenth of the passes that a very dense page would
    take is counted.

    Args:
        data: The encoded image.
        rules: Of tiling.
    """
    import io
    import math

    from PIL import Image

    from textspot_ray.spotting.cutting import MAX_PARTS
    from textspot_ray.spotting.tiling import plan_passes

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError:  # more than Pillow likes, and maybe within our limit
        width = height = math.isqrt(rules.max_pixels)
    except Exception:  # the decoder reports what is wrong
        return PageWork()
    if width * height > rules.max_pixels:
        return PageWork()  # refused from the header
    passes, looks = 1, 1.0
    if rules.tiles != "off":
        size = (width, height, INPUT_WIDTH, INPUT_HEIGHT)
        passes = len(plan_passes(*size, rules.tile_over, rules.tile_overlap))
        looks = max(passes, (passes + MAX_PARTS) / 10)
    # a pass finds a quarter of what it could: a page of text tiled; photographs have less
    features = passes * EXPECTED_FEATURE_BYTES // 4
    return PageWork(looks, _COPIES * 3 * width * height + features)
