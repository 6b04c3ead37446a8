"""An agent on this machine, in a fresh process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import edgeopt
from edgeopt.access import archive
from edgeopt.access.client import Agent
from edgeopt.access.process import spawn
from edgeopt.agent import FOLDER_TO_REMOVE
from edgeopt.errors import StageError

#: what would lead another interpreter to this one's packages: https://docs.python.org/3/using/cmdline.html
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def start(
    *,
    python: str | None = None,
    env: Mapping[str, str] | None = None,
    limit_s: float = 600.0,
    cpus: Sequence[int] | None = None,
) -> Agent:
    """Starts an agent.

    It ends by itself as soon as the host is gone, however that ended, because its input then hangs up. What it wrote
    into its temporary folder goes with it.

    Args:
        python: Interpreter with numpy and a runtime, without edgeopt; None for the one that runs now. It sees its
            own packages only: neither PYTHONPATH nor the user's packages.
        env: Environment variables to add.
        limit_s: Time limit of each call.
        cpus: Numbers of the CPUs that it may run on; None leaves that to the system. A CPU that this process may not
            use is an error of the first call.

    Raises:
        StageError: The process cannot be started.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgeopt-agent-", ignore_cleanup_errors=True)
        if python is not None:
            (Path(folder.name) / "agent.pyz").write_bytes(archive.content())
    except OSError as error:
        what = f"cannot write temporary files on this machine: {error.strerror}"
        raise StageError(
            what, where=error.filename or "", fix="free some space, or name another place as TMPDIR"
        ) from error
    added = {"TMPDIR": folder.name, FOLDER_TO_REMOVE: folder.name, **(env or {})}
    if python is None:
        environment = {**os.environ, **added}
        command = [sys.executable, "-m", "edgeopt.agent"]
        home = str(Path(edgeopt.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH"))))
    else:
        command = [python, str(Path(folder.name) / "agent.pyz")]
        kept = {name: value for name, value in os.environ.items() if name not in _OF_THIS_PYTHON}
        environment = {**kept, "PYTHONNOUSERSITE": "1", **added}
    if cpus is not None:
        command.append(",".join(map(str, cpus)))
    name = f"local agent ({command[0]})"
    return Agent(spawn(command, name=name, env=environment, limit_s=limit_s, ended=folder.cleanup))
