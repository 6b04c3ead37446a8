"""The run's folder: put in place at once, never at the cost of anything else."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from edgeopt import compare as comparison
from edgeopt import publish, report
from edgeopt import record as record_file
from edgeopt.artifact import Artifact, Store
from edgeopt.compare import Release
from edgeopt.errors import ConfigError, StoreError
from edgeopt.measure import Measurement
from edgeopt.record import (
    ArtifactRecord,
    CandidateRecord,
    RecipeRecord,
    RunRecord,
    TargetRecord,
    VerdictRecord,
    WaiverRecord,
)

CANDIDATE = CandidateRecord(
    "ov-int8", "openvino", "int8", True, False, ArtifactRecord("openvino-model", "", 0.1, "cpu"), ()
)
RECORD = RunRecord(
    schema=1,
    outcome="pass",
    exit_code=0,
    started="2026-01-02T03:04:05+00:00",
    seconds=1.0,
    recipe=RecipeRecord("tiny", "recipe.yaml", "d"),
    targets={
        "cpu": TargetRecord(
            "ov-int8", "fastest", (CANDIDATE,), (VerdictRecord("top1 min", "top1", 0.9, 0.99, None, "pass", "why"),)
        )
    },
    ledger=(),
    stages=(),
    provenance={"tools": {"openvino": "1"}, "edgeopt": "0.1"},
)
SAMPLES = {"cpu": {"ov-int8": np.arange(1, 11, dtype=np.int64)}}


def _plain(record, samples, comparison=None):
    return {"report.md": f"# {record.outcome} ½{' compared' if comparison else ''}\n"}


@pytest.fixture(autouse=True)
def _plain_reports(monkeypatch):
    """What reports look like is tested elsewhere."""
    monkeypatch.setattr(report, "render_all", _plain)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    store = Store(tmp_path / "store")
    with store.scratch() as folder:
        (folder / "sub").mkdir()
        (folder / "model.xml").write_text("<net/>")
        (folder / "sub" / "model.bin").write_bytes(b"\x00\x01")
        return store.put("openvino-model", folder, {"file": "model.xml", "scale": 0.1})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "build" / "tiny"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(out: Path, artifact: Artifact, record: RunRecord = RECORD, **more) -> None:
    publish.check_folder(out)
    publish.publish(out, record, {"cpu": artifact}, SAMPLES, **more)


def test_a_run_has_all_its_files(out, artifact, tmp_path):
    events = tmp_path / "events"
    events.write_text("{}\n")
    run(out, artifact, events=events)
    files = tree(out)
    assert set(files) == {
        "run.json",
        "report.md",
        "events.jsonl",
        "samples/cpu.ov-int8.npy",
        "cpu/manifest.json",
        "cpu/model.xml",
        "cpu/sub/model.bin",
    }
    assert files["cpu/model.xml"] == b"<net/>"
    assert files["events.jsonl"] == b"{}\n"
    assert files["report.md"].decode() == "# pass ½\n"
    assert record_file.load(out) == RECORD
    np.testing.assert_array_equal(publish.read_samples(out, RECORD)["cpu"]["ov-int8"], np.arange(1, 11))
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_the_folder_can_be_read_by_others_and_its_files_changed_by_the_owner(out, artifact):
    run(out, artifact)
    assert out.stat().st_mode & 0o777 == 0o755
    for path in out.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o200


def test_a_run_replaces_the_earlier_one_as_a_whole(out, artifact):
    renamed = replace(RECORD, targets={"old": RECORD.targets["cpu"]})
    publish.check_folder(out)
    publish.publish(out, renamed, {"old": artifact}, {"old": SAMPLES["cpu"]})
    run(out, artifact, replace(RECORD, outcome="fail", exit_code=1))
    assert record_file.load(out).outcome == "fail"
    assert not (out / "old").exists()
    assert not (out / "samples" / "old.ov-int8.npy").exists()
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


# Folders that are not ours


@pytest.mark.parametrize(
    "make",
    [
        lambda out: out.mkdir(parents=True),
        lambda out: out.parent.mkdir(parents=True),
        lambda out: None,
    ],
    ids=["empty", "absent", "no parent"],
)
def test_a_new_or_empty_folder_is_fine(out, artifact, make):
    make(out)
    run(out, artifact)
    assert (out / "run.json").is_file()


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "x"},
        {".git/config": "x"},
        {"run.json": "not ours"},
        {"run.json": "[]"},
        {"run.json": '{"name": "another tool"}'},
        {"run.json": '{"schema": 1, "targets": {}}', "thesis.tex": "x"},
        {"run.json": '{"schema": 1, "targets": {}}', "cpu/model.xml": "of a target that the run does not name"},
        {"run.json/thesis.tex": "x"},
    ],
    ids=lambda files: ", ".join(files),
)
def test_a_folder_with_something_else_is_refused_and_left_alone(out, files):
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content)
    before = tree(out)
    with pytest.raises(ConfigError, match="holds something that is not an earlier run") as caught:
        publish.check_folder(out)
    assert "--out" in caught.value.fix
    assert tree(out) == before


def test_foreign_files_are_named(out, artifact):
    run(out, artifact)
    (out / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"not an earlier run: thesis\.tex\n") as caught:
        publish.check_folder(out)
    assert caught.value.where == str(out)


def test_a_run_of_another_version_may_be_replaced(out, artifact):
    run(out, artifact)
    data = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**data, "schema": 2, "news": 1}))
    run(out, artifact)
    assert record_file.load(out) == RECORD


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "tiny"):
        with pytest.raises(ConfigError) as caught:
            publish.check_folder(out)
        assert caught.value.where == str(out)
    assert (tmp_path / "file").read_text() == "x"


def test_a_place_that_cannot_be_written():
    with pytest.raises(ConfigError, match="cannot be written"):
        publish.check_folder(Path("/proc/edgeopt/tiny"))


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_folder_one_is_in_is_not_replaced(tmp_path, monkeypatch, out):
    (tmp_path / "above" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    with pytest.raises(ConfigError):
        publish.check_folder(Path(out))
    assert Path.cwd().is_dir()


# Failures midway


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug in a report"), KeyboardInterrupt(), OSError(28, "No space left")]
)
def test_a_failure_midway_leaves_the_earlier_run(out, artifact, monkeypatch, error):
    run(out, artifact)
    before = tree(out)

    def fail(record, samples, **more):
        raise error

    monkeypatch.setattr(report, "render_all", fail)
    expected = StoreError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        run(out, artifact, replace(RECORD, outcome="fail"))
    assert tree(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_failed_swap_brings_the_earlier_run_back(out, artifact, monkeypatch):
    run(out, artifact)
    before = tree(out)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name != "run":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        run(out, artifact, replace(RECORD, outcome="fail"))
    assert tree(out) == before


def test_a_damaged_artifact_is_not_half_published(out, artifact):
    run(out, artifact)
    before = tree(out)
    artifact.path("model.xml").unlink()
    with pytest.raises(StoreError, match="cannot write the results"):
        run(out, artifact, replace(RECORD, outcome="fail"))
    assert tree(out) == before


def test_full_disk(small_disk, tmp_path, artifact):
    out = small_disk / "tiny"
    run(out, artifact)
    before = tree(out)
    huge = {"cpu": {"ov-int8": np.zeros(2**18, dtype=np.int64)}}
    with pytest.raises(StoreError, match="No space left"):
        publish.publish(out, RECORD, {"cpu": artifact}, huge)
    assert tree(out) == before
    assert [path.name for path in small_disk.iterdir()] == ["tiny"]


# Reading back


def test_reports_are_rendered_again(out, artifact):
    run(out, artifact)
    (out / "report.md").unlink()
    assert publish.render_again(out, RECORD, SAMPLES) == [out / "report.md"]
    assert (out / "report.md").read_text() == "# pass ½\n"


def test_a_comparison_is_kept_with_the_run_and_rendered_again(out, artifact):
    compared = comparison.compare(Release("a", RECORD), Release("b", RECORD))
    run(out, artifact, comparison=compared)
    assert comparison.load(out / "comparison.json") == compared
    assert (out / "report.md").read_text() == "# pass ½ compared\n"
    (out / "report.md").unlink()
    publish.render_again(out, RECORD, SAMPLES)
    assert (out / "report.md").read_text() == "# pass ½ compared\n"
    other = replace(compared, before=replace(compared.before, path="c"))
    publish.render_again(out, RECORD, SAMPLES, other)
    assert comparison.load(out / "comparison.json") == other
    run(out, artifact)
    assert not (out / "comparison.json").exists()


def test_a_damaged_comparison_of_a_run_is_told(out, artifact):
    run(out, artifact)
    (out / "comparison.json").write_text("{")
    with pytest.raises(ConfigError, match="no readable comparison") as caught:
        publish.render_again(out, RECORD, SAMPLES)
    assert caught.value.where == str(out / "comparison.json")


def test_a_run_is_read_by_its_folder_or_its_record(out, artifact):
    run(out, artifact)
    for path in (out, out / "run.json"):
        release = publish.read_run(path)
        assert (release.path, release.record) == (str(path), RECORD)
        np.testing.assert_array_equal(release.samples["cpu"]["ov-int8"], np.arange(1, 11))


def test_samples_that_are_not_there_are_left_out(out, artifact):
    run(out, artifact)
    (out / "samples" / "cpu.ov-int8.npy").unlink()
    assert publish.read_samples(out, RECORD) == {}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"x" * 100])
def test_damaged_samples_are_refused(out, artifact, content):
    run(out, artifact)
    (out / "samples" / "cpu.ov-int8.npy").write_bytes(content)
    with pytest.raises(ConfigError, match="the samples are damaged") as caught:
        publish.read_samples(out, RECORD)
    assert caught.value.where.endswith("cpu.ov-int8.npy")


@pytest.mark.parametrize(
    "series",
    [np.array([], np.int64), np.ones(3), np.ones((2, 2), np.int64), np.array([1, 0]), np.array([-1]), np.array(["a"])],
    ids=str,
)
def test_samples_that_are_no_latencies_are_refused(out, artifact, series):
    run(out, artifact)
    np.save(out / "samples" / "cpu.ov-int8.npy", series)
    with pytest.raises(ConfigError, match="not a series of positive int64 nanoseconds"):
        publish.read_samples(out, RECORD)


@pytest.mark.parametrize(
    ("protocol", "median_ms", "why"),
    [
        ({"mode": "latency", "sessions": [4, 6]}, 5e-6, ""),
        ({"mode": "latency", "sessions": [4, 5]}, 5e-6, "10 samples, and the record tells of 9"),
        ({"mode": "latency"}, 4e-6, "their median is 5e-06 ms, and the record says 4e-06 ms"),
        ({"mode": "latency"}, None, ""),
        ({"mode": "throughput", "sessions": [4, 6]}, 4e-6, ""),  # those are of windows
    ],
)
def test_samples_of_another_run_are_refused(out, artifact, protocol, median_ms, why):
    """The samples are 1 to 10 ns, whose nearest-rank median is 5 ns."""
    median = Measurement("latency_p50_ms", median_ms, "ms", "lower", None, 10, "measured", "p", "m")
    candidate = replace(CANDIDATE, measurements=(median,))
    target = replace(RECORD.targets["cpu"], candidates=(candidate,), protocol=protocol)
    record = replace(RECORD, targets={"cpu": target})
    run(out, artifact, record)
    if not why:
        assert len(publish.read_run(out).samples["cpu"]["ov-int8"]) == 10
        return
    with pytest.raises(ConfigError, match=f"the samples are damaged: {why}") as caught:
        publish.read_run(out)
    assert caught.value.where.endswith("cpu.ov-int8.npy")


def test_the_manifest_carries_the_waivers(out, artifact):
    waiver = WaiverRecord("top1 min", "cpu", "a new camera", "A. Person", "2026-12-31", "waivers.yaml:3:5", "used")
    verdicts = tuple(replace(v, outcome="waived", waiver=waiver) for v in RECORD.targets["cpu"].verdicts)
    run(out, artifact, replace(RECORD, targets={"cpu": replace(RECORD.targets["cpu"], verdicts=verdicts)}))
    manifest = publish.read_manifest(out / "cpu")
    assert manifest["verdicts"] == {"top1 min": "waived"}
    assert manifest["waivers"] == [asdict(waiver)]


def test_the_manifest_says_what_the_artifact_is(out, artifact):
    run(out, artifact)
    manifest = publish.read_manifest(out / "cpu")
    assert manifest["digest"] == artifact.digest
    assert manifest["files"] == dict(artifact.files)
    assert manifest["meta"] == {"file": "model.xml", "scale": 0.1}
    assert (manifest["target"], manifest["candidate"], manifest["kind"]) == ("cpu", "ov-int8", "openvino-model")
    assert manifest["verdicts"] == {"top1 min": "pass"}
    assert manifest["tools"] == {"openvino": "1"}


@pytest.mark.parametrize("name", ["model.xml", "sub/model.bin"])
def test_a_changed_file_of_a_shipped_artifact_is_seen(out, artifact, name):
    run(out, artifact)
    file = out / "cpu" / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ConfigError, match=f"changed since they were written: {name}"):
        publish.read_manifest(out / "cpu")


def test_a_missing_file_of_a_shipped_artifact_is_seen(out, artifact):
    run(out, artifact)
    (out / "cpu" / "model.xml").unlink()
    with pytest.raises(ConfigError, match="no readable artefact"):
        publish.read_manifest(out / "cpu")


@pytest.mark.parametrize("name", ["kind", "meta", "files", "digest"])
def test_a_changed_manifest_is_seen(out, artifact, name):
    run(out, artifact)
    file = out / "cpu" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest[name] = {"kind": "onnx", "meta": {"file": "other"}, "files": {}, "digest": "0" * 64}[name]
    file.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"changed since they were written: manifest\.json"):
        publish.read_manifest(out / "cpu")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": []}', '{"files": {}}', "null"])
def test_what_is_no_manifest(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ConfigError, match="no readable artefact"):
        publish.read_manifest(tmp_path)
    with pytest.raises(ConfigError, match="no readable artefact"):
        publish.read_manifest(tmp_path / "nowhere")


def test_an_earlier_run_that_was_moved_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".out.old.x"
    (aside / "run").mkdir(parents=True)
    (aside / "run" / "run.json").write_text('{"schema": 1, "targets": {}}')
    publish.check_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists(), "it may be moving right now"
    os.utime(aside, (0, 0))
    publish.check_folder(tmp_path / "out")
    assert (tmp_path / "out" / "run.json").is_file()
    assert not aside.exists()
