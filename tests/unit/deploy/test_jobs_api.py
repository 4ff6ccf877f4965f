"""Submitting to a Jobs API: addresses, what travels, following through broken connections."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from textspot_ray.commands import submit as command
from textspot_ray.config import config_from_dict, load_config
from textspot_ray.deploy import jobs_api as submit
from textspot_ray.errors import AbortedError, ExitCode, UsageError


@dataclass
class Info:
    status: str
    driver_exit_code: int | None = None
    message: str = ""


@dataclass
class FakeClient:
    """A Jobs API that breaks its log stream where it is told to."""

    log: str = ""
    breaks: list[int] = field(default_factory=list)
    infos: list[Any] = field(default_factory=lambda: [Info("SUCCEEDED", 0)])
    sent: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        self.sent = {"entrypoint": entrypoint, **options}
        folder = Path(options["runtime_env"]["working_dir"])
        assert [path.name for path in folder.iterdir()] == ["run.yaml"]
        self.config_text = (folder / "run.yaml").read_text()
        return options["submission_id"] or "raysubmit_1"

    def get_job_info(self, job_id: str) -> Any:
        info = self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]
        if isinstance(info, Exception):
            raise info
        return info

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        end = self.breaks.pop(0) if self.breaks else None
        for start in range(0, len(self.log[:end]), 7):
            yield self.log[:end][start : start + 7]
        if end is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly")


def cluster(client: FakeClient) -> submit.Cluster:
    return submit.Cluster("http://head:8265", "2.60.0", client)


RUN = config_from_dict({"source": {"uris": ["s3://photos/"]}, "output": {"uri": "s3://tables/x"}})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "http://127.0.0.1:8265"),
        ("head", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example/cluster", "https://ray.example/cluster"),
        ("10.0.0.7:8266", "http://10.0.0.7:8266"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert submit.jobs_address(given) == expected


@pytest.mark.parametrize("given", ["auto", "ray://head:10001", "head:6379", "http://h:port"])
def test_addresses_of_other_things_are_refused_with_the_right_form(given: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:8265"):
        submit.jobs_address(given)


def test_what_travels_is_the_configuration_bound_to_that_cluster() -> None:
    client = FakeClient()
    job_id = submit.send(cluster(client), RUN, "mine")
    assert job_id == "mine"
    sent = load_config_text(client.config_text)
    assert sent.source == RUN.source
    assert sent.output == RUN.output
    assert sent.engine.address == "auto"
    assert client.sent["entrypoint"].endswith(" -m textspot_ray run --config run.yaml")
    assert not Path(client.sent["runtime_env"]["working_dir"]).exists()


def load_config_text(text: str) -> Any:
    return config_from_dict(yaml.safe_load(text))


def test_paths_are_made_absolute_before_they_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = FakeClient()
    run = config_from_dict(
        {"source": {"uris": ["photos/*.jpg", "s3://b/x"]}, "output": {"uri": "out"}}
    )
    submit.send(cluster(client), run)
    sent = load_config_text(client.config_text)
    assert sent.source.uris == (f"{tmp_path}/photos/*.jpg", "s3://b/x")
    assert sent.output.uri == f"{tmp_path}/out"


def test_secrets_do_not_travel() -> None:
    client = FakeClient()
    run = config_from_dict(
        {
            "source": {
                "uris": ["s3://p"],
                "storage_options": {"s3": {"client_kwargs": {"aws_secret_access_key": "hunter2"}}},
            },
            "output": {"uri": "s3://t"},
        }
    )
    with pytest.raises(UsageError, match="aws_secret_access_key") as caught:
        submit.send(cluster(client), run)
    assert "hunter2" not in str(caught.value)
    assert client.sent == {}


def test_a_refused_job_is_one_line() -> None:
    class Refuses(FakeClient):
        def submit_job(self, *, entrypoint: str, **options: Any) -> str:
            raise RuntimeError("Request failed with status code 500:\n  job mine exists")

    with pytest.raises(UsageError, match="does not take the job: Request failed") as caught:
        submit.send(cluster(Refuses()), RUN, "mine")
    assert "\n" not in str(caught.value)


def follow(client: FakeClient) -> tuple[ExitCode, str]:
    heard: list[str] = []
    code = submit.follow(cluster(client), "job", heard.append, reconnect_s=0)
    return code, "".join(heard)


def test_the_log_is_whole_and_once_however_often_the_connection_breaks() -> None:
    log = "".join(f"line {n}\n" for n in range(40))
    for breaks in ([], [0], [1, 50], [100, 20, 120, 7]):
        running = [Info("RUNNING")] * len(breaks)
        client = FakeClient(log, list(breaks), [*running, Info("SUCCEEDED", 0)])
        assert follow(client) == (ExitCode.OK, log)


def test_an_api_that_is_away_for_a_while_is_waited_for() -> None:
    infos = [ConnectionError("refused"), ConnectionError("refused"), Info("SUCCEEDED", 0)]
    assert follow(FakeClient("all\n", [2, 2], infos)) == (ExitCode.OK, "all\n")


def test_an_api_that_stays_away_ends_the_following_not_silently() -> None:
    with pytest.raises(AbortedError, match=r"lost sight of job job .*refused.*textspot status"):
        follow(FakeClient("", [0] * 99, [ConnectionError("refused")]))


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (Info("FAILED", 3), ExitCode.FAILED_IMAGES),
        (Info("FAILED", 4), ExitCode.FINGERPRINT),
        (Info("FAILED", 2), ExitCode.USAGE),
        (Info("FAILED", -15), ExitCode.TERMINATED),
        (Info("STOPPED", None), ExitCode.TERMINATED),
    ],
)
def test_the_exit_code_is_the_runs_own(info: Info, expected: ExitCode) -> None:
    assert follow(FakeClient("x", [], [info]))[0] == expected


def test_a_job_that_never_ran_says_why() -> None:
    info = Info("FAILED", None, "Failed to start supervisor actor:\n no resources")
    with pytest.raises(AbortedError, match="supervisor actor: no resources"):
        follow(FakeClient("", [], [info]))


def test_a_cluster_without_the_package_is_named_so() -> None:
    log = "/usr/bin/python: No module named textspot_ray\n"
    with pytest.raises(AbortedError, match=r"^/usr/bin/python cannot import textspot_ray"):
        follow(FakeClient(log, [], [Info("FAILED", 1, "exit 1")]))


def test_a_reader_that_has_gone_is_not_taken_for_a_broken_connection() -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        submit.follow(cluster(FakeClient("text")), "job", gone, reconnect_s=0)


class Answers(BaseHTTPRequestHandler):
    status = 200
    body = b"{}"

    token = ""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        refused = self.token and given != f"Bearer {self.token}"
        self.send_response(401 if refused else self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Answers]]]:
    handler = type("Handler", (Answers,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", handler
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"", "RAY_AUTH_TOKEN"),
        (403, b"no", "RAY_AUTH_TOKEN"),
        (404, b"<html>", "not a Ray dashboard"),
        (200, b"<html>hello", "not a Ray dashboard"),
        (200, b"[1]", "not a Ray dashboard"),
    ],
)
def test_other_servers_are_told_apart(
    server: tuple[str, type[Answers]], status: int, body: bytes, message: str
) -> None:
    url, handler = server
    handler.status, handler.body = status, body
    with pytest.raises(UsageError, match=message):
        submit.connect(url)


def test_the_clusters_ray_version_is_known(
    server: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = server
    handler.body = json.dumps({"ray_version": "2.40.0"}).encode()
    monkeypatch.setattr(submit, "_client", lambda url, headers: FakeClient())
    assert submit.connect(url).ray_version == "2.40.0"


@pytest.mark.parametrize("how", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home", "wrong", "none"])
def test_a_cluster_that_wants_a_token(
    server: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    url, handler = server
    handler.body, handler.token = b'{"ray_version": "2.60.0"}', "sesame"
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".ray"
    folder.mkdir()
    if how == "RAY_AUTH_TOKEN":
        monkeypatch.setenv(how, "sesame")
    elif how == "RAY_AUTH_TOKEN_PATH":
        (tmp_path / "mine").write_text("sesame\n")
        monkeypatch.setenv(how, str(tmp_path / "mine"))
    elif how in ("home", "wrong"):
        (folder / "auth_token").write_text("sesame" if how == "home" else "guess")
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(submit, "_client", lambda _, headers: seen.append(headers))
    if how in ("wrong", "none"):
        with pytest.raises(UsageError, match=r"refuses access \(401\).*ray get-auth-token") as no:
            submit.connect(url)
        assert "guess" not in str(no.value)
    else:
        submit.connect(url)
        assert seen == [{"Authorization": "Bearer sesame"}]


def test_a_stored_token_goes_only_where_one_is_asked_for(
    server: tuple[str, type[Answers]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, handler = server
    handler.body = b'{"ray_version": "2.60.0"}'
    (tmp_path / "mine").write_text("sesame")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "mine"))
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(submit, "_client", lambda _, headers: seen.append(headers))
    submit.connect(url)
    assert seen == [{}]


def test_nobody_there_is_one_line_with_the_fix(server: tuple[str, type[Answers]]) -> None:
    with pytest.raises(UsageError, match=r"no Ray Jobs API answers at .*--dashboard-host"):
        submit.connect("http://127.0.0.1:9")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_intermixed_args(words)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    client = FakeClient("progress\n", [], [Info("FAILED", 3)])
    monkeypatch.setattr(submit, "connect", lambda address: cluster(client))
    return client


def test_follow_is_the_default_and_passes_the_runs_status_on(
    sent: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(parse("s3://photos/", "--out", "s3://tables/x")) == 3
    shown = capsys.readouterr()
    assert shown.out == "progress\n"
    assert "textspot status s3://tables/x" in shown.err


def test_detach_prints_the_id_alone(sent: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(parse("s3://p/", "--out", "s3://t", "--detach", "--job-id", "n7")) == 0
    assert capsys.readouterr().out == "n7\n"


def test_a_yaml_file_in_the_sources_place_is_the_configuration(
    sent: FakeClient, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("source: {uris: ['s3://a/']}\noutput: {uri: 's3://b'}\n")
    command.main(parse(str(path), "--detach", "--set", "image.tiles=off", "--address", "head"))
    run = load_config_text(sent.config_text)
    assert (run.source.uris, run.output.uri, run.image.tiles) == (("s3://a/",), "s3://b", "off")
    assert run == load_config(path, ["image.tiles=off", "engine.address=auto"])


def test_relative_files_of_the_model_are_made_absolute(
    sent: FakeClient,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("s3://p/", "--out", "s3://t", "--words", "names.txt", "--model", "mine", "--detach")
    command.main(parse(*words))
    run = load_config_text(sent.config_text)
    assert (run.model.words, run.model.name) == (f"{tmp_path}/names.txt", f"{tmp_path}/mine")
    told = capsys.readouterr().err
    assert f"{tmp_path}/names.txt" in told or "names.txt must be there on every node" in told
    command.main(parse("s3://p/", "--out", "s3://t", "--words", "s3://w/n.txt", "--detach"))
    run = load_config_text(sent.config_text)
    assert (run.model.words, run.model.name) == ("s3://w/n.txt", "embedded")


def test_local_paths_are_mentioned(
    sent: FakeClient, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command.main(parse(str(tmp_path), "--out", "s3://t", "--detach"))
    assert f"{tmp_path} must be there on every node" in capsys.readouterr().err


def test_k8s_prints_and_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("s3://p/", "--out", "s3://t", "--k8s", "--name", "n", "--workers", "2-5")
    assert command.main(parse(*words)) == 0
    text = capsys.readouterr().out
    assert "kind: RayJob" in text
    assert "maxReplicas: 5" in text


def test_apply_pipes_the_manifest_into_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "kubectl"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/args\ncat > {tmp_path}/stdin\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    words = ("s3://p/", "--out", "s3://t", "--k8s", "--apply", "--name", "n")
    assert command.main(parse(*words)) == 0
    assert (tmp_path / "args").read_text() == "apply -f -\n"
    assert "kind: RayJob" in (tmp_path / "stdin").read_text()
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(AbortedError, match="kubectl"):
        command.main(parse(*words))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="kubectl on the PATH"):
        command.main(parse(*words))


@pytest.mark.parametrize("workers", ["x", "1-", "-3", "1-2-3", "2.5"])
def test_workers_of_another_form_are_refused(workers: str) -> None:
    with pytest.raises(UsageError, match="--workers"):
        command.main(parse("s3://p/", "--out", "s3://t", "--k8s", f"--workers={workers}"))


def test_apply_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="--apply goes with"):
        command.main(parse("s3://p/", "--out", "s3://t", "--apply"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("has_ray", [True, False])
def test_the_driver_runs_with_the_interpreter_that_ray_runs_with(
    tmp_path: Path, has_ray: bool
) -> None:
    """Whatever ``python`` is on the PATH of the shell that Ray starts."""
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho fake\n")
    fake.chmod(0o755)
    asked = "-c 'import sys; print(sys.prefix, sys.flags.safe_path)'"
    command = submit.ENTRYPOINT.replace("-m textspot_ray run --config run.yaml", asked)
    program = f"import subprocess\n{'import ray' if has_ray else ''}\n" + (
        f"subprocess.run({command!r}, shell=True)"
    )
    environment = {**os.environ, "PATH": f"{fake.parent}:/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == (f"{sys.prefix} True\n" if has_ray else "fake\n"), done.stderr
