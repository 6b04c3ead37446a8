"""Look-up of plug-ins by name: stages, backends, quantizers, pruning criteria and metrics.

A built-in plug-in is a file in its package; the file holds ``PLUGINS``, a tuple of objects with a ``name``. Nothing
has to be registered anywhere. Third parties add an entry point in the group ``edgeopt.<kind>`` that names such
object; entry points are scanned only for a name that is not built in, because the scan is slow.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

#: Kind of plug-in -> the package that holds the built-in ones.
PACKAGES = MappingProxyType(
    {
        "stages": "edgeopt.stages",
        "backends": "edgeopt.backends",
        "quantizers": "edgeopt.quantizers",
        "criteria": "edgeopt.pruning",
        "metrics": "edgeopt.metrics",
    }
)


class UnknownPlugin(LookupError):
    """There is no plug-in of that name; the message says which ones there are."""


@cache
def builtin(kind: str) -> Mapping[str, Any]:
    """All built-in plug-ins of ``kind`` by name.

    Raises:
        ValueError: Two files of the package define the same name.
    """
    package = importlib.import_module(PACKAGES[kind])
    found: dict[str, Any] = {}
    for module_info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        for plugin in getattr(module, "PLUGINS", ()):
            if plugin.name in found:
                raise ValueError(f"two {kind} are called {plugin.name!r}")
            found[plugin.name] = plugin
    return MappingProxyType(found)


def find(kind: str, name: str) -> Any:
    """The plug-in called ``name``.

    Args:
        kind: A key of :data:`PACKAGES`.
        name: Name as a recipe or target writes it.

    Raises:
        UnknownPlugin: There is none, built in or installed, or the installed one cannot be loaded.
    """
    plugins = builtin(kind)
    if name in plugins:
        return plugins[name]
    from importlib.metadata import entry_points

    installed = {point.name: point for point in entry_points(group=f"edgeopt.{kind}")}
    if name in installed:
        try:
            return installed[name].load()
        except (ImportError, AttributeError) as error:
            raise UnknownPlugin(f"the plug-in {name!r} of {kind} cannot be loaded: {error}") from error
    singular = {"criteria": "criterion"}.get(kind, kind[:-1])
    raise UnknownPlugin(f"unknown {singular} {name!r}{hint(name, [*plugins, *installed])}")


def release(kind: str, name: str) -> str:
    """Distribution and version that an installed plug-in comes from; empty for one that is built in."""
    if name in builtin(kind):
        return ""
    from importlib.metadata import entry_points

    found = [point.dist for point in entry_points(group=f"edgeopt.{kind}") if point.name == name]
    return " ".join((found[-1].name, found[-1].version)) if found and found[-1] else ""


def hint(word: str, known: Iterable[str], *, listed: bool = True) -> str:
    """``" (did you mean 'x'?)"`` if ``word`` is close to a known one, else the list of the known ones if ``listed``."""
    options = sorted(set(known))
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (there are: {', '.join(options)})" if options and listed else ""
