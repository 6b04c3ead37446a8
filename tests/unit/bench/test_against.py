"""What an earlier run offers to a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.bench import against
from edgeopt.errors import ConfigError
from tests import made_up_run


def written(folder: Path, **protocol: Any) -> tuple[str, str]:
    """A run whose first target has 30 rounds in two sessions; the names of the target and of what it ships."""
    record = made_up_run.record()
    name, entry = next((n, t) for n, t in record.targets.items() if t.shipped)
    changed = replace(entry, protocol={**entry.protocol, "sessions": [10, 20], **protocol})
    (folder / "samples").mkdir()
    (folder / "run.json").write_text(replace(record, targets={**record.targets, name: changed}).to_json())
    np.save(folder / "samples" / f"{name}.{entry.shipped}.npy", np.arange(1, 31, dtype=np.int64))
    return name, entry.shipped


def test_a_run_offers_what_ships_session_by_session(tmp_path: Path) -> None:
    target, shipped = written(tmp_path)
    found = against.read(tmp_path, target)
    stored = found.of("anything.onnx")
    assert stored.name == shipped
    assert [list(s) for s in stored.sessions_ns] == [list(range(1, 11)), list(range(11, 31))]


def test_a_run_tells_its_machine_and_what_disturbed_it(tmp_path: Path) -> None:
    target, _ = written(tmp_path)
    entry = made_up_run.record().targets[target]
    found = against.read(tmp_path, target)
    assert dict(found.machine) == dict(entry.machine) != {}
    assert found.disturbed == tuple(entry.disturbed)


def test_a_run_without_the_target_or_its_samples(tmp_path: Path) -> None:
    target, shipped = written(tmp_path)
    with pytest.raises(ConfigError, match="serves no target 'absent'"):
        against.read(tmp_path, "absent")
    (tmp_path / "samples" / f"{target}.{shipped}.npy").unlink()
    with pytest.raises(ConfigError, match=r"samples of .* are missing"):
        against.read(tmp_path, target)


@pytest.mark.parametrize("lengths", [[], [10], [10, 21]])
def test_samples_without_their_sessions(tmp_path: Path, lengths: list[int]) -> None:
    target, _ = written(tmp_path, sessions=lengths)
    with pytest.raises(ConfigError, match=r"do not belong to the sessions|the record tells of"):
        against.read(tmp_path, target)


def test_one_of_several_needs_its_name() -> None:
    one, two = (against.Stored(name, ()) for name in "ab")
    reference = against.Reference("there", {}, {"a": one, "b": two})
    assert reference.of("b") == two
    with pytest.raises(ConfigError, match="c was not measured there; there are: a, b"):
        reference.of("c")
