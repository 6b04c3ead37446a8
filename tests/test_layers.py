"""The layers: who may import whom, what stays unloaded, and that everything imports without the optional packages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeopt"

#: A module (or package) imports only what is on a floor below its own. Read it from the bottom.
FLOORS = (
    {"__main__"},
    {"cli"},  # one thin file per command
    {"engine"},  # the only loop
    {"contest", "bench"},  # the candidates of one target; any artefacts
    {"flip", "tracking"},
    {"plan", "stages"},  # neither knows the other: the plan finds stages by name
    {"reading", "checkpoint", "quantizers", "console", "publish"},
    {"doctor", "draft"},
    {"surgery", "backends", "verdict", "report"},
    {"training", "pruning", "compare", "waivers", "sessions", "parity"},
    {"device", "stage", "record", "bench_record", "metrics", "session", "footprint"},
    {"placement", "macs"},
    {"target", "data", "measure"},
    {"recipe", "artifact", "reference", "provenance", "protocol"},
    {"access"},
    {"config", "tools", "tflite", "qdq", "half"},
    {"errors", "events", "registry", "statistics", "verification", "noise", "printable", "agent"},  # these stand alone
    {""},  # edgeopt/__init__.py: the version
)
HEAVY = {
    "torch", "torch_pruning", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "tensorrt", "scipy", "sklearn",
    "pandas", "matplotlib", "safetensors", "mlflow",
    "ai_edge_litert", "ai_edge_quantizer", "tflite_micro", "ethosu", "litert_torch", "onnxruntime_qnn",
    "tensorrt_rtx",
}  # fmt: skip
#: Runtime of the agent -> the packages that it imports, where the names differ.
PACKAGES = {"litert": {"ai_edge_litert"}, "tflm": {"tflite_micro"}, "qnn": {"onnxruntime", "onnxruntime_qnn"}}
OPTIONAL = [
    "torch", "torch_pruning", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "safetensors", "matplotlib",
    "scipy", "sklearn", "pandas", "psutil", "mlflow",
    "ai_edge_litert", "ai_edge_quantizer", "tflite_micro", "ethosu",
    "tensorrt_rtx",
    "onnxruntime_qnn",
]  # fmt: skip
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}


def imports(name: str, nodes: Iterator[ast.AST] | None = None) -> set[str]:
    """Full names of the modules that a module imports, wherever it does."""
    file = FILES[name]
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes or ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {member if member in FILES else base for member in members}
    return found


def unit(name: str) -> str:
    """``edgeopt.stages.prune`` is of the unit ``stages``."""
    return f"{name}.".split(".")[1]


def floor(name: str) -> int:
    """0 is the ground."""
    floors = [number for number, units in enumerate(reversed(FLOORS)) if unit(name) in units]
    assert len(floors) == 1, f"{name} stands on no floor: give it a place in FLOORS"
    return floors[0]


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name):
    own = {other for other in imports(name) if other.partition(".")[0] == "edgeopt"}
    wrong = {other for other in own if unit(other) != unit(name) and floor(other) >= floor(name)}
    assert not wrong, f"{name} must not import {wrong}"


def test_the_table_of_floors_holds_nothing_that_is_gone():
    assert set().union(*FLOORS) == {unit(name) for name in FILES}


@pytest.mark.parametrize("name", [name for name in FILES if unit(name) == "agent"])
def test_the_agent_needs_nothing_but_numpy_and_one_runtime(name):
    """It is shipped to a device by itself. Toolchains find there what they need, or say that they do not."""
    toolchain = name.startswith("edgeopt.agent.toolchains.")
    found = imports(name, module_level(ast.parse(FILES[name].read_bytes())) if toolchain else None)
    of_runtime = name.rpartition(".")[2] if name.startswith("edgeopt.agent.runtimes.") else ""
    runtime = PACKAGES.get(of_runtime, {of_runtime})
    tops = {other.partition(".")[0] for other in found} - {"edgeopt"}
    assert tops <= {*sys.stdlib_module_names, "numpy", *runtime}
    assert {unit(other) for other in found if other.startswith("edgeopt")} <= {"agent"}


@pytest.mark.parametrize("name", FILES)
def test_only_the_console_draws(name):
    if unit(name) != "console":
        assert "rich" not in {other.partition(".")[0] for other in imports(name)}


@pytest.mark.parametrize(
    "name", ["edgeopt.engine", "edgeopt.contest", *(name for name in FILES if unit(name) == "plan")]
)
def test_plan_and_engine_name_no_plugin(name):
    """They find stages and the others by name, so that a new one is one file."""
    assert not {unit(other) for other in imports(name)} & {"stages", "backends", "quantizers", "pruning"}


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs on import: not the bodies of functions, nor what is for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from module_level(node)


@pytest.mark.parametrize("name", FILES)
def test_heavy_libraries_are_imported_inside_functions(name):
    found = imports(name, module_level(ast.parse(FILES[name].read_bytes())))
    assert not {other.partition(".")[0] for other in found} & HEAVY


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


WITHOUT = f"""\
import importlib, json, sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent)
"""
IMPORT_ALL = """
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


def test_every_module_imports_without_the_optional_packages():
    names = [name for name in FILES if not name.endswith("__main__")]
    done = run(WITHOUT + IMPORT_ALL, *names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


HELP_OF_ALL = """
import typer
from typer.testing import CliRunner
from edgeopt.cli import app

def walk(command, way):
    yield way
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, [*way, name])

results = {}
for way in walk(typer.main.get_command(app), []):
    for option in ("-h", "--help"):
        done = CliRunner().invoke(app, [*way, option])
        results[" ".join([*way, option])] = [done.exit_code, done.output]
print(json.dumps(results))
"""


def test_every_command_explains_itself_without_the_optional_packages():
    done = run(WITHOUT + HELP_OF_ALL)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    groups = ("compile", "check", "compare", "bench", "report", "inspect", "targets", "recipe", "cache", "tools")
    for command in (*groups, "cache gc", "recipe init"):
        assert f"{command} -h" in results
    for command, (code, output) in results.items():
        assert code == 0, f"edgeopt {command}: {output}"
        assert "Usage: " in output
        is_group = "COMMAND [ARGS]" in output
        assert is_group or "Example: edgeopt " in output, f"edgeopt {command} shows no example"


LOADED = """
import json, runpy, sys
sys.argv[0] = "edgeopt"
code = 0
try:
    runpy.run_module("edgeopt", run_name="__main__", alter_sys=False)
except SystemExit as end:
    code = end.code
print("\\n" + json.dumps({"code": code, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def loaded(*arguments: str) -> set[str]:
    """Top-level packages that a command of edgeopt loads."""
    done = run(LOADED, *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] in (0, None), done.stdout + done.stderr
    return set(result["loaded"])


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["compile", "-h"], ["cache", "gc", "--help"]])
def test_help_is_light(arguments):
    found = loaded(*arguments)
    assert "typer" in found
    assert not found & {*HEAVY, "numpy", "yaml", "rich", "jinja2"}


def test_check_loads_nothing_heavy():
    found = loaded("check", "recipes/digits")
    assert "yaml" in found
    assert not found & {*HEAVY, "rich"}
