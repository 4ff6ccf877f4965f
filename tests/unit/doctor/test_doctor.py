"""The doctor: each check finds what it is for, says how to fix it, and leaves nothing behind."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from textspot_ray.commands import doctor as command
from textspot_ray.config import EngineConfig, ModelConfig
from textspot_ray.doctor import machine as check_machine
from textspot_ray.doctor import storage as check_storage
from textspot_ray.doctor.doctor import verdict
from textspot_ray.doctor.finding import CheckResult, Level, fail, guarded, ok, warn
from textspot_ray.doctor.model import check_model
from textspot_ray.doctor.nodes import NodeFacts, compare_nodes
from textspot_ray.errors import BundleError, ExitCode, StorageError
from textspot_ray.spotting.bundle import built_in_folder
from textspot_ray.storage.faults import hint_of
from textspot_ray.storage.stores import LocalStore

PHOTO = Path(__file__).parents[3] / "jobs" / "demo" / "photos" / "scene_9.jpg"


def levels(findings: Iterator[CheckResult]) -> list[tuple[str, Level]]:
    return [(finding.check, finding.level) for finding in findings]


# What a finding is.


def test_only_a_failure_fails() -> None:
    assert verdict([ok("a", ""), warn("b", "", "")]) == ExitCode.OK
    assert verdict([ok("a", ""), fail("b", "", "")]) == ExitCode.ABORTED == 5


def test_a_broken_check_is_a_finding_and_keeps_what_it_had_found() -> None:
    def breaks() -> Iterator[CheckResult]:
        yield ok("disk", "fine")
        raise KeyError("x")

    def refuses() -> Iterator[CheckResult]:
        raise BundleError("no bundle here")
        yield

    assert levels(guarded("disk", breaks)) == [("disk", Level.OK), ("disk", Level.FAIL)]
    assert [f.line() for f in guarded("model", refuses)] == ["fail  model      no bundle here"]


# The machine.


@pytest.mark.parametrize(
    ("flags", "level", "said"),
    [
        ("sse4_2 avx2 avx512f avx512_vnni amx_bf16", Level.OK, "int8 by avx512_vnni, bf16 by amx"),
        ("sse4_2 avx2 avx_vnni", Level.OK, "avx512 no, int8 by avx_vnni, bf16 by -"),
        ("sse4_2 avx2", Level.WARN, "int8 and bf16 gain little"),
        ("asimd asimddp bf16", Level.OK, "int8 by asimddp, bf16 by bf16"),  # Arm
        ("sse4_2", Level.WARN, "no AVX2"),
        ("", Level.WARN, "unknown"),
    ],
)
def test_cpu_features(flags: str, level: Level, said: str) -> None:
    (finding,) = check_machine.check_cpu(frozenset(flags.split()))
    assert finding.level is level
    assert said in finding.line()


def test_more_cores_wanted_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "available_cpus", lambda: 2.0)
    (finding,) = check_machine.check_threads(EngineConfig(cpus_per_slot=16))
    assert finding.level is Level.FAIL
    assert "engine.cpus_per_slot" in finding.fix
    (finding,) = check_machine.check_threads(EngineConfig(threads=8))
    assert finding.level is Level.WARN
    assert "engine.threads=8" in finding.fix


def test_memory_against_the_worst_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "available_cpus", lambda: 16.0)
    (little,) = check_machine.check_memory(EngineConfig(), 4 * 2**30)
    assert little.level is Level.WARN
    assert "17 GiB at worst for 2 slots" in little.text
    (plenty,) = check_machine.check_memory(EngineConfig(), 64 * 2**30)
    assert plenty.level is Level.OK


def test_disk_full_and_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"cache": tmp_path / "not" / "yet", "tmp": tmp_path}
    usage = SimpleNamespace(free=64 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert levels(check_machine.check_disk(EngineConfig(), folders)) == [("disk", Level.OK)] * 2
    usage.free = 2**20
    findings = list(check_machine.check_disk(EngineConfig(), folders))
    assert [f.level for f in findings] == [Level.WARN] * 2
    assert "TEXTSPOT_CACHE" in findings[0].fix
    monkeypatch.setattr("os.access", lambda *_: False)
    assert levels(check_machine.check_disk(EngineConfig(), folders))[0][1] is Level.FAIL
    assert list(tmp_path.iterdir()) == []


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    (finding,) = check_machine.check_limits()
    assert finding.level is Level.WARN
    assert "256" in finding.text
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    (finding,) = check_machine.check_limits()
    assert finding.level is Level.OK


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        if name in ("duckdb", "textspot-ray"):
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(check_machine, "version", version)
    (finding,) = check_machine.check_versions()
    assert finding.level is Level.FAIL
    assert finding.text == "duckdb missing"


# Storage.


def test_a_good_output_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "tables"
    assert levels(check_storage.check_output(str(out))) == [
        ("output", Level.OK),
        ("exclusive", Level.OK),
        ("clock", Level.OK),
    ]
    assert list(tmp_path.rglob("*")) == []


def test_an_output_in_use_keeps_its_files(tmp_path: Path) -> None:
    kept = tmp_path / "_textspot" / "tmp" / "busy"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    assert verdict(check_storage.check_output(str(tmp_path))) == ExitCode.OK
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (finding,) = check_storage.check_output(str(tmp_path / "file" / "out"))
    assert finding.level is Level.FAIL
    assert "cannot write" in finding.text


def test_no_right_to_delete_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "delete", lambda self, path: None)
    (finding,) = check_storage.check_output(str(tmp_path))
    assert finding.level is Level.FAIL
    assert "delete rights" in finding.fix


def test_a_store_that_serves_stale_listings_or_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "list", lambda self, prefix="": iter(()))
        (finding,) = check_storage.check_output(str(tmp_path))
        assert (finding.level, "not listed" in finding.text) == (Level.FAIL, True)
    monkeypatch.setattr(LocalStore, "read", lambda self, path: b"old")
    (finding,) = check_storage.check_output(str(tmp_path))
    assert (finding.level, "other bytes" in finding.text) == (Level.FAIL, True)


def test_a_store_without_exclusive_puts_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "probe_exclusive", lambda self: False)
    assert ("exclusive", Level.WARN) in levels(check_storage.check_output(str(tmp_path)))


@pytest.mark.parametrize(
    ("stamp_s", "level"),
    [
        (1000.0, Level.OK),
        (999.2, Level.OK),  # whole seconds, rounded down
        (1003.0, Level.OK),
        (1100.0, Level.WARN),
        (900.0, Level.WARN),
        (1000.0 + 3600, Level.FAIL),
        (1000.0 - 3600, Level.FAIL),
        (0.0, Level.WARN),
    ],
)
def test_clock_skew(stamp_s: float, level: Level) -> None:
    assert check_storage.skew_finding(stamp_s, 1000.0, 1002.0).level is level


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("(ExpiredToken) when calling ListObjectsV2", "sign in again"),
        ("NoCredentialsError Unable to locate credentials", "give credentials"),
        ("PermanentRedirect: The bucket must be addressed using", "another region"),
        ("AccessDenied", "grant this identity read"),
        ("(NoSuchBucket)", "make the bucket first"),
        ("EndpointConnectionError: Could not connect to the endpoint URL", "endpoint_url"),
        ("(SignatureDoesNotMatch)", "credentials are wrong"),
        ("disk on fire", ""),
    ],
)
def test_providers_messages_have_fixes(message: str, fix: str) -> None:
    found = hint_of(message)
    assert fix in found
    assert bool(fix) == bool(found)


def test_the_cause_behind_a_storage_error_gives_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        try:
            raise PermissionError("An error occurred (ExpiredToken)")
        except PermissionError as exc:
            raise StorageError("cannot write s3://b/x") from exc

    monkeypatch.setattr(check_storage, "open_store", refuse)
    (finding,) = check_storage.check_output("s3://b/x")
    assert (
        finding.line()
        == "fail  output     cannot write s3://b/x: the credentials have expired: sign in again"
    )


def test_a_source_is_read_not_only_listed(tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "a.jpg")
    (finding,) = check_storage.check_source(str(tmp_path))
    assert finding.level is Level.OK
    assert f"{PHOTO.stat().st_size} bytes" in finding.text


def test_a_source_without_images_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert levels(check_storage.check_source(str(tmp_path))) == [("source", Level.WARN)]
    (finding,) = check_storage.check_source(str(tmp_path / "nowhere"))
    assert finding.level is Level.FAIL
    assert "nowhere" in finding.text


# The model.


def test_a_missing_bundle_is_a_failure_with_its_own_line() -> None:
    findings = list(guarded("model", lambda: check_model(ModelConfig(name="/no/such/bundle"))))
    assert [f.level for f in findings] == [Level.FAIL]
    assert "/no/such/bundle" in findings[0].text


def test_a_damaged_bundle_is_not_loaded(tmp_path: Path) -> None:
    if not (built_in_folder() / "bundle.yaml").is_file():
        pytest.skip("this checkout has no embedded bundle")
    folder = tmp_path / "bundle"
    shutil.copytree(built_in_folder(), folder)
    for weights in folder.glob("detector*.bin"):  # whichever the CPU's precision has
        with weights.open("r+b") as file:
            file.write(b"\0\1\2\3damaged")
    findings = list(guarded("model", lambda: check_model(ModelConfig(name=str(folder)))))
    assert [f.level for f in findings] == [Level.FAIL]
    assert "sha256" in findings[0].text


def test_the_embedded_bundle_compiles_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (built_in_folder() / "bundle.yaml").is_file():
        pytest.skip("this checkout has no embedded bundle")
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path))
    findings = list(check_model(ModelConfig()))
    assert len(findings) == 2
    assert verdict(findings) == ExitCode.OK
    assert "a blank image in" in findings[1].text


# The cluster's nodes.


def node(address: str, **changed: Any) -> NodeFacts:
    facts: dict[str, Any] = {
        "ray": "2.60.0",
        "python": "3.11.7",
        "package": "0.1.0",
        "openvino": "2026.4.1",
        "flags": "avx2",
        "model": "m",
    }
    return NodeFacts(address=address, **{**facts, **changed})


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({"ray": "2.40.0"}, Level.FAIL, "Ray differs"),
        ({"python": "3.12.1"}, Level.FAIL, "Python differs: 3.11 on a, b; 3.12 on c"),
        ({"package": "0.2.0"}, Level.FAIL, "textspot-ray differs"),
        ({"model": "other"}, Level.WARN, "bundle differs"),
        ({"openvino": "2025.1"}, Level.WARN, "openvino differs"),
        ({"flags": "avx2 avx512f"}, Level.WARN, "CPU types differ"),
        ({"ahead_s": 100.0}, Level.WARN, "c: clock is +100 s off"),
    ],
)
def test_a_node_that_differs(changed: dict[str, Any], level: Level, said: str) -> None:
    findings = list(compare_nodes([node("a"), node("b"), node("c", **changed)], 3))
    assert [f.level for f in findings] == [Level.OK, level]
    assert said in findings[1].text.replace("CPU types differs", "CPU types differ")


def test_patch_versions_of_python_may_differ() -> None:
    assert [f.level for f in compare_nodes([node("a"), node("b", python="3.11.9")], 2)] == [
        Level.OK
    ]


def test_a_model_that_no_node_has_comes_from_the_driver() -> None:
    nodes = [node(name, model="unreadable: no bundle") for name in "ab"]
    findings = list(compare_nodes(nodes, 2))
    assert verdict(findings) == ExitCode.OK
    assert "no node has the bundle" in findings[-1].text


def test_no_node_at_all() -> None:
    assert levels(compare_nodes([], 0)) == [("nodes", Level.FAIL)]


# The command.


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(words))


def test_the_command_prints_lines_and_exits_5_on_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run("--out", str(tmp_path / "out"), "--source", "/no/such", "--model", "/no/bundle")
    assert status == 5
    lines = capsys.readouterr().out.splitlines()
    found = {(line.split()[1], line.split()[0]) for line in lines}
    assert ("source", "fail") in found
    assert ("model", "fail") in found
    assert ("output", "ok") in found
    assert {"versions", "cpu", "threads", "memory", "disk", "limits"} <= {name for name, _ in found}


def test_the_command_takes_a_configuration_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    out = tmp_path / "out"
    config.write_text(f"output: {{uri: '{out}'}}\nmodel: {{name: /no/bundle}}\n")
    assert run("--config", str(config), "--json") == 5
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"check", "level", "text", "fix"} == set(facts[0])
    assert any(fact["check"] == "output" and fact["level"] == "ok" for fact in facts)


def test_a_cluster_nobody_listens_at_is_found_in_seconds() -> None:
    # a process of its own: this one may hold the tests' shared cluster, which doctor would ask
    words = ["doctor", "--model", "/no/bundle", "--address", "127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-m", "textspot_ray", *words], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 5
    last = done.stdout.splitlines()[-1]
    assert last.startswith("fail  nodes      no Ray cluster answers at 127.0.0.1:9")
