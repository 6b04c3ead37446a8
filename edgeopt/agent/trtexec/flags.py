"""Which flags ``trtexec`` has, by its version, and what to say to get the same measurement from each.

Sources: ``trtexec --help`` of 8.6 and 10.x as ``samples/common/sampleOptions.cpp`` of NVIDIA's TensorRT repository
prints it; the pages *Migrating trtexec Usage from TensorRT 8.x to 10.x*, *… from TensorRT 10.x to 11.x* and *Working
with DLA* of the TensorRT documentation; the release notes of 11.0 for its new defaults. 8.6, 10.3 and 11.1 are those
that the tests imitate; none was run by us.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works

#: (major, minor, patch)
Version = tuple[int, int, int]

_FIRST: Version = (8, 6, 0)
_NEVER: Version = (99, 0, 0)
#: strong typing leaves operators out before it, by the release notes of 10.12
STRONG_TYPING_COMPLETE: Version = (10, 12, 0)
#: from here on networks are strongly typed only, and a graph, spin waits and no transfers are the default
STRONG_TYPING_ONLY: Version = (11, 0, 0)


class Flag(NamedTuple):
    """A flag that edgeopt uses: the versions that have it (``until`` is the first that does not), and what it means."""

    name: str
    since: Version
    until: Version
    meaning: str


FLAGS = (
    Flag("--onnx", _FIRST, _NEVER, "model to build from"),
    Flag("--saveEngine", _FIRST, _NEVER, "where the engine is written"),
    Flag("--loadEngine", _FIRST, _NEVER, "engine to run"),
    Flag("--profilingVerbosity", _FIRST, _NEVER, "detailed: layers are exported with kernels, tensors and ONNX nodes"),
    Flag("--exportTimes", _FIRST, _NEVER, "times of every timed run, as JSON"),
    Flag("--exportProfile", _FIRST, _NEVER, "times of every layer, as JSON with unescaped names"),
    Flag("--exportLayerInfo", _FIRST, _NEVER, "layers; with Bindings before 11.0, with I/O Tensors from there on"),
    Flag("--exportOutput", _FIRST, _NEVER, "outputs of the last run, as JSON with six digits"),
    Flag("--loadInputs", _FIRST, _NEVER, "raw bytes of the inputs, by name"),
    Flag("--timingCacheFile", _FIRST, _NEVER, "measured kernel times, read and written: later builds are fast"),
    Flag("--memPoolSize", _FIRST, _NEVER, "workspace:N in MiB; it replaced --workspace, which 10.0 removed"),
    Flag("--builderOptimizationLevel", _FIRST, _NEVER, "0 to 5; the default is 3"),
    Flag("--noTF32", _FIRST, _NEVER, "no rounding of float32 products to 10 bits of mantissa, which is the default"),
    Flag("--warmUp", _FIRST, _NEVER, "ms before timing"),
    Flag("--duration", _FIRST, _NEVER, "seconds of timing, at least"),
    Flag("--iterations", _FIRST, _NEVER, "timed runs, at least"),
    Flag("--percentile", _FIRST, _NEVER, "percentiles of the printed summary; ours come from the exported times"),
    Flag("--useDLACore", _FIRST, (10, 8, 0), "the DLA core that runs what it can; 10.7 is the last 10.x with it"),
    Flag("--useDLACore", (11, 4, 1), _NEVER, "back again on Jetson AGX Orin with JetPack 7.2.2"),
    Flag("--allowGPUFallback", _FIRST, _NEVER, "what the DLA core cannot run goes to the GPU, or else the build fails"),
    Flag("--useCudaGraph", _FIRST, STRONG_TYPING_ONLY, "replay a captured graph; from 11.0 on by default"),
    Flag("--noCudaGraph", STRONG_TYPING_ONLY, _NEVER, "launch every kernel, for engines that cannot be captured"),
    Flag("--useSpinWait", _FIRST, STRONG_TYPING_ONLY, "poll for the end of a run; from 11.0 on by default"),
    Flag("--noDataTransfers", _FIRST, STRONG_TYPING_ONLY, "time no copies; from 11.0 on by default"),
    Flag("--separateProfileRun", _FIRST, STRONG_TYPING_ONLY, "profile in a run of its own; from 11.0 on always"),
    Flag("--includeDataTransfers", STRONG_TYPING_ONLY, _NEVER, "copy inputs and outputs, by default left out"),
    Flag("--stronglyTyped", (10, 0, 0), STRONG_TYPING_ONLY, "types as the ONNX says; from 11.0 on always"),
    Flag("--fp16", _FIRST, STRONG_TYPING_ONLY, "weakly typed: kernels may compute in half precision"),
    Flag("--int8", _FIRST, STRONG_TYPING_ONLY, "weakly typed: kernels may compute in 8 bits where the ONNX has Q/DQ"),
)  # fmt: skip


def has(version: Version, name: str) -> bool:
    """Whether ``trtexec`` of that version takes the flag."""
    return any(flag.since <= version < flag.until for flag in _rows(name))


def checked(version: Version, arguments: list[str]) -> list[str]:
    """The arguments, each of which this version takes.

    Raises:
        AgentError: It does not take one of them, or edgeopt does not know the version.
    """
    if version < _FIRST:
        raise AgentError(f"trtexec {written(version)} is too old: edgeopt knows 8.6 and later")
    for argument in arguments:
        name = argument.partition("=")[0]
        if not has(version, name):
            raise AgentError(f"trtexec {written(version)} has no {name} ({_rows(name)[0].meaning})")
    return arguments


def typing(asked: str, version: Version, *, dla: bool) -> str:
    """``strong`` or ``weak``: how a network is typed.

    Args:
        asked: ``strong``, ``weak``, or ``auto``: strong where it is complete; weak before 11.0 for a DLA core, whose
            precisions were flags of the builder until then.
        version: Of TensorRT.
        dla: Whether a DLA core is to be used.

    Raises:
        AgentError: This version cannot do what is asked.
    """
    if dla and not has(version, "--useDLACore"):
        raise AgentError(
            f"TensorRT {written(version)} supports no DLA core: 8.6 to 10.7 do, and 11.4.1 on Jetson AGX Orin; "
            "leave dla_core out to use the GPU"
        )
    if asked == "auto":
        complete = STRONG_TYPING_ONLY if dla else STRONG_TYPING_COMPLETE
        return "strong" if version >= complete else "weak"
    if asked == "weak" and version >= STRONG_TYPING_ONLY:
        raise AgentError(f"TensorRT {written(version)} builds strongly typed networks only: leave typing out")
    if asked == "strong" and version < STRONG_TYPING_ONLY and not has(version, "--stronglyTyped"):
        raise AgentError(
            f"TensorRT {written(version)} has no strongly typed networks, they came with 10.0: leave typing out"
        )
    return asked


def precision(kind: str) -> tuple[str, ...]:
    """Flags of a weakly typed build for an ONNX file that is ``float``, ``fp16`` (by Cast nodes) or ``int8`` (by Q/DQ).

    Layers that an INT8 file leaves in float may run in half precision: that is what 8.6 and 10.3 do at their best.
    """
    return {"float": (), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}[kind]


def conditions(version: Version, *, cuda_graph: bool) -> list[str]:
    """What pins the conditions of timing, whatever the defaults are: spin waits, no copies, no profiler in timed runs.

    Args:
        version: Of TensorRT.
        cuda_graph: Whether a captured graph is replayed, or every kernel launched by itself.
    """
    graph = "--useCudaGraph" if cuda_graph else "--noCudaGraph"
    pins = (graph, "--useSpinWait", "--noDataTransfers", "--separateProfileRun")
    return [name for name in pins if has(version, name)]


def transfers(version: Version) -> list[str]:
    """What makes inputs and outputs be copied: before 11.0 they are unless it is forbidden."""
    return ["--includeDataTransfers"] if has(version, "--includeDataTransfers") else []


def written(version: Version) -> str:
    return ".".join(map(str, version))


def parsed(number: str) -> Version:
    """The version in a banner: ``8601`` is 8.6.1, ``100300`` is 10.3.0, ``110100`` is 11.1.0.

    ``NV_TENSORRT_VERSION`` is major·1000 + minor·100 + patch up to 8.x, and major·10000 + minor·100 + patch since 10.0.
    """
    value = int(number)
    if value < 10_000:
        return value // 1000, value // 100 % 10, value % 100
    return value // 10_000, value // 100 % 100, value % 100


def parsed_release(release: str) -> Version:
    """The version of a Python package: ``10.3.0.30`` is 10.3.0."""
    major, minor, patch = (int(part) for part in (*release.split(".")[:3], "0", "0")[:3])
    return major, minor, patch


def _rows(name: str) -> list[Flag]:
    return [flag for flag in FLAGS if flag.name == name]
