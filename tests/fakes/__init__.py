"""Stand-ins of vendors' tools, for tests without a device: what they print and write is synthetic, as documented."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

TRTEXEC_VERSIONS = ((8, 6, 1), (10, 3, 0), (11, 1, 0))


def install(folder: Path, name: str, program: str) -> Path:
    """Writes an executable Python program ``name`` into ``folder``, to be put on the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{program}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def install_trtexec(folder: Path, version: tuple[int, int, int], **behaviour: Any) -> Path:
    """A synthetic ``trtexec`` of that version; ``behaviour`` overrides :data:`tests.fakes.trtexec.BEHAVIOUR`."""
    program = (
        f"import json, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.fakes import trtexec\n"
        f"trtexec.start({list(version)!r}, json.loads({json.dumps(behaviour)!r}))"
    )
    return install(folder, "trtexec", program)


def install_jetson(folder: Path, line: str, *, mode: str = "15W", gpu_mhz: tuple[int, int] = (306, 612)) -> None:
    """Synthetic ``tegrastats``, which says ``line`` twenty times a second, ``nvpmodel`` and ``jetson_clocks``."""
    install(folder, "tegrastats", f"import time\nwhile True:\n    print({line!r}, flush=True)\n    time.sleep(0.05)")
    install(folder, "nvpmodel", f"import sys\nassert sys.argv[1:] == ['-q']\nprint('NV Power Mode: {mode}\\n0')")
    low, high = (mhz * 1_000_000 for mhz in gpu_mhz)
    shown = f"SOC family:tegra234\nGPU MinFreq={low} MaxFreq={high} CurrentFreq={low}\nNV Power Mode: {mode}"
    install(folder, "jetson_clocks", f"import sys\nassert sys.argv[1:] == ['--show']\nprint({shown!r})")
