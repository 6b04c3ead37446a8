"""Tool environments small enough for tests: wheels of a few bytes in a folder that pip is told to look in."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path


class Shelf:
    """A folder of wheels and one of locks.

    Attributes:
        wheels: pip finds wheels here and nowhere else, with :attr:`environment`.
        locks: For ``edgeopt.tools.LOCKS``.
        environment: Variables for pip and edgeopt.
    """

    def __init__(self, folder: Path) -> None:
        self.wheels, self.locks, self.root = folder / "wheels", folder / "locks", folder / "tools"
        self.wheels.mkdir()
        self.locks.mkdir()
        self.environment = {
            "EDGEOPT_TOOLS": str(self.root),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_CACHE_DIR": "1",
        }

    def wheel(self, name: str, version: str = "1.0", *, code: str = "", requires: str = "", blob: int = 0) -> str:
        """Puts a wheel on the shelf; its requirement as a lock has it."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files = {
            f"{name}/__init__.py": f"{code}\n",
            f"{name}/blob.bin": "\0" * blob,
            f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
        place = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in {**files, f"{info}/RECORD": record}.items():
                archive.writestr(path, text)
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(place.read_bytes()).hexdigest()}"

    def tool(
        self,
        name: str,
        pins: Sequence[str],
        *,
        imports: str = "tiny",
        python: str = "",
        size_mib: float = 1,
        tolerates: Sequence[str] = (),
    ) -> None:
        """Declares and locks an environment."""
        import sys

        python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        values = {
            "toolkit": imports,
            "what": "a test",
            "licence": "none",
            "python": python,
            "imports": [imports],
            "size_mib": size_mib,
            "tolerates": list(tolerates),
        }
        declared = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        (self.locks / f"{name}.toml").write_text(declared)
        (self.locks / f"{name}.txt").write_text("# a lock\n" + "".join(f"{pin}\n" for pin in pins))
