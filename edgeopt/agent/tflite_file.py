"""Reads what is in a ``.tflite`` file without any package: operators, tensors, and where the constants lie.

The format is a FlatBuffer (https://flatbuffers.dev/internals/) of the schema
``tensorflow/compiler/mlir/lite/schema/schema.fbs``, whose field numbers and codes are used here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from . import AgentError

IDENTIFIER = b"TFL3"

#: ``TensorType`` of the schema -> numpy's name, and the short name of a layer map.
_TYPES = {
    0: ("float32", "f32"),
    1: ("float16", "f16"),
    2: ("int32", "i32"),
    3: ("uint8", "u8"),
    4: ("int64", "i64"),
    6: ("bool", "bool"),
    7: ("int16", "i16"),
    9: ("int8", "i8"),
    10: ("float64", "f64"),
    12: ("uint64", "u64"),
    15: ("uint32", "u32"),
    16: ("uint16", "u16"),
    17: ("int4", "i4"),
}
_BYTES = {"f64": 8, "i64": 8, "u64": 8, "f16": 2, "i16": 2, "u16": 2, "i8": 1, "u8": 1, "bool": 1, "i4": 1}
#: ``BuiltinOperator`` of the schema, as far as networks use it; others are shown by their number.
OPERATORS = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE", 7: "EMBEDDING_LOOKUP", 8: "FLOOR", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION",
    12: "L2_POOL_2D", 13: "LOCAL_RESPONSE_NORMALIZATION", 14: "LOGISTIC", 16: "LSTM", 17: "MAX_POOL_2D", 18: "MUL",
    19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 25: "SOFTMAX",
    26: "SPACE_TO_DEPTH", 28: "TANH", 32: "CUSTOM", 34: "PAD", 36: "GATHER", 37: "BATCH_TO_SPACE_ND",
    38: "SPACE_TO_BATCH_ND", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 45: "STRIDED_SLICE", 47: "EXP", 48: "TOPK_V2", 49: "SPLIT", 50: "LOG_SOFTMAX",
    51: "DELEGATE", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 56: "ARG_MAX", 57: "MINIMUM", 58: "LESS", 59: "NEG",
    60: "PADV2", 61: "GREATER", 62: "GREATER_EQUAL", 63: "LESS_EQUAL", 64: "SELECT", 65: "SLICE", 66: "SIN",
    67: "TRANSPOSE_CONV", 69: "TILE", 70: "EXPAND_DIMS", 71: "EQUAL", 72: "NOT_EQUAL", 73: "LOG", 74: "SUM",
    75: "SQRT", 76: "RSQRT", 77: "SHAPE", 78: "POW", 79: "ARG_MIN", 81: "REDUCE_PROD", 82: "REDUCE_MAX", 83: "PACK",
    84: "LOGICAL_OR", 86: "LOGICAL_AND", 87: "LOGICAL_NOT", 88: "UNPACK", 89: "REDUCE_MIN", 90: "FLOOR_DIV",
    91: "REDUCE_ANY", 92: "SQUARE", 93: "ZEROS_LIKE", 94: "FILL", 95: "FLOOR_MOD", 96: "RANGE",
    97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE", 100: "MIRROR_PAD", 101: "ABS",
    102: "SPLIT_V", 104: "CEIL", 105: "REVERSE_V2", 106: "ADD_N", 107: "GATHER_ND", 108: "COS", 111: "ELU",
    114: "QUANTIZE", 116: "ROUND", 117: "HARD_SWISH", 118: "IF", 119: "WHILE", 123: "SELECT_V2", 126: "BATCH_MATMUL",
    128: "CUMSUM", 129: "CALL_ONCE", 130: "BROADCAST_TO", 132: "CONV_3D",
    142: "VAR_HANDLE", 143: "READ_VARIABLE", 144: "ASSIGN_VARIABLE", 150: "GELU", 151: "DYNAMIC_UPDATE_SLICE",
    152: "RELU_0_TO_1", 156: "ATAN2", 158: "SIGN", 206: "STABLEHLO_COMPOSITE",
}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor of the main subgraph.

    Attributes:
        number: Its place in the subgraph.
        shape: -1 where a dimension is dynamic.
        scales: None or one for all values, or one per channel.
        constant: Its values are in the file.
        outside: They lie behind the flatbuffer, where only some runtimes look for them.
    """

    number: int
    name: str
    dtype: str
    short: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant: bool
    outside: bool

    @property
    def bytes(self) -> int:
        """That its values take; a dynamic dimension counts as 1."""
        return math.prod(map(abs, self.shape)) * _BYTES.get(self.short, 4)


class Operator(NamedTuple):
    """An operator of the main subgraph; ``None`` is an optional input that is not there."""

    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """Operators have no names of their own: that of the first output."""
        return self.outputs[0].name if self.outputs else self.op

    @property
    def precision(self) -> str:
        """Of the first input that is not constant."""
        return next((tensor.short for tensor in self.inputs if tensor and not tensor.constant), "")


class Graph(NamedTuple):
    """The main subgraph."""

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]


def read(file: bytes) -> Graph:
    """The main subgraph of a ``.tflite`` file, operators in the order in which they run.

    Raises:
        AgentError: It is not such a file, or it is damaged.
    """
    if file[4:8] != IDENTIFIER:
        raise AgentError("not a .tflite file: it does not carry the identifier TFL3")
    try:
        return _graph(_Table(file, struct.unpack_from("<I", file, 0)[0]))
    except (struct.error, IndexError, UnicodeDecodeError, StopIteration) as error:
        raise AgentError(f"the .tflite file is damaged: {error}") from error


def _graph(model: _Table) -> Graph:
    codes = [_code(code) for code in model.tables(1)]
    buffers = [(len(buffer.bytes(0)), buffer.uint64(1)) for buffer in model.tables(4)]
    main = next(iter(model.tables(2)))
    tensors = [_tensor(index, table, buffers) for index, table in enumerate(main.tables(0))]

    def named(numbers: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(tensors[number] for number in numbers)

    operators = tuple(
        Operator(
            codes[table.uint32(0)],
            tuple(tensors[number] if number >= 0 else None for number in table.int32s(1)),
            named(table.int32s(2)),
        )
        for table in main.tables(3)
    )
    return Graph(operators, named(main.int32s(1)), named(main.int32s(2)), tuple(tensors))


def _code(table: _Table) -> str:
    number = max(table.int8(0), table.int32(3))
    name = OPERATORS.get(number, f"BUILTIN_{number}")
    return table.string(1) or name if name == "CUSTOM" else name


def _tensor(index: int, table: _Table, buffers: Sequence[tuple[int, int]]) -> Tensor:
    shape = table.int32s(7) or table.int32s(0)
    number = table.int8(1)
    dtype, short = _TYPES.get(number, (f"type {number}", f"t{number}"))
    inside, offset = buffers[table.uint32(2)]
    outside = offset > 1  # 1 marks a buffer whose place is not known yet
    quantization = table.table(4)
    scales, zeros = (quantization.floats(2), quantization.int64s(3)) if quantization else ((), ())
    return Tensor(index, table.string(3), dtype, short, shape, scales, zeros, inside > 0 or outside, outside)


class _Table:
    """A FlatBuffer table: a vtable says at which offset each field lies, 0 for one that is left out."""

    def __init__(self, file: bytes, at: int) -> None:
        self._file, self._at = file, at
        self._vtable = at - self._unpack("<i", at)
        self._size = self._unpack("<H", self._vtable)

    def _unpack(self, kind: str, at: int) -> int:
        if at < 0:
            raise IndexError("an offset points before the file")
        return int(struct.unpack_from(kind, self._file, at)[0])

    def _field(self, number: int) -> int:
        entry = 4 + 2 * number
        offset = self._unpack("<H", self._vtable + entry) if entry < self._size else 0
        return self._at + offset if offset else 0

    def _number(self, number: int, kind: str) -> int:
        at = self._field(number)
        return self._unpack(kind, at) if at else 0

    def int8(self, number: int) -> int:
        return self._number(number, "<b")

    def int32(self, number: int) -> int:
        return self._number(number, "<i")

    def uint32(self, number: int) -> int:
        return self._number(number, "<I")

    def uint64(self, number: int) -> int:
        return self._number(number, "<Q")

    def _reference(self, number: int) -> int:
        at = self._field(number)
        return at + self._unpack("<I", at) if at else 0

    def _vector(self, number: int, kind: str) -> tuple[float, ...]:
        if not (at := self._reference(number)):
            return ()
        return struct.unpack_from(f"<{self._unpack('<I', at)}{kind}", self._file, at + 4)

    def int32s(self, number: int) -> tuple[int, ...]:
        return tuple(map(int, self._vector(number, "i")))

    def int64s(self, number: int) -> tuple[int, ...]:
        return tuple(map(int, self._vector(number, "q")))

    def floats(self, number: int) -> tuple[float, ...]:
        return self._vector(number, "f")

    def bytes(self, number: int) -> memoryview:
        if not (at := self._reference(number)):
            return memoryview(b"")
        size = self._unpack("<I", at)
        if at + 4 + size > len(self._file):
            raise IndexError("a vector ends beyond the file")
        return memoryview(self._file)[at + 4 : at + 4 + size]

    def string(self, number: int) -> str:
        return str(self.bytes(number), "utf-8")

    def table(self, number: int) -> _Table | None:
        at = self._reference(number)
        return _Table(self._file, at) if at else None

    def tables(self, number: int) -> Iterator[_Table]:
        if at := self._reference(number):
            for index in range(self._unpack("<I", at)):
                entry = at + 4 + 4 * index
                yield _Table(self._file, entry + self._unpack("<I", entry))


def delegated(graph: Graph, nodes: Sequence[Mapping[str, Sequence[int]]]) -> frozenset[str]:
    """Names of the operators that delegates compute, given the inputs and outputs of the delegates' own nodes."""
    producer = {tensor.number: operator for operator in graph.operators for tensor in operator.outputs}
    found: set[str] = set()
    for node in nodes:
        ends = set(map(int, node["inputs"]))
        waiting = [int(index) for index in node["outputs"]]
        while waiting:
            operator = producer.get(waiting.pop())
            if operator is None or operator.name in found:
                continue
            found.add(operator.name)
            waiting += [tensor.number for tensor in operator.inputs if tensor and tensor.number not in ends]
    return frozenset(found)


def named(graph: Graph) -> list[tuple[str, Operator]]:
    """The operators with names of which no two are alike."""
    seen: dict[str, int] = {}
    found = []
    for operator in graph.operators:
        seen[operator.name] = count = seen.get(operator.name, 0) + 1
        found.append((operator.name if count == 1 else f"{operator.name}#{count}", operator))
    return found


def dtype_of(number: int) -> str:
    """Numpy's name of a ``TensorType``."""
    return _TYPES[number][0]
