"""The part of the plain script ``plain_digits`` that exports, quantizes, compiles, runs and times models."""

from __future__ import annotations

import logging
import multiprocessing
import random
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], Any]


def export(model: Any, file: Path) -> Path:
    """The network with its preprocessing as ONNX, raw uint8 (N, 32, 32, 1) in, compared with torch."""
    import onnx
    import torch

    class Deployable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, raw: Any) -> Any:
            return self.network(raw.squeeze(-1).unsqueeze(1).to(torch.float32) * (2 / 255) - 1.0)

    samples = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8))
    deployable = Deployable().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(deployable, (samples[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
        written = torch.onnx.export(
            program, input_names=["image"], output_names=["output"], opset_version=20, dynamo=True, external_data=False,
            verbose=False,
        )  # fmt: skip
        expected = deployable(samples).numpy()
    onnx.checker.check_model(written.model_proto, full_check=True)
    onnx.save(written.model_proto, file)
    difference = float(np.abs(open_onnxruntime(file, optimised=False)(samples.numpy()) - expected).max())
    if not difference < 1e-3:
        raise SystemExit(f"the ONNX file differs from torch by {difference}")
    return file


def quantize_openvino(file: Path, samples: Any, out: Path) -> Path:
    """NNCF with minimum and maximum as ranges and full bias correction."""
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters, range_estimator

    nncf.set_log_level(logging.ERROR)
    model = openvino.convert_model(file)
    quantized = nncf.quantize(
        model,
        nncf.Dataset([samples[i : i + 1] for i in range(len(samples))]),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(samples),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=_preprocessing(model)),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=advanced_parameters.OverflowFix.FIRST_LAYER,
            activations_range_estimator_params=range_estimator.RangeEstimatorParametersSet.MINMAX,
        ),
    )
    openvino.save_model(quantized, out / "quantized.xml", compress_to_fp16=False)
    return out / "quantized.xml"


def _preprocessing(model: Any) -> list[str]:
    """The operations before the first convolution."""
    kinds = [operation.get_type_name() for operation in model.get_ordered_ops()]
    before = model.get_ordered_ops()[: kinds.index("Convolution")]
    return [op.get_friendly_name() for op in before if op.get_type_name() not in ("Parameter", "Constant")]


def quantize_onnxruntime(file: Path, samples: Any, out: Path) -> Path:
    """Q/DQ with uint8 activations and per-channel 7-bit weights."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, written = out / "prepared.onnx", out / "quantized.onnx"
    logging.disable(logging.WARNING)
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        batches = iter([{"image": samples[i : i + 16]} for i in range(0, len(samples), 16)])

        def get_next(self) -> Any:
            return next(self.batches, None)

    quantization.quantize_static(
        str(prepared),
        str(written),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        nodes_to_exclude=[node.name for node in nodes[:first]],
        extra_options={"WeightSymmetric": True},
    )
    return written


def compile_openvino(file: Path, out: Path) -> Path:
    """The model with batch 1, saved."""
    import openvino

    model = openvino.convert_model(file) if file.suffix == ".onnx" else openvino.Core().read_model(file)
    model.reshape([1, 32, 32, 1])
    openvino.save_model(model, out, compress_to_fp16=False)
    return out


def compile_onnxruntime(file: Path, out: Path) -> Path:
    """The model with batch 1, as ONNX Runtime's extended optimisations leave it."""
    import onnx
    import onnxruntime

    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return out


def open_openvino(file: Path) -> Run:
    """One stream, one thread."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", options).create_infer_request()

    def run(samples: Any) -> Any:
        request.infer([samples], share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data

    return run


def open_onnxruntime(file: Path, *, optimised: bool = True) -> Run:
    """One thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda samples: session.run(None, {name: samples})[0]


def accuracy(run: Run, samples: Any, labels: Any, batch: int) -> float:
    """Top-1, ``batch`` samples at a time."""
    starts = range(0, len(samples), batch)
    return float(
        sum((run(samples[i : i + batch]).argmax(1) == labels[i : i + batch]).sum() for i in starts) / len(labels)
    )


def latency(
    runtime: str, files: Mapping[str, Path], samples: Any, seconds: float, sessions: int = 4
) -> dict[str, float]:
    """Median milliseconds of each file, over sessions of a process each; ``seconds`` for each file in all."""
    spawn = multiprocessing.get_context("spawn")
    series: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(sessions):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found = pool.submit(_session, runtime, dict(files), samples, seconds / sessions).result()
        for name, values in found.items():
            series[name] += values
    return {name: float(np.median(values)) * 1e3 for name, values in series.items()}


def _session(runtime: str, files: Mapping[str, Path], samples: Any, seconds: float) -> dict[str, list[float]]:
    """Seconds of each inference, interleaved, after 0.3 s of warm-up."""
    open_ = {"openvino": open_openvino, "onnxruntime": open_onnxruntime}[runtime]
    runs = {name: open_(file) for name, file in files.items()}
    order = list(runs)
    series: dict[str, list[float]] = {name: [] for name in order}
    for limit in (0.3, seconds * len(runs)):
        for values in series.values():
            values.clear()
        begin, rounds = time.perf_counter(), 0
        while time.perf_counter() - begin < limit:
            sample = samples[rounds % len(samples) : rounds % len(samples) + 1]
            random.shuffle(order)
            for name in order:
                start = time.perf_counter()
                runs[name](sample)
                series[name].append(time.perf_counter() - start)
            rounds += 1
    return series
