"""Torch to Core ML, in the isolated tool environment ``coreml``. Nothing but macOS runs what is written."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import AgentError  # noqa: TID252  relative, so that a zipapp works
from . import report

#: What the client calls the program, and the folder that it gets.
PROGRAM, PACKAGE = "program.pt2", "model.mlpackage"
_DATE = "com.github.apple.coremltools.conversion_date"
_COMPRESSED = "constexpr_"


def build(files: Mapping[str, Path], options: dict[str, Any], out: Path) -> Mapping[str, Any]:
    """Writes ``model.mlpackage``, an ML program.

    Args:
        files: ``program.pt2``, a torch program with a fixed batch and float32 inputs.
        options: ``deployment`` (``iOS16`` …), ``compute`` (``float16``, ``float32``), ``weights`` (``float``, ``int8``,
            ``palettized``), ``input`` and ``outputs``: names that the model's ports get.
        out: Empty folder.

    Returns:
        ``operations``, their number by type; ``compressed``, how many weights are; ``versions``.

    Raises:
        AgentError: The converter refuses; or nothing was compressed although it was asked for.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    import coremltools
    import torch

    torch.set_num_threads(1)
    report("loading the program")
    program = torch.export.load(files[PROGRAM])
    report("converting")
    try:
        model = coremltools.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            compute_precision=getattr(coremltools.precision, options["compute"].upper()),
            minimum_deployment_target=getattr(coremltools.target, options["deployment"]),
            skip_model_load=True,
        )
        model = _compressed(model, options["weights"])
    except Exception as error:  # the converter raises whatever its many layers raise
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise AgentError(f"the Core ML converter failed: {type(error).__name__}: {first}") from error
    spec = model.get_spec()
    _rename(spec, options["input"], options["outputs"])
    del spec.description.metadata.userDefined[_DATE]  # equal models are to be equal bytes
    coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(out / PACKAGE))
    _tidy(out / PACKAGE)
    operations = Counter(
        operation.type
        for function in spec.mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
    )
    compressed = sum(count for name, count in operations.items() if name.startswith(_COMPRESSED))
    if options["weights"] != "float" and not compressed:
        raise AgentError(f"the Core ML converter left all weights float, {options['weights']} was asked for")
    del operations["const"]
    return {"operations": dict(sorted(operations.items())), "compressed": compressed, "versions": _versions()}


def _compressed(model: Any, weights: str) -> Any:
    """With the weights as they are asked for: one symmetric scale for each output channel, or 256 values each."""
    import coremltools.optimize.coreml as optimize

    if weights == "float":
        return model
    if weights == "int8":
        kind = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0
        )
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=kind))
    table = optimize.OpPalettizerConfig(mode="kmeans", nbits=4, weight_threshold=0)
    return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=table))


def _rename(spec: Any, given: str, wanted: list[str]) -> None:
    from coremltools.models.utils import rename_feature

    (source,) = spec.description.input
    rename_feature(spec, source.name, given)
    for port, name in zip(list(spec.description.output), wanted, strict=True):
        rename_feature(spec, port.name, name)


def _tidy(package: Path) -> None:
    """Identifiers that are drawn anew each time become fixed ones; what is only for debugging goes."""
    file = package / "Manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(manifest, indent=1, sort_keys=True)
    for identifier, item in sorted(manifest["itemInfoEntries"].items(), key=lambda pair: str(pair[1]["path"])):
        fixed = str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])).upper()
        text = text.replace(identifier, fixed)
    entries = json.loads(text)
    file.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    known = {str(item["path"]).partition("/")[0] for item in manifest["itemInfoEntries"].values()} | {"Data"}
    for extra in package.iterdir():
        if extra.name not in known and extra != file:
            shutil.rmtree(extra) if extra.is_dir() else extra.unlink()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("coremltools", "torch")}
