"""A target file from what a device says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeopt import config
from edgeopt.access import Facts, Machine
from edgeopt.draft import draft
from edgeopt.errors import StageError
from edgeopt.target import Access, Target

BOARD = Machine(cpu="Cortex-A78", flags=("asimddp",), cores=4, memory_mib=4096, system="Linux 6 aarch64")
ORIN = replace(BOARD, cpu="Jetson", gpu="Orin (sm_87)", power_mode="15W", rails=("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"))


def drafted(tmp_path: Path, machine: Machine, runtimes: dict[str, str], **access: Any) -> Target:
    text = draft("box", Access(**access), Facts("2", "3.11", 1, machine, runtimes, {}))
    file = tmp_path / "box.yaml"
    file.write_text(text)
    return config.load(file, Target)


def test_a_cpu_lets_its_runtimes_compete(tmp_path: Path) -> None:
    runtimes = {"litert": "2.3.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1-1-a", "qnn": "2.7.0"}
    x86 = replace(BOARD, system="Linux 6 x86_64", flags=("avx2", "avx512_vnni"))
    target = drafted(tmp_path, x86, runtimes)
    assert target.runtime == ("openvino", "onnxruntime", "litert")
    assert (target.device.kind, str(target.device.access), target.device.features) == ("cpu", "local", ("vnni",))


def test_a_cpu_without_vnni_gets_no_feature(tmp_path: Path) -> None:
    assert drafted(tmp_path, BOARD, {"onnxruntime": "1"}, ssh="pi@board").device.features == ()


def test_a_jetson_gets_tensorrt_its_mode_and_its_rails(tmp_path: Path) -> None:
    target = drafted(
        tmp_path, ORIN, {"onnxruntime": "1", "tensorrt": "10.3.0"}, ssh="lab-orin", python="/opt/py/bin/python3"
    )
    assert target.runtime == ("tensorrt",)
    device = target.device
    assert (device.kind, device.arch, device.power_mode, device.rails) == ("gpu", "sm_87", "15W", ("VDD_IN",))
    assert (device.access.ssh, device.access.python) == ("lab-orin", "/opt/py/bin/python3")


def test_rails_that_a_person_has_to_choose_are_all_listed(tmp_path: Path) -> None:
    agx = replace(ORIN, rails=("VDD_GPU_SOC", "VIN_SYS_5V0"))
    assert drafted(tmp_path, agx, {"tensorrt": "10"}, ssh="a").device.rails == ("VDD_GPU_SOC", "VIN_SYS_5V0")
    assert "CHECK" in (tmp_path / "box.yaml").read_text()


def test_the_htp_is_taken_where_it_is_and_not_where_its_simulator_is(tmp_path: Path) -> None:
    runtimes = {"onnxruntime": "1.31.1", "qnn": "2.7.0"}
    assert drafted(tmp_path, BOARD, runtimes, ssh="rb5").runtime == ("qnn",)
    assert drafted(tmp_path, replace(BOARD, system="Linux 6 x86_64"), runtimes).runtime == ("onnxruntime",)


def test_text_of_the_device_cannot_add_to_the_file(tmp_path: Path) -> None:
    strange = replace(BOARD, cpu='x"\nprecision: [fp16]\n#', power_mode="15W\nname: other")
    target = drafted(tmp_path, strange, {"onnxruntime": "1"}, ssh="a")
    assert (target.name, target.precision) == ("box", ("int8",))


@pytest.mark.parametrize("line_break", ["\n", "\r", "\x0b", "\x85", "\u2028", "\u2029", '"\n'])
def test_no_text_of_the_device_begins_a_line_of_its_own(tmp_path: Path, line_break: str) -> None:
    evil = f"1{line_break}gates: {{latency: {{max: 9}}}}{line_break}accept: [estimated]{line_break}#"
    strange = replace(
        ORIN, cpu=evil, gpu=f"Orin (sm_87){evil}", power_mode=evil, system=evil, rails=(evil, "VDD_GPU", "a, b")
    )
    target = drafted(tmp_path, strange, {"tensorrt": evil, evil: "1"}, ssh="a")
    assert "2 more power rails" in (tmp_path / "box.yaml").read_text()
    plain = drafted(tmp_path, ORIN, {"tensorrt": "1"}, ssh="a")
    assert (target.gates, target.accept, target.runtime) == (plain.gates, plain.accept, ("tensorrt",))
    assert target.device.rails == ("VDD_GPU",)
    assert target.device.power_mode


def test_a_device_without_a_runtime_is_refused() -> None:
    facts = Facts("2", "3.11", 1, BOARD, {}, {"onnxruntime": "No module named 'onnxruntime'"})
    with pytest.raises(StageError, match="no runtime that edgeopt can time"):
        draft("box", Access(ssh="a"), facts)
