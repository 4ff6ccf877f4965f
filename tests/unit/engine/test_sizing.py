"""Slots and threads for machines of all sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.config import EngineConfig, RunConfig
from textspot_ray.engine.sizing import (
    Threads,
    available_cpus,
    shape_for_slots,
    share_threads,
    slots_of_node,
)
from textspot_ray.engine.slot.limits import limits_from
from textspot_ray.engine.slot.ports import BundleModels
from textspot_ray.spotting.settings import SpotterSettings


def test_two_cores_are_one_slot_with_both_for_the_detector():
    count, shape = slots_of_node(2, EngineConfig())
    assert count == 1
    assert shape.threads.detector == 2 and shape.threads.recognizer == 1
    assert sum(b["CPU"] for b in shape.bundles) <= 2


@pytest.mark.parametrize(
    ("cpus", "count"), [(1, 1), (4, 1), (8, 1), (16, 2), (32, 4), (96, 12), (0.2, 0)]
)
def test_slots_grow_with_the_node(cpus, count):
    assert slots_of_node(cpus, EngineConfig())[0] == count


def test_settings_win():
    engine = EngineConfig(cpus_per_slot=4, threads=3, detectors_per_slot=2)
    count, shape = slots_of_node(16, engine)
    assert count == 4 and shape.threads.detector == 3
    assert len(shape.bundles) == 4  # runner, two detectors, recogniser


@given(
    cpus=st.floats(0.5, 256),
    detectors=st.integers(1, 4),
    per_slot=st.none() | st.floats(0.5, 64),
)
def test_slots_never_ask_for_more_than_the_node_has(cpus, detectors, per_slot):
    engine = EngineConfig(detectors_per_slot=detectors, cpus_per_slot=per_slot)
    count, shape = slots_of_node(cpus, engine)
    asked = count * sum(bundle["CPU"] for bundle in shape.bundles)
    assert asked <= cpus + 1e-6
    assert all(bundle["CPU"] > 0 for bundle in shape.bundles)
    assert shape.threads.detector >= 1 and shape.threads.recognizer >= 1


@pytest.mark.parametrize(
    ("nodes", "slots", "cpus"),
    [([2], 1, 2), ([2], 2, 1), ([8, 8], 2, 8), ([8, 8], 3, 4), ([64], 2, 8), ([2], 9, 2)],
)
def test_an_asked_for_number_of_slots_divides_the_nodes(nodes, slots, cpus):
    shape = shape_for_slots(nodes, EngineConfig(slots=slots), slots)
    assert shape.cpus == cpus
    assert shape.threads.detector == cpus


def test_models_take_the_threads_of_their_slot():
    models = BundleModels(SpotterSettings(threads=64, streams=2), 9).sized(Threads(8, 1, 8))
    assert (models.settings.threads, models.settings.streams) == (8, 8)
    assert models.recognizer_threads == 1


@pytest.mark.parametrize("cpus", [1, 2, 8, 64])
def test_an_inference_has_one_thread_on_any_number_of_cores(cpus):
    threads = share_threads(cpus, EngineConfig())
    assert threads.streams == threads.detector == cpus
    two = share_threads(cpus, EngineConfig(threads_per_inference=2))
    assert two.detector == 2 * two.streams >= 2
    assert limits_from(RunConfig(), threads.streams).in_flight >= threads.detect_calls


def test_threads_do_not_exceed_the_share():
    assert share_threads(8, EngineConfig(detectors_per_slot=2)).detector == 4
    assert share_threads(0.5, EngineConfig()).detector == 1


def test_available_cpus_is_positive():
    assert available_cpus() >= 0.5
