"""User files: YAML into frozen pydantic models, with every problem at once and each at its ``file:line:col``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgeopt.errors import ConfigError
from edgeopt.registry import hint

M = TypeVar("M", bound=BaseModel)
Loc = tuple[str | int, ...]
#: Line and column, from 0, as the user is told them.
Place = Callable[[int, int], str]

_MAX_BYTES = 2**18
_MAX_NODES = 20_000
_MAX_DEPTH = 40
_TAG = "tag:yaml.org,2002:"
_TOO_MUCH = "too large or too deep for a configuration file"


class _Yaml(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but ``1e-3`` is a number and a date stays a string."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class Document:
    """A parsed user file that remembers where every value stands, and collects what is wrong with it.

    Attributes:
        path: As the user gave it.
        data: Plain mappings, lists and scalars, after overrides.
    """

    path: Path
    data: Any
    _marks: dict[Loc, str] = field(default_factory=dict)
    _key_marks: dict[Loc, str] = field(default_factory=dict)
    _problems: dict[tuple[str, str], None] = field(default_factory=dict)

    def read(self, model: type[M], at: Loc = ()) -> M | None:
        """Validate the value at ``at``; ``None``, and more problems, if it is wrong."""
        value = self.data
        for part in at:
            value = value[part]
        try:
            return model.model_validate_json(json.dumps({} if value is None else value))
        except ValidationError as error:
            problems = error.errors()
            for details in problems:
                # A list whose items are wrong counts as too short as well, which nobody needs to know.
                inside = any(other["loc"][:-1] == details["loc"] for other in problems if other["loc"])
                if details["type"] != "too_short" or not inside:
                    self._explain(model, at, details)
            return None

    def problem(self, at: Loc, what: str, *, key: bool = False) -> None:
        """Note that the value (or the key itself) at ``at`` is wrong."""
        self._problems[(self.where(at, key=key), what)] = None

    def include(self, error: ConfigError) -> None:
        """Note the problems of another file that this one refers to."""
        for line in str(error).splitlines():
            self._problems[("", line)] = None

    def where(self, at: Loc, *, key: bool = False) -> str:
        """``file:line:col`` of the value at ``at``, or of the nearest thing around it that stands in the file."""
        if key and at in self._key_marks:
            return self._key_marks[at]
        for size in range(len(at), -1, -1):
            if at[:size] in self._marks:
                return self._marks[at[:size]]
        return f"{self.path}:1:1"

    def check(self) -> None:
        """Stop if anything is wrong.

        Raises:
            ConfigError: With one line for each problem, in the order of the file.
        """
        if self._problems:
            lines = sorted(self._problems, key=lambda problem: _natural(problem[0]))
            raise ConfigError("\n".join(f"{where}: {what}" if where else what for where, what in lines))

    def override(self, assignment: str) -> None:
        """Apply ``a.b=c``. A part names a key, or in a list an index, a one-key item such as a step, or a ``name``.

        Raises:
            ConfigError: It is not an assignment, or walks through something that is not there.
        """
        path, separator, text = assignment.partition("=")
        option = f"--set {assignment}"
        parts = path.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError("expected KEY.KEY=VALUE", where=option, fix="such as --set steps.prune.macs_ratio=0.4")

        def place(line: int, column: int) -> str:
            return option

        tree = _compose(text, place)
        at: Loc = ()
        node = into = self.data
        spot: Any = None
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if isinstance(node, dict):
                if last:
                    node[part] = None
                elif node.get(part) is None:
                    node[part] = {}
                at, into, spot, node = (*at, part), node, part, node[part]
            elif isinstance(node, list):
                position = _position(node, part)
                if position is None:
                    raise ConfigError(
                        f"{'.'.join(parts[:index])} has no {part!r}{hint(part, _labels(node))}", where=option
                    )
                item: Any = node[position]
                if isinstance(item, str) and not last:  # short for a mapping
                    written_out: dict[str, Any] = {item: None} if at == ("steps",) else {"name": item}
                    item = node[position] = written_out
                at, into, spot, node = (*at, position), node, position, item
                if isinstance(item, dict) and len(item) == 1 and part in item:
                    if item[part] is None and not last:
                        item[part] = {}
                    at, into, spot, node = (*at, part), item, part, item[part]
            else:
                raise ConfigError(f"{'.'.join(parts[:index])} has no keys below it", where=option)
        into[spot] = None if tree is None else _build(tree, at, self, iter(range(_MAX_NODES)), place)
        self._marks[at] = self._key_marks[at] = option

    def _explain(self, model: type[BaseModel], at: Loc, details: ErrorDetails) -> None:
        loc = (*at, *(part for part in details["loc"] if part != "[key]"))
        kind, context, got = details["type"], details.get("ctx", {}), details["input"]
        if kind == "missing":
            self.problem(loc[:-1], f"missing key {str(loc[-1])!r}")
        elif kind == "extra_forbidden":
            known = _fields(model, details["loc"][:-1])
            self.problem(loc, f"unknown key {str(loc[-1])!r}{hint(str(loc[-1]), known)}", key=True)
        elif kind == "too_short":
            self.problem(loc, f"{_dotted(loc)} should have at least {context['min_length']} item(s)")
        elif kind == "value_error":
            self.problem(loc, str(context["error"]))
        elif kind == "literal_error":
            options = re.findall(r"'([^']*)'", str(context["expected"]))
            close = hint(str(got), options) if options else ""
            self.problem(
                loc, f"{_dotted(loc)} should be {context['expected']}, got {got!r}{close if 'mean' in close else ''}"
            )
        else:
            text = details["msg"].removeprefix("Input should be ").removeprefix("Input should ")
            text = text.replace("a valid array", "a list").replace("an object", "a mapping")
            text = f"should be {text}" if details["msg"].startswith("Input should be") else text[0].lower() + text[1:]
            shown = "" if isinstance(got, dict | list) else f", got {got!r}"
            self.problem(loc, f"{_dotted(loc)} {text}{shown}")


def parse(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Parse a YAML file.

    Args:
        path: The file.
        overrides: ``a.b=c`` assignments from the command line.

    Raises:
        ConfigError: It cannot be read, is not valid YAML, is empty, is no mapping, or has a key twice.
    """
    where = str(path)

    def place(line: int, column: int) -> str:
        return f"{path}:{line + 1}:{column + 1}"

    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        near = [other.name for other in path.parent.glob("*") if other.is_dir() or other.suffix in (".yaml", ".yml")]
        raise ConfigError(f"no such file{hint(path.name, near, listed=False)}", where=where) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text (byte {error.start})", where=where) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(_TOO_MUCH, where=where)
    node = _compose(text, place)
    if node is None:
        raise ConfigError("the file is empty", where=where)
    document = Document(path, None)
    document.data = _build(node, (), document, iter(range(_MAX_NODES)), place)
    if not isinstance(document.data, dict):
        raise ConfigError("should be a mapping of keys to values", where=f"{path}:1:1")
    for assignment in overrides:
        document.override(assignment)
    return document


def load(path: Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Read a YAML file into ``model``.

    Raises:
        ConfigError: With every problem of the file.
    """
    document = parse(path, overrides)
    value = document.read(model)
    document.check()
    if value is None:
        raise ConfigError("cannot be read", where=str(path))
    return value


def _compose(text: str, place: Place) -> yaml.Node | None:
    """The syntax tree of a YAML text, ``None`` if it is empty."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Yaml)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place(mark.line, mark.column) if mark else place(0, 0)
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=where) from error
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position) - 1
        what = f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        raise ConfigError(what, where=place(line, column)) from error
    except RecursionError as error:
        raise ConfigError(_TOO_MUCH, where=place(0, 0)) from error
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        raise ConfigError(f"not valid YAML: {error}", where=place(0, 0)) from error
    return node


def _build(node: yaml.Node, at: Loc, document: Document, budget: Iterator[int], place: Place) -> Any:
    """Plain data from a syntax tree, whose places enter ``document``."""
    here = place(node.start_mark.line, node.start_mark.column)
    if next(budget, None) is None or len(at) > _MAX_DEPTH:
        raise ConfigError(_TOO_MUCH, where=here)
    if isinstance(node, yaml.CollectionNode) and node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
        raise ConfigError(f"the YAML tag {node.tag.removeprefix(_TAG)} is not allowed here", where=here)
    document._marks[at] = here
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_place = place(key_node.start_mark.line, key_node.start_mark.column)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key should be plain text", where=key_place)
            key = _text(str(key_node.value), key_place)
            if key in mapping:
                first = document._key_marks[(*at, key)]
                document._problems[(key_place, f"duplicate key {key!r}, already set{_line(first)}")] = None
                continue
            document._key_marks[(*at, key)] = key_place
            mapping[key] = _build(value_node, (*at, key), document, budget, place)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, index), document, budget, place) for index, item in enumerate(node.value)]
    return _scalar(node, here)


def _scalar(node: yaml.Node, where: str) -> str | int | float | bool | None:
    try:
        value = yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # what PyYAML raises for `!!int ""`
        raise ConfigError(f"cannot read this value as {node.tag.removeprefix(_TAG)}", where=where) from error
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, float) and value - value != 0:
        raise ConfigError("infinity and NaN are not allowed here", where=where)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError("this number is too large", where=where)
    if isinstance(value, int | float | None):
        return value
    raise ConfigError(f"a {type(value).__name__} is not allowed here", where=where)


def _text(value: str, where: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError("half of a surrogate pair is not a character", where=where)
    return value


def _line(place: str) -> str:
    """Of a ``file:line:col``; empty for an option of the command line."""
    line = place.rpartition(":")[0].rpartition(":")[2]
    return f" in line {line}" if line.isdecimal() else ""


def _fields(model: type[BaseModel], loc: Loc) -> list[str]:
    """Names of the fields of the model that ``loc`` leads to, as well as its type hints tell."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[str(part)].annotation
        candidates = _models(current)
        current = candidates[0] if candidates else None
    models = _models(current)
    return list(models[0].model_fields) if models else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _position(items: list[Any], part: str) -> int | None:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    for index, item in enumerate(items):
        if item == part or (isinstance(item, dict) and ((part in item and len(item) == 1) or item.get("name") == part)):
            return index
    return None


def _labels(items: list[Any]) -> list[str]:
    names = [str(item.get("name", next(iter(item), ""))) if isinstance(item, dict) else str(item) for item in items]
    return [name for name in names if name]


def _dotted(loc: Loc) -> str:
    return ".".join(str(part) for part in loc)


def _natural(place: str) -> list[Any]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in place.split(":")]
