"""Which runtime a file is for, and what it is fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeopt.access import Opened, Port
from edgeopt.bench.files import find, random_inputs, read_inputs
from edgeopt.errors import ConfigError


def model(*ports: Port) -> Opened:
    return Opened("m", ports, (), 1.0, 1)


IMAGE = Port("image", (None, 3, 8, 8), "float32")


def touched(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return list(paths)


def test_the_runtime_follows_from_the_file_and_the_target(tmp_path: Path) -> None:
    files = touched(tmp_path / "a.onnx", tmp_path / "b.xml", tmp_path / "b.bin")[:2]
    assert [a.runtime for a in find(files, ["onnxruntime"])] == ["onnxruntime", "openvino"]
    assert [a.runtime for a in find(files, ["openvino"])] == ["openvino", "openvino"]
    assert [file.name for file in find(files, ["openvino"])[1].files] == ["b.xml", "b.bin"]


def test_a_tflite_file_is_for_litert(tmp_path: Path) -> None:
    (found,) = find(touched(tmp_path / "m.tflite"), ["onnxruntime"])
    assert (found.runtime, found.files) == ("litert", (tmp_path / "m.tflite",))


def test_names_are_unlike(tmp_path: Path) -> None:
    one, two = touched(tmp_path / "x" / "a.onnx", tmp_path / "y" / "a.onnx")
    assert [a.name for a in find([one, two], ["onnxruntime"])] == [str(one), str(two)]
    assert [a.name for a in find([one, one, one], ["onnxruntime"])] == ["a.onnx", "a.onnx #2", "a.onnx #3"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m.engine", "not available yet: a .engine file needs TensorRT"),
        ("m.pt", "nothing here times a .pt file"),
        ("m", "nothing here times a nameless file"),
    ],
)
def test_what_cannot_be_timed_says_what_is_missing(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find(touched(tmp_path / name), ["onnxruntime"])


def test_a_missing_file_and_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        find([tmp_path / "a.onnx"], ["onnxruntime"])
    with pytest.raises(ConfigError, match="no readable artefact"):
        find([tmp_path], ["onnxruntime"])


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint8", 0, 255), ("int8", -128, 127), ("int64", 0, 1), ("bool", 0, 1), ("float32", -9, 9), ("float16", -9, 9)],
)
def test_random_inputs_are_those_of_the_port_and_always_the_same(dtype: str, low: float, high: float) -> None:
    port = Port("x", (None, 5), dtype)
    (array,) = random_inputs({"m": model(port)}, batch=4)
    assert array.shape == (64, 5)
    assert array.dtype == np.dtype(dtype)
    assert low <= array.astype(float).min() < array.astype(float).max() <= high
    assert (array == random_inputs({"m": model(port)}, batch=4)[0]).all()


def test_large_inputs_are_few() -> None:
    (array,) = random_inputs({"m": model(Port("x", (1, 3, 2000, 2000), "float32"))}, batch=1)
    assert array.shape == (1, 3, 2000, 2000)


@pytest.mark.parametrize(
    ("ports", "batch", "says"),
    [
        ((Port("x", (4, 3), "float32"),), 1, "the batch of x is 4, the target's is 1"),
        ((Port("x", (None, None), "float32"),), 1, "the shape of x is open"),
        ((Port("x", (), "float32"),), 1, "the batch of x is none"),
    ],
)
def test_ports_that_cannot_be_fed(ports: tuple[Port, ...], batch: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        random_inputs({"m": model(*ports)}, batch)


def test_models_with_unlike_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not take the same inputs as a: image uint8 \(\?, 3, 8, 8\)"):
        random_inputs({"a": model(IMAGE), "b": model(Port("image", (None, 3, 8, 8), "uint8"))}, 1)


def test_inputs_from_a_file(tmp_path: Path) -> None:
    file, values = tmp_path / "x.npz", np.ones((3, 3, 8, 8), np.float32)
    np.savez(file, anything=values)
    assert (read_inputs(file, {"m": model(IMAGE)}, 1)[0] == values).all()
    two = model(IMAGE, Port("mask", (None, 2), "bool"))
    np.savez(file, image=values, mask=np.ones((3, 2), bool))
    assert [array.shape for array in read_inputs(file, {"m": two}, 1)] == [(3, 3, 8, 8), (3, 2)]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": np.ones((3, 3, 8, 8))}, r"image wants float32 \(N, 3, 8, 8\), got float64"),
        ({"image": np.ones((0, 3, 8, 8), np.float32)}, "image wants"),
        ({"image": np.ones((3, 8), np.float32)}, "image wants"),
        ({"other": np.ones(1), "more": np.ones(1)}, "no array 'image'; there are: other, more"),
        ({"image": np.array([{}], dtype=object)}, "no readable .npz"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ConfigError, match=says):
        read_inputs(tmp_path / "x.npz", {"m": model(IMAGE)}, 1)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"nothing")
    for path in (tmp_path / "x.npz", tmp_path / "absent.npz"):
        with pytest.raises(ConfigError, match=r"no readable \.npz"):
            read_inputs(path, {"m": model(IMAGE)}, 1)
