"""Does the Q/DQ linter say what the parser and the builder of TensorRT-RTX say, on random Q/DQ graphs?"""

from __future__ import annotations

import time
from collections import Counter

from benchmarks.frame import Claim, Options, Result, Row, main
from benchmarks.qdq_graphs import TensorRtRtx, draw
from edgeopt.qdq import lint, refused, repair
from edgeopt.qdq.rules import RULES


def qdq_linter(options: Options) -> Result:
    """Every graph is imported and, if that succeeds, built; so is the mended copy of every refused one."""
    tensorrt = TensorRtRtx()
    graphs = 200 if options.quick else 1200
    named: Counter[str] = Counter()
    alike = at_the_same_time = taken = mendable = mended = 0
    lint_s = 0.0
    for seed in range(graphs):
        model = draw(seed)
        start = time.perf_counter()
        findings = refused(lint(model))
        lint_s += time.perf_counter() - start
        answer = tensorrt.ask(model.SerializeToString())
        named.update({finding.rule for finding in findings})
        taken += answer.accepted
        alike += answer.accepted is not bool(findings)
        at_import = any(finding.stage == "import" for finding in findings)
        at_the_same_time += answer.imported is not at_import
        if findings and not refused((repaired := repair(model)).left):
            mendable += 1
            mended += tensorrt.ask(repaired.model.SerializeToString()).accepted
    rows: list[Row] = [
        {"rule": rule.id, "refused when": rule.stage, "graphs": named[rule.id]} for rule in RULES if named[rule.id]
    ]
    rows.append({"rule": "(accepted)", "graphs": taken})
    claims = [
        Claim(f"share of {graphs} random graphs with the verdict of TensorRT-RTX", alike / graphs, 1.0, "at least"),
        Claim(
            "share of them refused when the rules say, on import or later", at_the_same_time / graphs, 1.0, "at least"
        ),
        Claim(
            "graphs that are refused, so that the agreement shows something", float(graphs - taken), 50.0, "at least"
        ),
        Claim("graphs that are accepted", float(taken), 50.0, "at least"),
        Claim(f"share of {mendable} mended graphs that are accepted", mended / max(mendable, 1), 1.0, "at least"),
        Claim("milliseconds to lint one graph", 1e3 * lint_s / graphs, 50.0),
    ]
    return Result(claims, rows)


if __name__ == "__main__":
    main("qdq_linter", __doc__ or "", qdq_linter)
