"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..onnx_graph import nodes, sources  # noqa: TID252  relative, so that a zipapp works
from . import Layer, Options, Port, RuntimeMemory, fill

_PROFILED_RUNS = 5
_KERNEL = "_kernel_time"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({kind})": kind for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
    "tensor(bool)": "bool",
}
_SHORT = {"float": "f32", "float16": "f16", "double": "f64"}


def version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def open(path: str, options: Options) -> OnnxruntimeModel:
    return OnnxruntimeModel(path, options)


class Binding:
    """An I/O binding of a session, so that a run copies no input."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._binding: Any = session.io_binding()
        self._buffers: list[npt.NDArray[Any]] = []
        self.inputs = tuple(map(_port, session.get_inputs()))
        self.outputs = tuple(map(_port, session.get_outputs()))

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        if (fresh := fill(self.inputs, self._buffers, inputs)) is not None:
            self._buffers = fresh
            for port, buffer in zip(self.inputs, fresh, strict=True):
                self._binding.bind_input(port.name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data)
            for port in self.outputs:  # allocated by the next run, and used again by those after it
                self._binding.bind_output(port.name)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def fetch(self) -> list[npt.NDArray[Any]]:
        return [np.array(output) for output in self._binding.copy_outputs_to_cpu()]


class OnnxruntimeModel(Binding):
    """A session on ``CPUExecutionProvider``; several streams are as many calling threads of this one session.

    With several threads, ONNX Runtime's workers keep spinning for a while after a run, which would steal the cores
    from whatever is timed next. ``session.force_spinning_stop`` ends that when the run returns: within a run they
    still spin, as they do in a product that uses the defaults.
    """

    def __init__(self, path: str, options: Options) -> None:
        import onnxruntime

        self._path = path
        self._options = options
        super().__init__(
            onnxruntime.InferenceSession(path, session_options(options), providers=["CPUExecutionProvider"])
        )
        self.lanes = (self, *(Binding(self._session) for _ in range(options.streams - 1)))
        used = self._session.get_session_options()
        self.threads = int(used.intra_op_num_threads)
        self.settings: dict[str, Any] = {
            "streams": len(self.lanes),
            "inter_op_threads": int(used.inter_op_num_threads),
            "execution_mode": used.execution_mode.name,
            "graph_optimization_level": used.graph_optimization_level.name,
            "providers": list(self._session.get_providers()),
        }

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        events, optimised = self._profile(inputs)
        compiled = nodes(optimised)
        origin = sources(compiled, nodes(Path(self._path).read_bytes()))
        profile: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            profile.setdefault(event["name"].removesuffix(_KERNEL), []).append(event)
        domains = {node.name: node.domain for node in compiled}
        return [_layer(name, runs, domains.get(name, ""), origin.get(name, ())) for name, runs in profile.items()]

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        events, _ = self._profile(inputs)
        peaks = [int(event["args"]["mem_in_use_peak"]) for event in events if "mem_in_use_peak" in event["args"]]
        if not peaks:
            return RuntimeMemory(None, "this version of ONNX Runtime does not profile memory")
        what = "peak of the session's CPU arena: activations, and the weights that are not packed into kernels"
        return RuntimeMemory(max(peaks) / 2**20, what)

    def _profile(self, inputs: Sequence[npt.NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
        """The profiler's events of kernels over a few runs of a new session, and the optimised ONNX file."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            optimised = Path(folder) / "optimised.onnx"
            asked = session_options(self._options)
            asked.enable_profiling = True
            asked.profile_file_prefix = str(Path(folder) / "profile")
            asked.optimized_model_filepath = str(optimised)
            asked.log_severity_level = 3  # or it warns that the optimised file suits this machine only, which is meant
            session = onnxruntime.InferenceSession(self._path, asked, providers=["CPUExecutionProvider"])
            feed = {port.name: given for port, given in zip(self.inputs, inputs, strict=True)}
            for _ in range(_PROFILED_RUNS):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
            return kernels, optimised.read_bytes()

    def close(self) -> None:
        self.lanes = ()
        self._binding = None
        self._session = None


def session_options(options: Options) -> Any:
    import onnxruntime

    asked = onnxruntime.SessionOptions()
    asked.intra_op_num_threads = options.threads
    asked.inter_op_num_threads = 1
    asked.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = onnxruntime.GraphOptimizationLevel
    asked.graph_optimization_level = level.ORT_ENABLE_ALL if options.optimization == "all" else level.ORT_DISABLE_ALL
    asked.add_session_config_entry("session.force_spinning_stop", "1")
    return asked


def _port(node: Any) -> Port:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Port(node.name, shape, _DTYPES.get(node.type, node.type))


def _layer(name: str, runs: list[dict[str, Any]], domain: str, source: tuple[str, ...]) -> Layer:
    """From the profiler's events of one node, one per run."""
    seen = runs[0]["args"]
    types = seen.get("input_type_shape") or seen.get("output_type_shape") or [{"": []}]
    kind = next(iter(types[0]))
    return Layer(
        name=name,
        op=seen["op_name"],
        source=source,
        precision=_SHORT.get(kind, kind.replace("uint", "u").replace("int", "i")),
        device=seen["provider"].removesuffix("ExecutionProvider"),
        exec=f"{domain or 'ai.onnx'}:{seen['op_name']}",
        time_us=statistics.median(event["dur"] for event in runs),
    )
