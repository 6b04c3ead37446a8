"""The user's data: what is opened, what is refused, and that the digest is of the content."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.data import Split, check_classes, open_splits, raw_spec, to_input
from edgeopt.errors import ConfigError
from edgeopt.recipe import DataSpec, InputSpec, Preprocess, RawSpec, SplitSpec

SHAPE = (4, 5, 3)
RAW = RawSpec(shape=SHAPE, dtype="uint8")
NAMES = ("train", "calibrate", "select", "evaluate")


def samples_of(name: str, count: int = 6) -> np.ndarray:
    return np.random.default_rng(NAMES.index(name)).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


LABELS = np.arange(6, dtype=np.int64) % 3


def write(folder: Path, name: str, **arrays: Any) -> Path:
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        write(tmp_path, name, samples=samples_of(name), labels=LABELS)
    return tmp_path


def spec(**changed: SplitSpec) -> DataSpec:
    return DataSpec(**{name: SplitSpec(path=f"{name}.npz") for name in NAMES} | changed)


def opened(root: Path, raw: RawSpec = RAW, **changed: SplitSpec) -> Split:
    """The split that ``changed`` names."""
    (name,) = changed
    return open_splits(spec(**changed), raw, root)[name]


def refusal(root: Path, raw: RawSpec = RAW, **changed: SplitSpec) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        open_splits(spec(**changed), raw, root)
    return caught.value


def loader(root: Path, code: str) -> SplitSpec:
    (root / "loading.py").write_text(f"import numpy as np\n\n\ndef load():\n{code}\n")
    return SplitSpec(loader="loading:load")


# Preprocessing


@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["uint8", "int8", "int16", "float32"]),
    channels=st.sampled_from([1, 3]),
    scale=st.floats(0.125, 300, width=32),
    per_channel=st.booleans(),
)
def test_to_input_is_what_torch_computes(seed, dtype, channels, scale, per_channel):
    random = np.random.default_rng(seed)
    raw = (random.standard_normal((3, 4, 5, channels)) * 60).astype(dtype)
    count = channels if per_channel else 1
    mean, std = random.random(count).astype(np.float32), random.random(count).astype(np.float32) + 0.1
    preprocess = Preprocess(
        raw=RawSpec(shape=(4, 5, channels), dtype=dtype),
        scale=scale,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
    )
    found = to_input(raw, preprocess)
    values = torch.from_numpy(raw).permute(0, 3, 1, 2).to(torch.float32) / torch.tensor(scale, dtype=torch.float32)
    expected = (values - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(std)[:, None, None]
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected.numpy())


def test_to_input_by_hand():
    raw = np.array([[[[0, 10]], [[20, 30]]]], dtype=np.uint8)  # one sample of 2×1 pixels with 2 channels
    preprocess = Preprocess(raw=RawSpec(shape=(2, 1, 2), dtype="uint8"), scale=10, mean=(1, 2), std=(0.5, 4))
    np.testing.assert_array_equal(to_input(raw, preprocess), [[[[-2], [2]], [[-0.25], [0.25]]]])


def test_a_series_keeps_its_order_of_axes():
    raw = np.arange(12, dtype=np.int16).reshape(2, 2, 3)
    preprocess = Preprocess(raw=RawSpec(shape=(2, 3), dtype="int16"), scale=2, mean=(0, 1), std=(1,))
    np.testing.assert_array_equal(to_input(raw, preprocess), raw / 2 - np.array([[0], [1]]))


def test_without_preprocessing_the_network_takes_raw_samples():
    raw = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(to_input(raw, None), raw)


def test_raw_spec_is_the_preprocessing_or_else_the_input():
    network = InputSpec(shape=(3, 4, 5))
    assert raw_spec(network, Preprocess(raw=RAW)) == RAW
    assert raw_spec(network, None) == RawSpec(shape=(3, 4, 5), dtype="float32")


# What is opened


def test_all_four_splits_are_opened(root):
    splits = open_splits(spec(), RAW, root)
    assert tuple(splits) == NAMES
    for name, split in splits.items():
        assert (split.name, len(split)) == (name, 6)
        np.testing.assert_array_equal(split.samples, samples_of(name))
        np.testing.assert_array_equal(split.labels, LABELS)


def test_batches_are_in_order_and_complete(root):
    split = opened(root, select=SplitSpec(path="select.npz"))
    batches = list(split.batches(4))
    assert [len(samples) for samples, _ in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([samples for samples, _ in batches]), split.samples)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)


def test_only_calibration_may_be_without_labels(root):
    write(root, "bare", samples=samples_of("calibrate"))
    split = opened(root, calibrate=SplitSpec(path="bare.npz"))
    assert split.labels is None
    assert next(split.batches(6))[1] is None
    for name in ("train", "select", "evaluate"):
        error = refusal(root, **{name: SplitSpec(path="bare.npz")})
        assert str(error) == f"data.{name}: the split has no labels"


@pytest.mark.parametrize("count", range(1, 7))
def test_some_of_the_samples_are_spread_evenly(root, count):
    split = opened(root, select=SplitSpec(path="select.npz", samples=count))
    found = {sample.tobytes() for sample in split.samples}
    chosen = [index for index, sample in enumerate(samples_of("select")) if sample.tobytes() in found]
    assert len(split) == len(chosen) == count
    np.testing.assert_array_equal(split.samples, samples_of("select")[chosen])
    np.testing.assert_array_equal(split.labels, LABELS[chosen])
    assert chosen[0] == 0
    assert count == 1 or chosen[-1] == 5


def test_more_samples_than_there_are(root):
    error = refusal(root, select=SplitSpec(path="select.npz", samples=7))
    assert str(error) == "data.select: asks for 7 samples, there are 6"


@pytest.mark.parametrize(
    "code",
    [
        "    return samples, labels",
        "    return [(s, l) for s, l in zip(samples, labels)]",
        "    import torch\n    return torch.from_numpy(samples), torch.from_numpy(labels)",
        "    from torch import from_numpy, utils\n"
        "    return utils.data.TensorDataset(from_numpy(samples), from_numpy(labels))",
        "    return tuple((s, int(l)) for s, l in zip(samples, labels))",
    ],
    ids=["arrays", "pairs", "tensors", "torch dataset", "tuple of pairs"],
)
def test_a_loader_returns_arrays_or_pairs(root, code):
    make = f"    a = np.load({str(root / 'select.npz')!r})\n    samples, labels = a['samples'], a['labels']\n"
    expected = open_splits(spec(), RAW, root)["select"]
    split = opened(root, select=loader(root, make + code))
    np.testing.assert_array_equal(split.samples, expected.samples)
    np.testing.assert_array_equal(split.labels, expected.labels)
    assert split.digest == expected.digest


# The digest


def digest(root: Path, samples: np.ndarray, labels: np.ndarray | None, raw: RawSpec = RAW) -> str:
    folder = root / "digest"
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        other = np.random.default_rng(100 + NAMES.index(name)).random((4, *raw.shape)) * 100
        write(folder, name, samples=other.astype(raw.dtype), labels=np.zeros(4, np.int64))
    write(folder, "calibrate", samples=samples, **({} if labels is None else {"labels": labels}))
    return opened(folder, raw, calibrate=SplitSpec(path="calibrate.npz")).digest


def test_equal_content_has_an_equal_digest(root):
    samples = samples_of("train")
    expected = digest(root, samples, LABELS)
    assert digest(root, np.asfortranarray(samples), LABELS.copy()) == expected
    folder = root / "elsewhere"
    folder.mkdir()
    np.savez_compressed(folder / "x.npz", samples=samples, labels=LABELS, more=np.zeros(3))
    relative = SplitSpec(path="elsewhere/x.npz")
    write(root, "train", samples=samples_of("train") ^ 1, labels=LABELS)
    assert opened(root, calibrate=relative).digest == expected


@given(data=st.data())
def test_any_byte_of_the_samples_or_labels_changes_the_digest(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("digest")
    samples, labels = samples_of("train"), LABELS.astype(np.int32)
    before = digest(root, samples, labels)
    changed = data.draw(st.sampled_from([samples, labels]))
    view = changed.view(np.uint8).reshape(-1)
    index = data.draw(st.integers(0, view.size - 1).filter(lambda i: changed is samples or i % 4 != 3))  # no negatives
    view[index] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(root, samples, labels) != before


def test_dtype_and_shape_change_the_digest(root):
    flat = samples_of("train").reshape(6, -1)
    labels = LABELS.astype(np.int32)
    variants = [
        digest(root, flat, labels, RawSpec(shape=(60,), dtype="uint8")),
        digest(root, flat.view(np.int8), labels, RawSpec(shape=(60,), dtype="int8")),
        digest(root, flat.reshape(6, 6, 10), labels, RawSpec(shape=(6, 10), dtype="uint8")),
        digest(root, flat, labels.astype(np.int64), RawSpec(shape=(60,), dtype="uint8")),
        digest(root, flat, labels.view(np.float32), RawSpec(shape=(60,), dtype="uint8")),
        digest(root, flat, labels.reshape(6, 1), RawSpec(shape=(60,), dtype="uint8")),
        digest(root, flat, None, RawSpec(shape=(60,), dtype="uint8")),
    ]
    assert len(set(variants)) == len(variants)


# Files that are wrong


def test_a_missing_file(root):
    error = refusal(root, select=SplitSpec(path="nowhere.npz"))
    assert str(error) == f"data.select: no such file: {root / 'nowhere.npz'}"


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.5, 0.9, -1])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file(root, save, keep):
    file = root / "select.npz"
    save(file, samples=samples_of("select", 40), labels=np.zeros(40, np.int64))
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    error = refusal(root, select=SplitSpec(path="select.npz"))
    assert f"{file} is not a readable .npz" in str(error)


@given(data=st.data())
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_never_a_traceback(tmp_path_factory, save, data):
    root = tmp_path_factory.mktemp("damaged")
    for name in NAMES:
        save(root / f"{name}.npz", samples=samples_of(name), labels=LABELS)
    file = root / "select.npz"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with contextlib.suppress(ConfigError):
        open_splits(spec(), RAW, root)


class _Runs:
    def __reduce__(self):
        return (open, (str(Path(pickle_marker)), "w"))


pickle_marker = ""


@pytest.mark.parametrize("how", ["object array", "plain pickle"])
def test_a_pickle_is_refused_and_does_not_run(root, how, monkeypatch):
    marker = root / "it-ran"
    monkeypatch.setitem(globals(), "pickle_marker", str(marker))
    if how == "plain pickle":
        (root / "select.npz").write_bytes(pickle.dumps(_Runs()))
    else:
        np.savez(root / "select.npz", samples=np.array([_Runs()] * 6, dtype=object), labels=LABELS)
    error = refusal(root, select=SplitSpec(path="select.npz"))
    assert "is not a readable .npz" in str(error)
    assert ("it is no zip archive" if how == "plain pickle" else "allow_pickle=False") in str(error)
    assert not marker.exists()


def test_other_files_are_no_npz(root):
    np.save(root / "plain.npy", samples_of("select"))
    (root / "text.npz").write_text("samples, labels")
    with zipfile.ZipFile(root / "zip.npz", "w") as archive:
        archive.writestr("samples.npy", b"no array")
    (root / "folder.npz").mkdir()
    for name in ("plain.npy", "text.npz", "zip.npz", "folder.npz"):
        assert "is not a readable .npz" in str(refusal(root, select=SplitSpec(path=name)))


def test_an_archive_without_samples_says_what_it_has(root):
    write(root, "select", images=samples_of("select"), labels=LABELS)
    assert "has no array 'samples' (it has: images, labels)" in str(refusal(root, select=SplitSpec(path="select.npz")))


# Content that is wrong


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"samples": samples_of("select")[:0], "labels": LABELS[:0]}, "the split is empty"),
        (
            {"samples": samples_of("select")[:, :3], "labels": LABELS},
            "samples are [3, 5, 3] uint8, the recipe says [4, 5, 3]",
        ),
        (
            {"samples": samples_of("select").astype(np.float32), "labels": LABELS},
            "samples are [4, 5, 3] float32, the recipe",
        ),
        ({"samples": samples_of("select").astype(">u2"), "labels": LABELS}, "samples are [4, 5, 3] >u2, the recipe"),
        ({"samples": np.uint8(3), "labels": LABELS}, "samples should be an array"),
        ({"samples": samples_of("select"), "labels": LABELS[:5]}, "6 samples but 5 labels"),
        ({"samples": samples_of("select"), "labels": np.int64(3)}, "6 samples but 1 labels"),
        ({"samples": samples_of("select"), "labels": LABELS - 1}, "label -1 is negative"),
        ({"samples": samples_of("select"), "labels": LABELS.astype(str)}, "labels should be numbers, they are <U21"),
        ({"samples": samples_of("select"), "labels": LABELS > 0}, "labels should be numbers, they are bool"),
        ({"samples": samples_of("select"), "labels": LABELS * np.nan}, "labels hold NaN or infinity"),
        ({"samples": samples_of("select"), "labels": LABELS / 0.5 + np.inf}, "labels hold NaN or infinity"),
        ({"samples": samples_of("select"), "labels": np.zeros((6, 0), np.int64)}, "labels should be (N,) or (N, K)"),
        ({"samples": samples_of("select"), "labels": np.zeros((6, 1, 1), np.int64)}, "labels should be (N,) or (N, K)"),
    ],
)
def test_wrong_content_is_refused(root, arrays, expected):
    write(root, "select", **arrays)
    for chosen in (SplitSpec(path="select.npz"), SplitSpec(path="select.npz", samples=6)):
        error = refusal(root, select=chosen)
        if "empty" not in expected or chosen.samples is None:
            assert str(error).startswith(f"data.select: {expected}")


def test_labels_that_are_too_few_are_seen_before_samples_are_chosen(root):
    write(root, "select", samples=samples_of("select"), labels=LABELS[:2])
    assert "6 samples but 2 labels" in str(refusal(root, select=SplitSpec(path="select.npz", samples=4)))


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS.astype(str), LABELS - 5])
def test_labels_of_calibration_need_not_be_there_but_must_be_right(root, labels):
    write(root, "calibrate", samples=samples_of("calibrate"), labels=labels)
    assert refusal(root, calibrate=SplitSpec(path="calibrate.npz")).where == "data.calibrate"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
    raw = RawSpec(shape=(3,), dtype="float32")
    for name in NAMES:
        samples = np.random.default_rng(NAMES.index(name)).random((6, 3), dtype=np.float32)
        if name == "select":
            samples[3, 1] = value
        write(tmp_path, name, samples=samples, labels=LABELS)
    assert "data.select: samples hold NaN or infinity" in str(
        refusal(tmp_path, raw, select=SplitSpec(path="select.npz"))
    )


def test_float_targets_are_labels_too(root):
    for labels in (LABELS / 7 - 2, np.random.default_rng(0).standard_normal((6, 2))):
        write(root, "select", samples=samples_of("select"), labels=labels)
        np.testing.assert_array_equal(opened(root, select=SplitSpec(path="select.npz")).labels, labels)


@pytest.mark.parametrize(("first", "second"), [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]])
def test_overlapping_splits_are_refused(root, first, second):
    samples = samples_of(second)
    samples[4] = samples_of(first)[1]
    write(root, second, samples=samples, labels=LABELS)
    error = refusal(root)
    assert error.where == "data"
    assert error.what == f"the splits overlap: 1 samples are in both {first!r} and {second!r}"


def test_the_same_sample_twice_in_one_split_is_no_overlap(root):
    samples = samples_of("train")
    samples[1] = samples[0]
    write(root, "train", samples=samples, labels=LABELS)
    assert len(opened(root, train=SplitSpec(path="train.npz"))) == 6


def test_only_the_chosen_samples_may_not_overlap(root):
    samples = samples_of("calibrate")
    samples[3] = samples_of("train")[0]
    write(root, "calibrate", samples=samples, labels=LABELS)
    assert len(opened(root, calibrate=SplitSpec(path="calibrate.npz", samples=2))) == 2
    assert "overlap" in str(refusal(root))


def test_class_numbers_must_fit_the_network(root):
    split = opened(root, select=SplitSpec(path="select.npz"))
    check_classes(split, 3)
    with pytest.raises(ConfigError, match=r"data\.select: label 2 of sample 2 is outside the network's 2 outputs"):
        check_classes(split, 2)


@pytest.mark.parametrize("labels", [None, LABELS / 1, np.stack([LABELS, LABELS], 1)])
def test_what_is_no_class_number_is_not_checked_as_one(labels):
    check_classes(Split("select", samples_of("select"), labels, ""), 1)


# Loaders that are wrong


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("    raise KeyError('no such camera')", "loading:load raised KeyError: 'no such camera'"),
        ("    return open('/nowhere/at/all')", "loading:load raised FileNotFoundError: "),
        ("    import sys\n    sys.exit(0)", "loading:load raised SystemExit: 0"),
        ("    return np.zeros(3)[7]", "loading:load raised IndexError: "),
    ],
)
def test_a_loader_that_raises_is_named_with_its_line(root, code, what):
    error = refusal(root, select=loader(root, code))
    assert str(error).startswith(f"{root / 'loading.py'}:{6 if 'exit' in code else 5}: {what}")


def test_a_dataset_that_raises_while_it_is_read_is_named_with_its_line(root):
    code = (
        "    class Lazy:\n        def __len__(self):\n            return 3\n"
        "        def __getitem__(self, index):\n            return 1 / 0\n    return Lazy()"
    )
    error = refusal(root, select=loader(root, code))
    assert str(error).startswith(f"{root / 'loading.py'}:9: loading:load raised ZeroDivisionError")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("None", "NoneType"),
        ("3", "int"),
        ("'abc'", "str"),
        ("[1, 2]", "list"),
        ("[]", "list"),
        ("{'samples': 1}", "dict"),
        ("(i for i in range(3))", "generator"),
        ("[(np.zeros(3), 0), (np.zeros(4), 1)]", "list"),
        ("[(np.zeros(3), 0), (np.zeros(3), [1, 2])]", "list"),
        ("(np.zeros(3), np.zeros(3), np.zeros(3))", "tuple"),
    ],
)
def test_a_loader_that_returns_rubbish(root, value, kind):
    error = refusal(root, select=loader(root, f"    return {value}"))
    assert error.where == "data.select"
    assert f"should return (samples, labels) arrays or a sequence of (sample, label) pairs, got {kind}" in error.what


def test_single_numbers_are_no_samples(root):
    error = refusal(root, select=loader(root, "    return np.float32(1), np.float32(2)"))
    assert str(error) == "data.select: samples should be an array (N, ...), they are a single number"


def test_tensors_that_require_a_gradient(root):
    code = "    import torch\n    return torch.zeros(6, 4, 5, 3, requires_grad=True), torch.zeros(6)"
    assert "grad" in str(refusal(root, select=loader(root, code)))


# Columns, sets and identities


def with_columns(name: str, count: int = 6, **columns: Any) -> dict[str, Any]:
    return {"samples": samples_of(name, count), **columns}


KINDS = np.array(["print", "", "", "replay", "", ""])


def test_every_other_array_of_a_file_is_a_column(root):
    write(root, "evaluate", **with_columns("evaluate", labels=LABELS, attack=KINDS, age=np.arange(6.0)))
    split = opened(root, evaluate=SplitSpec(path="evaluate.npz"))
    assert set(split.columns) == {"attack", "age"}
    assert set(split.truth()) == {"labels", "attack", "age"}
    np.testing.assert_array_equal(split.truth(np.array([3, 0]))["attack"], ["replay", "print"])
    np.testing.assert_array_equal(split.truth(np.array([3, 0]))["labels"], LABELS[[3, 0]])


def test_a_loader_gives_columns_as_a_mapping(root):
    np.save(root / "s.npy", samples_of("evaluate"))
    path = str(root / "s.npy")
    code = f"    return np.load({path!r}), None, {{'attack': {KINDS.tolist()}, 'number': [1, 2, 3, 4, 5, 6]}}"
    split = opened(root, evaluate=loader(root, code))
    assert split.labels is None
    assert split.columns["attack"].dtype.kind == "U"
    np.testing.assert_array_equal(split.columns["attack"], KINDS)


def test_columns_change_the_digest(root):
    digests = set()
    for columns in ({}, {"attack": KINDS}, {"attack": KINDS[::-1]}, {"attac": KINDS}, {"a": KINDS, "b": KINDS}):
        write(root, "evaluate", **with_columns("evaluate", labels=LABELS, **columns))
        digests.add(opened(root, evaluate=SplitSpec(path="evaluate.npz")).digest)
    assert len(digests) == 5


@pytest.mark.parametrize("name", ["calibrate", "select", "evaluate"])
def test_columns_are_chosen_with_the_samples(root, name):
    write(root, name, **with_columns(name, labels=LABELS, number=np.arange(6)))
    split = opened(root, **{name: SplitSpec(path=f"{name}.npz", samples=3)})
    np.testing.assert_array_equal(split.samples, samples_of(name)[split.columns["number"]])
    np.testing.assert_array_equal(split.labels, LABELS[split.columns["number"]])


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"attack": np.array([b"print"] * 6)}, "column 'attack' should have"),
        ({"set": KINDS}, "a column cannot be called 'set'"),
        ({"pairs": np.array([[0, 6]])}, "'pairs' should be (P, 2) sample numbers below 6"),
        ({"pairs": np.array([[0, -1]])}, "'pairs' should be"),
        ({"pairs": np.array([[0.0, 1.0]])}, "'pairs' should be"),
        ({"pairs": np.array([0, 1])}, "'pairs' should be"),
    ],
)
def test_columns_that_do_not_fit(root, columns, why):
    write(root, "evaluate", **with_columns("evaluate", labels=LABELS, **columns))
    assert why in refusal(root, evaluate=SplitSpec(path="evaluate.npz")).what


@pytest.mark.parametrize(
    ("column", "found"),
    [("['print', None, '', '', '', '']", "object [6]"), ("['print', '']", "<U5 [2]"), ("'print'", "<U5 []")],
)
def test_columns_of_a_loader_that_do_not_fit(root, column, found):
    np.save(root / "s.npy", samples_of("evaluate"))
    code = f"    return np.load({str(root / 's.npy')!r}), None, {{'attack': {column}}}"
    expected = f"column 'attack' should have a number or text for each of 6 samples; it is {found}"
    assert refusal(root, evaluate=loader(root, code)).what == expected


def test_an_array_of_another_length_in_a_file_is_no_column(root):
    """Such as the names of the classes."""
    write(root, "evaluate", **with_columns("evaluate", labels=LABELS, names=np.array(["a", "b", "c"])))
    assert opened(root, evaluate=SplitSpec(path="evaluate.npz")).columns == {}


def test_pairs_are_renumbered_within_some_of_the_samples(root):
    pairs = np.array([[0, 1], [4, 2], [2, 4], [5, 0]])
    write(root, "evaluate", **with_columns("evaluate", labels=LABELS, pairs=pairs))
    split = opened(root, evaluate=SplitSpec(path="evaluate.npz"))
    np.testing.assert_array_equal(split.truth()["pairs"], pairs)
    np.testing.assert_array_equal(split.truth(np.array([4, 2, 0]))["pairs"], [[0, 1], [1, 0]])
    assert split.truth(np.array([3]))["pairs"].shape == (0, 2)
    assert "tear pairs apart" in refusal(root, evaluate=SplitSpec(path="evaluate.npz", samples=3)).what


def sets(root: Path, **parts: dict[str, Any]) -> SplitSpec:
    for number, (name, arrays) in enumerate(parts.items()):
        shifted = {**arrays, "samples": arrays["samples"] + np.uint8(number)}
        write(root, name, **shifted)
    return SplitSpec(sets={name: SplitSpec(path=f"{name}.npz") for name in parts})


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint64])
def test_sets_are_one_split_with_a_name_for_each_sample(root, dtype):
    pairs = np.array([[0, 1], [3, 2]], dtype)
    indoor = with_columns("evaluate", 6, labels=LABELS, attack=KINDS, pairs=pairs)
    outdoor = with_columns(
        "evaluate", 4, labels=LABELS[:4], attack=np.array(["a longer name", "", "", ""]), pairs=pairs
    )
    split = opened(root, evaluate=sets(root, outdoor=outdoor, indoor=indoor))
    found = split.sets()
    assert list(found) == ["outdoor", "indoor"]
    np.testing.assert_array_equal(found["outdoor"], range(4))
    np.testing.assert_array_equal(found["indoor"], range(4, 10))
    np.testing.assert_array_equal(split.truth(found["indoor"])["attack"], KINDS)
    np.testing.assert_array_equal(split.truth(found["outdoor"])["attack"][0], "a longer name")
    np.testing.assert_array_equal(split.columns["pairs"], [[0, 1], [3, 2], [4, 5], [7, 6]])
    for rows in found.values():
        np.testing.assert_array_equal(split.truth(rows)["pairs"], pairs)


def test_without_sets_there_is_one_without_a_name(root):
    split = opened(root, evaluate=SplitSpec(path="evaluate.npz"))
    assert list(split.sets()) == [""]
    np.testing.assert_array_equal(split.sets()[""], range(6))


def test_the_name_of_a_set_is_part_of_the_digest(root):
    digests = {
        opened(root, evaluate=sets(root, **{name: with_columns("evaluate", labels=LABELS)})).digest for name in "ab"
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"labels": LABELS},
        {"labels": LABELS, "attack": KINDS, "age": LABELS},
        {"labels": LABELS, "attack": LABELS},
        {"labels": LABELS, "attack": np.stack([KINDS, KINDS], axis=1)},
        {"attack": KINDS},
        {"labels": np.zeros((6, 2)), "attack": KINDS},
    ],
)
def test_sets_of_unlike_columns(root, other):
    first = with_columns("evaluate", labels=LABELS, attack=KINDS)
    error = refusal(root, evaluate=sets(root, indoor=first, outdoor=with_columns("evaluate", **other)))
    assert "'outdoor' and 'indoor' have not the same labels and columns" in error.what
    assert error.where == "data.evaluate.sets"


def test_what_is_wrong_with_a_set_names_it(root):
    broken = with_columns("evaluate", labels=LABELS[:3])
    error = refusal(root, evaluate=sets(root, indoor=with_columns("evaluate", labels=LABELS), outdoor=broken))
    assert error.where == "data.evaluate.sets.outdoor"


@pytest.mark.parametrize(("one", "other"), [("calibrate", "select"), ("calibrate", "evaluate"), ("select", "evaluate")])
def test_no_identity_may_be_in_two_splits_that_prove_something(root, one, other):
    people = {"calibrate": [1, 1, 2, 2, 3, 3], "select": [4, 4, 5, 5, 6, 6], "evaluate": [7, 7, 8, 8, 9, 9]}
    people[other][3] = people[one][0]
    for name, numbers in people.items():
        kinds = {"calibrate": np.int64, "select": np.float64, "evaluate": np.str_}
        numbered = np.array(numbers).astype(kinds[name])
        write(root, name, **with_columns(name, labels=LABELS, identity=numbered))
    error = refusal(root, evaluate=SplitSpec(path="evaluate.npz"))
    assert error.what == f"identities leak between the splits: 1 identities are in both {one!r} and {other!r}"
    assert "one split" in error.fix


@pytest.mark.parametrize("missing", ["calibrate", "select"])
def test_a_split_that_does_not_say_who_is_in_it_could_leak(root, missing):
    for number, name in enumerate(("calibrate", "select", "evaluate")):
        columns = {} if name == missing else {"identity": np.arange(6) + 10 * number}
        write(root, name, **with_columns(name, labels=LABELS, **columns))
    error = refusal(root, select=SplitSpec(path="select.npz"), evaluate=SplitSpec(path="evaluate.npz"))
    assert error.where == f"data.{missing}"
    assert "'identity'" in error.fix


def test_identities_and_other_numbers_are_finite_and_one_for_each_sample(root):
    for wrong, message in (
        ({"identity": np.array([1, 2, np.nan, 4, 5, 6])}, "'identity' holds NaN or infinity, first at sample 2"),
        ({"identity": np.arange(5)}, "'identity' should have a number or text for each of 6 samples"),
        ({"identity": np.arange(12).reshape(6, 2)}, "'identity' should be (N,), it is [6, 2]"),
        ({"age": np.array([1, 2, np.inf, 4, 5, 6])}, "'age' holds NaN or infinity, first at sample 2"),
    ):
        write(root, "evaluate", **with_columns("evaluate", labels=LABELS, **wrong))
        assert message in refusal(root, evaluate=SplitSpec(path="evaluate.npz")).what


def test_the_network_may_have_learned_from_anybody(root):
    write(root, "train", **with_columns("train", labels=LABELS, identity=LABELS))
    for number, name in enumerate(("calibrate", "select", "evaluate")):
        write(root, name, **with_columns(name, labels=LABELS, identity=np.arange(6) + 100 * number))
    opened(root, evaluate=SplitSpec(path="evaluate.npz"))
