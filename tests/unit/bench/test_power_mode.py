"""A device in another power mode than its target names is not measured: a real agent, a synthetic ``nvpmodel``."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgeopt import bench
from edgeopt.access import local
from edgeopt.bench.files import Artefact
from edgeopt.errors import StageError
from edgeopt.target import Target
from tests import fakes

#: another mode once it has answered so often
CHANGING = """
import pathlib
told = pathlib.Path({told!r})
count = int(told.read_text()) if told.exists() else 0
told.write_text(str(count + 1))
print('NV Power Mode:', '15W' if count < {times} else 'MAXN')
"""


@pytest.mark.parametrize(("times", "where"), [(0, "board"), (1, "measure"), (2, "measure")])
def test_it_is_asked_first_and_around_every_session(
    times: int, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(tmp_path / "bin", "nvpmodel", CHANGING.format(told=str(tmp_path / "told"), times=times))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    file = tmp_path / "relu.onnx"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    target = Target.model_validate(
        {
            "target": 1,
            "name": "board",
            "runtime": "onnxruntime",
            "device": {"power_mode": "15W"},
            "measure": {"min_seconds": 0.1, "max_seconds": 0.1, "min_runs": 10},
        }
    )
    question = bench.Question([Artefact("relu", "onnxruntime", file, (file,))], target)
    with pytest.raises(StageError, match="power mode is 15W, the device says MAXN") as caught:
        bench.run(question, lambda: local.start(limit_s=60))
    assert caught.value.where == where
