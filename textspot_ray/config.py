"""The configuration of a run: nested frozen dataclasses, read from YAML, overridden by ``a.b=c``.

Defaults live here; ``configs/`` holds commented samples. An unknown key is an error that names the
nearest valid one. Secrets never belong here: credentials come from the environment or the
provider's own chain, so that a stored configuration is safe to show.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from textspot_ray.errors import ConfigError
from textspot_ray.redaction import REDACTED, Redactor, redact_options, redact_text, unsafe_paths

_OPTIONS = "storage_options"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# Keys of older versions, in files and in records of runs, that mean nothing any more: an
# inference has `engine.threads_per_inference` threads, however many a detector has.
_OBSOLETE = frozenset({"engine.streams"})


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What is read, and what of it."""

    uris: tuple[str, ...] = ()
    include: tuple[str, ...] = ()  # glob patterns on the path or member name; empty = all
    exclude: tuple[str, ...] = ()
    limit: int | None = None  # items
    sample: float | None = None  # share of the items, chosen by a hash of image_id
    base: str | None = None  # prefix taken off image_ids, to keep them stable over mounts
    id_column: str | None = None  # column of a source list that gives the image_id
    uri_column: str | None = None  # column of a source list that holds the URI
    header: str = "auto"  # auto | yes | no: whether CSV and TSV lists begin with column names
    image_column: str | None = None  # of tables with image bytes: a.b, or a,b: first one there is
    system_folders: bool = False  # take what lies in @eaDir, #recycle, $RECYCLE.BIN, __MACOSX, too
    keep_url_secrets: bool = False  # store URLs with user info and signatures, which else are cut
    on_changed: str = "keep"  # keep | redo
    skip_duplicates: bool = False  # of files with the same bytes take the first alone
    tiff_levels: bool = False  # take pyramid levels and thumbnails of a TIFF for pages
    pdf_dpi: int = 200  # resolution at which PDF pages are drawn that are no scans
    storage_options: dict[str, Any] = field(default_factory=dict)  # fsspec options, by protocol

    def __post_init__(self) -> None:
        for name in ("uris", "include", "exclude"):
            if isinstance(value := getattr(self, name), (str, list)):
                object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        _choice("source.on_changed", self.on_changed, ("keep", "redo"))
        _choice("source.header", self.header, ("auto", "yes", "no"))
        if not 36 <= self.pdf_dpi <= 1200:
            raise ConfigError(f"source.pdf_dpi must be in [36, 1200], not {self.pdf_dpi}")
        if self.limit is not None and self.limit < 0:
            raise ConfigError(f"source.limit must be at least 0, not {self.limit}")
        if self.sample is not None and not 0 < self.sample <= 1:
            raise ConfigError(f"source.sample must be in (0, 1], not {self.sample}")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Limits and rules of decoding and tiling; all but the limits change results."""

    max_pixels: int = 200_000_000  # from the header, before decoding
    max_bytes: int = 200_000_000  # of one encoded image; 1.5 times of a page of a Parquet table
    max_pages: int = 10_000  # of one TIFF
    min_side: int = 0  # pixels; smaller images get zero words without detection
    tiles: str = "auto"  # off | auto: where a pass over the whole image hints at text | all
    tile_over: float = 2.0  # tile when the image is this many times larger than the input
    tile_overlap: float = 0.2  # share of a tile's side

    def __post_init__(self) -> None:
        _choice("image.tiles", self.tiles, ("off", "auto", "all"))
        _at_least("image.max_pixels", self.max_pixels, 1)
        _at_least("image.max_bytes", self.max_bytes, 1)
        _at_least("image.min_side", self.min_side, 0)
        if not 0 <= self.tile_overlap < 0.9:
            raise ConfigError(f"image.tile_overlap must be in [0, 0.9), not {self.tile_overlap}")
        if self.tile_over < 1:
            raise ConfigError(f"image.tile_over must be at least 1, not {self.tile_over}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which bundle, at which precision and thresholds."""

    name: str = "embedded"  # embedded | text-spotting-0003 ... | ppocrv6-small ... | a folder
    precision: str | None = None  # f32 | bf16 | int8; None = the bundle's default
    detection_threshold: float | None = None  # None = the bundle's
    max_steps: int | None = None  # symbols a word; None = the bundle's
    alphabet: str | None = None  # lines: all | latin | the characters; None = the bundle's
    dictionary: bool = True  # weigh unsure readings by the bundle's list of words
    words: str | None = None  # a text of words of your own that weigh them, too

    def __post_init__(self) -> None:
        if self.precision is not None:
            _choice("model.precision", self.precision, ("f32", "bf16", "int8"))
        if self.words is not None and not self.words.strip():
            raise ConfigError("model.words must name a file of words, or be null")
        if self.detection_threshold is not None and not 0 <= self.detection_threshold < 1:
            raise ConfigError(
                f"model.detection_threshold must be in [0, 1), not {self.detection_threshold}"
            )


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Where and how the work runs; nothing here but ``threads_per_inference`` changes results."""

    kind: str = "ray"  # ray | local
    address: str | None = None  # of a running Ray cluster; None = start Ray on this machine
    slots: int | None = None  # None = from the cluster's size
    cpus_per_slot: float | None = None  # None = sized per node
    detectors_per_slot: int = 1
    threads: int | None = None  # inference threads of one detector; None = from the slot's share
    threads_per_inference: int = 1  # of the detector; more change results and take less memory
    in_flight: int = 3  # images ahead in one slot; on Ray calls, of up to 8 quick images each
    max_bytes_in_flight: int = 512 * 2**20  # encoded bytes plus features, one slot
    actor_max_uss_bytes: int = 3 * 2**30  # recycle an actor past this
    min_deadline_s: float = 60.0  # deadline of a stage = max(this, 20 x median); see starving.py
    start_timeout_s: float = 120.0  # for an actor to load its models
    pending_timeout_s: float = 60.0  # a slot that cannot be placed ends the run
    max_deaths: int = 5  # deaths of actors without one finished image in between
    progress_s: float = 2.0  # seconds to the first plain progress line; later ones 60 apart at most
    status_s: float = 10.0  # seconds between status files on the output store
    log_format: str = "text"  # text | json: one object per line, with slot, shard, image, attempt

    def __post_init__(self) -> None:
        _choice("engine.kind", self.kind, ("ray", "local"))
        _choice("engine.log_format", self.log_format, ("text", "json"))
        for name in ("detectors_per_slot", "threads_per_inference", "in_flight", "max_deaths"):
            _at_least(f"engine.{name}", getattr(self, name), 1)
        if self.status_s <= 0:
            raise ConfigError(f"engine.status_s must be above 0, not {self.status_s}")
        for name in ("slots", "threads"):
            value = getattr(self, name)
            if value is not None:
                _at_least(f"engine.{name}", value, 1)


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """Where the tables go and how work is cut.

    ``unsafe_single_driver`` allows a store that cannot put exclusively: nothing then keeps two
    drivers from committing the same shard, so that only one may run at a time.
    """

    uri: str = ""
    max_shard_items: int = 256
    min_shard_items: int = 32
    max_shard_bytes: int = 512 * 2**20
    unsafe_single_driver: bool = False
    storage_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least("output.min_shard_items", self.min_shard_items, 1)
        if self.max_shard_items < self.min_shard_items:
            raise ConfigError("output.max_shard_items must not be below output.min_shard_items")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything a run needs; what is stored with the run and printed at its start."""

    source: SourceConfig = field(default_factory=SourceConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, dict):  # as in YAML
                object.__setattr__(self, name, _build(kind, value, f"{name}."))
            elif not isinstance(value, kind):
                raise ConfigError(
                    f"{name} must be a dict or {kind.__name__}, not {type(value).__name__}"
                )


def load_config(
    path: str | Path | None = None,
    overrides: typing.Iterable[str] = (),
    values: typing.Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read a YAML file (or none), apply overrides of the form ``section.key=value``, then values.

    Args:
        path: Of the file.
        overrides: Their values are YAML, so ``a.b=3``, ``a.b=null`` and ``a.b=[x, y]`` work.
        values: Plain values by dotted key, taken as they are.

    Raises:
        ConfigError: The file is missing or no mapping, or a key or value is wrong.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
        except OSError as exc:
            raise ConfigError(f"cannot read configuration {path}: {exc.strerror}") from exc
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path} is not valid YAML: {_yaml_reason(exc)}") from exc
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(
                f"{path} must hold a mapping of sections, not {type(loaded).__name__}"
            )
        data = loaded or {}
    for override in overrides:
        _set(data, override)
    for key, value in (values or {}).items():
        _put(data, key.split("."), value)
    return config_from_dict(data)


def stored_config(data: dict[str, Any]) -> RunConfig:
    """The configuration in a run's record, without the values that were redacted there."""

    def known(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            key: known(child)
            for key, child in value.items()
            if not (isinstance(child, str) and REDACTED in child)
        }

    return config_from_dict(known(data))


def with_overrides(config: RunConfig, overrides: typing.Iterable[str]) -> RunConfig:
    """A configuration with keys replaced by ``section.key=value``.

    Raises:
        ConfigError: A key or value is wrong.
    """
    data = typing.cast("dict[str, Any]", _plain(dataclasses.asdict(config)))
    for override in overrides:
        _set(data, override)
    return config_from_dict(data)


def config_from_dict(data: dict[str, Any]) -> RunConfig:
    """Build a checked `RunConfig` from plain nested dicts (the inverse of `config_to_dict`)."""
    return typing.cast(RunConfig, _build(RunConfig, data, ""))


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain nested dicts and lists of a configuration, as it may be shown and stored.

    Values of storage options that are not known to be harmless, user info and parameters of URLs
    are blanked.
    """
    return typing.cast("dict[str, Any]", _shown(_plain(dataclasses.asdict(config))))


def unsafe_keys(config: RunConfig) -> list[str]:
    """Keys, as dotted paths, of values that `config_to_dict` blanks."""
    return unsafe_paths(_plain(dataclasses.asdict(config)), config_to_dict(config))


def redactor_of(config: RunConfig) -> Redactor:
    """A function that removes a configuration's secrets from messages."""
    return Redactor(
        (config.source.storage_options, config.output.storage_options),
        (
            *config.source.uris,
            config.output.uri,
            config.source.base or "",
            config.model.words or "",
        ),
    )


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, in the order of the dataclasses."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: the ``off`` of ``tiles: off`` is a word, not false."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)


def _yaml_reason(error: Exception) -> str:
    """What is wrong with a file, without the lines of it that YAML's message quotes."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split()) if isinstance(error, UnicodeDecodeError) else "unclear"
    problem = getattr(error, "problem", None) or "cannot be read"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _set(data: dict[str, Any], override: str) -> None:
    path, sep, text = override.partition("=")
    keys = path.strip().split(".")
    if not sep or not all(keys):
        raise ConfigError(f"--set takes section.key=value, not {_redacted(override, override)}")
    try:
        value = yaml.load(text, _Loader) if text else None
    except yaml.YAMLError as exc:
        raise ConfigError(f"--set {path}: {_redacted(path, text)} is not a YAML value") from exc
    _put(data, keys, value)


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    node = data
    for key in keys[:-1]:
        child = node.setdefault(key, {})
        if child is None:  # a section that the file names and leaves empty
            child = node[key] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key} is a value, not a section")
        node = child
    node[keys[-1]] = value


def _build(cls: type[Any], data: Any, prefix: str) -> Any:
    if data is None:
        data = {}
    if not isinstance(data, dict):
        shown = _redacted(prefix, data)
        raise ConfigError(f"{prefix.rstrip('.')} must be a section with keys, not {shown}")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if f"{prefix}{key}" in _OBSOLETE:
            continue
        if key not in hints:
            near = _sections_with(str(key)) if not prefix else []
            near = near or difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise ConfigError(f"unknown configuration key {prefix}{key}{hint}")
        hint_type = hints[key]
        if dataclasses.is_dataclass(hint_type):
            values[key] = _build(typing.cast("type[Any]", hint_type), value, f"{prefix}{key}.")
        else:
            values[key] = _coerce(f"{prefix}{key}", value, hint_type)
    return cls(**values)


def _sections_with(key: str) -> list[str]:
    """``section.key`` of a key that was given without its section."""
    sections = typing.get_type_hints(RunConfig)
    return [f"{name}.{key}" for name, cls in sections.items() if key in typing.get_type_hints(cls)]


def _coerce(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) not in options:
        raise ConfigError(f"{name} must not be empty")
    if typing.get_origin(hint) is tuple and isinstance(value, (str, list, tuple)):
        value = [value] if isinstance(value, str) else [str(v) for v in value]
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(value, hint)
    named = (_WORDS.get(o, getattr(o, "__name__", str(o))) for o in options if o is not type(None))
    wanted = " or ".join(named)
    raise ConfigError(f"{name} must be {wanted}, not {_redacted(name, value)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return value


def _shown(value: Any, key: str = "") -> Any:
    if key == _OPTIONS:
        return redact_options(value)
    if isinstance(value, dict):
        return {name: _shown(child, name) for name, child in value.items()}
    if isinstance(value, list):
        return [_shown(child) for child in value]
    return redact_text(value) if isinstance(value, str) else value


def _redacted(name: str, value: Any) -> str:
    """A wrong value as an error message may show it."""
    return "what is given" if _OPTIONS in name else redact_text(repr(value))


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{name} must be one of {', '.join(choices)}, not {_redacted(name, value)}"
        )


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, not {value}")
