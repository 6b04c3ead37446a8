"""The committed locks."""

from __future__ import annotations

import re

import pytest

from edgeopt import tools


@pytest.mark.parametrize("name", tools.names())
def test_every_requirement_has_one_version_and_hashes(name: str) -> None:
    lines = [line for line in tools.lock_file(name).read_text().splitlines() if not line.startswith("#")]
    assert lines
    pattern = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+( --hash=sha256:[0-9a-f]{64})+")
    assert [line for line in lines if not pattern.fullmatch(line)] == []
    assert len(tools.versions(name)) == len(lines)


@pytest.mark.parametrize("name", tools.names())
def test_the_lock_holds_what_the_declaration_says(name: str) -> None:
    tool, versions = tools.find(name), tools.versions(name)
    assert tool.toolkit in versions
    assert "numpy" in versions  # the agent runs there
    for want in (*tool.wants, *tool.alone):
        distribution, _, version = want.partition("==")
        if version:
            assert versions[distribution].partition("+")[0] == version


@pytest.mark.parametrize("name", tools.names())
def test_no_lock_brings_cuda(name: str) -> None:
    assert [found for found in tools.versions(name) if found.startswith(("nvidia", "triton", "cuda"))] == []


@pytest.mark.parametrize("name", tools.names())
def test_a_lock_names_no_package_index(name: str) -> None:
    assert "://" not in tools.lock_file(name).read_text()
