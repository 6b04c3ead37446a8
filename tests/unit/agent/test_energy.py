from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.agent.energy import NoCounters, domains, measure_mj, used_uj

Plant = Callable[[Mapping[str, str]], Path]


POWERCAP = "sys/class/powercap"


def zone(number: str, name: str, energy_uj: int = 0, range_uj: int = 1_000_000) -> dict[str, str]:
    folder = f"{POWERCAP}/intel-rapl:{number}"
    return {
        f"{folder}/name": name,
        f"{folder}/energy_uj": str(energy_uj),
        f"{folder}/max_energy_range_uj": str(range_uj),
    }


class Burner:
    """Stands in for a model: a run adds to the counters, which start again at their range."""

    def __init__(self, root: Path, **joules: int) -> None:
        self.files = {root / POWERCAP / f"intel-rapl:{number}/energy_uj": uj for number, uj in joules.items()}

    def load(self, inputs: Any) -> None: ...

    def run(self) -> None:
        for file, uj in self.files.items():
            file.write_text(f"{(int(file.read_text()) + uj) % 1_000_000}\n")


def test_packages_and_memory_count_and_nothing_twice(plant: Plant) -> None:
    root = plant(
        {
            **zone("0", "package-0"),
            **zone("0:0", "core"),
            **zone("0:1", "uncore"),
            **zone("0:2", "dram"),
            **zone("1", "psys"),
            **zone("2", "package-1"),
        },
    )
    assert [domain.name for domain in domains(root)] == ["package-0", "dram", "package-1"]


def test_without_counters_the_reason_is_given(tmp_path: Path) -> None:
    with pytest.raises(NoCounters, match="no RAPL energy counters"):
        domains(tmp_path)


def test_without_permission_the_reason_is_given(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(zone("0", "package-0"))
    real = Path.read_text

    def guarded(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)
    with pytest.raises(NoCounters, match=r"may not read intel-rapl:0/energy_uj"):
        domains(root)


def test_a_damaged_counter_is_named(plant: Plant) -> None:
    with pytest.raises(NoCounters, match="cannot read intel-rapl:0"):
        domains(plant({**zone("0", "package-0"), f"{POWERCAP}/intel-rapl:0/energy_uj": "?"}))


def test_a_counter_that_starts_again() -> None:
    assert used_uj(100, 350, 1_000_000) == 250
    assert used_uj(999_900, 150, 1_000_000) == 250


def test_energy_per_inference_adds_the_domains_and_survives_the_wrap(plant: Plant) -> None:
    root = plant({**zone("0", "package-0", 999_000), **zone("0:2", "dram")})
    counters = domains(root)
    models: Any = {"large": Burner(root, **{"0": 3000, "0:2": 1000}), "small": Burner(root, **{"0": 500})}
    found = measure_mj(models, [[np.zeros(1)]], counters, windows=3, window_seconds=0.0, seed=0)
    assert {name: series.tolist() for name, series in found.items()} == {"large": [4.0] * 3, "small": [0.5] * 3}


def test_a_counter_that_stands_still_is_an_error(plant: Plant) -> None:
    root = plant(zone("0", "package-0"))
    models: Any = {"idle": Burner(root)}
    with pytest.raises(NoCounters, match="did not move"):
        measure_mj(models, [[np.zeros(1)]], domains(root), windows=1, window_seconds=0.0, seed=0)
