"""Percentiles of what was timed in several sessions, each of which opened the model anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeopt.statistics.estimate import Estimate, Floats, quantile, series
from edgeopt.statistics.quantiles import serial_percentile_interval
from edgeopt.statistics.ratios import session_ratio


def session_percentile_interval(sessions: Sequence[Floats], q: float, confidence: float = 0.95) -> Estimate:
    """The q-quantile over all sessions, with bounds that hold for further sessions too.

    The hull of two intervals. That of the whole series sees how the machine drifts within and across sessions.
    Student's t over the logarithms of the sessions' own quantiles sees that an opening is a few percent slower or
    faster for as long as it lasts, of which n sessions show only n, however many rounds they have; source: as
    ``session_ratio``.

    Args:
        sessions: (n,) positive each, in the order of time, one series per session.
        q: In (0, 1).
        confidence: In (0, 1).

    Returns:
        Both bounds are None below three sessions.
    """
    whole = serial_percentile_interval(np.concatenate([np.asarray(taken) for taken in sessions]), q, confidence)
    own = [math.log(quantile(series(taken, "sessions"), q)) for taken in sessions]
    bounds = zip(whole.interval, session_ratio(own, confidence).interval, (min, max), strict=True)
    low, high = (None if a is None or b is None else pick(a, b) for a, b, pick in bounds)
    return Estimate(whole.value, (low, high))
