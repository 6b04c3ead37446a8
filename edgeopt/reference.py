"""References to the user's own Python: ``module:callable``, and the digest of the source behind them.

A module beside the recipe is found first, then an installed package. Only the recipe's ``factory`` and ``loader``
fields name code; everything else in a recipe is data.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from edgeopt.errors import ConfigError

_PREFIX = "_edgeopt_user_"


def resolve(reference: str, root: Path) -> Callable[..., Any]:
    """Import what ``module:callable`` names.

    Args:
        reference: Such as ``model:digits_resnet`` or ``package.module:callable``.
        root: Folder of the recipe.

    Raises:
        ConfigError: The module is missing or raises on import, or has no such callable.
    """
    module_name, _, attribute = reference.partition(":")
    module = _import(module_name, root, reference)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            from edgeopt.registry import hint

            names = [name for name in vars(module) if not name.startswith("_")]
            raise ConfigError(
                f"{module_name!r} has no {part!r}{hint(part, names)}", where=f"{reference} ({module.__file__})"
            )
        target = getattr(target, part)
    if not callable(target):
        raise ConfigError(f"{reference!r} is a {type(target).__name__}, not a callable", where=str(module.__file__))
    found: Callable[..., Any] = target
    return found


def exists(reference: str, root: Path) -> str:
    """Why ``reference`` cannot be resolved, judged without running any of its code; empty if it looks right."""
    module_name, _, attribute = reference.partition(":")
    file = _local_file(module_name, root)
    if file is None:
        top = module_name.partition(".")[0]
        if _installed(top) is None:
            return f"there is no {module_name.replace('.', '/')}.py beside the recipe and no installed package {top!r}"
        return ""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError, OSError) as error:
        line = getattr(error, "lineno", None) or 1
        return f"{file}:{line}: {getattr(error, 'msg', error)}"
    names = _defined(tree)
    first = attribute.partition(".")[0]
    if "*" in names or first in names or "__getattr__" in names:
        return ""
    from edgeopt.registry import hint

    return f"{file.name} defines no {first!r}{hint(first, names)}"


def source_digest(reference: str, root: Path) -> str:
    """sha256 over the source of the module that ``reference`` names and of every module that it imports from beside it.

    The imports are followed in the syntax tree, also those inside functions, so that no code runs. For a module of an
    installed package it is the source of the whole package.

    Raises:
        ConfigError: The module cannot be found or parsed.
    """
    module_name = reference.partition(":")[0]
    if _local_file(module_name, root) is not None:
        base, files = root, _closure(module_name, root)
    else:
        spec = _installed(module_name.partition(".")[0])
        if spec is None:
            raise ConfigError(f"module {module_name!r} not found", where=reference)
        if spec.submodule_search_locations:
            base = Path(next(iter(spec.submodule_search_locations)))
            files = set(base.rglob("*.py"))
        else:
            base = Path(spec.origin or "").parent
            files = {path for path in (Path(spec.origin or ""),) if path.suffix == ".py"}
        if not files:
            raise ConfigError(f"module {module_name!r} has no Python source", where=reference)
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(base).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _installed(top: str) -> ModuleSpec | None:
    """Where an installed package is; ``None`` if there is none of that name."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # such as __main__, which has no spec
        return None


def _local_file(module_name: str, root: Path) -> Path | None:
    path = root.joinpath(*module_name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _import(module_name: str, root: Path, reference: str) -> ModuleType:
    try:
        if _local_file(module_name, root) is None:
            return importlib.import_module(module_name)
        return _import_beside(module_name, root)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing.startswith(_PREFIX):
            missing = missing.partition(".")[2]
        if missing.partition(".")[0] == module_name.partition(".")[0]:
            what = f"module {module_name!r} not found beside the recipe or among the installed packages"
            raise ConfigError(
                what, where=reference, fix=f"create {root / module_name}.py, or correct the name"
            ) from error
        raise ConfigError(
            f"{module_name!r} imports {missing!r}, which is not installed", where=_place(error, root) or reference
        ) from error
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        what = f"importing {module_name!r} raised {type(error).__name__}: {error}"
        raise ConfigError(what, where=_place(error, root) or reference) from error


def _import_beside(module_name: str, root: Path) -> ModuleType:
    """Import a module beside the recipe, in a private package made of the recipe's folder.

    The package is named by the folder and by the source, so that two recipes may both have a ``model.py``, and edited
    source is imported anew. Its modules stay in ``sys.modules``; nothing else there changes, nor does ``sys.path``.
    """
    content = f"{root.resolve()}\0{source_digest(module_name, root)}"
    name = _PREFIX + hashlib.sha256(content.encode()).hexdigest()[:16]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(root.resolve())]
        package.__spec__ = ModuleSpec(name, None, is_package=True)
        package.__package__ = name
        sys.modules[name] = package
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    importlib.invalidate_caches()
    return importlib.import_module(f"{name}.{module_name}")


class _Loader(SourceFileLoader):
    """Loads a module of a private package, in which ``import blocks`` means the ``blocks.py`` beside the recipe."""

    def get_code(self, fullname: str) -> CodeType:
        """Never from ``__pycache__``, which goes by time and size and so may be older than the digest."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        package = sys.modules[module.__name__.partition(".")[0]]
        root = Path(package.__path__[0])

        def import_(
            name: str,
            globals: Mapping[str, object] | None = None,
            locals: Mapping[str, object] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            wanted = (name.partition(".")[0], name, *(f"{name}.{part}" for part in fromlist or ()))
            if level == 0 and any(_local_file(one, root) for one in wanted):
                return builtins.__import__(name, vars(package), locals, fromlist or (), 1)
            return builtins.__import__(name, globals, locals, fromlist or (), level)

        vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_}
        super().exec_module(module)


class _Finder:
    """Finds the modules of the private packages."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith(_PREFIX) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def _closure(module_name: str, base: Path) -> set[Path]:
    """The files of the module, of the packages around it, and of all below ``base`` that they import."""
    seen: set[Path] = set()
    todo = _files_of(module_name, base)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0)
            raise ConfigError(f"not valid Python: {getattr(error, 'msg', error)}", where=f"{path}:{line}") from error
        package = path.parent.relative_to(base).parts
        for name in _imports(tree, package):
            todo += _files_of(name, base)
    return seen


def _files_of(module_name: str, base: Path) -> list[Path]:
    parts = module_name.split(".")
    return [found for n in range(len(parts)) if (found := _local_file(".".join(parts[: n + 1]), base))]


def _imports(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{prefix}.{alias.name}".lstrip(".") for alias in node.names} | ({prefix} if prefix else set())
    return names


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _place(error: BaseException, root: Path) -> str:
    """``file:line`` of the deepest frame of ``error`` that lies in the user's folder; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place = ""
    trace = error.__traceback__
    folder = root.resolve()
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename).resolve()
        if folder in file.parents:
            place = f"{root / file.relative_to(folder)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def user_frame(error: BaseException, root: Path) -> str:
    """``file:line`` of the user's own code where ``error``, or what it was raised from, arose; or empty."""
    seen: set[int] = set()
    current: BaseException | None = error
    place = ""
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        place = _place(current, root) or place
        current = current.__cause__ or current.__context__
    return place
