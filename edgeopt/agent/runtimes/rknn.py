"""Rockchip's simulator, in the isolated tool environment ``rknn``.

The simulator runs only what was built in the same process. So what it opens is an archive of all that the build took,
and it builds again. That is the same network with the same options and calibration, and it is not compared with the
file that ships: in this process the toolkit leaves other addresses in the gaps of the file, and for some chips it even
lays it out in another order.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..toolchains.rknn import CALIBRATION, ONNX, session  # noqa: TID252
from . import Layer, Options, Port, RuntimeMemory, fill

#: It opens the archive that a build leaves aside; there is none that does next to nothing.
READS_ONNX = False


def version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rknn-toolkit2")
    except PackageNotFoundError as error:
        raise ImportError(str(error)) from error


def open(path: str, options: Options) -> Simulated:
    return Simulated(path, options)


class Simulated:
    """A model in the simulator: one thread, one lane, and no latency that means anything.

    Args:
        path: Archive (npz) of ``onnx`` and ``settings``, each (bytes,) uint8, and ``calibration``, (N, ...) if the
            model is quantized. ``settings`` is JSON: the options of :func:`edgeopt.agent.toolchains.rknn.session`,
            ``layout``, and ``input`` and ``outputs``, the ports.

    Raises:
        AgentError: It is no such archive.
    """

    def __init__(self, path: str, options: Options) -> None:
        if Path(path).suffix != ".npz":
            raise AgentError(f"{Path(path).name} needs a Rockchip board; on this machine its simulator archive runs")
        archive = np.load(path, allow_pickle=False)
        settings = json.loads(archive["settings"].tobytes())
        self._folder = tempfile.TemporaryDirectory(prefix="edgeopt-rknn-")
        onnx = Path(self._folder.name) / ONNX
        onnx.write_bytes(archive["onnx"].tobytes())
        calibration = None
        if "calibration" in archive:
            calibration = Path(self._folder.name) / CALIBRATION
            np.save(calibration, archive["calibration"])
        before = Path.cwd()
        os.chdir(self._folder.name)
        try:
            self._rknn = session(onnx, calibration, settings)
            if self._rknn.init_runtime():
                raise AgentError("the simulator does not start; the log of the agent says why")
        finally:
            os.chdir(before)
        self._layout = settings["layout"]
        self.inputs = (_port(settings["input"]),)
        self.outputs = tuple(map(_port, settings["outputs"]))
        self.threads = options.threads
        self.lanes: Sequence[Simulated] = (self,)
        self.settings: dict[str, Any] = {"platform": settings["platform"], "simulated": True}
        self._given: list[npt.NDArray[Any]] = []
        self._results: list[npt.NDArray[Any]] = []

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        if (fresh := fill(self.inputs, self._given, inputs)) is not None:
            self._given = fresh

    def run(self) -> None:
        given = [array if array.dtype == np.uint8 else array.astype(np.float32) for array in self._given]
        layouts = [self._layout] if self._layout else None
        self._results = self._rknn.inference(inputs=given, data_format=layouts)

    def fetch(self) -> list[npt.NDArray[Any]]:
        if self._results is None:
            raise AgentError("the simulator gave no outputs; the log of the agent says why")
        shapes = [[size or 1 for size in port.shape] for port in self.outputs]
        return [np.array(one, np.float32).reshape(shape) for one, shape in zip(self._results, shapes, strict=True)]

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        raise AgentError("the layers of an RKNN model are known from its build")

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(None, "a simulator's memory says nothing about the device's")

    def close(self) -> None:
        self._rknn.release()
        self._folder.cleanup()


def _port(described: dict[str, Any]) -> Port:
    return Port(described["name"], tuple(described["shape"]), described["dtype"])
