"""References to the user's code: found, kept apart, digested by content, and never run just to look."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from edgeopt import reference
from edgeopt.errors import ConfigError
from edgeopt.reference import exists, resolve, source_digest, user_frame


def write(root: Path, **files: str) -> Path:
    """Write modules; ``a__b`` is ``a/b.py``, and ``a__init__`` is ``a/__init__.py``."""
    for name, content in files.items():
        is_package = name.endswith("__init__")
        parts = [*name.removesuffix("__init__").split("__"), *(["__init__"] if is_package else [])]
        file = root.joinpath(*parts).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def refusal(name: str, root: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(name, root)
    return caught.value


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder of packages that are importable as if they were installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("installed_")]:
        del sys.modules[name]


# resolve


def test_a_module_beside_the_recipe(tmp_path):
    write(tmp_path, model="def build(width=3):\n    return width * 2\n")
    assert resolve("model:build", tmp_path)(width=4) == 8
    assert resolve("model:build", tmp_path) is resolve("model:build", tmp_path)


def test_an_installed_module(tmp_path):
    assert resolve("os.path:join", tmp_path) is os.path.join
    assert resolve("pathlib:Path.cwd", tmp_path)() == Path.cwd()


def test_beside_the_recipe_comes_before_installed(tmp_path):
    write(tmp_path, json="def dumps():\n    return 'mine'\n")
    assert resolve("json:dumps", tmp_path)() == "mine"
    import json

    assert json.dumps(1) == "1"


def test_two_recipes_may_use_the_same_names(tmp_path):
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        write(root, model="import blocks\ndef build():\n    return blocks.NAME\n", blocks=f"NAME = {root.name!r}\n")
    first, second = (resolve("model:build", root) for root in roots)
    assert (first(), second(), first()) == ("a", "b", "a")


def test_equal_recipes_in_two_folders_are_two(tmp_path):
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        write(root, model="from pathlib import Path\ndef build():\n    return Path(__file__).parent.name\n")
    assert [resolve("model:build", root)() for root in roots] == ["a", "b"]


def test_edited_source_is_imported_anew_even_within_a_second_and_of_equal_size(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    values = []
    for value in range(5):
        write(tmp_path, model="import blocks\ndef build():\n    return blocks.VALUE\n", blocks=f"VALUE = {value}\n")
        os.utime(tmp_path / "blocks.py", (1e9, 1e9))
        values.append(resolve("model:build", tmp_path)())
    assert values == [0, 1, 2, 3, 4]


def test_nothing_is_written_beside_the_recipe_and_no_import_path_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(tmp_path, model="import blocks\ndef build(): pass\n", blocks="")
    path, names = list(sys.path), set(sys.modules)
    resolve("model:build", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.py", "blocks.py"}
    assert sys.path == path
    assert all(name.startswith(reference._PREFIX) for name in set(sys.modules) - names)


SIBLINGS = {
    "import": "import blocks\nvalue = blocks.VALUE\ndef build(): return value\n",
    "import as": "import blocks as b\ndef build(): return b.VALUE\n",
    "from": "from blocks import VALUE\ndef build(): return VALUE\n",
    "star": "from blocks import *\ndef build(): return VALUE\n",
    "later": "def build():\n    import blocks\n    return blocks.VALUE\n",
    "package": "import parts\ndef build(): return parts.VALUE\n",
    "nested": "import parts.deep\ndef build(): return parts.deep.VALUE\n",
    "nested as": "import parts.deep as d\ndef build(): return d.VALUE\n",
    "from package": "from parts import deep\ndef build(): return deep.VALUE\n",
    "from nested": "from parts.deep import VALUE\ndef build(): return VALUE\n",
    "namespace": "from loose import deep\ndef build(): return deep.VALUE\n",
    "nested namespace": "import loose.deep\ndef build(): return loose.deep.VALUE\n",
    "indirect": "from middle import VALUE\ndef build(): return VALUE\n",
}
FILES = {
    "blocks": "VALUE = 42\n",
    "parts__init__": "from .deep import VALUE\n",
    "parts__deep": "from blocks import VALUE\n",
    "loose__deep": "VALUE = 42\n",
    "middle": "def load():\n    from parts import deep\n    return deep.VALUE\nVALUE = load()\n",
}


@pytest.mark.parametrize("style", SIBLINGS)
def test_modules_beside_the_recipe_import_each_other(tmp_path, style):
    write(tmp_path, model=SIBLINGS[style], **FILES)
    assert resolve("model:build", tmp_path)() == 42


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("parts.net", "from .deep import VALUE\ndef build(): return VALUE\n"),
        ("parts.net", "from . import deep\ndef build(): return deep.VALUE\n"),
        ("parts.sub.net", "from ..deep import VALUE\ndef build(): return VALUE\n"),
        ("loose.net", "from .deep import VALUE\ndef build(): return VALUE\n"),
        ("loose.net", "import blocks\ndef build(): return blocks.VALUE\n"),
    ],
)
def test_a_factory_inside_a_package_may_import_relatively(tmp_path, name, source):
    write(tmp_path, **{name.replace(".", "__"): source}, **FILES)
    assert resolve(f"{name}:build", tmp_path)() == 42


def test_a_module_stays_importable_under_its_own_name(tmp_path):
    """torch looks a function's module up by its name when it exports."""
    write(tmp_path, model="from blocks import build\n", blocks="def build(): pass\n")
    function = resolve("model:build", tmp_path)
    assert vars(sys.modules[function.__module__])["build"] is function
    assert sys.modules[function.__globals__["__name__"]].__dict__ is function.__globals__


def test_user_modules_still_import_what_is_installed(tmp_path, installed):
    write(installed, installed_thing="import blocks_nowhere\n", installed_other="X = 5\n")
    write(tmp_path, model="import installed_other, os.path\ndef build(): return installed_other.X, os.path.sep\n")
    assert resolve("model:build", tmp_path)() == (5, os.sep)


def test_an_installed_package_does_not_see_the_modules_beside_the_recipe(tmp_path, installed):
    write(installed, installed_user="import installed_dep\nX = installed_dep.X\n", installed_dep="X = 'theirs'\n")
    write(tmp_path, model="import installed_user\ndef build(): return installed_user.X\n", installed_dep="X = 'mine'\n")
    assert resolve("model:build", tmp_path)() == "theirs"


def test_a_missing_module(tmp_path):
    error = refusal("modle:build", tmp_path)
    assert str(error) == (
        "modle:build: module 'modle' not found beside the recipe or among the installed packages\n"
        f"  fix: create {tmp_path / 'modle'}.py, or correct the name"
    )


def test_a_missing_name_suggests_the_near_one(tmp_path):
    write(tmp_path, model="def build(): pass\n")
    error = refusal("model:biuld", tmp_path)
    assert error.what == "'model' has no 'biuld' (did you mean 'build'?)"
    assert str(tmp_path / "model.py") in error.where


def test_what_cannot_be_called(tmp_path):
    write(tmp_path, model="build = 3\n")
    assert refusal("model:build", tmp_path).what == "'model:build' is a int, not a callable"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("raise RuntimeError('no GPU')", "importing 'model' raised RuntimeError: no GPU"),
        ("1 / 0", "importing 'model' raised ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(0)", "importing 'model' raised SystemExit: 0"),
        ("import numpyy.linalg", "'model' imports 'numpyy', which is not installed"),
        ("import os.nowhere", "'model' imports 'os.nowhere', which is not installed"),
        ("from parts import nowhere", "importing 'model' raised ImportError: cannot import name 'nowhere'"),
        ("import parts.nowhere", "'model' imports 'parts.nowhere', which is not installed"),
        ("import blocks", "importing 'model' raised AssertionError"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(tmp_path, line, what):
    write(tmp_path, model=f"import os\n\n{line}\n", blocks="\n\n\n\nassert False\n", parts__init__="")
    error = refusal("model:build", tmp_path)
    assert error.what.startswith(what)
    expected = "blocks.py:5" if line == "import blocks" else "model.py:3"
    assert error.where == str(tmp_path / expected)
    assert error.exit_code == 2


def test_a_failed_import_can_be_mended(tmp_path):
    write(tmp_path, model="import blocks\ndef build(): return blocks.X\n", blocks="raise ValueError\n")
    assert "ValueError" in refusal("model:build", tmp_path).what
    write(tmp_path, blocks="X = 7\n")
    assert resolve("model:build", tmp_path)() == 7


@pytest.mark.parametrize("which", ["model", "blocks"])
def test_a_syntax_error_is_named_with_its_line(tmp_path, which):
    write(tmp_path, **{"model": "import blocks\ndef build(): pass\n", "blocks": "", which: "x = 1\ny = = 2\n"})
    error = refusal("model:build", tmp_path)
    assert str(error) == f"{tmp_path / which}.py:2: not valid Python: invalid syntax"
    with pytest.raises(ConfigError, match=r"\.py:2: not valid Python"):
        source_digest("model:build", tmp_path)


def test_places_are_told_as_the_recipe_folder_was_given(tmp_path, monkeypatch):
    write(tmp_path / "recipes" / "face", model="raise ValueError\n")
    monkeypatch.chdir(tmp_path)
    assert refusal("model:build", Path("recipes/face")).where == "recipes/face/model.py:1"


# exists


def test_looking_does_not_run_anything(tmp_path):
    marker = tmp_path / "it-ran"
    write(tmp_path, model=f"open({str(marker)!r}, 'w').close()\ndef build(): pass\n")
    assert exists("model:build", tmp_path) == ""
    assert len(source_digest("model:build", tmp_path)) == 64
    assert not marker.exists()
    resolve("model:build", tmp_path)
    assert marker.exists()


@pytest.mark.parametrize(
    "source",
    [
        "def build(): pass",
        "async def build(): pass",
        "class build: pass",
        "build = 3",
        "build: object = 3",
        "a, (b, build) = 1, (2, 3)",
        "from x import build",
        "from x import y as build",
        "import x as build",
        "import build.x",
        "from x import *",
        "if True:\n    def build(): pass",
        "try:\n    pass\nexcept Exception:\n    build = None",
        "def __getattr__(name): pass",
    ],
)
def test_everything_that_can_define_a_name_is_seen(tmp_path, source):
    write(tmp_path, model=source)
    assert exists("model:build", tmp_path) == ""
    assert exists("model:build.inner", tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model:biuld", "model.py defines no 'biuld' (did you mean 'build'?)"),
        ("parts.net:build", "net.py defines no 'build'"),
        ("modle:build", "there is no modle.py beside the recipe and no installed package 'modle'"),
        ("a.b:build", "there is no a/b.py beside the recipe and no installed package 'a'"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, name, expected):
    write(tmp_path, model="def build(): pass\n", parts__net="")
    assert exists(name, tmp_path) == expected


@pytest.mark.parametrize("content", [b"x = 1\ny = = 2\n", b"x = 1\ny = (\n", b"x = 1\n\xff = 2\n", b"x\x00y"])
def test_broken_source_is_said_with_its_line(tmp_path, content):
    (tmp_path / "model.py").write_bytes(content)
    assert exists("model:build", tmp_path).startswith(f"{tmp_path / 'model.py'}:")
    with pytest.raises(ConfigError, match="not valid Python"):
        source_digest("model:build", tmp_path)


def test_an_installed_package_is_enough(tmp_path, monkeypatch):
    assert exists("numpy:zeros", tmp_path) == ""
    monkeypatch.setitem(sys.modules, "installed_odd", types.ModuleType("installed_odd"))  # it has no spec
    assert "no installed package 'installed_odd'" in exists("installed_odd:build", tmp_path)


# source_digest


@pytest.mark.parametrize("style", SIBLINGS)
def test_the_digest_covers_what_is_imported_from_beside(tmp_path, style):
    write(tmp_path, model=SIBLINGS[style], unrelated="X = 1\n", **FILES)
    before = source_digest("model:build", tmp_path)
    write(tmp_path, unrelated="X = 2\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "data.json").write_text("{}")
    assert source_digest("model:build", tmp_path) == before
    used = "loose__deep" if "loose" in SIBLINGS[style] else "blocks"
    write(tmp_path, **{used: FILES[used] + "# changed\n"})
    assert source_digest("model:build", tmp_path) != before
    write(tmp_path, **{used: FILES[used]})
    assert source_digest("model:build", tmp_path) == before
    write(tmp_path, model=SIBLINGS[style] + "# changed\n")
    assert source_digest("model:build", tmp_path) != before


@pytest.mark.parametrize(
    "source", ["from .deep import VALUE\n", "from . import deep\n", "from .sub.more import x\n", "import parts.deep\n"]
)
def test_the_digest_of_a_module_in_a_package(tmp_path, source):
    write(tmp_path, parts__net=source, parts__sub__more="from ..deep import VALUE as x\n", **FILES)
    digests = {source_digest("parts.net:build", tmp_path)}
    for name in ("parts__net", "parts__deep", "parts__init__", "blocks"):
        write(tmp_path, **{name: {**FILES, "parts__net": source}[name] + "# changed\n"})
        digests.add(source_digest("parts.net:build", tmp_path))
    assert len(digests) == 5


def test_the_digest_does_not_depend_on_the_folder_or_the_callable(tmp_path):
    digests = set()
    for name in ("a", "b"):
        root = write(tmp_path / name, model="import blocks\ndef build(): pass\ndef other(): pass\n", **FILES)
        digests |= {source_digest("model:build", root), source_digest("model:other", root)}
    assert len(digests) == 1


def test_the_digest_tells_which_file_holds_what(tmp_path):
    write(tmp_path, model="import a, b\n", a="X = 1\n", b="Y = 2\n")
    before = source_digest("model:build", tmp_path)
    write(tmp_path, a="Y = 2\n", b="X = 1\n")
    assert source_digest("model:build", tmp_path) != before


def test_imports_in_a_circle_end(tmp_path):
    write(tmp_path, model="import a\ndef build(): return a.X\n", a="import b\nX = 1\n", b="import a\nimport model\n")
    assert len(source_digest("model:build", tmp_path)) == 64
    assert resolve("model:build", tmp_path)() == 1


def test_the_digest_of_an_installed_package_is_of_all_its_source_and_no_other(tmp_path, installed):
    write(installed, installed_a__init__="import installed_b\n", installed_a__deep="X = 1\n", installed_b="X = 1\n")
    before = source_digest("installed_a:build", tmp_path)
    write(installed, installed_b="X = 2\n")
    assert source_digest("installed_a:build", tmp_path) == before
    write(installed, installed_a__deep="X = 2\n")
    assert source_digest("installed_a:build", tmp_path) != before


def test_the_digest_of_an_installed_module_is_of_its_file(tmp_path, installed):
    write(installed, installed_b="X = 1\n", installed_c="X = 1\n")
    before = source_digest("installed_b:build", tmp_path)
    write(installed, installed_c="X = 2\n")
    assert source_digest("installed_b:build", tmp_path) == before
    write(installed, installed_b="X = 2\n")
    assert source_digest("installed_b:build", tmp_path) != before


@pytest.mark.parametrize(("name", "what"), [("modle:build", "not found"), ("math:sqrt", "has no Python source")])
def test_without_source_there_is_no_digest(tmp_path, name, what):
    with pytest.raises(ConfigError, match=what):
        source_digest(name, tmp_path)


# user_frame


def test_user_frame_is_the_deepest_line_of_the_user(tmp_path):
    write(tmp_path, model="import json\n\ndef build(text):\n    return json.loads(text)\n")
    with pytest.raises(ValueError, match="Expecting value") as caught:
        resolve("model:build", tmp_path)("x")
    assert user_frame(caught.value, tmp_path) == f"{tmp_path / 'model.py'}:4"
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = caught.value
    assert user_frame(wrapped, tmp_path) == f"{tmp_path / 'model.py'}:4"


def test_user_frame_of_somebody_else_is_empty(tmp_path):
    error = ValueError("x")
    error.__context__ = error
    assert user_frame(error, tmp_path) == ""
    assert user_frame(types.new_class("Own", (Exception,))(), tmp_path) == ""
