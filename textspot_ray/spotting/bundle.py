"""A bundle: one folder with a family's models and ``bundle.yaml``, which says what they are.

``bundle.yaml``, schema 1::

    schema: 1
    family: spotting              # spotting (the published composite, also where absent) | lines
    name: text-spotting-0003
    version: "2021.2"
    alphabet: abcdefghijklmnopqrstuvwxyz0123456789   # symbol i + 2 is alphabet[i]; 0 start, 1 end;
                                  # lines: all | latin | the characters themselves
    max_steps: 28                 # decoder steps a word at most
    detection_threshold: 0.5      # rows at or below this score are dropped
    graph_threshold: 0.5          # score threshold inside the detector's graph, if any
    text_threshold: 0.5           # default of --min-confidence when tables are read
    resize: stretch               # stretch | keep_aspect (zeros at the bottom and right)
    interpolation: linear         # linear | area
    shapes: [[1280, 768], ...]    # inputs to reshape the detector to: width, height; each picture
                                  # takes the one that shows it largest; absent = the graph's own
    enlargement: 1.0              # how much larger than their own pixels tiles are shown
    pyramid: false                # the graph's image is half as high again as the input: below the
                                  # picture lie its copies at 1/2, 1/4 and 1/8, side by side
    max_stretch: 1.0              # keep_aspect: a picture may be distorted so far to fill its input
    max_rows: 100                 # rows at which the detector may have left words out
    zoom_below: 0                 # px: a pass of many words lower than this is cut; 0 = never
    read_batch: 1                 # words that go through encoder and decoder side by side, at most
    shrink_above: 0               # px: a picture with words higher than this is looked at once more
                                  # at half the size; 0 = never
    augment_between: [0, 0]       # confidences from and below which a word is read again together
                                  # with what the part `augmentation` makes of it
    dictionary: english           # list of the package (data/NAME.txt) that weighs unsure readings;
                                  # absent = none
    number_formats: plates        # formats of numbers (data/NAME.txt) that are listed like words;
                                  # nothing without a dictionary
    dictionary_odds: 8            # how much likelier than other strings its words are beforehand
    dictionary_below: 0.9         # confidence below which a reading is weighed
    lines: {...}                  # the family lines: its own rules, see `LinesRules`
    default_precision: f32        # a key of precisions, bf16, or auto: int8 where there are files
                                  # for it and the CPU is fast at it, else bf16, else f32
    bf16: true                    # whether f32's files may run in bf16
    research_only: false          # the weights are not for commercial use: a run says so
    precisions:                   # which files serve which precision; bf16 runs on f32's files
      f32:
        detector: {xml: {file: detector.xml, sha256: ...}, bin: {file: detector.bin, sha256: ...}}
        encoder: {...}            # lines: detector, recognizer; perhaps classifier, characters
        decoder: {...}            # a part is xml and bin, or onnx; characters is txt
        augmentation: {...}       # may be absent: features of a word, to those of other cuts of it
    licence: Apache-2.0
    provenance: {...}             # free: where it came from
    accuracy: {...}               # free: measured figures, each with its command

Every file is checked against its sha256 before anything is loaded from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from textspot_ray.errors import BundleError, key_first
from textspot_ray.machine import has_bf16, has_int8_dot_product

SCHEMA = 1
SPOTTING, LINES = "spotting", "lines"
AUTO = "auto"
ALL, LATIN = "all", "latin"  # alphabets of the family lines
EMBEDDED = "embedded"
BUILT_IN = (EMBEDDED, "embedded-open")  # bundles that ship in the package
BUNDLE_FILE = "bundle.yaml"
PUBLISHED = ("text-spotting-0003", "text-spotting-0004", "text-spotting-0005")
# the parts that a family's bundle must have, and those that it may have besides
PARTS = ("detector", "encoder", "decoder")
_REQUIRED = {SPOTTING: PARTS, LINES: ("detector", "recognizer")}
_OPTIONAL = {SPOTTING: ("augmentation",), LINES: ("classifier", "characters")}
_SUFFIXES = (("xml", "bin"), ("onnx",), ("txt",))

# what the values of keys may be
_AboveZero = Annotated[float, Meta(gt=0, le=1)]
_Count = Annotated[int, Meta(ge=1)]
_Divisor = Annotated[float, Meta(ge=1e-3, le=255)]
_Level = Annotated[float, Meta(ge=0, le=255)]
_ShapeSide = Annotated[int, Meta(ge=32, le=4096)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Side = Annotated[int, Meta(ge=32, le=8192)]
_Threshold = Annotated[float, Meta(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of a bundle: its path inside the folder and its sha256."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{path} leaves the bundle's folder")


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The files of a part by suffix: an IR's ``xml`` and ``bin``, one ``onnx``, or a ``txt``."""

    files: Mapping[str, BundleFile]

    @property
    def graph(self) -> BundleFile:
        """The file to read; its weights may lie in another."""
        return next(iter(self.files.values()))

    @property
    def weights(self) -> BundleFile | None:
        """The IR's second file."""
        return self.files.get("bin")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The parts of a family's models, by name."""

    parts: Mapping[str, PartFiles]

    def __getitem__(self, part: str) -> PartFiles:
        return self.parts[part]

    def files(self) -> tuple[BundleFile, ...]:
        """All files."""
        return tuple(file for part in self.parts.values() for file in part.files.values())


@dataclass(frozen=True, slots=True)
class LinesRules:
    """Rules of the family ``lines`` that ``bundle.yaml`` may change.

    Attributes:
        shortest_side: Images are enlarged until their shorter side has so many pixels.
        longest_side: Images are shrunk until their longer side has so many pixels.
        channels: Order in which the detector takes the colours: bgr or rgb.
        mean: Taken off the detector's input, 0 to 255, for each channel in that order.
        std: What it is divided by then. On PP-OCRv6 127.5 beats ImageNet's figures: word spotting
            .621 to .608 on training photos, .942 to .937 on receipts.
        binarize_threshold: Of the probability map.
        unclip_ratio: How far a region's rectangle is grown for reading.
        dilate: Whether regions are widened by a pixel.
        word_height: Height of the reported words, as a share of the grown rectangle's.
        space_threshold: A space between characters counts from this probability. 0.05 to 0.1 are
            best on training photos (word spotting .556 at 0.5, .608), receipts (.930, .934) and
            forms (.968, .975).
        long_scale: Strips wider than 320 pixels are squeezed to this share of their width. At 0.87
            1,000 words of receipts, forms and pages are read as before (0.75: four less), for
            7 to 12 % less arithmetic.
        tile_factor: Pictures are cut into tiles where they would be shrunk by more than
            ``image.tile_over`` times this; long ones are at once. Pages lose no word at 0.55 of
            their size (letters of 6 pixels) and 7 % at 0.4, so that tiles pay later than with a
            detector of words.
    """

    shortest_side: _Side = 736
    longest_side: _Side = 1600
    channels: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[_Level, _Level, _Level] = (127.5, 127.5, 127.5)
    std: tuple[_Divisor, _Divisor, _Divisor] = (127.5, 127.5, 127.5)
    binarize_threshold: _AboveZero = 0.3
    unclip_ratio: Annotated[float, Meta(gt=0, le=10)] = 1.6
    dilate: bool = True
    word_height: _AboveZero = 0.75
    space_threshold: _AboveZero = 0.07
    long_scale: Annotated[float, Meta(gt=0.25, le=1)] = 0.87
    tile_factor: Annotated[float, Meta(gt=0, le=100)] = 1.5


@dataclass(frozen=True, slots=True)
class BundleSpec:
    """What ``bundle.yaml`` says; see the module's text for the keys."""

    name: str
    version: str
    alphabet: str
    precisions: Mapping[str, ModelFiles]
    family: str = SPOTTING
    max_steps: _Count = 28
    detection_threshold: _Threshold = 0.5
    graph_threshold: _Threshold = 0.0
    text_threshold: _Threshold = 0.0
    resize: Literal["stretch", "keep_aspect"] = "stretch"
    interpolation: Literal["linear", "area"] = "linear"
    shapes: tuple[tuple[_ShapeSide, _ShapeSide], ...] = ()
    enlargement: Annotated[float, Meta(ge=1, le=4)] = 1.0
    pyramid: bool = False
    max_stretch: Annotated[float, Meta(ge=1, le=2)] = 1.0
    max_rows: _Count = 100
    zoom_below: Annotated[float, Meta(ge=0, lt=100)] = 0.0
    read_batch: Annotated[int, Meta(ge=1, le=64)] = 1
    shrink_above: Annotated[float, Meta(ge=0, lt=1000)] = 0.0
    augment_between: tuple[_Share, _Share] = (0.0, 0.0)
    dictionary: Literal["english"] | None = None
    number_formats: Literal["plates"] | None = None
    dictionary_odds: Annotated[float, Meta(gt=1, le=1000)] = 8.0
    dictionary_below: _Share = 0.9
    lines: LinesRules | None = None
    default_precision: str = "f32"
    bf16: bool = True
    research_only: bool = False
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on local disk.

    Attributes:
        folder: Where its files are.
        spec: Its description.
        undescribed: What `load_bundle` takes where the folder has no ``bundle.yaml``; else empty.
    """

    folder: Path
    spec: BundleSpec
    undescribed: str = ""

    @property
    def model(self) -> str:
        """What `load_bundle` takes for it."""
        return self.undescribed or str(self.folder)

    def resolve_precision(self, wanted: str | None) -> str:
        """The precision to run at.

        Raises:
            BundleError: The bundle has no files for it.
        """
        precision = wanted or self.spec.default_precision
        if precision == AUTO:
            precision = self._fastest()
        if precision in self.spec.precisions:
            return precision
        if precision == "bf16" and self.spec.bf16 and "f32" in self.spec.precisions:
            return precision
        have = ", ".join(sorted({*self.spec.precisions, *(["bf16"] if self.spec.bf16 else [])}))
        if precision == "bf16":
            raise BundleError(
                f"bundle {self.spec.name} is not for bf16, which moves its boxes; it has {have}"
            )
        raise BundleError(f"bundle {self.spec.name} has no {precision} files; it has {have}")

    def _fastest(self) -> str:
        """What this CPU has instructions for."""
        if "int8" in self.spec.precisions and has_int8_dot_product():
            return "int8"
        return "bf16" if self.spec.bf16 and has_bf16() else "f32"

    def model_files(self, precision: str) -> ModelFiles:
        """The files that serve a resolved precision."""
        return self.spec.precisions.get(precision) or self.spec.precisions["f32"]

    def path(self, file: BundleFile) -> Path:
        """Where a file lies."""
        return self.folder / file.file

    def sha256s(self, precision: str) -> dict[str, str]:
        """Stated sha256 of each file that serves a precision, by part and suffix."""
        return {
            f"{part}.{suffix}": file.sha256
            for part, files in self.model_files(precision).parts.items()
            for suffix, file in files.files.items()
        }

    def verify(self, precision: str) -> None:
        """Check the files that serve a precision, before anything is loaded from them.

        Raises:
            BundleError: A file is missing or its sha256 differs.
        """
        for file in self.model_files(precision).files():
            path = self.path(file)
            try:
                found = file_sha256(path)
            except OSError as exc:
                raise BundleError(
                    f"bundle {self.spec.name}: cannot read {path}: {exc.strerror}"
                ) from exc
            if found != file.sha256:
                raise BundleError(
                    f"{path} is damaged or not the file that {BUNDLE_FILE} names: its sha256 "
                    "differs; fetch or export the bundle again"
                )


def file_sha256(path: Path) -> str:
    """A file's sha256; of one that is unchanged since this process read it, as it was.

    The parts of a spotter ask one after the other for the same files.

    Raises:
        OSError: It cannot be read.
    """
    stat = path.stat()
    return _file_sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=64)
def _file_sha256(path: Path, *state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def built_in_folder(name: str = EMBEDDED) -> Path:
    """Folder of a bundle that ships in the package, one of `BUILT_IN`."""
    return Path(__file__).parent.parent / "models" / name


def cache_folder() -> Path:
    """Where fetched bundles and compiled models go: ``TEXTSPOT_CACHE``, or the user's cache."""
    import os

    import platformdirs

    chosen = os.environ.get("TEXTSPOT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("textspot-ray"))


def read_spec(path: Path) -> BundleSpec:
    """Read and check a ``bundle.yaml``.

    Raises:
        BundleError: It is missing, no YAML, of another schema, or a key is missing or wrong.
    """
    try:
        return _read_spec(path, path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise BundleError(f"no bundle at {path.parent}: cannot read {path.name}") from exc
    except UnicodeDecodeError as exc:
        raise BundleError(f"{path} is not valid YAML") from exc


@lru_cache(maxsize=4)
def _read_spec(path: Path, text: str) -> BundleSpec:
    """By its text, which several parts of a spotter ask for: YAML is slow to parse."""
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as exc:
        raise BundleError(f"{path} is not valid YAML") from exc
    if not isinstance(data, dict):
        raise BundleError(f"{path} must hold a mapping of keys")
    if data.pop("schema", None) != SCHEMA:
        raise BundleError(f"{path} is not of bundle schema {SCHEMA}; use a matching textspot-ray")
    try:
        return _spec(data)
    except KeyError as exc:
        raise BundleError(f"{path}: key {exc} is missing") from exc
    except ValueError as exc:  # msgspec's are
        kind = _Listed if "$.precisions" in str(exc) else BundleSpec
        raise BundleError(f"{path}: {key_first(exc, kind)}") from exc


def write_spec(folder: Path, spec: BundleSpec) -> None:
    """Write ``bundle.yaml`` (the inverse of `read_spec`)."""
    fresh = folder / f".{BUNDLE_FILE}.new"
    fresh.write_text(spec_text(spec), encoding="utf-8")
    fresh.replace(folder / BUNDLE_FILE)  # never half a description


def spec_text(spec: BundleSpec) -> str:
    """A description as ``bundle.yaml`` has it."""
    data = {"schema": SCHEMA, **msgspec.to_builtins(spec)}
    for precision, models in data["precisions"].items():
        parts = models["parts"].items()
        data["precisions"][precision] = {part: files["files"] for part, files in parts}
    told = {key: value for key, value in data.items() if value is not None}
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)


def describe_files(folder: Path, names: Mapping[str, tuple[str, ...]]) -> ModelFiles:
    """Hash the files of a folder into `ModelFiles`.

    Args:
        folder: The bundle's folder.
        names: Paths inside it, by part: those of an IR's .xml and .bin, or of one .onnx or .txt.

    Raises:
        BundleError: One cannot be read.
    """

    def described(name: str) -> BundleFile:
        try:
            with (folder / name).open("rb") as stream:
                return BundleFile(name, hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as exc:
            raise BundleError(f"cannot read {folder / name}: {exc.strerror}") from exc

    return ModelFiles(
        {
            part: PartFiles({name.rpartition(".")[2]: described(name) for name in files})
            for part, files in names.items()
        }
    )


class _Listed(msgspec.Struct):
    """Files by precision, part and suffix."""

    precisions: Annotated[
        dict[
            Literal["f32", "bf16", "int8"],
            dict[str, dict[Literal["xml", "bin", "onnx", "txt"], BundleFile]],
        ],
        Meta(min_length=1),
    ]


def _spec(data: dict[str, Any]) -> BundleSpec:
    rules = data.get("lines")
    for where, given, kind in (("", data, BundleSpec), ("lines.", rules or {}, LinesRules)):
        if unknown := set(given) - {field.name for field in fields(kind)}:
            raise ValueError(f"unknown key {where}{min(map(str, unknown))}")
    data |= {key: str(data[key]) for key in ("name", "version", "alphabet")}  # YAML has numbers
    listed: Any = msgspec.convert({"precisions": data["precisions"]}, _Listed).precisions
    spec = msgspec.convert({**data, "precisions": {}}, BundleSpec)
    if spec.family not in _REQUIRED:
        raise ValueError(f"family must be {' or '.join(_REQUIRED)}, not {spec.family!r}")
    if (spec.family == LINES) != (rules is not None):
        raise ValueError("lines must hold the rules of the family lines, and of no other")
    alphabet = spec.alphabet
    if not alphabet or (spec.family == SPOTTING and len(set(alphabet)) != len(alphabet)):
        raise ValueError("alphabet must hold distinct characters")
    if spec.default_precision not in (*listed, "bf16", AUTO):
        raise ValueError(f"default_precision {spec.default_precision} has no files")
    if spec.pyramid and not all(w % 8 == h % 8 == 0 for w, h in spec.shapes):
        raise ValueError("with a pyramid the sides of shapes must be multiples of 8")
    if spec.shapes and spec.resize != "keep_aspect":
        raise ValueError("shapes need resize: keep_aspect")
    precisions = {
        name: _model_files(f"precisions.{name}", parts, spec.family)
        for name, parts in listed.items()
    }
    return replace(spec, precisions=precisions)


def _model_files(
    where: str, parts: Mapping[str, Mapping[str, BundleFile]], family: str
) -> ModelFiles:
    known = (*_REQUIRED[family], *_OPTIONAL[family])
    if not parts.keys() <= set(known):
        raise ValueError(f"{where} must be of {', '.join(known)}")
    return ModelFiles(
        {
            part: _part_files(f"{where}.{part}", parts.get(part, {}))
            for part in known
            if part in parts or part in _REQUIRED[family]
        }
    )


def _part_files(where: str, files: Mapping[str, BundleFile]) -> PartFiles:
    suffixes = next((s for s in _SUFFIXES if files.keys() <= set(s)), _SUFFIXES[0])
    for suffix in suffixes:
        if suffix not in files:
            raise ValueError(f"{where}.{suffix} must have file and sha256")
    return PartFiles({suffix: files[suffix] for suffix in suffixes})
