"""A stand-in of NVIDIA's ``trtexec`` 8.6, 10.3 and 11.1: synthetic, from its documentation.

It computes with ONNX Runtime.

It takes the flags of its version only and fails on any other, as the tool does. A plan is a header with the tool's
version and the ONNX file itself. Started by what :func:`tests.fakes.install_trtexec` writes.
"""

# ruff: noqa: T201  it is a command-line tool

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

#: written down from ``trtexec --help`` of each version, independently of edgeopt's own table
_ALWAYS = {
    "--help", "--onnx", "--saveEngine", "--loadEngine", "--skipInference", "--profilingVerbosity", "--exportTimes",
    "--exportProfile", "--exportLayerInfo", "--exportOutput", "--loadInputs", "--timingCacheFile", "--memPoolSize",
    "--builderOptimizationLevel", "--warmUp", "--duration", "--iterations", "--percentile", "--verbose", "--shapes",
    "--device", "--noTF32", "--avgRuns", "--infStreams", "--dumpProfile",
}  # fmt: skip
_BEFORE_11 = {
    "--fp16", "--int8", "--best", "--useCudaGraph", "--useSpinWait", "--noDataTransfers", "--separateProfileRun",
    "--calib", "--useDLACore", "--allowGPUFallback",
}  # fmt: skip
FLAGS = {
    (8, 6, 1): {*_ALWAYS, *_BEFORE_11, "--workspace"},
    (10, 3, 0): {*_ALWAYS, *_BEFORE_11, "--stronglyTyped"},
    (11, 1, 0): {*_ALWAYS, "--includeDataTransfers", "--noCudaGraph", "--noSpinWait"},
}
_COMPUTE_MS = 1.5
_COPY_MS = 0.25


class Usage(Exception):
    """The command line is not one of this version."""


def main(version: tuple[int, int, int], behaviour: dict[str, Any], arguments: list[str]) -> int:
    number = (10_000 if version[0] >= 10 else 1000) * version[0] + 100 * version[1] + version[2]
    banner = f"TensorRT.trtexec [TensorRT v{number}]"
    command = " ".join(["trtexec", *arguments])
    print(f"&&&& RUNNING {banner} # {command}", flush=True)
    try:
        asked = _parsed(version, arguments)
        if "--help" in asked:
            print("\n".join(f"  {flag}" for flag in sorted(FLAGS[version])))
            return 0
        _run(version, behaviour, asked)
    except (Usage, ValueError, OSError) as error:
        print(f"[11/21/2026-12:00:00] [E] {error}")
        print(f"&&&& FAILED {banner} # {command}", flush=True)
        return 1
    print(f"&&&& PASSED {banner} # {command}", flush=True)
    return 0


def _parsed(version: tuple[int, int, int], arguments: list[str]) -> dict[str, str]:
    asked = {name: value for name, _, value in (argument.partition("=") for argument in arguments)}
    unknown = [name for name in asked if name not in FLAGS[version]]
    if unknown:
        raise Usage(f"Unknown option: {unknown[0]}")
    if {"--onnx", "--loadEngine", "--help"}.isdisjoint(asked):
        raise Usage("Model missing or format not recognized")
    if "--stronglyTyped" in asked and {"--int8", "--fp16"} & set(asked):
        raise Usage("Strongly typed networks take no precision flags")
    if "--useDLACore" in asked and not {"--int8", "--fp16"} & set(asked) and "--onnx" in asked:
        raise Usage("Cannot create a DLA engine in FP32: use --fp16 or --int8")
    return asked


def _say(line: str, level: str = "I") -> None:
    print(f"[11/21/2026-12:00:00] [{level}] {line}", flush=True)


def _run(version: tuple[int, int, int], behaviour: dict[str, Any], asked: dict[str, str]) -> None:
    import onnx

    _say("=== Device Information ===")
    _say(f"Selected Device: {behaviour['gpu']}")
    _say(f"Compute Capability: {behaviour['capability']}")
    _say(f"TensorRT version: {'.'.join(map(str, version))}")
    if "--onnx" in asked:
        source = Path(asked["--onnx"]).read_bytes()
        if behaviour["fails"]:
            for line in behaviour["fails"]:
                _say(line, "E")
            raise ValueError("Engine could not be created from network")
        _say("Building engine")
        layers = _layers(onnx.load_from_string(source), asked, behaviour, version)
        _memory()
        plan = b"ftrt" + bytes(20) + bytes((*version, 0)) + source
        if "--saveEngine" in asked:
            Path(asked["--saveEngine"]).write_bytes(plan)
        if "--timingCacheFile" in asked:
            cache = Path(asked["--timingCacheFile"])
            _say("Loaded timing cache" if cache.exists() and cache.stat().st_size else "Could not read timing cache")
            cache.write_bytes(b"timings of " + bytes(version))
    else:
        plan = Path(asked["--loadEngine"]).read_bytes()
        if plan[:4] != b"ftrt" or tuple(plan[24:27]) != version:
            _say("IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Version tag does not match)", "E")
            raise ValueError("Engine deserialization failed")
        source = plan[28:]
        layers = _layers(onnx.load_from_string(source), asked, behaviour, version, quiet=True)
    _say("Engine deserialized in 0.0125 sec.")
    if "--exportLayerInfo" in asked:
        _write(
            asked["--exportLayerInfo"], _layer_info(onnx.load_from_string(source), layers, asked, version), behaviour
        )
    if "--skipInference" in asked:
        return
    _infer(version, behaviour, asked, source)
    if "--exportProfile" in asked:
        _write(asked["--exportProfile"], _profile(layers), behaviour)


def _infer(version: tuple[int, int, int], behaviour: dict[str, Any], asked: dict[str, str], source: bytes) -> None:
    by_default = version >= (11, 0, 0)
    copies = "--includeDataTransfers" in asked if by_default else "--noDataTransfers" not in asked
    if behaviour["no_graph"] and ("--useCudaGraph" in asked or (by_default and "--noCudaGraph" not in asked)):
        _say("The built TensorRT engine contains operations that are not permitted under CUDA graph capture mode.", "W")
        _say("The specified --useCudaGraph flag has been ignored. The inference will be launched without it.", "W")
    runs = max(int(asked.get("--iterations", 10)), int(behaviour["runs_per_s"] * int(asked.get("--duration", 3))))
    warm = int(int(asked.get("--warmUp", 200)) / _COMPUTE_MS)
    _say("Starting inference")
    time.sleep(behaviour["sleep"])
    _say(f"Warmup completed {warm} queries over {asked.get('--warmUp', 200)} ms")
    _say(f"Timing trace has {runs} queries over 1 s")
    if "--exportTimes" in asked:
        _write(asked["--exportTimes"], _times(runs, copies, behaviour), behaviour)
    if "--exportOutput" in asked:
        _write(asked["--exportOutput"], _output_json(_outputs(source, asked, copies=copies)), behaviour)


def _outputs(source: bytes, asked: dict[str, str], *, copies: bool) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    dtypes = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}
    given = _given(asked.get("--loadInputs", ""))
    feed = {}
    for port in session.get_inputs():
        dtype = np.dtype(dtypes[port.type])
        raw = given.pop(port.name, None)
        content = Path(raw).read_bytes() if raw else bytes(int(np.prod(port.shape)) * dtype.itemsize)
        if len(content) != int(np.prod(port.shape)) * dtype.itemsize:
            raise ValueError(f"Note: Input {port.name} has {len(content)} bytes in its file")
        feed[port.name] = np.frombuffer(content, dtype).reshape(port.shape)
    if given:
        raise ValueError(f"Cannot find input tensor with name {next(iter(given))!r}")
    names = [port.name for port in session.get_outputs()]
    found = dict(zip(names, session.run(names, feed), strict=True))
    return found if copies else {name: np.zeros_like(value) for name, value in found.items()}


def _given(spec: str) -> dict[str, str]:
    """``name:file,'odd:name':file``"""
    found, rest = {}, spec
    while rest:
        if rest.startswith("'"):
            name, _, rest = rest[1:].partition("':")
        else:
            name, _, rest = rest.partition(":")
        found[name], _, rest = rest.partition(",")
    return found


def _layers(
    model: Any, asked: dict[str, str], behaviour: dict[str, Any], version: tuple[int, int, int], *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Convolutions with what follows, everything else by itself; Q/DQ vanishes into it."""
    layers: list[dict[str, Any]] = []
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant", "Identity"):
            continue
        if node.op_type == "Relu" and layers and layers[-1]["outputs"] == [node.input[0]]:
            layers[-1]["nodes"].append(node.name)
            layers[-1]["outputs"] = list(node.output)
            continue
        heavy = node.op_type in ("Conv", "MatMul", "Gemm")
        layers.append(
            {
                "nodes": [node.name],
                "kind": "CaskConvolution" if node.op_type == "Conv" else "gemm" if heavy else node.op_type,
                "inputs": [name for name in node.input if name][:1],
                "outputs": list(node.output),
                "number": "Int8" if quantized and heavy else "FP16" if "--fp16" in asked and heavy else "FP32",
                "on": "GPU",
            }
        )
    if "--useDLACore" in asked:
        said = []
        for layer in layers:
            unsupported = layer["nodes"][0] in behaviour["not_on_dla"]
            layer["on"] = "GPU" if unsupported else "DLA"
            if unsupported:
                name = layer["nodes"][0]
                said.append(f"[TRT] {name}: DLA cores do not support {layer['kind']} operation.")
                said.append(f"[TRT] Layer '{name}' ({layer['kind'].upper()}): Unsupported on DLA. "
                            "Switching this layer's device type to GPU.")  # fmt: skip
                if "--allowGPUFallback" not in asked and "--onnx" in asked:
                    raise ValueError(f"{name} is unsupported on DLA and GPU fallback is not enabled")
        if not quiet:
            for line in said:
                _say(line, "W")
            _say("[TRT] ---------- Layers Running on DLA ----------")
            for layer in layers:
                if layer["on"] == "DLA":
                    _say(f"[TRT] [DlaLayer] {_name(layer)}")
            _say("[TRT] ---------- Layers Running on GPU ----------")
            for layer in layers:
                if layer["on"] == "GPU":
                    _say(f"[TRT] [GpuLayer] {layer['kind'].upper()}: {_name(layer)}")
    return layers


def _name(layer: dict[str, Any]) -> str:
    if layer["on"] == "DLA":
        return "{ForeignNode[" + "...".join(dict.fromkeys((layer["nodes"][0], layer["nodes"][-1]))) + "]}"
    return " + ".join(layer["nodes"])


def _memory() -> None:
    _say("[TRT] Total Activation Memory: 65536 bytes")
    _say("[TRT] Total Weights Memory: 131072 bytes")
    _say("Engine built in 1.5 sec.")


def _layer_info(model: Any, layers: list[dict[str, Any]], asked: dict[str, str], version: tuple[int, int, int]) -> str:
    new = version >= (11, 0, 0)

    def tensor(name: str, number: str) -> dict[str, Any]:
        word = {"FP32": "Float", "FP16": "Half", "Int8": "Int8"}[number]
        kind = {"Format": "Row major linear", "DataType": word} if new else {
            "Format/Datatype": f"Row major linear {number} format"}  # fmt: skip
        return {"Name": name, "Location": "Device", "Dimensions": [1], **kind}

    detailed = asked.get("--profilingVerbosity") == "detailed"
    listed: list[Any] = [_name(layer) for layer in layers]
    if detailed:
        listed = [
            {
                "Name": _name(layer),
                "LayerType": "DLA" if layer["on"] == "DLA" else layer["kind"],
                "Inputs": [tensor(name, layer["number"]) for name in layer["inputs"]],
                "Outputs": [tensor(name, "FP32") for name in layer["outputs"]],
                "TacticName": f"sm87_fake_{layer['kind']}",
                "StreamId": 0,
                "Metadata": "\x1f".join(f"[ONNX Layer: {name}]" for name in layer["nodes"]),
            }
            for layer in layers
        ]
    ports = [("Input", port.name) for port in model.graph.input] + [
        ("Output", port.name) for port in model.graph.output
    ]
    if new:
        io_tensors = [{"Name": name, "IOMode": mode, "DataType": "Float", "Dimensions": [1]} for mode, name in ports]
        return json.dumps({"Layers": listed, "I/O Tensors": io_tensors})
    return json.dumps({"Layers": listed, "Bindings": [name for _, name in ports]})


def _profile(layers: list[dict[str, Any]]) -> str:
    """With names as they are."""
    lines = ["[", '  { "count" : 20 }']
    for place, layer in enumerate(layers):
        ms = 0.1 * (place + 1)
        lines.append(
            f', {{ "name" : "{_name(layer)}", "timeMs" : {20 * ms:g}, "averageMs" : {ms:g}, "medianMs" : {ms:g}, '
            f'"percentage" : {100 / len(layers):g} }}'
        )
    return "\n".join([*lines, "]\n"])


def _times(runs: int, copies: bool, behaviour: dict[str, Any]) -> str:
    out, start = io.StringIO(), 0.0
    copy_ms = _COPY_MS if copies else 0.0
    noise = np.random.default_rng(behaviour["seed"]).exponential(0.01, runs)
    out.write("[\n")
    for number, extra in enumerate(noise):
        compute = behaviour["compute_ms"] + float(extra)
        marks = np.cumsum([start, 0.01, 0.0, copy_ms, 0.0, compute, 0.0, copy_ms])
        words = (
            "startEnqMs",
            "endEnqMs",
            "startH2dMs",
            "endH2dMs",
            "startComputeMs",
            "endComputeMs",
            "startD2hMs",
            "endD2hMs",
        )
        fields = dict(zip(words, marks, strict=True)) | {
            "h2dMs": copy_ms, "computeMs": compute, "d2hMs": copy_ms, "latencyMs": compute + 2 * copy_ms}  # fmt: skip
        out.write(
            ("  " if not number else ", ") + "{ " + ", ".join(f'"{k}" : {v:g}' for k, v in fields.items()) + " }\n"
        )
        start = float(marks[-1])
    out.write("]\n")
    return out.getvalue()


def _output_json(outputs: dict[str, np.ndarray]) -> str:
    out = io.StringIO()
    out.write("[\n")
    sep = "  "
    for name, value in outputs.items():
        out.write(f'{sep}{{ "name" : "{name}"\n')
        sep = ", "
        out.write(f'  , "dimensions" : "{"x".join(map(str, value.shape))}"\n')
        out.write(f'  , "values" : [ {", ".join(f"{v:g}" for v in value.ravel())} ]\n  }}\n')
    out.write("]\n")
    return out.getvalue()


def _write(path: str, text: str, behaviour: dict[str, Any]) -> None:
    if Path(path).name in behaviour["cuts"]:
        text = text[: len(text) // 2]
    Path(path).write_text(text, encoding="utf-8", errors="surrogateescape")


BEHAVIOUR: dict[str, Any] = {
    "gpu": "Orin",
    "capability": "8.7",
    "fails": [],
    "cuts": [],
    "no_graph": False,
    "not_on_dla": [],
    "sleep": 0.0,
    "runs_per_s": 100,
    "compute_ms": _COMPUTE_MS,
    "seed": 0,
}


def start(version: list[int], behaviour: dict[str, Any]) -> None:
    major, minor, patch = version
    sys.exit(main((major, minor, patch), {**BEHAVIOUR, **behaviour}, sys.argv[1:]))
