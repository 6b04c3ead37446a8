from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgeopt import footprint
from edgeopt.access import Energy, local
from edgeopt.measure import Candidate
from edgeopt.protocol import Protocol
from tests.onnx_chains import chain

INPUTS = [np.ones((2, 256), np.float32)]


def test_memory_is_that_of_a_fresh_agent(tmp_path: Path) -> None:
    candidate = Candidate("c", "onnxruntime", str(chain(tmp_path / "m.onnx", 3)))
    found = {m.metric: m for m in footprint.memory(local.start, candidate, INPUTS, Protocol(), "here")}
    load, peak, steady = (found[f"{name}_memory_mib"].value for name in ("load", "peak", "steady"))
    assert load is not None
    assert peak is not None
    assert steady is not None
    assert 10 < load <= peak < 2000
    assert 10 < steady <= peak
    own = found["runtime_memory_mib"]
    assert own.why
    assert own.value is None or own.value > 0


class Meter:
    """An agent whose device tells its energy, or not."""

    def __init__(self, answer: Energy) -> None:
        self.answer = answer
        self.opened: list[object] = []

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def open(self, name: object, *_: object, **__: object) -> None:
        self.opened.append(name)

    def energy(self, *_: object, **__: object) -> Energy:
        return self.answer


@pytest.mark.parametrize("why", ["no counters", "not permitted"])
def test_energy_that_cannot_be_read_is_not_zero(why: str) -> None:
    meter = Meter(Energy({}, "", why))
    candidates = [Candidate("a", "r", "a"), Candidate("b", "r", "b")]
    found = footprint.energy(lambda: meter, candidates, INPUTS, Protocol(), "here", 0)  # type: ignore[arg-type,return-value]
    assert {(name, m.value, m.why, m.unit, m.n) for name, m in found.items()} == {
        (name, None, why, "mJ", 0) for name in ("a", "b")
    }
    assert meter.opened == []  # nothing is loaded in vain


def test_energy_is_the_median_of_the_windows() -> None:
    meter = Meter(Energy({"a": np.arange(1.0, 10.0)}, "package-0", ""))
    found = footprint.energy(lambda: meter, [Candidate("a", "r", "a")], INPUTS, Protocol(), "here", 0)["a"]  # type: ignore[arg-type,return-value]
    assert found.value == 5.0
    assert found.interval == (2.0, 8.0)  # order statistics 2 and 8 of 9 hold the median with 96 %
    assert found.why.startswith("of package-0")
    assert meter.opened == ["a"]


def test_compressed_size_is_that_in_a_zip(tmp_path: Path) -> None:
    files = [tmp_path / "zeros", tmp_path / "noise"]
    files[0].write_bytes(bytes(100_000))
    files[1].write_bytes(np.random.default_rng(0).bytes(10_000))
    found = footprint.compressed_mib(files)
    assert found.value == sum(len(zlib.compress(file.read_bytes(), 9)) for file in files) / 2**20
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            archive.write(file, file.name)
        packed = sum(entry.compress_size for entry in archive.infolist())
    assert found.value == pytest.approx(packed / 2**20, rel=0.01)
    assert "deflated" in found.why
