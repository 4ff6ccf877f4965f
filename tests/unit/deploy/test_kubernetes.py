"""Manifests: from the run's own configuration, without secrets, with room for whole slots."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.crd_fields import faults
from textspot_ray.config import EngineConfig, RunConfig, config_from_dict
from textspot_ray.deploy import job_entry as jobentry
from textspot_ray.deploy.kubernetes import KubeOptions, PodVolume, dump, render_cluster, render_job
from textspot_ray.deploy.pod_size import GIB, worker_size
from textspot_ray.deploy.pre_stop import drain, is_driver
from textspot_ray.engine.sizing import slots_of_node
from textspot_ray.errors import ExitCode, UsageError


def config(**sections: Any) -> RunConfig:
    base = {"source": {"uris": ["s3://photos/"]}, "output": {"uri": "s3://tables/x"}}
    for name, values in sections.items():
        base[name] = {**base.get(name, {}), **values}
    return config_from_dict(base)


def rendered(run: RunConfig, options: KubeOptions) -> tuple[RunConfig, dict[str, Any]]:
    """The run as the pods read it, and the job's spec; both by way of YAML."""
    config_map, job = yaml.safe_load_all(dump(render_job(run, options)))
    assert faults(config_map) == []
    assert faults(job) == []
    return config_from_dict(yaml.safe_load(config_map["data"]["run.yaml"])), job["spec"]


def mebibytes(text: str) -> int:
    assert text.endswith("Mi")
    return int(text[:-2])


def test_the_pods_run_the_same_configuration_but_for_where() -> None:
    run = config(
        image={"tiles": "off"},
        model={"precision": "int8"},
        engine={"in_flight": 2, "kind": "local"},
    )
    inside, spec = rendered(run, KubeOptions(max_workers=3, worker_cpus=16))
    assert (inside.source, inside.image, inside.model) == (run.source, run.image, run.model)
    assert inside.output == run.output
    assert inside.engine.kind == "ray"
    assert inside.engine.address == "auto"
    assert inside.engine.in_flight == 2
    assert inside.engine.slots == 6
    assert "--config /etc/textspot/run.yaml" in spec["entrypoint"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # busy machines
@given(
    cpus=st.integers(1, 192),
    per_slot=st.none() | st.floats(0.5, 64),
    detectors=st.integers(1, 4),
)
def test_slots_fit_the_worker_they_were_sized_for(
    cpus: int, per_slot: float | None, detectors: int
) -> None:
    engine = EngineConfig(cpus_per_slot=per_slot, detectors_per_slot=detectors)
    count, _ = slots_of_node(float(cpus), engine)
    if count < 1:
        with pytest.raises(UsageError, match="no room for a slot"):
            worker_size(cpus, engine)
        return
    size = worker_size(cpus, engine)
    inside = EngineConfig(cpus_per_slot=size.cpus_per_slot, detectors_per_slot=detectors)
    again, shape = slots_of_node(float(cpus), inside)
    assert again == size.slots
    asked = sum(bundle["CPU"] for bundle in shape.bundles)
    assert asked * size.slots <= cpus + 0.011 * size.slots
    assert size.memory_bytes > size.object_store_bytes + size.slots * GIB


def test_requests_tell_ray_what_the_pod_has() -> None:
    _, spec = rendered(config(), KubeOptions(worker_cpus=16))
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["cpu"] == group["rayStartParams"]["num-cpus"] == "16"
    volumes = {v["name"]: v for v in group["template"]["spec"]["volumes"]}
    store = int(group["rayStartParams"]["object-store-memory"])
    shared = mebibytes(volumes["shm"]["emptyDir"]["sizeLimit"]) * 2**20
    assert store < shared < mebibytes(container["resources"]["limits"]["memory"]) * 2**20
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_autoscaling_only_where_the_workers_may_vary() -> None:
    _, varies = rendered(config(), KubeOptions(min_workers=0, max_workers=9))
    assert varies["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert varies["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 0
    _, fixed = rendered(config(), KubeOptions(min_workers=3, max_workers=3))
    assert "enableInTreeAutoscaling" not in fixed["rayClusterSpec"]


def test_a_queued_job_waits_suspended_and_with_all_its_workers() -> None:
    options = KubeOptions(min_workers=1, max_workers=4, queue="batch")
    config_map, job = render_job(config(), options)
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert "kueue.x-k8s.io/queue-name" not in config_map["metadata"]["labels"]
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["maxReplicas"] == 4


def test_spot_is_for_workers_never_for_the_head() -> None:
    _, spec = rendered(config(), KubeOptions(spot=True))
    worker = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {t["key"] for t in worker["tolerations"]} >= {"cloud.google.com/gke-spot"}
    assert "tolerations" not in head
    required = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert {e["operator"] for e in term["matchExpressions"]} == {"NotIn"}
    _, plain = rendered(config(), KubeOptions())
    assert "tolerations" not in plain["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]


def test_pods_have_time_to_drain_and_no_rights() -> None:
    _, spec = rendered(config(), KubeOptions())
    for group in (
        spec["rayClusterSpec"]["headGroupSpec"],
        spec["rayClusterSpec"]["workerGroupSpecs"][0],
    ):
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= 25 + 10
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["lifecycle"]["preStop"]["exec"]["command"][-1].endswith("deploy.pre_stop")
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_credentials_by_reference_only() -> None:
    _, spec = rendered(config(), KubeOptions(secrets=("aws",), service_account="reader"))
    for group in (
        spec["rayClusterSpec"]["headGroupSpec"],
        spec["rayClusterSpec"]["workerGroupSpecs"][0],
    ):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == "reader"
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "aws"}}]


@pytest.mark.parametrize("section", ["source", "output"])
def test_a_secret_in_the_configuration_is_refused_and_not_shown(section: str) -> None:
    run = config(**{section: {"storage_options": {"s3": {"secret": "hunter2"}}}})
    with pytest.raises(UsageError, match=rf"{section}\.storage_options\.s3\.secret") as caught:
        render_job(run, KubeOptions())
    assert "hunter2" not in str(caught.value)


def test_a_password_in_a_uri_is_refused_and_not_shown() -> None:
    run = config(source={"uris": ["https://me:hunter2@photos.example/list.txt"]})
    with pytest.raises(UsageError, match=r"source\.uris\[0\] is a URL with a password") as caught:
        render_job(run, KubeOptions())
    assert "hunter2" not in str(caught.value)
    for doubtful in ("https://token@photos.example/list.txt", "https://h.example/x?sig=8f"):
        with pytest.raises(UsageError, match="URL"):
            render_job(config(source={"uris": [doubtful]}), KubeOptions())
    for fine in ("https://a.example:8080/x@y:z.txt", "https://photos.example/list.txt?page=2"):
        render_job(config(source={"uris": [fine]}), KubeOptions())


@pytest.mark.parametrize(
    "run",
    [
        config(source={"uris": ["/mnt/photos"]}),
        config(output={"uri": "memory://x"}),
        config(model={"name": "/models/mine"}),
        config(model={"words": "names.txt"}),
    ],
)
def test_a_path_of_this_machine_is_refused(run: RunConfig) -> None:
    with pytest.raises(UsageError, match="not there in a pod"):
        render_job(run, KubeOptions())


def test_a_path_on_a_volume_is_fine_and_mounted_everywhere() -> None:
    run = config(source={"uris": ["/mnt/photos/2024"]}, model={"name": "/mnt/models/mine"})
    _, spec = rendered(run, KubeOptions(volumes=(PodVolume.parse("archive:/mnt/"),)))
    for group in (
        spec["rayClusterSpec"]["headGroupSpec"],
        spec["rayClusterSpec"]["workerGroupSpecs"][0],
    ):
        pod = group["template"]["spec"]
        assert {"name": "volume-0", "mountPath": "/mnt"} in pod["containers"][0]["volumeMounts"]
        assert {
            "name": "volume-0",
            "persistentVolumeClaim": {"claimName": "archive"},
        } in pod["volumes"]
    near = config(source={"uris": ["/mnt2/photos"]})
    with pytest.raises(UsageError, match="/mnt2/photos"):
        render_job(near, KubeOptions(volumes=(PodVolume.parse("archive:/mnt"),)))


def test_a_published_model_is_fetched_before_ray_starts() -> None:
    _, spec = rendered(config(model={"name": "text-spotting-0003"}), KubeOptions())
    pod = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    (init,) = pod["initContainers"]
    assert init["command"][-3:] == ["models", "fetch", "text-spotting-0003"]


def test_a_standing_cluster_has_the_same_pods() -> None:
    options = KubeOptions(spot=True)
    _, cluster = render_cluster(config(), options)
    _, job = render_job(config(), options)
    assert faults(cluster) == []
    assert cluster["spec"] == job["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("text", ["archive", ":/x", "archive:x", ""])
def test_a_volume_needs_claim_and_path(text: str) -> None:
    with pytest.raises(UsageError, match="CLAIM:/path"):
        PodVolume.parse(text)


@pytest.mark.parametrize(("low", "high"), [(-1, 2), (3, 2), (0, 0)])
def test_workers_must_be_a_range(low: int, high: int) -> None:
    with pytest.raises(UsageError, match="MIN-MAX"):
        KubeOptions(min_workers=low, max_workers=high)


def test_the_field_check_finds_faults() -> None:
    _, job = render_job(config(), KubeOptions())
    job["spec"]["backOffLimit"] = 1
    job["spec"]["ttlSecondsAfterFinished"] = "600"
    del job["metadata"]["name"]
    assert sorted(faults(job)) == [
        "RayJob.metadata.name is missing",
        "RayJob.spec.backOffLimit is unknown",
        "RayJob.spec.ttlSecondsAfterFinished must be int, not '600'",
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (ExitCode.OK, 0),
        (ExitCode.FAILED_IMAGES, 0),
        (ExitCode.ABORTED, 5),
        (ExitCode.TERMINATED, 143),
        (ExitCode.FINGERPRINT, 4),
    ],
)
def test_failed_images_are_no_failed_job(
    monkeypatch: pytest.MonkeyPatch, status: ExitCode, expected: int
) -> None:
    monkeypatch.setattr(jobentry, "main", lambda argv: status)
    assert jobentry.run(["run"]) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "-m", "textspot_ray", "run", "photos"], True),
        (["python3", "-m", "textspot_ray.deploy.job_entry", "run", "--config", "x"], True),
        (["/opt/textspot/bin/python", "/opt/textspot/bin/textspot", "retry-failed", "x"], True),
        (["textspot", "status", "run"], False),
        (["python", "-m", "textspot_ray", "query", "out", "run"], False),
        (["sh", "-c", "python -m textspot_ray run photos"], False),
        (["vim", "notes", "textspot", "run"], False),
        ([], False),
    ],
)
def test_only_drivers_are_told_to_drain(words: list[str], expected: bool) -> None:
    assert is_driver(words) is expected


def test_drain_waits_for_the_driver_and_leaves_others_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import time

    import psutil

    script = tmp_path / "textspot"
    script.write_text(
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(0.3)\n"
        "    open(sys.argv[2], 'w').write('drained')\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    mark = tmp_path / "mark"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), command, str(mark)], stdout=subprocess.PIPE, text=True
        )
        for command in ("run", "browse")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        began_s = time.monotonic()
        assert drain([psutil.Process(p.pid) for p in processes], timeout_s=20) == 1
        assert time.monotonic() - began_s < 15
        assert mark.read_text() == "drained"
        assert processes[1].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()
