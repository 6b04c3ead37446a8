"""What TensorFlow Lite for Microcontrollers means when it refuses a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgeopt.agent.tflite_file import Graph, Operator
from edgeopt.errors import StageError

#: ``Node CAST (number 3) failed to invoke with status 1``, or ``failed to prepare``.
_FAILED = re.compile(r"Node \w+ \(number (\d+)\) failed")
#: ``Failed to get registration from op code GELU``
_LACKED = re.compile(r"from op code (\w+)")


def culprits(said: str, graph: Graph) -> tuple[Operator, ...]:
    """The operator that fails, or all those of a kind that TFLM does not have; none if it does not say."""
    if failed := _FAILED.search(said):
        number = int(failed[1])
        return graph.operators[number : number + 1]
    lacked = set(_LACKED.findall(said))
    return tuple(operator for operator in graph.operators if operator.op in lacked)


def refusal(
    error: StageError, operators: Sequence[Operator], origin: Mapping[str, tuple[str, ...]], where: str
) -> StageError:
    """The error with the nodes of the source model that ``operators`` were made of.

    Args:
        error: What the agent said.
        operators: :func:`culprits` of it.
        origin: ONNX nodes by the name of an operator.
        where: The stage or the tool.
    """
    made = dict.fromkeys(
        f"{operator.op} at {', '.join(origin.get(operator.name, ())) or operator.name}" for operator in operators
    )
    what = f"{error.what}; it is {', '.join(made)}" if made else error.what
    return StageError(what, where=where, fix=error.fix or "write the layer with operators that TFLM has")
