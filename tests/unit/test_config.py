"""Configuration: defaults, files, overrides, and errors that name the key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from textspot_ray.config import (
    RunConfig,
    SourceConfig,
    config_from_dict,
    config_to_dict,
    dump_config,
    load_config,
)
from textspot_ray.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_reference_file_lists_every_key_with_its_default() -> None:
    import yaml

    reference = CONFIGS / "reference.yaml"
    assert load_config(reference) == RunConfig()
    written = yaml.safe_load(reference.read_text())
    for section in dataclasses.fields(RunConfig):
        keys = [field.name for field in dataclasses.fields(getattr(RunConfig(), section.name))]
        assert list(written[section.name]) == keys


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_sample_files_load(path: Path) -> None:
    load_config(path)


def test_overrides_win_and_are_typed(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("engine: {kind: local, slots: 4}\nsource: {uris: one}\n")
    config = load_config(path, ["engine.slots=null", "image.tile_over=3", "source.include=[a, b]"])
    assert config.engine.kind == "local"
    assert config.engine.slots is None
    assert config.image.tile_over == 3.0
    assert config.source.include == ("a", "b")
    assert config.source.uris == ("one",)


def test_round_trip_through_yaml() -> None:
    import yaml

    config = load_config(None, ["source.uris=[x]", "model.precision=int8"])
    assert config_from_dict(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.slot=2", r"unknown configuration key engine\.slot; did you mean engine\.slots\?"),
        ("engin.slots=2", r"unknown configuration key engin; did you mean engine\?"),
        ("engine.kind=spark", "engine.kind must be one of ray, local, not 'spark'"),
        ("engine.slots=many", "engine.slots must be a whole number, not 'many'"),
        ("slots=3", r"unknown configuration key slots; did you mean engine\.slots\?"),
        ("image.max_pixels=big", "image.max_pixels must be a whole number, not 'big'"),
        ("source.system_folders=perhaps", "system_folders must be true or false, not 'perhaps'"),
        ("engine.slots=0", "engine.slots must be at least 1"),
        ("engine.kind=null", "engine.kind must not be empty"),
        ("source.sample=1.5", r"source.sample must be in \(0, 1\]"),
        ("model.detection_threshold=1", "detection_threshold must be in"),
        ("output.max_shard_items=3", "must not be below"),
        ("engine.slots", "--set takes section.key=value"),
        ("engine=3", "engine must be a section with keys"),
        ("engine.slots=true", "engine.slots must be a whole number"),
        ("engine.slots=[", "is not a YAML value"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    broken, scalar = tmp_path / "broken.yaml", tmp_path / "scalar.yaml"
    broken.write_text("a: [1,\nb: 2")
    scalar.write_text("just text")
    for path, message in [
        (tmp_path / "none.yaml", "cannot read configuration .*none.yaml"),
        (broken, "broken.yaml is not valid YAML"),
        (scalar, "scalar.yaml must hold a mapping of sections, not str"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)


def test_secrets_are_never_shown() -> None:
    options = {"s3": {"key": "AKIA", "secret": "hush", "client_kwargs": {"region_name": "eu"}}}
    config = config_from_dict({"source": {"storage_options": options}})
    shown = config_to_dict(config)["source"]["storage_options"]["s3"]
    assert shown == {"key": "***", "secret": "***", "client_kwargs": {"region_name": "eu"}}
    assert "hush" not in dump_config(config)


def test_off_is_a_word_and_not_false(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("image: {tiles: off}\n")
    assert load_config(path).image.tiles == "off"
    assert load_config(None, ["image.tiles=off"]).image.tiles == "off"
    stored = load_config(None, ["source.storage_options={s3: {anon: true}}"])
    assert stored.source.storage_options == {"s3": {"anon": True}}


def test_sections_may_be_dicts_and_are_checked() -> None:
    config = RunConfig(source={"uris": ["a"], "limit": 3}, output={"uri": "b"})
    assert config == config_from_dict(
        {"source": {"uris": ["a"], "limit": 3}, "output": {"uri": "b"}}
    )
    with pytest.raises(ConfigError, match=r"source\.limits; did you mean source\.limit"):
        RunConfig(source={"limits": 3})
    with pytest.raises(ConfigError, match="engine must be a dict or EngineConfig, not str"):
        RunConfig(engine="ray")
    assert SourceConfig(uris="one").uris == ("one",)
    assert SourceConfig(uris=["one", "two"]).uris == ("one", "two")


def test_keys_of_older_versions_are_passed_over() -> None:
    assert load_config(None, ["engine.streams=2"]) == RunConfig()
