"""Reports: pure functions from the record of a run to text. Writing the files is the caller's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgeopt.compare import Comparison
    from edgeopt.record import RunRecord


def render_all(
    record: RunRecord,
    samples: Mapping[str, Mapping[str, npt.NDArray[np.int64]]],
    comparison: Comparison | None = None,
) -> dict[str, str]:
    """Every report of a run.

    Args:
        record: The run.
        samples: Target -> candidate id -> raw latencies, (n,) int64 ns. What is missing is left out of the charts.
        comparison: With the previous release.

    Returns:
        File name -> text, to be written as UTF-8.
    """
    from edgeopt.report import html, junit, markdown  # not needed by those who only want the wording

    return {
        "report.md": markdown.render(record, samples, comparison),
        "report.html": html.render(record, samples, comparison),
        "junit.xml": junit.render(record, samples),
    }
