from __future__ import annotations

import pytest

from edgeopt.agent import AgentError
from edgeopt.agent.trtexec import flags
from tests.fakes.trtexec import FLAGS as DOCUMENTED

VERSIONS = list(DOCUMENTED)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_agrees_with_the_documented_flags(version: flags.Version) -> None:
    names = {flag.name for flag in flags.FLAGS}
    ours = {name for name in names if flags.has(version, name)}
    if version < (10, 8, 0):
        assert ours <= DOCUMENTED[version]
    else:
        assert ours - {"--allowGPUFallback"} <= DOCUMENTED[version]  # it is used only with a DLA core


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_conditions_are_flags_of_the_version(version: flags.Version, graph: bool) -> None:
    pinned = flags.conditions(version, cuda_graph=graph)
    assert set(pinned) <= DOCUMENTED[version]
    if version < (11, 0, 0):
        assert {"--useSpinWait", "--noDataTransfers", "--separateProfileRun"} <= set(pinned)
        assert ("--useCudaGraph" in pinned) is graph
    else:
        assert pinned == ([] if graph else ["--noCudaGraph"])


def test_transfers_are_on_by_default_before_11_only() -> None:
    assert flags.transfers((10, 3, 0)) == []
    assert flags.transfers((11, 1, 0)) == ["--includeDataTransfers"]


@pytest.mark.parametrize(
    ("asked", "version", "dla", "typed"),
    [
        ("auto", (8, 6, 1), False, "weak"), ("auto", (10, 3, 0), False, "weak"), ("auto", (10, 12, 0), False, "strong"),
        ("auto", (11, 1, 0), False, "strong"), ("strong", (10, 3, 0), False, "strong"),
        ("weak", (10, 12, 0), False, "weak"),
        ("auto", (10, 3, 0), True, "weak"), ("auto", (8, 6, 1), True, "weak"), ("auto", (11, 4, 1), True, "strong"),
    ],
)  # fmt: skip
def test_typing(asked: str, version: flags.Version, dla: bool, typed: str) -> None:
    assert flags.typing(asked, version, dla=dla) == typed


@pytest.mark.parametrize(
    ("asked", "version", "dla", "why"),
    [
        ("strong", (8, 6, 1), False, "8.6.1 has no strongly typed networks"),
        ("weak", (11, 1, 0), False, "11.1.0 builds strongly typed networks only"),
        ("auto", (11, 1, 0), True, "11.1.0 supports no DLA core"),
        ("auto", (10, 12, 0), True, "10.12.0 supports no DLA core"),
    ],
)
def test_typing_that_a_version_does_not_have(asked: str, version: flags.Version, dla: bool, why: str) -> None:
    with pytest.raises(AgentError, match=why):
        flags.typing(asked, version, dla=dla)


def test_a_flag_of_another_version_never_reaches_the_tool() -> None:
    with pytest.raises(AgentError, match=r"trtexec 11\.1\.0 has no --fp16 \(weakly typed"):
        flags.checked((11, 1, 0), ["--onnx=a", "--fp16"])
    with pytest.raises(AgentError, match=r"trtexec 8\.4\.0 is too old"):
        flags.checked((8, 4, 0), ["--onnx=a"])
    assert flags.checked((10, 3, 0), ["--onnx=a b;c", "--fp16"]) == ["--onnx=a b;c", "--fp16"]


@pytest.mark.parametrize(
    ("number", "version"),
    [("8601", (8, 6, 1)), ("100300", (10, 3, 0)), ("101201", (10, 12, 1)), ("110401", (11, 4, 1)), ("8503", (8, 5, 3))],
)
def test_versions_of_banners(number: str, version: flags.Version) -> None:
    assert flags.parsed(number) == version


@pytest.mark.parametrize(
    ("release", "version"), [("10.3.0.30", (10, 3, 0)), ("11.4", (11, 4, 0)), ("8.6.1", (8, 6, 1))]
)
def test_versions_of_packages(release: str, version: flags.Version) -> None:
    assert flags.parsed_release(release) == version
