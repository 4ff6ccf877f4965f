"""Mistakes in the address are told at once, without Ray's minutes of trying."""

from __future__ import annotations

import socket
import time

import pytest

from textspot_ray.config import EngineConfig
from textspot_ray.engine.ray.cluster import (
    RayCluster,
    check_reachable,
    joining_fault,
    object_store_bytes,
)
from textspot_ray.errors import UsageError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_ray_says_of_dead_nodes_stays_off_the_standard_output(monkeypatch, capsys):
    from ray._private.worker import print_to_stdstream

    said = {"lines": ["Raylet is terminated.\n[state-dump]"], "pid": "raylet", "is_err": False}
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with RayCluster(EngineConfig(), "run"):
        print_to_stdstream(said, ignore_prefix=False)  # as Ray's own thread does
    assert not "".join(capsys.readouterr())
    print_to_stdstream({**said, "lines": ["another"]}, ignore_prefix=False)
    assert "another" in capsys.readouterr().out  # a caller's own Ray is as it was


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
        check_reachable("no-such-host.invalid:6379")


def test_a_listening_address_and_auto_pass():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")
    check_reachable("auto")


def test_the_object_store_is_bounded():
    small = object_store_bytes(EngineConfig(max_bytes_in_flight=2**20))
    large = object_store_bytes(EngineConfig(max_bytes_in_flight=2**50))
    assert small == 256 * 2**20
    assert large < 2**50


def test_other_versions_on_the_cluster_are_one_line():
    message = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.10.2\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    fault = str(joining_fault("head:6379", RuntimeError(message)))
    assert fault.startswith(
        "the cluster at head:6379 runs Ray 2.40.0 on Python 3.10.2, this machine Ray 2.60.0 on "
        "Python 3.11.7: install"
    )
    assert "\n" not in fault
    other = str(joining_fault("head:6379", RuntimeError("something\nelse")))
    assert other == "cannot join Ray at head:6379: something else"


@pytest.mark.parametrize(
    ("environment", "has_file", "advice"),
    [
        ({}, False, "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"),
        ({}, True, "Ray uses it only with RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "x"}, False, "Ray uses it only with RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, False, "is not its own"),
        ({"RAY_AUTH_MODE": "token"}, True, "is not its own"),
    ],
)
def test_a_cluster_that_wants_a_token(environment, has_file, advice, tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if has_file:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0123")
    said = "Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing"
    fault = str(joining_fault("head:6379", ConnectionError("failed"), said))
    assert fault.startswith("the cluster at head:6379 wants a token: ")
    assert advice in fault and "0123" not in fault


def test_no_cluster_and_something_that_is_none():
    assert "no Ray cluster runs on this machine" in str(joining_fault("auto", ConnectionError()))
    assert "is no Ray head" in str(joining_fault("host:80", ConnectionError()))
