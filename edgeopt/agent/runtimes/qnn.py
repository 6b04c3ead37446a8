"""Qualcomm's HTP, the NPU of a Snapdragon, by ONNX Runtime with the QNN execution provider.

It opens the ONNX file that holds a compiled context binary. On x86-64 the same library is a functional simulator of
the HTP: it gives outputs, and its time says nothing.

Source: https://github.com/onnxruntime/onnxruntime-qnn, ``docs/execution_providers/QNN-ExecutionProvider.md``.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from ..onnx_graph import nodes  # noqa: TID252
from . import Layer, Options, RuntimeMemory
from .onnxruntime import Binding, session_options

#: Of ONNX files only those that hold a compiled context binary: see :mod:`edgeopt.agent.call_overhead`.
READS_ONNX = False
_PROVIDER = "QNNExecutionProvider"


def version() -> str:
    import onnxruntime_qnn

    return str(onnxruntime_qnn.__version__)


def open(path: str, options: Options) -> QnnModel:
    return QnnModel(path, options)


def simulated() -> bool:
    """Whether this machine has no HTP, but its simulator."""
    return platform.machine().lower() in ("x86_64", "amd64")


def session(path: Path, asked: Any, provider: Mapping[str, str], entries: Mapping[str, str]) -> Any:
    """A session of which every node runs on the HTP.

    Args:
        path: An ONNX file, or one that holds a context binary.
        asked: ONNX Runtime's session options, which are completed.
        provider: Options of the execution provider.
        entries: Of the session's configuration.

    Raises:
        AgentError: The library finds neither an HTP nor its simulator.
    """
    import onnxruntime
    import onnxruntime_qnn

    if _PROVIDER not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
        onnxruntime.register_execution_provider_library(_PROVIDER, onnxruntime_qnn.get_library_path())
    kind = onnxruntime.OrtHardwareDeviceType.CPU if simulated() else onnxruntime.OrtHardwareDeviceType.NPU
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == _PROVIDER and one.device.type == kind]
    if not devices:
        raise AgentError("onnxruntime-qnn finds no HTP on this machine")
    for name, value in {"session.disable_cpu_ep_fallback": "1", **entries}.items():
        asked.add_session_config_entry(name, value)
    asked.add_provider_for_devices(devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **provider})
    # By default, the Python class tries the CPU when the HTP fails.
    return onnxruntime.InferenceSession(str(path), asked, enable_fallback=0)


class QnnModel(Binding):
    """A session on the HTP, in the mode ``burst``, or on its simulator; streams are calling threads of this session."""

    def __init__(self, path: str, options: Options) -> None:
        if options.optimization == "none":
            raise AgentError("qnn cannot run a compiled model without its optimisations")
        self._nodes = nodes(Path(path).read_bytes())
        if not any(node.op == "EPContext" for node in self._nodes):
            raise AgentError(f"{Path(path).name} holds no context binary of QNN: compile it first")
        asked = session_options(options)
        asked.log_severity_level = 3
        provider = {} if simulated() else {"htp_performance_mode": "burst"}
        super().__init__(session(Path(path), asked, provider, {}))
        self.lanes = (self, *(Binding(self._session) for _ in range(options.streams - 1)))
        self.threads = int(asked.intra_op_num_threads)
        self.settings: dict[str, Any] = {
            "streams": len(self.lanes),
            "processor": "x86 simulator of the HTP" if simulated() else "HTP",
            "simulated": simulated(),
            **provider,
        }

    def layers(self, inputs: Sequence[npt.NDArray[Any]]) -> list[Layer]:
        """The graphs of the context binary; what is inside them was told when they were compiled."""
        return [Layer(node.name, node.op, (), "", "NPU", "HTP") for node in self._nodes]

    def memory(self, inputs: Sequence[npt.NDArray[Any]]) -> RuntimeMemory:
        return RuntimeMemory(None, "QNN does not tell the memory of a model")

    def close(self) -> None:
        self.lanes = ()
        self._binding = None
        self._session = None
