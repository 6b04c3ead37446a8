"""Sending a run to a real MLflow server, to a file, and to servers that do not answer or say no."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgeopt
from edgeopt import publish, tracking
from edgeopt.errors import ConfigError, MissingBackend, TrackingError
from edgeopt.record import RunRecord
from edgeopt.tracking import server as module
from edgeopt.tracking.entry import entry_of
from tests import made_up_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SECRET = "pa55@w/rd"
WITH_SECRET = "dana:pa55%40w%2Frd@"
#: The server's own settings: nothing phones home, and no workers for jobs that nobody gives it.
SERVER_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture(scope="module")
def record() -> RunRecord:
    made_up = made_up_run.record()
    return replace(
        made_up, recipe=replace(made_up.recipe, values={"seed": 7, "steps": [{"prune": {"macs_ratio": 0.5}}]})
    )


@pytest.fixture
def run(record: RunRecord, tmp_path: Path) -> Path:
    """The folder of a finished run, in which somebody has left a file."""
    folder = tmp_path / "run"
    (folder / "cpu-openvino" / "nested").mkdir(parents=True)
    (folder / "samples").mkdir()
    (folder / "run.json").write_text(record.to_json())
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "samples" / "s.npy").write_bytes(b"samples")
    (folder / "cpu-openvino" / "nested" / "model.bin").write_bytes(bytes(range(256)))
    (folder / "private.txt").write_text("not of the run")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with SQLite behind it."""
    pytest.importorskip("mlflow.server", reason="the server of mlflow is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **SERVER_ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def send(uri: str, record: RunRecord, run: Path) -> str:
    return tracking.send(tracking.parse(uri), record, run, publish.files(run, record))


def client_of(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(client: MlflowClient, experiment: str) -> list[Run]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def artifacts(client: MlflowClient, run_id: str, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    client.download_artifacts(run_id, "", str(folder))
    return files_of(folder)


def named(record: RunRecord, name: str) -> RunRecord:
    return replace(record, recipe=replace(record.recipe, name=name))


@pytest.mark.parametrize("kind", ["server", "file"])
def test_a_run_arrives_whole_and_silently(kind, request, record, run, tmp_path, monkeypatch, capfd):
    pytest.importorskip("alembic", reason="the whole of mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    uri = request.getfixturevalue("uri") if kind == "server" else "sqlite:///runs/runs.db"
    before = dict(os.environ)
    capfd.readouterr()
    place = send(uri, record, run)
    assert capfd.readouterr() == ("", "")
    left = {**os.environ, **SERVER_ENVIRONMENT}
    assert left == {
        **before,
        **SERVER_ENVIRONMENT,
        **{name: left[name] for name in ("ORT_DISABLE_TELEMETRY", "NNCF_CI")},
    }

    client = client_of(uri)
    (sent,) = runs(client, "digits")
    assert sent.info.run_id in place
    assert (sent.info.status, sent.info.run_name) == ("FINISHED", record.started)
    assert sent.info.end_time - sent.info.start_time == round(record.seconds * 1000)
    expected = entry_of(record)
    assert sent.data.params == expected.params
    assert {"seed", "steps.prune.macs_ratio", "targets", "tools.torch"} <= set(sent.data.params)
    assert {name: text for name, text in sent.data.tags.items() if name != "mlflow.runName"} == expected.tags
    series: dict[str, list[tuple[int, float]]] = {}
    for point in expected.metrics:
        series.setdefault(point.name, []).append((point.step, point.value))
    assert set(sent.data.metrics) == set(series)
    for name in ("cpu.latency_p50_ms", "cpu.latency_p50_ms.low", "cpu-openvino.ledger.top1"):
        history = client.get_metric_history(sent.info.run_id, name)
        assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == series[name]
    assert len(series["cpu-openvino.ledger.top1"]) > 3
    got = artifacts(client, sent.info.run_id, tmp_path / "got")
    assert got == {name: content for name, content in files_of(run).items() if name != "private.txt"}
    if kind == "file":
        assert {path.name for path in tmp_path.iterdir()} == {"run", "got", "runs"}
        assert {path.name for path in (tmp_path / "runs").iterdir()} == {"runs.db", "mlartifacts"}


def test_the_same_run_again_is_no_second_run_but_brings_new_reports(uri, record, run, tmp_path):
    record = named(record, "again")
    send(uri, record, run)
    (run / "report.html").write_text("<p>rendered anew</p>")
    send(uri, record, run)
    client = client_of(uri)
    (sent,) = runs(client, "again")
    assert len(client.get_metric_history(sent.info.run_id, "seconds")) == 1
    assert artifacts(client, sent.info.run_id, tmp_path / "got")["report.html"] == b"<p>rendered anew</p>"
    send(uri, replace(record, seconds=1.0), run)
    assert len(runs(client, "again")) == 2


def test_many_numbers_and_texts_take_several_requests(uri, record, run):
    values = {f"p{number}": number for number in range(230)}
    tools = {f"t{number}": "1" for number in range(5)}
    candidate = record.targets["cpu-openvino"].candidates[0]
    measurements = tuple(replace(candidate.measurements[0], metric=f"m{number}") for number in range(400))
    target = replace(
        record.targets["cpu-openvino"],
        shipped=candidate.id,
        candidates=(replace(candidate, measurements=measurements),),
    )
    record = replace(
        named(record, "many"),
        targets={f"t{number}": target for number in range(3)},
        provenance={"tools": tools},
        ledger=(),
    )
    record = replace(record, recipe=replace(record.recipe, values=values))
    send(uri, record, run)
    (sent,) = runs(client_of(uri), "many")
    expected = entry_of(record)
    assert sent.data.params == expected.params
    assert sent.data.metrics == {point.name: point.value for point in expected.metrics}
    assert len(sent.data.metrics) > 3000
    assert sent.data.tags["t2.shipped"] == candidate.id


def test_a_run_that_did_not_arrive_whole_is_marked_so_and_can_be_sent_again(uri, record, run):
    record = named(record, "broken")
    server = tracking.parse(uri)
    with pytest.raises(TrackingError, match=r"not tracked: .*gone\.txt") as caught:
        tracking.send(server, record, run, [run / "gone.txt"])
    assert f"complete in {run}" in caught.value.what
    assert caught.value.where == uri
    assert f"edgeopt report {run} --track URI" in caught.value.fix
    client = client_of(uri)
    assert [sent.info.status for sent in runs(client, "broken")] == ["FAILED"]
    send(uri, record, run)
    assert sorted(sent.info.status for sent in runs(client, "broken")) == ["FAILED", "FINISHED"]


def test_a_deleted_experiment(uri, record, run):
    record = named(record, "deleted")
    client = client_of(uri)
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(TrackingError, match="its experiment deleted was deleted"):
        send(uri, record, run)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Says no, and echoes the credentials."""

    seen: list[Any]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.headers["Authorization"]))
        body = json.dumps({"error_code": "UNAUTHENTICATED", "message": f"wrong password {SECRET}"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def test_credentials_reach_the_server_and_nobody_else(record, run, capfd):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    Refusing.seen = []
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{listener.server_port}"
        server = tracking.parse(f"http://{WITH_SECRET}{host}/prefix/")
        assert server.address == f"http://{host}/prefix"
        assert SECRET not in repr(server)
        with pytest.raises(TrackingError) as caught:
            tracking.send(server, record, run, [])
        listener.shutdown()
    path, authorization = Refusing.seen[0]
    assert path.startswith("/prefix/api/")
    assert authorization == "Basic " + base64.b64encode(f"dana:{SECRET}".encode()).decode()
    assert "wrong password ***" in str(caught.value)
    printed = "".join(capfd.readouterr()) + str(caught.value)
    assert "pa55" not in printed
    assert caught.value.__suppress_context__
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_a_server_that_is_not_there(record, run, capfd):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    port = free_port()
    with pytest.raises(TrackingError) as caught:
        send(f"http://{WITH_SECRET}127.0.0.1:{port}", record, run)
    assert caught.value.what == (
        f"the run was not tracked: the server cannot be reached: Connection refused. Its results are complete in {run}"
    )
    assert caught.value.where == f"http://127.0.0.1:{port}"
    assert "pa55" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_does_not_answer_is_given_up_soon(record, run, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    tries = int(module._KNOCK["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) + 1
    assert tries * (int(module._KNOCK["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + 1) < 20  # 1 s: the wait before the next try
    monkeypatch.setitem(module._KNOCK, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(TrackingError, match="does not answer in time"):
        send(f"http://127.0.0.1:{listener.getsockname()[1]}", record, run)


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
def test_a_file_that_cannot_be_a_database(content, record, run, tmp_path):
    pytest.importorskip("alembic", reason="the whole of mlflow is not installed")
    file = tmp_path / "runs.db"
    file.write_bytes(content) if content else file.mkdir()
    with pytest.raises(TrackingError, match="database") as caught:
        send(f"sqlite:///{file}", record, run)
    assert f"complete in {run}" in caught.value.what


def test_a_database_that_somebody_else_is_writing(record, run, tmp_path, monkeypatch):
    pytest.importorskip("alembic", reason="the whole of mlflow is not installed")
    file = tmp_path / "runs.db"
    connect = sqlite3.connect
    other = connect(file)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(module.sqlite3, "connect", lambda file, timeout: connect(file, timeout=0.1))
    with pytest.raises(TrackingError, match="locked"):
        send(f"sqlite:///{file}", record, run)
    other.close()


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("", "not the URI of an MLflow server"),
        ("build/mlruns", "not the URI"),
        ("ftp://host", "not the URI"),
        ("postgresql://dana:pa55word@host/db", "not the URI"),
        ("http://dana:pa55word@host:port", "not the URI"),
        ("http://[dana:pa55word@host", "not the URI"),
        ("http://pa55word host", "not the URI"),
        ("http://host\n", "not the URI"),
        ("http://dana:1/pa55word@host", "more than a server"),
        ("https://host/?token=pa55word", "more than a server"),
        ("https://host/#pa55word", "more than a server"),
        ("http://", "names no host"),
        ("https://pa55word@host", "a user name and a password, or neither"),
        ("https://:pa55word@host", "a user name and a password, or neither"),
        ("sqlite://", "names no SQLite file"),
        ("sqlite://runs.db", "names no SQLite file"),
        ("sqlite:///:memory:", "names no SQLite file"),
    ],
)
def test_other_uris_are_refused_and_not_shown(uri, what):
    with pytest.raises(ConfigError, match=what) as caught:
        tracking.parse(uri)
    assert caught.value.where == "--track"
    assert caught.value.fix
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize(
    ("absent", "uri", "fix"),
    [("mlflow-skinny", "http://host", "edgeopt[mlflow]"), ("alembic", "sqlite:///runs.db", "pip install mlflow")],
)
def test_what_is_not_installed_is_told(absent, uri, fix, monkeypatch):
    monkeypatch.setattr(module, "tool_version", lambda name: "" if name == absent else "1")
    with pytest.raises(MissingBackend) as caught:
        tracking.parse(uri)
    assert fix in caught.value.fix


PHONE_HOME = """
import os, socket, sys
from pathlib import Path
away = []
connect = socket.socket.connect
def watched(self, address):
    if self.family != socket.AF_UNIX:
        away.append(address)
        raise OSError("no network in this test")
    return connect(self, address)
socket.socket.connect = watched
resolve = socket.getaddrinfo
def asked(host, *arguments, **more):
    away.append(host)
    raise OSError("no network in this test")
socket.getaddrinfo = asked
from edgeopt import tracking
from edgeopt.record import load
run = Path(sys.argv[1])
record = load(run)
tracking.send(tracking.parse(f"sqlite:///{run.parent}/runs.db"), record, run, [run / "run.json"])
assert "mlflow" in sys.modules
import time
time.sleep(1)  # for whatever a thread may still want to say
print(away)
"""


def test_nothing_phones_home(run, tmp_path):
    pytest.importorskip("alembic", reason="the whole of mlflow is not installed")
    home = tmp_path / "home"
    home.mkdir()
    silent = (
        "CI",
        "GITHUB_ACTIONS",
        "PYTEST_CURRENT_TEST",
        "DO_NOT_TRACK",
    )  # mlflow is quiet where it sees one of them
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in silent and not name.startswith(("XDG_", "MLFLOW_"))
    }
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(Path(edgeopt.__file__).parents[1]),
        **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")},
    }
    done = subprocess.run(
        [sys.executable, "-c", PHONE_HOME, str(run)], env=environment, cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert files_of(home) == {}
