"""The plan: equal steps are shared, unlike ones fork, kinds fit, and nothing of the user's runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeopt import metrics, registry
from edgeopt.errors import ConfigError, PlanError
from edgeopt.plan import Plan, environments_of, plan
from edgeopt.plan.layout import Layout
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path)


def ids(made: Plan, stage: str) -> list[str]:
    return [step.id for step in made.steps if step.stage == stage]


def test_targets_with_equal_parameters_share_the_prefix(folder: Path) -> None:
    made = plan(folder)
    assert ids(made, "load") == ["load"]
    assert ids(made, "prune") == ["prune"]
    assert ids(made, "distill") == ["distill"]
    assert ids(made, "export") == ["export:trained", "export"]
    assert ids(made, "quantize") == ["quantize:openvino", "quantize:onnxruntime"]


def test_a_target_with_another_channel_multiple_gets_its_own_pruned_model(folder: Path) -> None:
    target = folder / "targets" / "tiny-onnxruntime.yaml"
    target.write_text(target.read_text().replace("channel_multiple: 4", "channel_multiple: 8"))
    made = plan(folder)
    assert ids(made, "prune") == ["prune", "prune@tiny-onnxruntime"]
    assert ids(made, "distill") == ["distill", "distill@tiny-onnxruntime"]
    assert ids(made, "export") == ["export:trained", "export", "export@tiny-onnxruntime"]
    pruned = [(point.step, point.target) for point in made.ledger if point.stage == "pruned"]
    assert [target for _, target in pruned] == [None, "tiny-onnxruntime"]
    compiled = {step.id: step for step in made.steps if step.stage == "compile"}
    assert compiled["compile:onnxruntime-float-pruned"].inputs == {
        "model": "export@tiny-onnxruntime",
        "float": "export@tiny-onnxruntime",
    }


def test_inputs_come_before_what_needs_them(folder: Path) -> None:
    seen: set[str] = set()
    for step in plan(folder, ["targets=[tiny, tiny-openvino]"]).steps:
        assert set(step.inputs.values()) <= seen
        assert step.id not in seen
        seen.add(step.id)


def test_every_target_has_a_float_baseline_in_each_runtime(folder: Path) -> None:
    candidates = plan(folder, ["targets=[tiny]"]).targets["tiny"].candidates
    assert [(c.id, c.rank) for c in candidates] == [
        ("openvino-float", 0),
        ("openvino-float-pruned", 1),
        ("openvino-int8-pruned", 3),
        ("onnxruntime-float", 0),
        ("onnxruntime-float-pruned", 1),
        ("onnxruntime-int8-pruned", 3),
    ]
    alone = plan(folder, ["targets=[tiny]", "steps=[]"]).targets["tiny"].candidates
    assert [c.id for c in alone] == ["openvino-float", "onnxruntime-float"]


def test_candidates_are_judged_on_both_splits_and_torch_on_one(folder: Path) -> None:
    made = plan(folder)
    splits = {(step.inputs["model"], step.data) for step in made.steps if step.stage == "evaluate"}
    for candidate in made.targets["tiny-openvino"].candidates:
        assert {(candidate.compiled, ("select",)), (candidate.compiled, ("evaluate",))} <= splits
    assert ("load", ("select",)) not in splits


def test_gates_of_the_recipe_override_those_of_the_target(folder: Path) -> None:
    target = folder / "targets" / "tiny-onnxruntime.yaml"
    target.write_text(target.read_text() + "gates: {size_mib: {max: 9}, latency_p99_ms: {max: 8}}\n")
    gates = {gate.name: gate.limit for gate in plan(folder).targets["tiny-onnxruntime"].gates}
    assert gates == {"size_mib max": 1.0, "latency_p99_ms max": 8.0, "top1 min": 0.9, "top1 max_drop": 0.05}


def test_a_changed_source_or_weight_changes_the_plan_of_load_only(folder: Path) -> None:
    before = {step.id: step.params for step in plan(folder).steps}
    (folder / "model.py").write_text((folder / "model.py").read_text() + "\n# one more byte\n")
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    after = {step.id: step.params for step in plan(folder).steps}
    assert [name for name in before if before[name] != after[name]] == ["load"]
    changed = {name for name, value in after["load"].model_dump().items() if value != before["load"].model_dump()[name]}
    assert changed == {"source_digest", "weights_digest"}


def test_the_code_that_computes_the_numbers_is_part_of_what_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depending() -> list[object]:
        steps = plan(folder).steps
        return [getattr(step.params, name, None) for step in steps for name in ("sources", "metric_source")]

    before = depending()
    assert {"top1"} in [set(sources) for sources in before if isinstance(sources, dict)]
    assert depending() == before
    monkeypatch.setattr(metrics.building, "_source", lambda: "changed")
    after = depending()
    assert all(one != other for one, other in zip(before, after, strict=True) if one is not None)


def test_planning_runs_none_of_the_users_code(folder: Path) -> None:
    for name in ("model.py", "data.py"):
        text = (folder / name).read_text()
        (folder / name).write_text("open('/proc/nowhere/it-ran', 'w')\n" + text)
    plan(folder)


def test_an_override_changes_the_digest(folder: Path) -> None:
    assert plan(folder).digest == plan(folder / "recipe.yaml").digest
    assert plan(folder).digest != plan(folder, ["seed=8"]).digest


def test_an_unknown_target_of_the_command_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tiny-openvino'"):
        plan(folder, only=["tiny-openvin"])


def test_an_unknown_option_of_a_target_is_told(folder: Path) -> None:
    target = folder / "targets" / "tiny-onnxruntime.yaml"
    target.write_text(target.read_text() + "quantization: {reduce_rang: true}\n")
    with pytest.raises(ConfigError, match="reduce_rang") as caught:
        plan(folder)
    assert caught.value.where == f"{target}:6:15"


def test_the_steps_of_a_target_are_those_that_it_needs(folder: Path) -> None:
    made = plan(folder)
    one, other = (made.steps_of(name) for name in ("tiny-openvino", "tiny-onnxruntime"))
    assert set(one) | set(other) == {step.id for step in made.steps}
    assert "prune" in set(one) & set(other)
    assert "quantize:openvino" in set(one) - set(other)


SETS = "evaluate:  {sets: {indoor: {loader: data:evaluate}, outdoor: {loader: data:evaluate}}}"


def verifying(folder: Path, listed: str, gates: str, *, sets: bool = False) -> Plan:
    """The plan of the recipe with these metrics and gates; planning needs no identities."""
    recipe = folder / "recipe.yaml"
    text = recipe.read_text().replace("metrics: [top1]", f"metrics: {listed}")
    text = text.replace("gates:\n  top1: {min: 0.9, max_drop: 0.05}", f"gates: {gates}")
    recipe.write_text(text.replace("evaluate:  {loader: data:evaluate}", SETS) if sets else text)
    return plan(folder)


@pytest.mark.parametrize(
    ("listed", "gated"),
    [
        ("[tar]", ["far@float=0.001[indoor]"]),
        ("[{tar: {far: 0.0001}}, {far_at: {far: 0.1}}]", ["far@float=0.1"]),
        ("[{far_at: {threshold: 0.42}}, embedding_cosine]", ["embedding_cosine"]),
        ("[frr_at]", ["frr@float=0.001"]),
    ],
)
def test_a_gate_that_lets_impostors_through_somewhere_is_not_enough(
    folder: Path, listed: str, gated: list[str]
) -> None:
    gates = "{" + ", ".join(f'"{one}": {{max_drop: 0.001}}' for one in gated) + "}"
    with pytest.raises(ConfigError, match=r"no gate on far@.*on every evaluation set,.*add such as `gates: \{far@"):
        verifying(folder, listed, gates, sets=True)


@pytest.mark.parametrize("on", [[""], ["[worst]"], ["[indoor]", "[outdoor]"]])
def test_a_gate_that_holds_on_every_set_is_enough(folder: Path, on: list[str]) -> None:
    gates = "{" + ", ".join(f'"far@float=0.001{one}": {{max_drop: 0.001}}' for one in on) + "}"
    assert verifying(folder, "[tar]", gates, sets=True)


def test_unlike_comparisons_of_one_name_are_told_where_they_stand(folder: Path) -> None:
    listed = "[{tar: {template: identity, probe: new}}, {far_at: {far: 0.001}}]"
    with pytest.raises(ConfigError, match=r"recipe\.yaml:\d+:\d+: tar@far=0.001 brings far@float=0.001 along"):
        verifying(folder, listed, '{"far@float=0.001": {max_drop: 0.001}}')


def test_a_metric_that_would_be_misread_is_told_where_it_stands(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml:\d+:\d+: it would be called 'apcer:print \[A4\]'"):
        verifying(folder, "[top1, {apcer: {attack: 'print [A4]'}}]", "{top1: {min: 0.9}}")


def on(folder: Path, text: str) -> Plan:
    """The plan for one more target, alone."""
    (folder / "targets" / "other.yaml").write_text(f"target: 1\nname: other\n{text}\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("targets:\n", "targets:\n  - other\n"))
    return plan(folder, only=["other"])


def test_a_toolkit_that_compiles_no_float_network_is_compared_with_the_float_onnx(folder: Path) -> None:
    made = on(folder, "runtime: ethos-u\ndevice: {kind: npu, access: none, arch: ethos-u55-128}")
    reference, int8 = made.targets["other"].candidates
    assert (reference.id, reference.rank, reference.ships, reference.parity) == ("ethos-u-reference", 0, False, "")
    assert (int8.precision, int8.ships) == ("int8", True)
    assert reference.compiled == "export:trained"
    steps = {step.id: step for step in made.steps}
    assert steps[int8.compiled].inputs == {"model": "quantize:ethos-u", "float": "export"}
    assert steps["quantize:ethos-u"].inputs == {"model": "convert:distill"}
    assert steps["convert:distill"].inputs == steps["export"].inputs
    assert steps[int8.parity].inputs["reference"] == "evaluate:export:evaluate"
    assert steps[int8.parity].inputs["outputs"] == steps[int8.evaluate].inputs["outputs"]
    assert steps[int8.evaluate].inputs["baseline"] == steps[reference.evaluate].inputs["outputs"]


def test_nothing_asks_a_device_that_is_not_at_hand(folder: Path) -> None:
    made = on(folder, "runtime: litert\ndevice: {access: none}")
    assert {str(step.device.access) for step in made.steps if step.device} == {"local"}
    compiled = [step for step in made.steps if step.stage == "compile"]
    assert compiled
    assert all(step.params.model_dump()["at_hand"] is False for step in compiled)


def test_only_what_is_compiled_runs_on_the_device(folder: Path) -> None:
    made = on(folder, "runtime: onnxruntime\ndevice: {access: {ssh: board}}")
    there = {step.id for step in made.steps if step.device and step.device.access.ssh}
    assert there == {
        step.id
        for step in made.steps
        if step.stage == "compile" or (step.stage == "evaluate" and step.inputs["model"].startswith("compile:"))
    }


def test_half_precision_is_a_candidate_where_the_target_asks_for_it(folder: Path) -> None:
    text = "runtime: tensorrt-rtx\ndevice: {kind: gpu, access: none, arch: sm_86}\nprecision: [int8, fp16]"
    made = on(folder, text)
    assert [(c.precision, c.rank) for c in made.targets["other"].candidates] == [
        ("float", 0),
        ("float", 1),
        ("fp16", 2),
        ("int8", 3),
    ]
    steps = {step.id: step for step in made.steps}
    assert steps["cast:fp16"].inputs == {"model": "export"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runtime: onnxruntime\nprecision: [fp16]", r"other.yaml:4:13: onnxruntime compiles no fp16 .there are: int8"),
        ("runtime: onnxruntime\ndevice: {access: none}", r"other.yaml:4:18: onnxruntime can do nothing without its"),
        ("runtime: tensort", r"other.yaml:3:10: unknown backend 'tensort' .did you mean 'tensorrt'"),
        ("runtime: openvino\ncompile: {fast: true}", r"other.yaml:4:10: openvino has no option 'fast'"),
        ("runtime: openvino\ncompile: {openvino: 3}", r"other.yaml:4:10: openvino: expected options, got 3"),
        (
            "runtime: ethos-u\ndevice: {access: none, arch: ethos-u55-129}",
            r"other.yaml:4:30: .*ethos-u55-129.*did you mean 'ethos-u55-128'",
        ),
    ],
)
def test_a_target_that_asks_for_what_its_runtime_cannot(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        on(folder, text)


def test_half_precision_of_one_of_two_runtimes(folder: Path) -> None:
    text = "runtime: [onnxruntime, tensorrt]\ndevice: {access: {ssh: board}, arch: sm_87}\nprecision: [fp16]"
    made = on(folder, text)
    halves = [candidate.runtime for candidate in made.targets["other"].candidates if candidate.precision == "fp16"]
    assert halves == ["tensorrt"]


def test_the_weights_are_read_once_for_all_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeopt.plan import layout

    read: list[Path] = []

    def digest(path: Path) -> str:
        read.append(path)
        return "0" * 64

    monkeypatch.setattr(layout, "file_digest", digest)
    plan(folder)
    assert [path.name for path in read] == ["weights.safetensors"]


@pytest.mark.parametrize("change", ["precision: []", "no quantize step"])
def test_a_target_for_which_nothing_can_be_made(folder: Path, change: str) -> None:
    text = "runtime: ethos-u\ndevice: {access: none, arch: ethos-u55-128}\n"
    recipe = folder / "recipe.yaml"
    if change == "no quantize step":
        recipe.write_text(re.sub(r"  - quantize.*\n", "", recipe.read_text()))
        change = ""
    with pytest.raises(PlanError, match="compiles only int8, and nothing makes that here"):
        on(folder, text + change)


def test_unlike_steps_never_share_an_id(folder: Path) -> None:
    read = plan(folder)
    layout = Layout(read.recipe, read.root)
    target = read.targets["tiny-openvino"].target
    trained = layout.load(target)
    made = [
        layout.add("prune", registry.find("stages", "prune").Params(macs_ratio=ratio), {"model": trained}, target, "x")
        for ratio in (0.9, 0.8, 0.7, 0.6)
    ]
    assert made == ["x", "x@tiny-openvino", "x@tiny-openvino.2", "x@tiny-openvino.3"]


def test_accuracy_is_compared_with_float32_where_the_toolkit_computes_in_less(folder: Path) -> None:
    made = on(folder, "runtime: rknn\ndevice: {kind: npu, access: none, arch: rk3588}")
    steps = {step.id: step for step in made.steps}
    for candidate in made.targets["other"].candidates:
        baseline = steps[steps[candidate.evaluate].inputs["baseline"]]
        assert baseline.inputs == {"model": "export:trained"}
        assert baseline.params.model_dump()["runtime"] == "onnxruntime"


def test_the_environment_of_a_simulator_is_part_of_what_it_gives(folder: Path) -> None:
    made = on(folder, "runtime: rknn\ndevice: {kind: npu, access: none, arch: rk3588}")
    in_rknn = {step.id for step in made.steps if "rknn" in environments_of(step)}
    compiled = {step.id for step in made.steps if step.stage == "compile"}
    simulated = {step.id for step in made.steps if step.stage == "evaluate" and step.inputs["model"] in compiled}
    assert simulated
    assert in_rknn == compiled | simulated
