"""One driver at a time where puts are not exclusive."""

from __future__ import annotations

import json
import time

import pytest

from textspot_ray.errors import StorageError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.lease import LEASE_FILE, Lease


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"), create=True)


def lease(store, run_id="mine"):
    return Lease(store, run_id, beat_s=0.1, settle_s=0.05)


def test_a_held_lease_refuses_the_second_driver_by_name(store):
    with lease(store, "first") as held:
        with pytest.raises(StorageError, match="run_id first"), lease(store, "second"):
            pytest.fail("two held the lease")
        held.check()
    assert not store.exists(LEASE_FILE)
    with lease(store, "third"):
        pass


def test_the_lease_of_a_dead_driver_is_taken_over(store):
    store.put(LEASE_FILE, json.dumps({"holder": "dead", "beat": 7, "run_id": "old"}).encode())
    start = time.monotonic()
    with lease(store) as held:
        assert time.monotonic() - start >= 0.3
        held.check()


def test_a_driver_whose_lease_was_taken_stops(store):
    with lease(store) as held:
        store.put(LEASE_FILE, json.dumps({"holder": "other", "beat": 1}).encode())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                held.check()
            except StorageError as exc:
                assert "run again" in str(exc)
                break
            time.sleep(0.02)
        else:
            pytest.fail("the loss went unnoticed")
    assert json.loads(store.read(LEASE_FILE))["holder"] == "other"


def test_two_that_come_together_one_gets_it(store, monkeypatch):
    put = store.put
    intruded = []

    def put_then_other(path, data):
        put(path, data)
        if not intruded:
            intruded.append(True)
            put(path, json.dumps({"holder": "other", "run_id": "theirs"}).encode())

    monkeypatch.setattr(store, "put", put_then_other)
    with pytest.raises(StorageError, match="theirs"), lease(store):
        pytest.fail("both hold the lease")


def test_a_damaged_lease_file_is_taken_over(store):
    store.put(LEASE_FILE, b"{")
    with lease(store) as held:
        held.check()
