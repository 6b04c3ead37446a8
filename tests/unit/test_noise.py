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
        noise.read(tmp_path, "m", "p").remember(0.5)
    assert noise.read(tmp_path, "m", "p").spreads == (0.5,) * 50
    assert len(list(tmp_path.iterdir())) == 1


def test_each_machine_and_protocol_has_its_own(tmp_path: Path) -> None:
    noise.read(tmp_path, "m", "p").remember(0.1)
    assert noise.read(tmp_path, "m", "q").spreads == noise.read(tmp_path, "n", "p").spreads == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"spreads": 3}', '{"spreads": ["x"]}', '{"spreads": [null]}'])
def test_a_damaged_file_is_no_floor(tmp_path: Path, content: str) -> None:
    floor = noise.read(tmp_path, "m", "p")
    floor.file.write_text(content)
    assert noise.read(tmp_path, "m", "p") == floor
    floor.remember(0.1)
    assert noise.read(tmp_path, "m", "p").spreads == (0.1,)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    noise.read(tmp_path / "file" / "below", "m", "p").remember(0.1)
    assert noise.read(tmp_path / "file" / "below", "m", "p").spreads == ()
