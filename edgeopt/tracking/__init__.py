"""A finished run on an MLflow server: parameters, metrics with their intervals, tags, and every file of its folder.

Tracking comes last and changes nothing: the folder of a run is complete before the server hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeopt.record import RunRecord
from edgeopt.tracking.entry import entry_of
from edgeopt.tracking.server import Server, parse

__all__ = ["Server", "parse", "send"]


def send(server: Server, record: RunRecord, folder: Path, files: Sequence[Path]) -> str:
    """Send a run; one that the server has already only gets its files again.

    Args:
        server: Where to.
        record: Of the run.
        folder: Of the run.
        files: In the folder, to be sent as artefacts.

    Returns:
        Where the run can be seen.

    Raises:
        TrackingError: The server cannot be reached, or does not take the run.
    """
    return server.send(entry_of(record), folder, files)
