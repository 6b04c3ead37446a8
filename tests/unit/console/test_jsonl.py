from __future__ import annotations

import json

import pytest

from edgeopt.console import jsonl_sink
from edgeopt.errors import StoreError
from edgeopt.events import NoteTaken, StepCached


def _read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_event_is_in_the_file_as_soon_as_it_happened(tmp_path):
    path = tmp_path / "events.jsonl"
    with jsonl_sink(path) as sink:
        sink(StepCached(time=1.5, step="load"))
        assert _read(path) == [{"event": "step_cached", "time": 1.5, "step": "load"}]


def test_events_are_appended(tmp_path):
    path = tmp_path / "events.jsonl"
    for step in ("a", "b"):
        with jsonl_sink(path) as sink:
            sink(StepCached(time=0, step=step))
    assert [event["step"] for event in _read(path)] == ["a", "b"]


def test_any_text_survives(tmp_path):
    path = tmp_path / "events.jsonl"
    note = "two\nlines, 数, \x07 and an undecodable file name \udcff"
    with jsonl_sink(path) as sink:
        sink(NoteTaken(time=0, step="a", note=note))
    assert [event["note"] for event in _read(path)] == [note]


def test_a_file_that_cannot_be_opened_is_an_error_with_a_place(tmp_path):
    with pytest.raises(StoreError, match="cannot write the event log") as caught, jsonl_sink(tmp_path):
        pass
    assert caught.value.where == str(tmp_path)
    assert caught.value.fix


def test_a_full_disk_is_an_error_with_a_place():
    from pathlib import Path

    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with jsonl_sink(full) as sink, pytest.raises(StoreError, match="No space left"):
        sink(StepCached(time=0, step="a"))
