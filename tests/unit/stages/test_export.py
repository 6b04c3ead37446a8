"""Export, on networks that a user might write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from edgeopt import checkpoint, data
from edgeopt.artifact import Artifact
from edgeopt.errors import StageError
from edgeopt.recipe import Preprocess
from edgeopt.reference import source_digest
from edgeopt.stage import StageContext, StageOutput
from edgeopt.stages.export import Export, ExportParams
from edgeopt.target import Limits, Target

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.body:
            x = torch.relu(x + layer(x))
        return self.head(self.pool(x).flatten(1))


class View(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8 * 36, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x.view(x.size(0), -1))


class Branches(Net):
    def forward(self, x):
        x = self.stem(x)
        if x.sum() > 0:
            x = x + 1
        return self.head(self.pool(x).flatten(1))


class Item(Net):
    def forward(self, x):
        count = int(x.abs().max().item())
        return super().forward(x) * count


class OneBatch(Net):
    def forward(self, x):
        return super().forward(x).reshape(1, -1)


class Unrolled(Net):
    def forward(self, x):
        return torch.cat([super(Unrolled, self).forward(x[i : i + 1]) for i in range(x.shape[0])])


class Random(Net):
    def forward(self, x):
        y = super().forward(x)
        return y + torch.rand_like(y)


class Exotic(Net):
    def forward(self, x):
        return torch.linalg.svdvals(self.stem(x))


class Raises(Net):
    def forward(self, x):
        raise ValueError("my own mistake")


class Text(Net):
    def forward(self, x):
        return "a cat"


class NotANumber(Net):
    def forward(self, x):
        return super().forward(x) / 0


class Several(Net):
    def forward(self, x):
        y = super().forward(x)
        return {"scores": y, "more": (y + 1, y * 2)}


class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x[:, None]).relu().mean(2))

"""

RGB = {
    "raw": {"shape": [8, 8, 3], "dtype": "uint8"},
    "scale": 255.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
GREY = {"raw": {"shape": [8, 8, 1], "dtype": "uint8"}, "scale": 255.0, "mean": [0.5], "std": [0.5]}
PCM = {"raw": {"shape": [64], "dtype": "int16"}, "scale": 32768.0, "mean": [0.0], "std": [1.0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe."""
    folder = tmp_path_factory.mktemp("users_secret_folder")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    return folder


def export(
    root: Path,
    out: Path,
    name: str = "Net",
    *,
    args: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = RGB,
    shape: tuple[int, ...] = (3, 8, 8),
    **params: Any,
) -> StageOutput:
    """Run the stage on a freshly built network; the file lands in ``out``."""
    factory = f"model:{name}"
    model = checkpoint.build(factory, args or {}, root)
    folder = out / "torch"
    folder.mkdir(parents=True)
    (out / "onnx").mkdir()
    meta = {
        "factory": factory,
        "args": dict(args or {}),
        "source_digest": source_digest(factory, root),
        "input": {"name": "image", "shape": list(shape), "dtype": "float32"},
        "preprocess": preprocess,
    }
    written = _save(model, meta, folder)
    context = StageContext(out / "onnx", root, 7, {}, lambda *progress: None, _no_agent, _no_agent)
    return Export().run({"model": Artifact("torch", "0" * 64, folder, {}, written)}, ExportParams(**params), context)


def _save(model: Any, meta: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As :func:`checkpoint.save`, without running the network, which some here do not survive."""
    save_file(model.state_dict(), folder / "weights.safetensors")
    content = {"checkpoint": checkpoint.SCHEMA, "factory": meta["factory"], "args": meta["args"], "plan": {}}
    (folder / "checkpoint.json").write_text(json.dumps(content), encoding="utf-8")
    return meta


def _no_agent(environment: str = "") -> Any:
    raise AssertionError("export needs no device")


@pytest.fixture(scope="module")
def exported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageOutput]:
    out = tmp_path_factory.mktemp("exported")
    output = export(root, out)
    return out / "onnx" / "model.onnx", output


def run(file: Path, values: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": values}))


def torch_says(root: Path, name: str, values: np.ndarray, preprocess: Mapping[str, Any] | None) -> np.ndarray:
    spec = None if preprocess is None else Preprocess.model_validate_json(json.dumps(preprocess))
    args = {"channels": 1} if preprocess is GREY else {}
    model = checkpoint.build(f"model:{name}", args, root)
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(data.to_input(values, spec))))


def test_it_writes_one_file_with_raw_input_and_a_dynamic_batch(exported: tuple[Path, StageOutput]) -> None:
    file, output = exported
    assert output.kind == "onnx"
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(file)
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 8, 8, 3]
    assert output.meta["input"] == {"name": "image", "shape": [8, 8, 3], "dtype": "uint8"}
    assert output.meta["outputs"] == [{"name": "output", "node": "head/Gemm", "shape": [4], "dtype": "float32"}]
    assert output.meta["preprocess"] == RGB
    assert output.meta["opset"] == 20
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    assert 0 <= output.meta["max_abs_difference"] < 1e-5


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_computes_what_the_network_computes(exported: tuple[Path, StageOutput], root: Path, batch: int) -> None:
    values = np.random.default_rng(batch).integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(run(exported[0], values)[0], torch_says(root, "Net", values, RGB), atol=1e-5)


def test_nodes_are_named_after_the_users_modules(exported: tuple[Path, StageOutput]) -> None:
    model = onnx.load(exported[0])
    assert [node.name for node in model.graph.node] == [
        "preprocess/Transpose",
        "preprocess/Cast",
        "preprocess/Mul",
        "preprocess/Add",
        "stem.0/Conv",
        "stem.2/Relu",
        "body.0/Conv",
        "model/Add",
        "model/Relu",
        "body.1/Conv",
        "model/Add#2",
        "model/Relu#2",
        "pool/ReduceMean",
        "model/Reshape",
        "head/Gemm",
    ]
    assert exported[1].meta["preprocess_nodes"] == [node.name for node in model.graph.node[:4]]
    assert {"stem.0.weight", "head.weight", "head.bias"} <= {tensor.name for tensor in model.graph.initializer}


def test_the_file_tells_nothing_about_this_machine(exported: tuple[Path, StageOutput], root: Path) -> None:
    content = exported[0].read_bytes()
    for secret in (str(root), "users_secret_folder", str(Path(torch.__file__).parents[1]), "model.py", "forward("):
        assert secret.encode() not in content
    model = onnx.load(exported[0])
    assert not model.metadata_props
    assert not model.doc_string
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert re.search(rb"/(home|root|tmp|work|usr)/", content) is None


def test_another_process_in_another_folder_writes_the_same_bytes(
    exported: tuple[Path, StageOutput], root: Path, tmp_path: Path
) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]);"
        "from tests.unit.stages.test_export import export;"
        "export(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))"
    )
    repository = Path(__file__).parents[3]
    command = [sys.executable, "-c", script, repository, root, tmp_path / "other"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / "onnx" / "model.onnx").read_bytes() == exported[0].read_bytes()


@pytest.mark.parametrize(
    ("name", "args", "preprocess", "shape", "dtype"),
    [
        ("Net", {"channels": 1}, GREY, (1, 8, 8), "uint8"),
        ("Net", {}, None, (3, 8, 8), "float32"),
        ("View", {}, RGB, (3, 8, 8), "uint8"),
        ("Sound", {}, PCM, (64,), "int16"),
    ],
)
def test_other_inputs(
    root: Path,
    tmp_path: Path,
    name: str,
    args: dict[str, Any],
    preprocess: dict[str, Any] | None,
    shape: tuple[int, ...],
    dtype: str,
) -> None:
    output = export(root, tmp_path, name, args=args, preprocess=preprocess, shape=shape)
    raw = output.meta["input"]
    assert raw["dtype"] == dtype
    random = np.random.default_rng(0)
    if dtype == "float32":
        values = random.standard_normal((3, *raw["shape"]), dtype=np.float32)
    else:
        limits = np.iinfo(dtype)
        values = random.integers(limits.min, limits.max, (3, *raw["shape"]), dtype=dtype)
    given = run(tmp_path / "onnx" / "model.onnx", values)[0]
    np.testing.assert_allclose(given, torch_says(root, name, values, preprocess), atol=1e-5)
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    assert not [node for node in model.graph.node if node.op_type == "Transpose"] or preprocess is RGB


def test_several_outputs(root: Path, tmp_path: Path) -> None:
    output = export(root, tmp_path, "Several")
    assert [entry["name"] for entry in output.meta["outputs"]] == ["output_0", "output_1", "output_2"]
    values = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    scores, plus, twice = run(tmp_path / "onnx" / "model.onnx", values)
    np.testing.assert_allclose(plus, scores + 1, rtol=1e-5)
    np.testing.assert_allclose(twice, scores * 2, rtol=1e-5)


@pytest.mark.parametrize("opset", [14, 17, 18, 21])
def test_the_opset_is_the_one_that_was_asked_for(root: Path, tmp_path: Path, opset: int) -> None:
    output = export(root, tmp_path, opset=opset)
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [output.meta["opset"]] == [opset]
    assert "stem.0/Conv" in {node.name for node in model.graph.node}


def test_an_opset_that_cannot_be_written_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot be written in ONNX opset 11") as caught:
        export(root, tmp_path, opset=11)
    assert "limits.max_opset" in caught.value.fix


def test_the_target_lowers_the_opset_and_never_raises_it() -> None:
    def bound(highest: int | None, opset: int = 20) -> int:
        target = Target(target=1, name="t", runtime=("onnxruntime",), limits=Limits(max_opset=highest))
        return Export().bind(ExportParams(opset=opset), target).opset

    assert bound(None) == 20
    assert bound(17) == 17
    assert bound(23) == 20
    assert bound(19, opset=18) == 18


@pytest.mark.parametrize(("name", "code"), [("Branches", "if x.sum() > 0:"), ("Item", ".max().item())")])
def test_control_flow_that_depends_on_data_is_reported_with_its_line(
    root: Path, tmp_path: Path, name: str, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StageError, match="depends on the values of its input") as caught:
        export(root, tmp_path, name)
    file, _, line = caught.value.where.rpartition(":")
    assert Path(file) == root / "model.py"
    assert code in MODEL.splitlines()[int(line) - 1]
    assert "torch.where" in caught.value.fix
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "onnx").iterdir()) == []


@pytest.mark.parametrize("name", ["OneBatch", "Unrolled"])
def test_a_network_for_one_batch_size_only(root: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StageError, match="only for one batch size"):
        export(root, tmp_path, name)


def test_an_operation_without_a_counterpart_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"ONNX cannot express .*svd"):
        export(root, tmp_path, "Exotic")


def test_an_exception_of_the_network_is_reported_with_its_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="ValueError: my own mistake") as caught:
        export(root, tmp_path, "Raises")
    line = int(caught.value.where.rpartition(":")[2])
    assert "raise ValueError" in MODEL.splitlines()[line - 1]


def test_a_network_that_returns_no_tensors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="returns a str"):
        export(root, tmp_path, "Text")


def test_a_file_that_differs_from_the_network_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="differs from the network by"):
        export(root, tmp_path, "Random")


def test_a_network_that_gives_nan_cannot_be_compared(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="NaN or infinity"):
        export(root, tmp_path, "NotANumber")


def test_the_tolerance_is_relative_to_the_outputs(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="allowed: 1e-12"):
        export(root, tmp_path, tolerance=1e-12)


def test_weights_of_two_gigabytes_are_refused_before_any_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeopt.stages.export._MAX_BYTES", 1000)
    with pytest.raises(StageError, match="less than 2 GiB"):
        export(root, tmp_path)


def test_it_says_nothing_by_itself(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(root, tmp_path)
    assert capfd.readouterr() == ("", "")
