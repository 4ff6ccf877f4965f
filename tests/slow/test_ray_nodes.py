"""Several Ray nodes on one machine: they die, leave and join, and nothing is lost."""

from __future__ import annotations

import signal
import threading
import time

import psutil
import pytest

from tests.support.drive import start_driver, wait_for_images
from tests.support.placed import placed_parts
from tests.support.ray_nodes import add_node
from tests.support.scripted import scripted_config, scripted_parts, write_images
from tests.support.tables_equal import all_rows
from textspot_ray.deploy.pre_stop import leave, worker_nodes
from textspot_ray.engine.run import run
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.driver_status import RunState, read_statuses

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


def raylet_of(node) -> psutil.Process:
    (found,) = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name() == "raylet" and f"--node_id={node.node_id}" in process.cmdline()
    ]
    return found


def slots_on(node) -> list[psutil.Process]:
    """Runners whose parent is the node's raylet."""
    found = []
    for process in raylet_of(node).children():
        try:
            if "ray::RunnerActor" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def scripts(count, sleep_s=0.1):
    return [f"words=w{n};sleep={sleep_s}" for n in range(count)]


def assert_whole(out, count):
    tables = all_rows(out)
    assert [row["text"] for row in tables["words"]] == [f"w{n}" for n in range(count)]
    assert len(tables["images"]) == count and not tables["errors"]


class Happenings:
    """Does things, in order, when so many images are done."""

    def __init__(self, *plan):
        self._plan = list(plan)
        self.done = threading.Event()

    def __call__(self, progress):
        if self._plan and progress.images >= self._plan[0][0]:
            self._plan.pop(0)[1]()
        if progress.final and not self._plan:
            self.done.set()


def test_a_node_that_dies_and_one_that_joins(tmp_path, cluster):
    count = 400
    folder = write_images(tmp_path / "in", scripts(count))
    first, _ = add_node(cluster), add_node(cluster)
    joined = []
    happenings = Happenings(
        (60, lambda: cluster.remove_node(first, allow_graceful=False)),
        (120, lambda: joined.append(add_node(cluster))),
        (360, lambda: joined.append(slots_on(joined[0]))),
    )
    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    report = run(config, parts=scripted_parts(folder), on_progress=happenings)
    assert happenings.done.is_set()
    assert joined[1], "the node that joined was not used"
    assert report.counts.images == count and report.counts.failed == 0
    assert_whole(tmp_path / "out", count)


def test_a_node_that_gets_sigterm_gives_its_shards_back(tmp_path, cluster, caplog):
    count = 300
    folder = write_images(tmp_path / "in", scripts(count))
    first, _ = add_node(cluster), add_node(cluster)
    times = {}

    def terminate():
        times["sent"] = time.time()
        raylet_of(first).send_signal(signal.SIGTERM)

    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    happenings = Happenings((60, terminate))
    run(config, parts=scripted_parts(folder), on_progress=happenings)
    assert happenings.done.is_set()
    (told,) = [r for r in caplog.records if "is gone" in r.message]
    assert "its node died" in told.message
    print(f"shards given back {told.created - times['sent']:.2f} s after SIGTERM")
    assert told.created - times["sent"] < 25
    assert_whole(tmp_path / "out", count)


def test_a_node_that_is_told_to_go_commits_what_is_whole_and_gives_back_the_rest(
    tmp_path, cluster, caplog
):
    """What the preStop hook does on a worker."""
    count = 400
    folder = write_images(tmp_path / "in", scripts(count, 0.3))
    first, _ = add_node(cluster), add_node(cluster)
    times = {}

    def tell():
        nodes = worker_nodes(psutil.Process().children(recursive=True))
        assert len(nodes) == 2  # not the head
        (node,) = [node for node in nodes if node.node_id == first.node_id]
        times["raylet"] = raylet_of(first)

        def work():
            times["told"] = time.time()
            leave_one(node, times)

        threading.Thread(target=work).start()

    def leave_one(node, times):
        leave([node])
        times["empty"] = time.time()
        times["raylet"].wait(timeout=60)  # an empty node that is being drained ends by itself
        times["ended"] = time.time()

    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    happenings = Happenings((60, tell))
    run(config, parts=scripted_parts(folder), on_progress=happenings)
    assert happenings.done.is_set()
    (leaves,) = [r for r in caplog.records if "leaves: its node is being drained" in r.message]
    assert not [r for r in caplog.records if "is gone" in r.message]
    assert leaves.created - times["told"] < 15
    print(f"the node was empty {times['empty'] - times['told']:.1f} s and gone "
          f"{times['ended'] - times['told']:.1f} s after it was told")  # fmt: skip
    assert times["ended"] - times["told"] < 25
    assert_whole(tmp_path / "out", count)


def test_all_workers_go_and_others_come(tmp_path, cluster, caplog):
    count = 120
    folder = write_images(tmp_path / "in", scripts(count))
    first = add_node(cluster)
    gone_s = []

    def change(progress):
        if progress.images >= 30 and not gone_s:
            cluster.remove_node(first, allow_graceful=False)
            gone_s.append(time.monotonic())
        elif len(gone_s) == 1 and time.monotonic() - gone_s[0] > 45:
            add_node(cluster)  # Ray allows it in the main thread only
            gone_s.append(time.monotonic())

    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    run(config, parts=scripted_parts(folder), on_progress=change)
    assert len(gone_s) == 2
    assert [r for r in caplog.records if "no node is left; waiting" in r.message]
    assert_whole(tmp_path / "out", count)


def test_a_killed_driver_goes_on_and_two_at_once_share_the_work(tmp_path, cluster):
    count = 240
    folder = write_images(tmp_path / "in", scripts(count))
    add_node(cluster), add_node(cluster)
    out = tmp_path / "out"
    engine = {"address": cluster.address, "slots": 1, "cpus_per_slot": 1.0, "status_s": 0.5}
    driver = start_driver(folder, out, "ray", **engine)
    wait_for_images(driver, 40)
    driver.kill()
    driver.communicate(timeout=30)
    store = open_store(str(out))
    (seen,) = read_statuses(store)
    assert seen.status.state is RunState.WORKING and seen.status.n_slots == 1

    drivers = [start_driver(folder, out, "ray", **engine) for _ in range(2)]
    ends = [driver.communicate(timeout=300) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], ends
    own = [int(end[0].split("report")[1].split()[0]) for end in ends]
    assert all(n > 0 for n in own) and sum(own) < count  # shared, and the first one's kept
    assert_whole(out, count)
    states = [one.status.state for one in read_statuses(store)]
    assert states.count(RunState.DONE) == 2


def test_the_head_goes_and_a_new_cluster_resumes_from_storage(tmp_path, make_cluster):
    count = 120
    folder = write_images(tmp_path / "in", scripts(count))
    out = tmp_path / "out"
    lost = make_cluster()
    add_node(lost)
    driver = start_driver(folder, out, "ray", address=lost.address)
    wait_for_images(driver, 40)
    children = psutil.Process().children(recursive=True)
    began = time.monotonic()
    for process in children:
        if process.is_running() and process.name() in ("gcs_server", "raylet"):
            process.kill()
    _, errors = driver.communicate(timeout=240)
    print(f"the driver ended {time.monotonic() - began:.0f} s after the head, status "
          f"{driver.returncode}: {errors[-600:]}")  # fmt: skip
    assert driver.returncode not in (0, 3)
    lost.shutdown()

    found = make_cluster()
    add_node(found)
    driver = start_driver(folder, out, "ray", address=found.address)
    output, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, errors
    assert 0 < int(output.split("report")[1].split()[0]) < count
    assert_whole(out, count)


def test_a_slot_is_on_one_node_and_features_do_not_travel(tmp_path, cluster):
    count = 80
    folder = write_images(tmp_path / "in", scripts(count, 0.05))
    nodes = [add_node(cluster), add_node(cluster, cpus=2)]  # nodes may differ
    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    run(config, parts=placed_parts(folder))
    rows = all_rows(tmp_path / "out")["words"]
    assert len(rows) == count
    seen = set()
    for row in rows:
        detected, read, how, run_on = row["text"].split()
        assert detected == read == run_on, row
        assert how == "local", row
        seen.add(detected)
    assert seen == {node.node_id[:8] for node in nodes}


def test_features_lie_only_on_the_slots_node(cluster):
    """The owner may be elsewhere: where the bytes are is what counts."""
    import queue

    import ray
    from ray.experimental import get_object_locations
    from ray.util.placement_group import placement_group

    from tests.support.scripted import ScriptedModels
    from textspot_ray.engine.ray.actors import ActorWorker, in_group
    from textspot_ray.engine.slot.ports import Answered, Started
    from textspot_ray.records import Stage

    nodes = {node.node_id for node in (add_node(cluster), add_node(cluster))}
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        group = placement_group([{"CPU": 0.4}, {"CPU": 0.4}], strategy="STRICT_PACK")
        events = queue.SimpleQueue()
        models = ScriptedModels()
        detector = ActorWorker("detector", Stage.DETECT, models, events, in_group(group, 0, 0.4))
        reader = ActorWorker("recogniser", Stage.RECOGNISE, models, events, in_group(group, 1, 0.4))
        detector.start(1), reader.start(1)
        started = [events.get(timeout=60) for _ in range(2)]
        assert all(isinstance(event, Started) for event in started)
        words = ",".join(f"w{n}" for n in range(20))  # 4 MB of features
        detector.detect([(1, f"words={words}".encode(), 0)])
        found = events.get(timeout=60)
        assert isinstance(found, Answered)
        reader.recognise([(2, found.features)])
        read = events.get(timeout=60)
        assert [r.text for r in read.value.readings] == words.split(",")
        (features, _) = found.features
        where = get_object_locations([features])[features]
        assert where["object_size"] > 4e6
        assert len(where["node_ids"]) == 1 and set(where["node_ids"]) <= nodes
        detector.kill(), reader.kill()
    finally:
        ray.shutdown()
