"""References to the user's own Python: ``module:callable``, and the digest of the source behind them.

A module beside the recipe is found first, then an installed package. Only the recipe's ``factory`` and ``loader``
fields name code; everything else in a recipe is data.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeopt.errors import ConfigError


def resolve(reference: str, root: Path) -> Callable[..., Any]:
    """Import what ``module:callable`` names.

    A module beside the recipe gets a private name in ``sys.modules``, so that two recipes may both have a ``model.py``.

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
        if importlib.util.find_spec(top) is None:
            return f"there is no {module_name.replace('.', '/')}.py beside the recipe and no installed package {top!r}"
        return ""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 0)
        return f"{file}:{line}: {getattr(error, 'msg', error)}"
    names = _defined(tree)
    first = attribute.partition(".")[0]
    if "*" in names or first in names or "__getattr__" in names:
        return ""
    from edgeopt.registry import hint

    return f"{file.name} defines no {first!r}{hint(first, names)}"


def source_digest(reference: str, root: Path) -> str:
    """sha256 over the source of the module that ``reference`` names and of every module that it imports from beside it.

    The imports are followed in the syntax tree, also those inside functions, so that no code runs. A module of an
    installed package is followed inside that package.

    Raises:
        ConfigError: The module cannot be found or parsed.
    """
    module_name = reference.partition(":")[0]
    file = _local_file(module_name, root)
    base = root
    if file is None:
        top = module_name.partition(".")[0]
        spec = importlib.util.find_spec(top)
        if spec is None or spec.origin is None:
            raise ConfigError(f"module {module_name!r} not found", where=reference)
        base = Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent
        file = _local_file(module_name, base)
        if file is None:
            raise ConfigError(f"module {module_name!r} has no Python source", where=reference)
    digest = hashlib.sha256()
    for path in sorted(_closure(file, base)):
        digest.update(f"{path.relative_to(base).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _local_file(module_name: str, root: Path) -> Path | None:
    path = root.joinpath(*module_name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _import(module_name: str, root: Path, reference: str) -> ModuleType:
    file = _local_file(module_name, root)
    try:
        if file is None:
            return importlib.import_module(module_name)
        return _import_file(module_name, file, root)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing.partition(".")[0] == module_name.partition(".")[0]:
            what = f"module {module_name!r} not found beside the recipe or among the installed packages"
            raise ConfigError(
                what, where=reference, fix=f"create {root / module_name}.py, or correct the name"
            ) from error
        raise ConfigError(
            f"{module_name!r} imports {missing!r}, which is not installed", where=_place(error, root) or reference
        ) from error
    except Exception as error:
        what = f"importing {module_name!r} raised {type(error).__name__}: {error}"
        raise ConfigError(what, where=_place(error, root) or reference) from error


def _import_file(module_name: str, file: Path, root: Path) -> ModuleType:
    """Run the file as a module of its own, with its folder importable while it runs."""
    content = hashlib.sha256(f"{file.resolve()}\0{source_digest(module_name, root)}".encode()).hexdigest()[:16]
    private = f"edgeopt_user_{content}_{module_name.replace('.', '_')}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    beside = {path.relative_to(root).with_suffix("").parts[0] for path in _closure(file, root)}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in beside}
    sys.modules[private] = module
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.partition(".")[0] in beside]:
            del sys.modules[name]
        sys.modules.update(hidden)
    return module


def _closure(file: Path, base: Path) -> set[Path]:
    """The file and all files below ``base`` that it imports, directly or not."""
    seen: set[Path] = set()
    todo = [file]
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
            parts = name.split(".")
            todo += [found for n in range(len(parts)) if (found := _local_file(".".join(parts[: n + 1]), base))]
    return seen


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
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if root.resolve() in file.resolve().parents:
            place = f"{file}:{trace.tb_lineno}"
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
