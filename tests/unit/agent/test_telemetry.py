from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import edgeopt

SCRIPT = """
import sys
from edgeopt.agent.telemetry import silence
assert silence() == ()
assert not {"numpy", "onnxruntime", "openvino", "nncf"} & set(sys.modules), "silence() imports nothing heavy"
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])], [weight])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), sys.argv[1])
x = np.ones((1, 4), np.float32)
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
assert (session.run(None, {"x": x})[0] == x).all()
import openvino
model = openvino.convert_model(sys.argv[1])
assert (openvino.compile_model(model, "CPU")(x)[0] == x).all()
import nncf
nncf.quantize(model, nncf.Dataset([x]))
assert silence() == ()
"""


def test_no_library_writes_into_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "NNCF_"))}
    environment |= {
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(edgeopt.__file__).parents[1]),
        **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA", "STATE")},
    }
    environment.pop("CI", None)  # some of the libraries are silent there
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "m.onnx")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path for path in home.rglob("*") if path.is_file()) == []


def test_it_says_who_was_loaded_before(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").touch()
    (tmp_path / "openvino.py").touch()
    (tmp_path / "openvino_telemetry.py").touch()
    script = (
        "import onnxruntime, openvino, openvino_telemetry\n"
        "from edgeopt.agent.telemetry import silence\n"
        "assert silence() == ('onnxruntime', 'openvino')\n"
        "assert silence() == ()\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(edgeopt.__file__).parents[1])])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "NNCF_"))}
    subprocess.run([sys.executable, "-c", script], env={**environment, "PYTHONPATH": path}, check=True)
