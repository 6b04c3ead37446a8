"""Loading: what is accepted, and what each kind of bad input gets."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeopt import checkpoint
from edgeopt.errors import ConfigError, StageError
from edgeopt.recipe import InputSpec, Preprocess, RawSpec
from edgeopt.stages.load import Load, LoadParams, fill, read_weights, unwrap
from tests import nets
from tests.compression import ROOT, artifact, context, load_params

SHAPE = (3, 8, 8)


def plain(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nets.Plain().eval()


def run(weights: Path, tmp_path: Path, *, factory: str = "nets:Plain", shape: Any = SHAPE, root: Path = ROOT) -> Any:
    ctx = context(tmp_path, root=root)
    output = Load().run({}, load_params(weights, factory, shape, root), ctx)
    return artifact(output, ctx)


def saved(value: Any, path: Path) -> Path:
    torch.save(value, path)
    return path


def fails(weights: Path, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        run(weights, tmp_path, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    ],
)
def test_what_training_scripts_save_is_read(wrap: Any, tmp_path: Path) -> None:
    model = plain()
    found = run(saved(wrap(model.state_dict()), tmp_path / "w.pt"), tmp_path)
    x = checkpoint.example(SHAPE)
    assert torch.equal(checkpoint.load(found, ROOT)(x), model(x))


def test_safetensors_and_half_precision_are_read(tmp_path: Path) -> None:
    model = plain()
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    found = checkpoint.load(run(tmp_path / "w.safetensors", tmp_path), ROOT)
    assert found.head.weight.dtype == torch.float32
    assert torch.allclose(found.head.weight, model.head.weight, atol=1e-3)


def test_meta_holds_what_later_stages_need(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file(plain().state_dict(), weights)
    preprocess = Preprocess(raw=RawSpec(shape=(8, 8, 3), dtype="uint8"), scale=255.0, mean=(0.5,), std=(0.25,))
    params = load_params(weights, "nets:Plain", SHAPE).model_copy(
        update={"preprocess": preprocess, "input": InputSpec(name="image", shape=SHAPE)}
    )
    ctx = context(tmp_path)
    found = artifact(Load().run({}, params, ctx), ctx)
    assert found.meta["input"] == {"name": "image", "shape": [3, 8, 8], "dtype": "float32"}
    assert checkpoint.preprocess_of(found) == preprocess
    assert found.meta["factory"] == "nets:Plain"
    assert found.meta["source_digest"] == params.source_digest
    assert found.meta["params"] == sum(p.numel() for p in plain().parameters())
    assert set(found.files) == {"checkpoint.json", "weights.safetensors"}


def test_a_prefix_that_the_model_has_itself_stays() -> None:
    model = nn.Module()
    model.model = nn.Linear(2, 2)
    state = {f"model.{name}": value for name, value in model.model.state_dict().items()}
    assert unwrap({"model": dict(state)}, model).keys() == state.keys()
    assert unwrap({f"module.{name}": value for name, value in state.items()}, model).keys() == state.keys()


def test_a_mismatch_lists_each_kind(tmp_path: Path) -> None:
    state = plain().state_dict()
    state["extra.weight"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(7, 24)
    del state["hidden.bias"]
    message = fails(saved(state, tmp_path / "w.pt"), tmp_path)
    assert "1 missing: hidden.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "head.weight [7, 24] (the model has [4, 24])" in message


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    message = fails(saved({f"x{n}": torch.zeros(1) for n in range(30)}, tmp_path / "w.pt"), tmp_path)
    assert "30 unexpected: x0, x1," in message
    assert "and 20 more" in message


@pytest.mark.parametrize("prefix", ["backbone.", "net.encoder."])
def test_a_prefix_that_would_mend_it_is_named(prefix: str, tmp_path: Path) -> None:
    state = {f"{prefix}{name}": value for name, value in plain().state_dict().items()}
    assert f"start with {prefix!r}" in fails(saved(state, tmp_path / "w.pt"), tmp_path)
    model = nn.Module()
    model.inner = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"add it in the file"):
        fill(model, dict(nn.Linear(2, 2).state_dict()), Path("w.pt"))


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    state = plain().state_dict()
    state["head.bias"][2] = float("nan")
    state["hidden.weight"][0, 0] = float("inf")
    message = fails(saved(state, tmp_path / "w.pt"), tmp_path)
    assert "2 NaN or infinite: hidden.weight, head.bias" in message


class Exploit:
    """Its unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle", "wrapped"])
def test_a_pickle_with_code_is_refused_and_does_not_run(how: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    path = tmp_path / "w.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Exploit(planted)))
    else:
        torch.save(
            Exploit(planted) if how == "torch" else {"state_dict": plain().state_dict(), "x": Exploit(planted)}, path
        )
    message = fails(path, tmp_path)
    assert not planted.exists()
    assert "would run code" in message
    assert how == "pickle" or "mkdir" in message
    assert "from safetensors.torch import save_file" in message


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    message = fails(saved(nn.Linear(2, 2), tmp_path / "w.pth"), tmp_path)
    assert "it was not read" in message
    assert 'save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, "w.safetensors")' in message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("keep", "word"), [(0, "empty"), (100, "not a readable"), (0.5, "not a readable"), (0.99, "not a readable")]
)
def test_a_file_that_is_cut_short_is_noticed(suffix: str, keep: float, word: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(plain().state_dict(), path) if suffix == ".safetensors" else torch.save(plain().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    assert word in fails(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("w.pt", b"not a checkpoint at all", "not a readable PyTorch file"),
        ("w.safetensors", b"not a checkpoint at all", "not a readable safetensors file"),
        ("w.onnx", b"x", "unknown kind of weights file '.onnx'"),
        (None, b"", "cannot be read: No such file"),
    ],
)
def test_other_files_are_refused(name: str | None, content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / (name or "gone.pt")
    if name:
        path.write_bytes(content)
    assert word in fails(path, tmp_path)


def test_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    assert "holds a Tensor" in fails(saved(torch.zeros(3), tmp_path / "w.pt"), tmp_path)
    assert "missing" in fails(saved({"lr": 0.1}, tmp_path / "v.pt"), tmp_path)


def test_files_that_change_between_plan_and_run_are_noticed(tmp_path: Path) -> None:
    weights = saved(plain().state_dict(), tmp_path / "w.pt")
    params = load_params(weights, "nets:Plain", SHAPE)
    saved(plain(1).state_dict(), weights)
    with pytest.raises(StageError, match="weights file changed"):
        Load().run({}, params, context(tmp_path))
    with pytest.raises(StageError, match="source changed"):
        Load().run({}, params.model_copy(update={"source_digest": "0"}), context(tmp_path))


def test_weights_beside_the_recipe_are_found(tmp_path: Path) -> None:
    save_file(plain().state_dict(), tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == plain().state_dict().keys()
    (tmp_path / "nets.py").write_text((ROOT / "nets.py").read_text())
    params: LoadParams = load_params(tmp_path / "w.safetensors", "nets:Plain", SHAPE, tmp_path)
    params = params.model_copy(update={"weights": "w.safetensors"})
    ctx = context(tmp_path, root=tmp_path)
    assert Load().run({}, params, ctx).kind == "torch"


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("return self.layer(x.view(2, 100))", ["the model fails on input.shape [4]", "model.py:8"]),
        ("return self.layer(x), x", ["returns a tuple", "wrap it"]),
        ("return {'logits': self.layer(x)}", ["returns a dict"]),
        ("return self.layer(x).mean()", ["returns []", "batch must come first"]),
        ("return self.layer(x).T", ["returns [3, 2]"]),
    ],
)
def test_a_model_that_does_not_run_on_the_input_is_refused(forward: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
    )
    state = {f"layer.{name}": value for name, value in nn.Linear(4, 3).state_dict().items()}
    message = fails(saved(state, tmp_path / "w.pt"), tmp_path, factory="model:Net", shape=(4,), root=tmp_path)
    for word in words:
        assert word in message


def test_a_wrong_input_shape_points_at_the_model(tmp_path: Path) -> None:
    message = fails(saved(plain().state_dict(), tmp_path / "w.pt"), tmp_path, shape=(1, 8, 8))
    assert "input.shape [1, 8, 8]" in message
    assert "nets.py:" in message


def test_integer_buffers_and_tied_weights_are_fine(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)\n"
        "        self.b.weight = self.a.weight\n"
        "        self.register_buffer('order', torch.tensor([3, 1, 2, 0]))\n"
        "    def forward(self, x):\n"
        "        return self.b(self.a(x)[:, self.order])\n"
    )
    model = checkpoint.build("model:Net", {}, tmp_path)
    weights = saved(model.state_dict(), tmp_path / "w.pt")
    found = run(weights, tmp_path, factory="model:Net", shape=(4,), root=tmp_path)
    again = checkpoint.load(found, tmp_path)
    x = torch.from_numpy(np.ones((2, 4), np.float32))
    assert torch.equal(again(x), model(x))
    assert again.b.weight is again.a.weight
