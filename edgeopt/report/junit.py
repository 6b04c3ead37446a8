"""The verdicts as JUnit XML: one test case per gate and one per invalid waiver, and only a pass looks green."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from edgeopt.report import wording
from edgeopt.report.wording import clean

if TYPE_CHECKING:
    from edgeopt.record import RunRecord, TargetRecord, VerdictRecord


def render(record: RunRecord, samples: Mapping[str, Mapping[str, npt.NDArray[np.int64]]]) -> str:
    """One suite per target. A gate that fails is a ``failure``; one that could not be decided is an ``error``.

    JUnit knows no third state, and most viewers do not let "skipped" stop anything, so inconclusive and not measured
    are errors of that type. A waived gate stops nothing either, and is ``skipped`` with the waiver as its message. A
    target that could not be served has one more case, which is an error; so has a waiver that is expired or unused,
    which is a failure.

    Args:
        record: The run.
        samples: Not used; every renderer takes the same arguments.
    """
    root = ElementTree.Element("testsuites", name=clean(record.recipe.name), time=f"{record.seconds:.3f}")
    for name, target in record.targets.items():
        root.append(_suite(record, name, target))
    for waiver in record.waivers:
        if waiver.status in wording.INVALID_WAIVERS:
            suite = ElementTree.SubElement(root, "testsuite", name=clean(f"{record.recipe.name} waivers"))
            name = clean(f"{waiver.gate} on {waiver.target}")
            case = ElementTree.SubElement(
                suite, "testcase", classname=clean(f"{record.recipe.name}.waivers"), name=name
            )
            _complain(case, "failure", waiver.status, wording.waiver_problem(waiver))
            _count(suite)
    if record.outcome != "pass" and not any(True for tag in ("failure", "error") for _ in root.iter(tag)):
        suite = ElementTree.SubElement(root, "testsuite", name=clean(record.recipe.name))
        case = ElementTree.SubElement(suite, "testcase", classname=clean(record.recipe.name), name="run")
        _complain(case, "error", record.outcome, wording.decision(record).sentence)
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(record: RunRecord, name: str, target: TargetRecord) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=clean(name), timestamp=clean(record.started))
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (("recipe", record.recipe.digest), ("shipped", target.shipped), ("reason", target.reason)):
        ElementTree.SubElement(properties, "property", name=key, value=clean(value))
    classname = clean(f"{record.recipe.name}.{name}")
    for gate in target.verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name=clean(gate.gate))
        details = _details(gate)
        if gate.outcome == "fail":
            _complain(case, "failure", gate.outcome, details)
        elif gate.outcome == "waived":
            _complain(case, "skipped", gate.outcome, details)
        elif gate.outcome != "pass":
            _complain(case, "error", gate.outcome, details)
        else:
            ElementTree.SubElement(case, "system-out").text = details
    if target.error:
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name="served")
        _complain(case, "error", "error", wording.one_line(target.error))
    _count(suite)
    return suite


def _details(gate: VerdictRecord) -> str:
    numbers = f"{wording.judged(gate)}, limit {wording.limit(gate)}"
    waived = f"; {wording.excuse(gate.waiver)}" if gate.waiver else ""
    return clean(f"{wording.VERDICT_WORDS[gate.outcome]}: {numbers}: {gate.why}{waived}")


def _complain(case: ElementTree.Element, tag: str, kind: str, message: str) -> None:
    ElementTree.SubElement(case, tag, type=kind, message=message).text = message


def _count(element: ElementTree.Element) -> None:
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(1 for _ in element.iter(tag))))
