"""A Jetson's tools. Every line and every tool is synthetic, in the documented formats."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.agent import AgentError, condition, energy, jetson
from edgeopt.agent.condition import Condition
from tests import fakes

ORIN_NANO = (
    "11-14-2024 12:34:56 RAM 3162/7620MB (lfb 6x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,0%@729,off,off,3%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 20%@[612] NVDEC off APE 174 cpu@47.968C soc2@46.906C cv0@-256C gpu@46.343C tj@47.968C "
    "VDD_IN 5263mW/5200mW VDD_CPU_GPU_CV 717mW/717mW VDD_SOC 1443mW/1400mW"
)
AGX_ORIN = (
    "RAM 4722/30697MB (lfb 5880x4MB) SWAP 0/15348MB (cached 0MB) CPU [0%@1190,off] GR3D_FREQ 50%@[611,0] CPU@49.6C "
    "Tboard@38C GPU@-256C VDD_GPU_SOC 3175mW/3175mW VDD_CPU_CV 794mW/794mW VIN_SYS_5V0 4239mW/4239mW"
)
THOR = "RAM 9000/125772MB GR3D_FREQ 0% tj@55.1C VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 6510mW/9mW VIN 23000mW/9mW"
XAVIER_JETPACK_4 = (
    "RAM 3347/7467MB (lfb 896x4MB) SWAP 0/3733MB (cached 0MB) CPU [21%@1190] GR3D_FREQ 61%@76 APE 150 "
    "MTS fg 0% bg 0% GPU@49.2C PMIC@50.0C VDD_IN 5336/4970 VDD_CPU_GPU_CV 2617/2336 VDD_SOC 1478/1318"
)
THOR_JETPACK_7 = (
    "RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 GR3D_FREQ @[1574,1574,1574] "
    "cpu@49.75C/50.1C gpu@51.218C/51.3C VDD_GPU 6330mW/6331mW/6332mW VIN 28906mW/14453mW/28907mW"
)
WITHOUT_AVERAGE = (
    "RAM 2840/7620MB (lfb 512x4MB) GR3D_FREQ 76% GPU@40C VDD_IN 5765mW VDD_CPU_GPU_CV 1548mW VDD_SOC 1497mW"
)


@pytest.mark.parametrize(
    ("line", "memory", "mhz", "load", "rails"),
    [
        (ORIN_NANO, (3162, 7620), 612, 0.2, {"VDD_IN": 5263, "VDD_CPU_GPU_CV": 717, "VDD_SOC": 1443}),
        (AGX_ORIN, (4722, 30697), 611, 0.5, {"VDD_GPU_SOC": 3175, "VDD_CPU_CV": 794, "VIN_SYS_5V0": 4239}),
        (THOR, (9000, 125772), None, 0.0, {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 6510, "VIN": 23000}),
        (THOR_JETPACK_7, (3429, 125749), 1574, None, {"VDD_GPU": 6330, "VIN": 28906}),
        (XAVIER_JETPACK_4, (3347, 7467), 76, 0.61, {"VDD_IN": 5336, "VDD_CPU_GPU_CV": 2617, "VDD_SOC": 1478}),
        (WITHOUT_AVERAGE, (2840, 7620), None, 0.76, {"VDD_IN": 5765, "VDD_CPU_GPU_CV": 1548, "VDD_SOC": 1497}),
    ],
)
def test_lines_of_several_boards(line, memory, mhz, load, rails) -> None:
    found = jetson.parse(line)
    assert (found.memory_used_mib, found.memory_mib) == memory
    assert (found.gpu_mhz, found.gpu_load) == (mhz, load)
    assert found.rails_mw == rails  # the instantaneous value, not the average


def test_temperatures_leave_out_what_is_switched_off() -> None:
    assert jetson.parse(ORIN_NANO).temperatures_c == {"cpu": 47.968, "soc2": 46.906, "gpu": 46.343, "tj": 47.968}
    assert jetson.parse(AGX_ORIN).temperatures_c == {"CPU": 49.6, "Tboard": 38.0}
    assert jetson.parse(THOR_JETPACK_7).temperatures_c == {"cpu": 49.75, "gpu": 51.218}  # now, not the highest


@given(st.text(max_size=80))
def test_any_line_is_read_without_an_error(line: str) -> None:
    jetson.parse(line)


@given(st.dictionaries(st.from_regex(r"V[A-Z0-9_]{2,12}", fullmatch=True), st.integers(-500, 99999), max_size=5))
def test_rails_read_back(rails: dict[str, int]) -> None:
    line = "RAM 1/2MB " + " ".join(f"{name} {mw}mW/{mw + 7}mW" for name, mw in rails.items())
    assert jetson.parse(line).rails_mw == rails


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The PATH is that of a board, with synthetic tools."""
    folder = tmp_path / "bin"
    fakes.install_jetson(folder, ORIN_NANO)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_board_is_asked(board: Path) -> None:
    found = jetson.read()
    assert found is not None
    assert found.memory_used_mib == 3162
    assert jetson.power_mode() == "15W"
    assert jetson.clocks_locked() is False
    fakes.install_jetson(board, ORIN_NANO, mode="MAXN", gpu_mhz=(612, 612))
    assert jetson.power_mode() == "MAXN"
    assert jetson.clocks_locked() is True


def test_no_board_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jetson.read() is None
    assert jetson.power_mode() == ""
    assert jetson.clocks_locked(tmp_path) is None
    assert jetson.meter(["VDD_IN"]) is None


def test_without_root_the_kernel_tells_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(tmp_path / "bin", "jetson_clocks", "raise SystemExit('Error: Run this script as a root user')")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    folder = tmp_path / "sys/class/devfreq/17000000.gpu"
    folder.mkdir(parents=True)
    (folder / "min_freq").write_text("306000000\n")
    (folder / "max_freq").write_text("612000000\n")
    assert jetson.clocks_locked(tmp_path) is False
    (folder / "min_freq").write_text("612000000\n")
    assert jetson.clocks_locked(tmp_path) is True


def test_power_adds_up_to_energy(board: Path) -> None:
    with energy.counters(["VDD_IN", "VDD_SOC"]) as (counters, least_seconds):
        (meter,) = counters
        assert least_seconds == 1.0
        before, begin = meter.read_uj(), time.perf_counter()
        time.sleep(0.4)
        after, seconds = meter.read_uj(), time.perf_counter() - begin
    assert meter.name == "VDD_IN + VDD_SOC"
    assert (after - before) / 1e3 == pytest.approx((5263 + 1443) * seconds, rel=0.05)  # mW s = mJ


@pytest.mark.parametrize(
    ("rails", "why"),
    [([], "names no power rails.*VDD_IN, VDD_CPU_GPU_CV, VDD_SOC"), (["VDD_OUT"], "no power rail VDD_OUT.*VDD_IN")],
)
def test_rails_that_the_board_does_not_have(board: Path, rails: list[str], why: str) -> None:
    with pytest.raises(energy.NoCounters, match=why), energy.counters(rails):
        pass


def test_a_tool_that_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(tmp_path / "bin", "tegrastats", "print('RAM 1/2MB VDD_IN 1mW/1mW', flush=True)")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with jetson.Meter(str(tmp_path / "bin/tegrastats"), ["VDD_IN"]) as meter:
        time.sleep(0.3)
        with pytest.raises(AgentError, match="tegrastats ended"):
            meter.read_uj()


@pytest.mark.parametrize("resumes", [False, True])
def test_a_tool_that_falls_silent_is_told(resumes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last reading does not stand for ever, and what was used in the gap stays unknown."""
    monkeypatch.setattr(jetson, "_SILENCE_S", 0.5)
    say = "print('RAM 1/2MB VDD_IN 1mW/1mW', flush=True)"
    tool = fakes.install(
        tmp_path / "bin", "tegrastats", f"import time\n{say}\ntime.sleep({1 if resumes else 60})\n{say}\ntime.sleep(60)"
    )
    with jetson.Meter(str(tool), ["VDD_IN"]) as meter:
        meter.read_uj()
        time.sleep(1.5)
        with pytest.raises(AgentError, match=r"tegrastats said nothing for \d\.\d s"):
            meter.read_uj()


def test_the_condition_of_a_board(board: Path) -> None:
    found = condition.read()
    assert (found.power_mode, found.clocks_locked, found.gpu_mhz, found.memory_used_mib) == ("15W", False, 612, 3162)
    assert found.temperatures_c is not None
    assert found.temperatures_c["gpu"] == 46.343


LOCKED = Condition(at_s=0.0, power_mode="15W", clocks_locked=True, gpu_mhz=612, over_current_events=3)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (Condition(1.0, power_mode="7W", clocks_locked=True, gpu_mhz=612), ["power mode changed from 15W to 7W"]),
        (Condition(1.0, power_mode="15W", clocks_locked=True, gpu_mhz=408), ["GPU went from 612 to 408 MHz"]),
        (Condition(1.0, power_mode="15W", clocks_locked=False, gpu_mhz=408), ["GPU's clock was released"]),
        (
            Condition(1.0, power_mode="15W", clocks_locked=True, gpu_mhz=600, over_current_events=5),
            ["slowed down 2 times"],
        ),
        (Condition(1.0, power_mode="15W", clocks_locked=True, gpu_mhz=612, over_current_events=3), []),
    ],
)
def test_what_disturbs_a_board(after: Condition, said: list[str]) -> None:
    found = condition.disturbances(LOCKED, after)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_a_gpu_whose_clock_is_free_may_idle() -> None:
    free = Condition(0.0, power_mode="15W", clocks_locked=False, gpu_mhz=612)
    assert condition.disturbances(free, Condition(1.0, power_mode="15W", clocks_locked=False, gpu_mhz=306)) == []
