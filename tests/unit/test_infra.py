"""infra/: manifests as rendered, Dockerfile and compose, launcher, monitoring; nothing is run."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.crd_fields import faults
from textspot_ray._version import __version__
from textspot_ray.commands import submit
from textspot_ray.config import load_config
from textspot_ray.deploy.pre_stop import GRACE_S
from textspot_ray.engine.progress import Progress
from textspot_ray.engine.ray.metrics import METRICS, RayMetrics, both

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILE = (INFRA / "docker" / "Dockerfile").read_text()

# What Ray 2.60 serves on its metrics port of what the board and the alerts use.
RAY_METRICS = {
    "ray_cluster_active_nodes",
    "ray_node_cpu_utilization",
    "ray_node_disk_free",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_node_network_receive_speed",
    "ray_node_network_send_speed",
    "ray_object_store_fallback_memory",
    "ray_object_store_used_memory",
}


def renderings() -> list[tuple[str, list[str]]]:
    """File and arguments of every manifest, out of the script that renders them."""
    lines = (INFRA / "k8s" / "render.sh").read_text().splitlines()
    (common,) = [line[len("common=(") : -1] for line in lines if line.startswith("common=(")]
    words = [shlex.split(line) for line in lines if line.startswith("render ")]
    return [(name, shlex.split(common) + rest) for _, name, *rest in words]


@pytest.mark.parametrize(("name", "words"), renderings())
def test_manifests_are_what_the_code_renders(
    name: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(INFRA / "k8s")
    parser = argparse.ArgumentParser()
    submit.add_arguments(parser)
    assert submit.main(parser.parse_intermixed_args(words)) == 0
    text = capsys.readouterr().out
    stored = (INFRA / "k8s" / name).read_text()
    there = re.compile(r"rayVersion: \S+")
    assert there.sub("", text) == there.sub("", stored), "run infra/k8s/render.sh"


def test_all_manifests_are_there_to_be_compared() -> None:
    by_hand = {"run.yaml", "kueue.yaml"}
    rendered = {name for name, _ in renderings()}
    assert {path.name for path in (INFRA / "k8s").glob("*.yaml")} == by_hand | rendered


@pytest.mark.parametrize(
    "path",
    [
        *(INFRA / "k8s").glob("ray*.yaml"),
        INFRA / "k8s" / "kueue.yaml",
        INFRA / "monitoring" / "podmonitor.yaml",
    ],
    ids=lambda path: path.name,
)
def test_manifests_have_only_fields_that_exist(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    assert [fault for document in documents for fault in faults(document)] == []


def test_the_queue_admits_the_queued_job() -> None:
    text = (INFRA / "k8s" / "kueue.yaml").read_text()
    queues = {document["kind"]: document for document in yaml.safe_load_all(text)}
    local, whole = queues["LocalQueue"], queues["ClusterQueue"]
    _, job = yaml.safe_load_all((INFRA / "k8s" / "rayjob-kueue.yaml").read_text())
    labels = job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == whole["metadata"]["name"]
    (flavor,) = whole["spec"]["resourceGroups"][0]["flavors"]
    assert flavor["name"] == queues["ResourceFlavor"]["metadata"]["name"]
    quota = {resource["name"]: resource["nominalQuota"] for resource in flavor["resources"]}
    spec = job["spec"]["rayClusterSpec"]
    (workers,) = spec["workerGroupSpecs"]
    asked = [(spec["headGroupSpec"], 1), (workers, workers["replicas"])]
    cpus = mebibytes = 0
    for group, count in asked:
        requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        cpus += count * int(requests["cpu"])
        mebibytes += count * int(requests["memory"].removesuffix("Mi"))
    assert cpus + 1 <= int(quota["cpu"])
    assert mebibytes <= 1024 * int(quota["memory"].removesuffix("Gi"))


# The image.


def locked(name: str) -> dict[str, str]:
    lines = (INFRA / "docker" / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    form = re.compile(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}\Z")
    found = [form.match(line) for line in pins]
    assert all(found), "every line pins a version and a checksum"
    return {match[1]: match[2] for match in found if match}


def normal(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_the_lock_holds_every_dependency_of_its_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    title = (INFRA / "docker" / "requirements.lock").read_text()
    (named,) = re.findall(r"from the extras (\S+?)\.\n", title)
    wanted = list(project["project"]["dependencies"])
    for extra in named.split(","):
        wanted += extras[extra]
    pins = locked("requirements.lock")
    assert {normal(requirement) for requirement in wanted} <= set(pins)
    assert {normal(r) for r in project["build-system"]["requires"]} <= set(
        locked("requirements-build.lock")
    )
    for requirement in wanted:
        least = re.search(r">=([\d.]+)", requirement)
        if least:
            have = [int(n) for n in re.findall(r"\d+", pins[normal(requirement)])]
            assert have >= [int(n) for n in least[1].split(".")], requirement


def test_the_image_is_pinned_non_root_and_has_no_tools_left() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    assert re.search(r"ARG BASE=python:3\.11\.\d+-slim-\w+\n", stages[0])
    last = stages[-1]
    _, job = yaml.safe_load_all((INFRA / "k8s" / "rayjob.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    user = head["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in last
    assert "HEALTHCHECK" in last
    assert "pip install" not in last
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make)\b", DOCKERFILE)
    installs = re.findall(r"pip install ([^\\\n]*)", DOCKERFILE)
    assert installs
    for arguments in installs:
        assert "--require-hashes" in arguments or "/wheels/" in arguments, arguments


def test_what_the_image_copies_is_there_and_sent_to_the_engine() -> None:
    ignore = (INFRA / "docker" / "Dockerfile.dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            top = "infra/docker/*.lock" if source.endswith(".lock") else source
            assert f"!{top}" in ignore.splitlines(), source


def test_files_of_the_package_that_pages_name_are_there() -> None:
    examples = {"textspot_ray/sources/kinds/ar.py", "textspot_ray/export/voc.py"}  # to be written
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", INFRA / "README.md"]
    named = set()
    for page in (*pages, *(ROOT / "docs").glob("*.md")):
        named |= set(re.findall(r"`((?:textspot_ray|tests|jobs)/[\w/]+\.py)`", page.read_text()))
    assert len(named) > 10
    assert {path for path in named if not (ROOT / path).is_file()} <= examples


def test_the_image_and_the_makefile_install_the_same_project() -> None:
    """Both hand the project's own folder to pip; the image pins what the Makefile resolves."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"pip install .*-e \.\n", makefile)
    assert re.search(r"pip wheel .* \.( \\)?\n", DOCKERFILE)
    assert "pip check" in DOCKERFILE


def test_versions_of_the_image_agree() -> None:
    assert f"textspot-ray:{__version__}" in DOCKERFILE
    for path in (*INFRA.rglob("*.yaml"), INFRA / "k8s" / "render.sh"):
        for tag in re.findall(r"textspot-ray:(\d\S*)", path.read_text()):
            assert tag.rstrip(",") == __version__, path
    for name in ("rayjob.yaml", "raycluster.yaml", "rayjob-kueue.yaml"):
        stored = (INFRA / "k8s" / name).read_text()
        (ray,) = re.findall(r"rayVersion: (\S+)", stored)
        assert ray == locked("requirements.lock")["ray"], "run infra/k8s/render.sh with that Ray"


def test_compose_is_loopback_only_and_grows_by_workers() -> None:
    compose = yaml.safe_load((INFRA / "docker" / "compose.yaml").read_text())
    services = compose["services"]
    assert {"head", "worker", "s3"} <= set(services)
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", []):
            source = (INFRA / "docker" / volume.split(":")[0]).resolve()
            assert source.is_file(), volume
        for needed in service.get("depends_on", {}):
            assert needed in services
    assert "ports" not in services["worker"]
    dockerfile = services["head"]["build"]
    assert (INFRA / "docker" / dockerfile["context"] / dockerfile["dockerfile"]).resolve().is_file()
    grace_s = int(services["head"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= GRACE_S


# Cloud launchers.


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_launcher_files_are_what_ray_takes(name: str) -> None:
    config = yaml.safe_load((INFRA / "launcher" / f"{name}.yaml").read_text())
    util = pytest.importorskip("ray.autoscaler._private.util")
    filled = util.prepare_config(config)
    util.validate_config(filled)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert "dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
    text = (INFRA / "launcher" / f"{name}.yaml").read_text()
    assert not re.search(r"(?i)(secret|password|private_key)\w*\s*:", text)


# Monitoring.


def expressions() -> list[str]:
    alerts = yaml.safe_load((INFRA / "monitoring" / "alerts.yaml").read_text())
    board = json.loads((INFRA / "monitoring" / "board.json").read_text())
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries = [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    return rules + panels + queries


def test_board_and_alerts_use_metrics_that_exist() -> None:
    known = {f"ray_{name}" for name in METRICS} | RAY_METRICS
    used = {name for text in expressions() for name in re.findall(r"\bray_\w+", text)}
    assert used <= known
    assert {f"ray_{name}" for name in METRICS if "elapsed" not in name} <= used | {
        "ray_textspot_planning"
    }


def test_the_readme_lists_every_metric_and_label() -> None:
    readme = (INFRA / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert {name.removeprefix("textspot_") for name in METRICS} <= listed
    labels = {(row.split("|")[1].strip(" `"), row.split("|")[2].strip(" `")) for row in rows}
    for name, metric in METRICS.items():
        if metric.label:
            assert (name.removeprefix("textspot_"), metric.label) in labels


def test_labels_in_expressions_are_those_of_the_metric() -> None:
    for text in expressions():
        for name, body in re.findall(r"\bray_(textspot_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)\s*[=!]~?", body))
            assert labels <= {"out", METRICS[name].label}, text


def test_expressions_are_balanced() -> None:
    for text in expressions():
        for opening, closing in ("()", "[]", "{}"):
            assert text.count(opening) == text.count(closing), text


def test_every_alert_says_what_to_do() -> None:
    alerts = yaml.safe_load((INFRA / "monitoring" / "alerts.yaml").read_text())
    names = []
    for group in alerts["groups"]:
        for rule in group["rules"]:
            names.append(rule["alert"])
            assert {"expr", "for", "labels", "annotations"} <= set(rule)
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert {"summary", "action"} == set(rule["annotations"])
    assert len(names) == len(set(names))
    readme = (INFRA / "README.md").read_text()
    assert all(name in readme for name in names)


def test_panels_do_not_overlap() -> None:
    board = json.loads((INFRA / "monitoring" / "board.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        mine = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


class FakeGauge:
    made: list[FakeGauge]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.description, self.tag_keys = name, description, tag_keys
        self.values: list[tuple[float, dict[str, str]]] = []
        FakeGauge.made.append(self)

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.values.append((value, tags))


def progress(**changed: Any) -> Progress:
    facts: dict[str, Any] = {
        "items_planned": 10,
        "items_done": 4,
        "images": 3,
        "words": 7,
        "failed": 1,
        "shards_done": 2,
        "images_per_s": 1.5,
        "eta_s": None,
        "elapsed_s": 9.0,
    }
    return Progress(**{**facts, **changed})


def test_metrics_carry_the_progress_and_the_end_is_always_told() -> None:
    FakeGauge.made = []
    metrics = RayMetrics("s3://t", interval_s=1000.0, make=FakeGauge)
    metrics(progress())
    metrics(progress(images=99))  # too soon
    metrics(progress(images=5, eta_s=0.0, final=True))
    values = {gauge.name: [value for value, _ in gauge.values] for gauge in FakeGauge.made}
    assert set(values) == set(METRICS)
    assert values["textspot_images"] == [3, 5]
    assert values["textspot_eta_seconds"] == [-1, 0]
    assert values["textspot_running"] == [1, 0]
    assert FakeGauge.made[0].values[0][1] == {"out": "s3://t"}


def test_metrics_wait_for_ray_and_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    import ray.util.metrics

    FakeGauge.made = []
    monkeypatch.setattr(ray.util.metrics, "Gauge", FakeGauge)
    up = [False]
    monkeypatch.setattr(ray, "is_initialized", lambda: up[0])
    metrics = RayMetrics("s3://t", interval_s=0.0)
    metrics(progress())
    assert FakeGauge.made == []
    up[0] = True
    metrics(progress())
    up[0] = False
    metrics(progress(final=True))
    assert {
        tuple(value for value, _ in gauge.values)
        for gauge in FakeGauge.made
        if gauge.name == "textspot_running"
    } == {(1.0,)}


def test_several_observers_are_told() -> None:
    heard: list[str] = []
    tell = both(None, lambda p: heard.append("a"), lambda p: heard.append("b"))
    assert tell is not None
    tell(progress())
    assert heard == ["a", "b"]
    assert both(None, None) is None


def test_metrics_load_without_ray() -> None:
    code = "import sys, textspot_ray.engine.ray.metrics; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_sample_run_is_a_valid_configuration() -> None:
    assert load_config(INFRA / "k8s" / "run.yaml").output.uri == "s3://my-tables/2024"


def test_the_lock_is_of_the_ray_that_is_tested() -> None:
    here = version("ray").split(".")[:2]
    there = locked("requirements.lock")["ray"].split(".")[:2]
    if here != there:
        pytest.skip(f"tested with Ray {'.'.join(here)}, the image has {'.'.join(there)}")
