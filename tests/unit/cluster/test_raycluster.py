"""Mistakes in the address are told at once, without Ray's minutes of trying."""

from __future__ import annotations

import socket
import time

import pytest

from textspot_ray.cluster.raycluster import RayCluster, knock, object_store_bytes
from textspot_ray.config import EngineConfig
from textspot_ray.errors import UsageError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_nobody_listens_at_is_one_line(prefix, monkeypatch):
    # other tests of the session may have left their Ray running in this process
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    address = f"{prefix}127.0.0.1:{free_port()}"
    began = time.monotonic()
    with (
        pytest.raises(UsageError, match=f"no Ray cluster answers at {address}") as caught,
        RayCluster(EngineConfig(address=address), "run"),
    ):
        raise AssertionError("joined nothing")
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)


def test_an_unknown_host_is_one_line():
    with pytest.raises(UsageError, match="no Ray cluster answers at"):
        knock("no-such-host.invalid:6379")


def test_a_listening_address_and_auto_pass():
    with socket.create_server(("127.0.0.1", 0)) as server:
        knock(f"127.0.0.1:{server.getsockname()[1]}")
    knock("auto")


def test_the_object_store_is_bounded():
    small = object_store_bytes(EngineConfig(max_bytes_in_flight=2**20))
    large = object_store_bytes(EngineConfig(max_bytes_in_flight=2**50))
    assert small == 256 * 2**20
    assert large < 2**50
