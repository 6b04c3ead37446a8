"""User files: YAML into frozen pydantic models, with every problem at once and each at its ``file:line:col``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
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

_MAX_NODES = 100_000
_MAX_DEPTH = 40


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
            for details in error.errors():
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
        try:
            value = yaml.load(text, Loader=_Yaml)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"the value is not valid YAML: {getattr(error, 'problem', error)}", where=option
            ) from error
        at: Loc = ()
        node = self.data
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if isinstance(node, dict):
                known = part in node
                if not known and not last:
                    node[part] = {}
                if last:
                    node[part] = value
                at, node = (*at, part), node[part]
            elif isinstance(node, list):
                position = _position(node, part)
                if position is None:
                    raise ConfigError(
                        f"{'.'.join(parts[:index])} has no {part!r}{hint(part, _labels(node))}", where=option
                    )
                item = node[position]
                inside = isinstance(item, dict) and len(item) == 1 and part in item
                if isinstance(item, str) and not last:
                    item = node[position] = {"name": item}
                if last:
                    if inside:
                        item[part] = value
                    else:
                        node[position] = value
                if inside and item[part] is None and not last:
                    item[part] = {}
                at, node = ((*at, position, part), item[part]) if inside else ((*at, position), node[position])
            else:
                raise ConfigError(f"{'.'.join(parts[:index])} has no keys below it", where=option)
        self._marks[at] = self._key_marks[at] = option

    def _explain(self, model: type[BaseModel], at: Loc, details: ErrorDetails) -> None:
        loc = (*at, *(part for part in details["loc"] if part != "[key]"))
        kind, context, got = details["type"], details.get("ctx", {}), details["input"]
        if kind == "missing":
            self.problem(loc[:-1], f"missing key {str(loc[-1])!r}")
        elif kind == "extra_forbidden":
            known = _fields(model, details["loc"][:-1])
            self.problem(loc, f"unknown key {str(loc[-1])!r}{hint(str(loc[-1]), known)}", key=True)
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
    try:
        text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=_Yaml)
    except FileNotFoundError as error:
        near = [other.name for other in path.parent.glob("*") if other.suffix in (".yaml", ".yml")]
        raise ConfigError(f"no such file{hint(path.name, near) if near else ''}", where=where) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text (byte {error.start})", where=where) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=place) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=where) from error
    if node is None:
        raise ConfigError("the file is empty", where=where)
    document = Document(path, None)
    budget = iter(range(_MAX_NODES))
    document.data = _build(node, (), document, budget)
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


def _build(node: yaml.Node, at: Loc, document: Document, budget: Iterator[int]) -> Any:
    place = f"{document.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if next(budget, None) is None or len(at) > _MAX_DEPTH:
        raise ConfigError("too large or too deep for a configuration file", where=place)
    document._marks[at] = place
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            key_place = f"{document.path}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key should be plain text", where=key_place)
            if key in mapping:
                first = document._key_marks[(*at, key)].rpartition(":")[0].rpartition(":")[2]
                document._problems[(key_place, f"duplicate key {key!r}, already set in line {first}")] = None
                continue
            document._key_marks[(*at, key)] = key_place
            mapping[key] = _build(value_node, (*at, key), document, budget)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, index), document, budget) for index, item in enumerate(node.value)]
    constructor = yaml.constructor.SafeConstructor()
    try:
        value = constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read this value: {getattr(error, 'problem', error)}", where=place) from error
    if isinstance(value, float) and value - value != 0:
        raise ConfigError("infinity and NaN are not allowed here", where=place)
    if not isinstance(value, str | int | float | bool | type(None)):
        raise ConfigError(f"a {type(value).__name__} is not allowed here", where=place)
    return value


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
    if part.isdigit() and int(part) < len(items):
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
    return [(0, int(part)) if part.isdigit() else (1, part) for part in place.split(":")]
