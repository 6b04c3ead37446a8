"""OpenVINO on the CPU."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from . import Layer, Options, Port, RuntimeMemory, fill

#: Reads the time right before and after the call of OpenVINO's C++ library, as its `benchmark_app` reports it. What the
#: binding does after it, making a dictionary of the outputs, takes some microseconds that no other caller spends.
OWN_CLOCK = "InferRequest.latency"

_PROFILED_RUNS = 5


def version() -> str:
    import openvino

    return str(openvino.get_version())


def open(path: str, options: Options) -> OpenvinoModel:
    return OpenvinoModel(path, options)


class _Request:
    """An infer request with preset input tensors.

    It calls what ``InferRequest.infer`` calls once it has looked at its arguments, which by itself takes some
    microseconds of each call.
    """

    def __init__(self, compiled: Any) -> None:
        import openvino

        self._request: Any = compiled.create_infer_request()
        self._infer: Any = super(openvino.InferRequest, self._request).infer  # type: ignore[misc]  # compiled
        self._buffers: list[npt.NDArray[Any]] = []
        self.inputs = tuple(map(_port, compiled.inputs))

    def load(self, inputs: Sequence[npt.NDArray[Any]]) -> None:
        if (fresh := fill(self.inputs, self._buffers, inputs)) is not None:
            self._buffers = fresh
            _preset(self._request, fresh)

    def run(self) -> int:
        self._infer({}, True, False)  # no new inputs, shared outputs, no decoding of text
        return round(float(self._request.latency) * 1e6)


class OpenvinoModel(_Request):
    """A model compiled for the CPU, run synchronously, from as many calling threads as there are streams.

    ``infer`` and not ``start_async`` + ``wait``: handing over to OpenVINO's own thread and back costs about 0.1 ms.
    Threads are not pinned to cores, so that the operating system places the candidates of all runtimes by one rule.
    """

    def __init__(self, path: str, options: Options) -> None:
        if options.optimization != "all":
            raise AgentError("openvino cannot run a model without its graph optimisations; use optimization 'all'")
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(path)
        self._options = options
        self._compiled: Any = self._compile()
        super().__init__(self._compiled)
        self.outputs = tuple(map(_port, self._compiled.outputs))
        streams = int(self._compiled.get_property("NUM_STREAMS"))
        self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS")) // streams
        self.lanes = (self, *(_Request(self._compiled) for _ in range(streams - 1)))
        self.settings: dict[str, Any] = {
            "streams": streams,
            "performance_hint": _text(self._compiled.get_property("PERFORMANCE_HINT")),
            "inference_precision": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "cpu_pinning": bool(self._compiled.get_property("ENABLE_CPU_PINNING")),
            "devices": list(self._compiled.get_property("EXECUTION_DEVICES")),
        }

    def _compile(self, *, profiled: bool = False) -> Any:
        streams = self._options.streams
        return self._core.compile_model(
            self._model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": self._options.threads * streams,
                "INFERENCE_PRECISION_HINT": "f32",  # float stays float32, also where the CPU has bfloat16
                "ENABLE_CPU_PINNING": False,
                "PERF_COUNT": profiled,
            },
        )

    def fetch(self) -> list[npt.NDArray[Any]]:
        return [np.array(self._request.get_output_tensor(i).data) for i in range(len(self.outputs))]

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        compiled = self._compile(profiled=True)
        request = compiled.create_infer_request()
        _preset(request, inputs)
        times_us: dict[str, list[float]] = {}
        for _ in range(_PROFILED_RUNS):
            request.infer(share_outputs=True)
            for seen in request.profiling_info:
                if seen.status == seen.Status.EXECUTED:
                    times_us.setdefault(seen.node_name, []).append(seen.real_time.total_seconds() * 1e6)
        return _layers(compiled.get_runtime_model(), times_us, compiled.get_property("EXECUTION_DEVICES")[0])

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(None, "OpenVINO's CPU plugin has no property that tells the memory of a model")

    def close(self) -> None:
        self.lanes = ()
        self._infer = None
        self._request = None
        self._compiled = None


def _preset(request: Any, arrays: Sequence[npt.NDArray[Any]]) -> None:
    import openvino

    for index, array in enumerate(arrays):
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))


def _port(port: Any) -> Port:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return Port(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)


def _layers(graph: Any, times_us: dict[str, list[float]], device: str) -> list[Layer]:
    """The execution graph without inputs, outputs, and whatever depends on constants alone (folded on compiling)."""
    constant: set[str] = set()
    layers = []
    for node in graph.get_ordered_ops():
        name = node.get_friendly_name()
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        before = [value.get_source_output().get_node().get_friendly_name() for value in node.inputs()]
        if info["layerType"] == "Const" or (before and constant.issuperset(before)):
            constant.add(name)
        elif info["layerType"] not in ("Input", "Output"):
            layers.append(
                Layer(
                    name=name,
                    op=info["layerType"],
                    source=tuple(filter(None, info["originalLayersNames"].split(","))),
                    precision=info["runtimePrecision"],
                    device=device,
                    exec=info["primitiveType"],
                    time_us=statistics.median(times_us[name]) if name in times_us else None,
                )
            )
    return layers


def _text(value: Any) -> str:
    """OpenVINO hands some values out as ``OVAny``, some as enumerations, some as plain text."""
    return str(getattr(value, "value", value))
