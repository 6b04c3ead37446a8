from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt import noise


def test_the_floor_is_the_median_of_the_latest_runs(tmp_path: Path) -> None:
    assert noise.read(tmp_path, "m", "p").typical is None
    for spread in (0.01, 0.03, 0.02):
        assert noise.read(tmp_path, "m", "p").typical is None
        noise.read(tmp_path, "m", "p").remember(spread)
    assert noise.read(tmp_path, "m", "p").typical == 0.02
    for _ in range(60):
        noise.read(tmp_path, "m", "p").remember(0.05)
    assert noise.read(tmp_path, "m", "p").spreads == (0.05,) * 50
    assert len(list(tmp_path.iterdir())) == 1


def test_each_machine_and_protocol_has_its_own(tmp_path: Path) -> None:
    noise.read(tmp_path, "m", "p").remember(0.01)
    assert noise.read(tmp_path, "m", "q").spreads == noise.read(tmp_path, "n", "p").spreads == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"spreads": 3}', '{"spreads": ["x"]}', '{"spreads": [null]}'])
def test_a_damaged_file_is_no_floor(tmp_path: Path, content: str) -> None:
    floor = noise.read(tmp_path, "m", "p")
    floor.file.write_text(content)
    assert noise.read(tmp_path, "m", "p") == floor
    floor.remember(0.01)
    assert noise.read(tmp_path, "m", "p").spreads == (0.01,)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    noise.read(tmp_path / "file" / "below", "m", "p").remember(0.01)
    assert noise.read(tmp_path / "file" / "below", "m", "p").spreads == ()


@pytest.mark.parametrize("bad", ["Infinity", "-Infinity", "NaN", "-0.01", "0.1", "1e308", "1" + "0" * 400])
def test_a_number_that_no_run_remembers_is_damage(tmp_path: Path, bad: str) -> None:
    """Else three of them would call any difference the same."""
    floor = noise.read(tmp_path, "m", "p")
    floor.file.write_text(f'{{"spreads": [0.01, {bad}, 0.01, 0.01]}}')
    assert noise.read(tmp_path, "m", "p") == floor
    assert floor.typical is None


@pytest.mark.parametrize("spread", [0.1, 0.25, -0.01, float("inf"), float("nan")])
def test_what_is_no_floor_is_not_remembered(tmp_path: Path, spread: float) -> None:
    noise.read(tmp_path, "m", "p").remember(0.02)
    noise.read(tmp_path, "m", "p").remember(spread)
    assert noise.read(tmp_path, "m", "p").spreads == (0.02,)
