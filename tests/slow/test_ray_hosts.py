"""A head and two workers in network namespaces, as on three hosts (needs root and iproute2)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.scripted import write_images
from tests.support.tables_equal import all_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="network namespaces need root and iproute2",
    ),
]
COUNT = 150
DRIVER = """
import json, sys
from pathlib import Path
from tests.support.placed import placed_parts
from tests.support.scripted import scripted_config
from textspot_ray.engine.run import run

folder, out, address = sys.argv[1:]
config = scripted_config(Path(out), kind="ray", address=address)
counts = run(config, parts=placed_parts(Path(folder))).counts
print("report", json.dumps([counts.images, counts.failed]))
"""


class Hosts:
    """Namespaces on one bridge, each with its own address and loopback, and no way out."""

    def __init__(self, count: int) -> None:
        self._tag = f"ts{secrets.token_hex(2)}"
        self.names = [f"{self._tag}n{n}" for n in range(count)]
        self.addresses = [f"10.77.0.{n + 1}" for n in range(count)]

    def make(self) -> None:
        bridge = f"{self._tag}br"
        _ip(f"link add {bridge} type bridge")
        _ip(f"link set {bridge} up")
        for n, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            _ip(f"netns add {name}")
            _ip(f"link add {self._tag}v{n} type veth peer name eth0 netns {name}")
            _ip(f"link set {self._tag}v{n} master {bridge} up")
            _ip(f"-n {name} addr add {address}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")
            _ip(f"-n {name} link set lo up")

    def run(self, host: int, *command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        words = ["ip", "netns", "exec", self.names[host], *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)

    def stop(self, host: int) -> None:
        """End every process of a host."""
        words = ["ip", "netns", "pids", self.names[host]]
        for pid in subprocess.run(words, capture_output=True, text=True).stdout.split():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(pid))
                process.kill()
                process.wait(10)

    def remove(self) -> None:
        for host, name in enumerate(self.names):
            self.stop(host)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{self._tag}br"], capture_output=True)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # which Ray wants where it is not on loopback
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = Hosts(3)
    try:
        try:
            found.make()
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no network namespaces here: {exc.stderr.decode().strip()}")
        yield found
    finally:
        found.remove()


def start_ray(hosts: Hosts, host: int, *options: str) -> None:
    ray = str(Path(sys.executable).parent / "ray")
    common = ["--node-ip-address", hosts.addresses[host], "--object-store-memory", "100000000"]
    for _ in range(3):  # Ray gives its daemons 30 s, which a busy machine may not
        done = hosts.run(host, ray, "start", *options, *common, timeout_s=200)
        if done.returncode == 0:
            return
        hosts.stop(host)  # what a failed start leaves running is in the next one's way
    raise AssertionError(done.stderr[-800:])


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Ray's sockets lie below it, and their names have a longest length."""
    with tempfile.TemporaryDirectory(prefix="ts", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_slots_stay_on_their_host_and_features_do_not_travel(
    short_path: Path, hosts: Hosts, tmp_path: Path
) -> None:
    address = f"{hosts.addresses[0]}:6379"
    head = ["--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard=false"]
    start_ray(hosts, 0, *head, "--temp-dir", str(short_path))
    for host in (1, 2):
        start_ray(hosts, host, "--address", address, "--num-cpus", "1")
    folder = write_images(tmp_path / "in", [f"words=w{n};sleep=0.1" for n in range(COUNT)])
    out = tmp_path / "out"
    words = [sys.executable, "-c", DRIVER, str(folder), str(out), address]
    done = hosts.run(0, *words, timeout_s=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.partition("report ")[2].splitlines()[0]) == [COUNT, 0]
    rows = all_rows(out)["words"]
    assert len(rows) == COUNT
    nodes = set()
    for row in rows:
        detected, read, how, run_on = row["text"].split()
        assert detected == read == run_on and how == "local", row
        nodes.add(detected)
    assert len(nodes) == 2
