"""Point values with confidence intervals, each from a published method; pure functions of numbers.

All confidence intervals are two-sided and lose the same probability at either end. A bound that the data cannot
support is None: it is never made up. No outlier is dropped, and nothing is smoothed.
"""

from __future__ import annotations

from edgeopt.statistics.estimate import Estimate, Interval
from edgeopt.statistics.openings import session_percentile_interval
from edgeopt.statistics.proportions import (
    mcnemar_exact,
    paired_proportion_difference,
    proportion_interval,
    smallest_proportion,
    trials_needed,
    wilson_interval,
)
from edgeopt.statistics.quantiles import (
    effective_count,
    percentile_interval,
    samples_needed,
)
from edgeopt.statistics.ratios import (
    FEWEST_SESSIONS,
    independent_difference,
    independent_ratio,
    independent_session_ratio,
    paired_log_ratio,
    quantile_log_ratio,
    ratio_interval,
    session_ratio,
)
from edgeopt.statistics.resampling import bootstrap_interval, paired_bootstrap_interval

__all__ = [
    "FEWEST_SESSIONS",
    "Estimate",
    "Interval",
    "bootstrap_interval",
    "effective_count",
    "independent_difference",
    "independent_ratio",
    "independent_session_ratio",
    "mcnemar_exact",
    "paired_bootstrap_interval",
    "paired_log_ratio",
    "paired_proportion_difference",
    "percentile_interval",
    "proportion_interval",
    "quantile_log_ratio",
    "ratio_interval",
    "samples_needed",
    "session_percentile_interval",
    "session_ratio",
    "smallest_proportion",
    "trials_needed",
    "wilson_interval",
]
