"""Settings of a spotter; small and picklable, so that they can be sent to actors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from textspot_ray.config import ImageConfig, RunConfig
from textspot_ray.errors import ConfigError
from textspot_ray.spotting.bundle import LINES, Bundle
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.coarse_to_fine import RULES as COARSE_TO_FINE
from textspot_ray.spotting.cutting import CUTTING
from textspot_ray.spotting.dictionary import OWN_ODDS, Dictionary, list_sha256, listed
from textspot_ray.spotting.family import family_of
from textspot_ray.spotting.own_words import read_own_words, words_sha256
from textspot_ray.wording import counted

# Raised whenever the same inputs would give other words, boxes or confidences than before.
RESULT_VERSION = 3


@dataclass(frozen=True, slots=True)
class SpotterSettings:
    """Bundle, precision, thresholds and rules of a spotter, and its share of the machine.

    Attributes:
        model: Bundle name or folder, as `load_bundle` takes it.
        precision: f32, bf16, int8; None = the bundle's default.
        detection_threshold: Scores at or below it are dropped; None = the bundle's.
        max_steps: Symbols a word at most; None = the bundle's.
        alphabet: Of the family lines: all, latin, or characters to cut the recogniser to; None =
            the bundle's.
        dictionary: Whether unsure readings are weighed by the bundle's list of words.
        words: The user's own, which weigh them too.
        image: Decoding limits and tiling rules.
        threads: Inference threads of each part.
        streams: Images that the detector infers at a time.
        tiff_levels: Pyramid levels and thumbnails of a TIFF are pages.
        pdf_dpi: Resolution of PDF pages that are drawn.
    """

    model: str = "embedded"
    precision: str | None = None
    detection_threshold: float | None = None
    max_steps: int | None = None
    alphabet: str | None = None
    dictionary: bool = True
    words: frozenset[str] = frozenset()
    image: ImageConfig = field(default_factory=ImageConfig)
    threads: int = 1
    streams: int = 1
    tiff_levels: bool = False
    pdf_dpi: int = 200


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings with every None replaced by the bundle's value; the files are verified.

    ``settings`` are the original ones with the resolved precision, for workers on any machine.
    """

    settings: SpotterSettings
    bundle: Bundle
    precision: str
    detection_threshold: float
    max_steps: int
    alphabet: str

    def dictionary(self) -> Dictionary | None:
        """The words that weigh unsure readings, if there are any."""
        spec = self.bundle.spec
        general = spec.dictionary if self.settings.dictionary else None
        if general is None and not self.settings.words:
            return None
        formats = spec.number_formats if general else None
        return Dictionary(
            listed(general) if general else frozenset(),
            spec.dictionary_odds,
            own=self.settings.words,
            formats=listed(formats) if formats else frozenset(),
        )


def settings_from(config: RunConfig, *, threads: int = 1, streams: int = 1) -> SpotterSettings:
    """The spotter's part of a run's configuration; the user's words are read here.

    Raises:
        ConfigError: They cannot be read.
    """
    return SpotterSettings(
        model=config.model.name,
        precision=config.model.precision,
        detection_threshold=config.model.detection_threshold,
        max_steps=config.model.max_steps,
        alphabet=config.model.alphabet,
        dictionary=config.model.dictionary,
        words=read_own_words(config.model.words) if config.model.words else frozenset(),
        image=config.image,
        threads=threads,
        streams=streams,
        tiff_levels=config.source.tiff_levels,
        pdf_dpi=config.source.pdf_dpi,
    )


def resolve(settings: SpotterSettings, *, verify: bool = True) -> Resolved:
    """Load and verify the bundle and fill in its defaults.

    Raises:
        BundleError: The bundle is missing, damaged or lacks the precision.
        ConfigError: The threshold is below the one inside the detector's graph.
    """
    bundle = load_bundle(settings.model)
    precision = bundle.resolve_precision(settings.precision)
    if verify:
        bundle.verify(precision)
    threshold = settings.detection_threshold
    if threshold is None:
        threshold = bundle.spec.detection_threshold
    elif threshold < bundle.spec.graph_threshold:
        raise ConfigError(
            f"a detection threshold of {threshold:g} does nothing: {bundle.spec.name} has "
            f"{bundle.spec.graph_threshold:g} inside its graph; ask for that or more"
        )
    if settings.alphabet and bundle.spec.family != LINES:
        raise ConfigError(
            f"{bundle.spec.name} reads the alphabet it was trained for and cannot be cut to another"
        )
    return Resolved(
        settings=replace(settings, precision=precision),
        bundle=bundle,
        precision=precision,
        detection_threshold=threshold,
        max_steps=settings.max_steps or bundle.spec.max_steps,
        alphabet=settings.alphabet or bundle.spec.alphabet,
    )


def result_fingerprint(resolved: Resolved) -> dict[str, str]:
    """Everything that changes results, as text by name: it must be the same in all of a table."""
    settings, spec = resolved.settings, resolved.bundle.spec
    image = settings.image
    tiling = "off"
    if image.tiles != "off":
        tiling = f"over {image.tile_over:g}, overlap {image.tile_overlap:g}, {CUTTING}"
    if image.tiles == "auto":  # older tables have all tiles, and no suffix
        tiling += f", {COARSE_TO_FINE}"
    return {
        "bundle": f"{spec.name} {spec.version}",
        **{f"sha256 {k}": v for k, v in resolved.bundle.sha256s(resolved.precision).items()},
        "precision": resolved.precision,
        "detection_threshold": f"{resolved.detection_threshold:g}",
        **family_of(spec).fingerprint(resolved),
        **_dictionary(resolved),
        "tiles": tiling,
        "min_side": str(image.min_side),
        # Only if they are not the defaults, as older tables do not have these keys.
        **({"tiff_levels": "pages"} if settings.tiff_levels else {}),
        **({"pdf_dpi": str(settings.pdf_dpi)} if settings.pdf_dpi != 200 else {}),
        "result_version": str(RESULT_VERSION),
    }


def _dictionary(resolved: Resolved) -> dict[str, str]:
    """Lists, odds and confidence, if readings are weighed; older tables have no such keys."""
    spec, own = resolved.bundle.spec, resolved.settings.words
    below = f"below {spec.dictionary_below:g}"
    keys = {}
    if spec.dictionary is not None and resolved.settings.dictionary:
        digest = list_sha256(spec.dictionary)[:8]  # short, so that messages show the rest
        keys["dictionary"] = f"{spec.dictionary} {digest}, odds {spec.dictionary_odds:g} {below}"
        if spec.number_formats is not None:
            keys["number_formats"] = f"{spec.number_formats} {list_sha256(spec.number_formats)[:8]}"
    if own:
        keys["words"] = (
            f"{counted(len(own), 'word')} {words_sha256(own)[:8]}, odds {OWN_ODDS:g} {below}"
        )
    return keys
