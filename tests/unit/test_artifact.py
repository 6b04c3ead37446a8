"""The store: content-addressed, verified, repaired, cleaned, and whole after any death."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.artifact import Action, Artifact, Store, canonical, default_root, digest_of, first_difference
from edgeopt.errors import ConfigError, StoreError

FILES = {"model.bin": b"\x00\x01weights", "sub/layer_map.json": b"[]"}
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(
    store: Store, files: Mapping[str, bytes] = FILES, meta: Mapping[str, Any] | None = None, kind: str = "onnx"
) -> Artifact:
    with store.scratch() as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return store.put(kind, folder, meta or {})


def record(store: Store, artifact: Artifact, **fields: Any) -> str:
    key = digest_of(fields)
    store.record(Action(key, fields, artifact.digest, 1.5, "did it", ("a note",), time.time()))
    return key


def damage(path: Path) -> None:
    """Flip one bit, behind the store's back."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# Objects


def test_what_was_put_is_what_one_gets(store):
    meta = {"input": {"shape": [3, 8, 8], "scale": 0.1}, "name": "naïve"}
    artifact = put(store, meta=meta)
    found = Store(store.root).get(artifact.digest)
    assert found == artifact
    assert (found.kind, found.meta, set(found.files)) == ("onnx", meta, set(FILES))
    assert {name: found.path(name).read_bytes() for name in FILES} == FILES
    assert found.size_mib == sum(map(len, FILES.values())) / 2**20


def test_equal_content_is_one_object(store):
    first, second = put(store), put(store)
    assert first.digest == second.digest
    assert store.info()["objects"] == 1
    assert not list((store.root / "tmp").iterdir())


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "onnx-qdq"},
        {"meta": {"a": 1}},
        {"files": {**FILES, "model.bin": b"\x00\x02weights"}},
        {"files": {"other.bin": FILES["model.bin"], "sub/layer_map.json": b"[]"}},
        {"files": {"model.bin": FILES["model.bin"]}},
        {"files": {**FILES, "empty": b""}},
    ],
    ids=["kind", "meta", "byte", "name", "fewer", "more"],
)
def test_anything_else_is_another_object(store, other):
    assert put(store, **other).digest != put(store).digest
    assert store.info()["objects"] == 2


def test_files_of_an_object_are_read_only(store):
    artifact = put(store)
    assert all(artifact.path(name).stat().st_mode & 0o222 == 0 for name in FILES)


def test_scratch_is_empty_and_goes_away(store):
    with store.scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "half").write_text("x")
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), store.scratch() as folder:
        raise ZeroDivisionError
    assert not folder.exists()


@pytest.mark.parametrize("name", ["model.bin", "sub/layer_map.json", "artifact.json"])
def test_damage_is_seen_whenever_an_object_is_read(store, name):
    artifact = put(store)
    key = record(store, artifact, stage="export")
    damage(artifact.root / name)
    assert store.verify() == [artifact.digest]
    assert store.action(key) is None
    with pytest.raises(StoreError, match="missing or damaged"):
        store.get(artifact.digest)


@pytest.mark.parametrize("name", ["model.bin", "artifact.json"])
def test_a_missing_file_is_seen(store, name):
    artifact = put(store)
    (artifact.root / name).unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        store.get(artifact.digest)


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"null", b"{}", b'{"files": []}', b"\xff\xfe"])
def test_a_broken_manifest_is_damage_not_a_crash(store, manifest):
    artifact = put(store)
    (artifact.root / "artifact.json").write_bytes(manifest)
    assert store.verify() == [artifact.digest]


def test_putting_again_repairs(store):
    artifact = put(store)
    key = record(store, artifact, stage="export")
    damage(artifact.path("model.bin"))
    assert put(store).digest == artifact.digest
    assert store.verify() == []
    assert store.get(artifact.digest).path("model.bin").read_bytes() == FILES["model.bin"]
    assert store.action(key) is not None
    assert not list((store.root / "tmp").iterdir())


def test_meta_that_is_no_json_is_refused(store):
    for meta in ({"loss": float("nan")}, {"array": {1, 2}}):
        with pytest.raises((ValueError, TypeError)):
            put(store, meta=meta)
    assert store.info()["objects"] == 0


@pytest.mark.parametrize("length", [4, 12, 64])
def test_find_by_the_beginning_of_the_digest(store, length):
    artifact = put(store)
    assert store.find(artifact.digest[:length]) == artifact


@pytest.mark.parametrize("prefix", ["", "abc", "zzzz", "../..", "00000000", "a" * 65, "*" * 4])
def test_find_refuses_what_is_not_one_object(store, prefix):
    put(store)
    with pytest.raises(ConfigError, match="no artefact"):
        store.find(prefix)


def test_find_refuses_what_is_ambiguous(store):
    digests = [put(store, {"n": str(n).encode()}).digest for n in range(2)]
    for digest in digests:  # no two of so few agree in four digits, so make two that do
        (store.root / "objects" / "ab" / f"abcd{digest[4:]}").mkdir(parents=True)
    with pytest.raises(ConfigError, match="2 stored artefacts begin with 'abcd'"):
        store.find("abcd")


# Actions


def test_an_action_is_found_by_its_key(store):
    artifact = put(store)
    key = record(store, artifact, stage="export", seed=7)
    found = Store(store.root).action(key)
    assert found is not None
    action, output = found
    assert output == artifact
    assert action.fields == {"stage": "export", "seed": 7}
    assert (action.output, action.seconds, action.summary, action.notes) == (
        artifact.digest,
        1.5,
        "did it",
        ("a note",),
    )


def test_an_action_that_was_never_done_is_none(store):
    assert store.action(digest_of({})) is None


def test_an_action_whose_fields_were_changed_is_none(store):
    key = record(store, put(store), seed=7)
    file = store.root / "actions" / f"{key}.json"
    file.write_text(file.read_text().replace('"seed":7', '"seed":8'))
    assert store.action(key) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b'"x"', b"\xff"])
def test_a_broken_action_is_none(store, content):
    key = record(store, put(store), seed=7)
    (store.root / "actions" / f"{key}.json").write_bytes(content)
    assert store.action(key) is None


@pytest.mark.parametrize(("name", "value"), [("output", None), ("output", 5), ("output", "00"), ("notes", 5)])
def test_an_action_with_a_senseless_field_is_none(store, name, value):
    key = record(store, put(store), seed=7)
    file = store.root / "actions" / f"{key}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    assert store.action(key) is None


def test_slots_remember_what_a_step_did_last(store):
    assert store.last_fields("recipe|prune") is None
    for seed in (7, 8):
        store.remember("recipe|prune", record(store, put(store), seed=seed))
    assert store.last_fields("recipe|prune") == {"seed": 8}
    assert store.last_fields("recipe|distill") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"key": 5}'])
def test_a_broken_slot_is_forgotten(store, content):
    store.remember("s", record(store, put(store), seed=7))
    (slot,) = (store.root / "slots").iterdir()
    slot.write_bytes(content)
    assert store.last_fields("s") is None


# Cleaning up


def test_info_counts(store):
    assert store.info() == {"path": str(store.root), "objects": 0, "actions": 0, "size_mib": 0.0}
    record(store, put(store), seed=7)
    assert store.info() == {
        "path": str(store.root),
        "objects": 1,
        "actions": 1,
        "size_mib": sum(map(len, FILES.values())) / 2**20,
    }


def test_gc_removes_what_was_not_used_and_nothing_else(store):
    kept, old, orphan, fresh = (put(store, {"n": name.encode()}) for name in ("kept", "old", "orphan", "fresh"))
    keep_key, old_key = record(store, kept, n="kept"), record(store, old, n="old")
    age(store.root / "actions" / f"{old_key}.json", 40 * DAY)
    for artifact in (kept, old, orphan):
        age(artifact.root, 50 * DAY)
    done = store.gc(30 * DAY)
    assert done == {"actions": 1, "objects": 2, "freed_mib": len("old" + "orphan") / 2**20}
    assert store.action(keep_key) is not None
    assert store.action(old_key) is None
    assert store.get(fresh.digest) == fresh
    for gone in (old, orphan):
        with pytest.raises(StoreError):
            store.get(gone.digest)
    assert store.gc(30 * DAY) == {"actions": 0, "objects": 0, "freed_mib": 0.0}


@pytest.mark.parametrize("older_than_seconds", [0.0, 10.0, DAY])
def test_gc_spares_an_object_whose_action_may_be_about_to_be_recorded(store, older_than_seconds):
    artifact = put(store)
    age(artifact.root, 3500)
    store.gc(older_than_seconds)
    assert store.get(artifact.digest)
    age(artifact.root, 3700)
    assert put(store).digest == artifact.digest  # made anew: young again
    store.gc(older_than_seconds)
    assert store.get(artifact.digest)
    age(artifact.root, 3700)
    assert store.gc(older_than_seconds)["objects"] == 1


def test_using_an_action_keeps_it(store):
    key = record(store, put(store), seed=7)
    file = store.root / "actions" / f"{key}.json"
    age(file, 40 * DAY)
    assert store.action(key) is not None
    assert store.gc(30 * DAY)["actions"] == 0


def test_gc_removes_broken_actions_and_leftovers_of_the_dead(store):
    (store.root / "actions" / "broken.json").write_text("{")
    leftovers = [store.root / "tmp" / name for name in ("folder", "file")]
    leftovers[0].mkdir()
    leftovers[1].write_text("half")
    lock = store.root / "locks" / "x.lock"
    lock.touch()
    young = store.root / "tmp" / "young"
    young.mkdir()
    for path in (*leftovers, lock):
        age(path, 8 * DAY)
    assert store.gc(30 * DAY)["actions"] == 1
    assert not any(path.exists() for path in (*leftovers, lock))
    assert young.exists()


def test_clear_removes_what_the_store_holds_and_nothing_else(store):
    key = record(store, put(store), seed=7)
    store.remember("s", key)
    (store.root / "README").write_text("mine")
    store.clear()
    assert store.info()["objects"] == store.info()["actions"] == 0
    assert store.last_fields("s") is None
    assert (store.root / "README").read_text() == "mine"
    assert put(store)  # and it works on


# Places that cannot be written


def test_a_store_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "store", Path("/proc/store")):
        with pytest.raises(StoreError, match="cannot use the store") as caught:
            Store(root)
        assert "EDGEOPT_CACHE" in caught.value.fix


def test_a_store_whose_folders_vanish_is_an_error_that_says_so(store):
    artifact = put(store)
    for name in ("tmp", "locks"):
        (store.root / name).rename(store.root / f"{name}.away")
        (store.root / name).write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        record(store, artifact, seed=7)
    with pytest.raises(StoreError, match="cannot write"), store.scratch():
        pass
    with pytest.raises(StoreError, match="cannot lock"), store.lock("key"):
        pass


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_full_disk(small_disk):
    store = Store(small_disk / "store")
    kept = put(store, {"kept": os.urandom(1000)})
    key = record(store, kept, n=0)
    with pytest.raises(OSError, match="No space left"):
        fill(small_disk / "filler")
    with pytest.raises(StoreError, match="No space left") as caught:
        record(store, kept, n=1)
    assert "cache gc" in caught.value.fix
    with pytest.raises(StoreError, match="No space left"), store.scratch() as folder:
        store.put("onnx", folder, {"long": "x" * 100})
    assert not list((store.root / "tmp").iterdir())
    assert store.verify() == []
    assert store.action(key) is not None
    (small_disk / "filler").unlink()
    assert store.action(record(store, put(store), n=2)) is not None


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEOPT_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.setenv("EDGEOPT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "edgeopt"


# Keys


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(["stage", "params", "inputs", "seed"]), JSON, max_size=4)


@given(value=JSON)
def test_canonical_survives_json_and_the_order_of_keys(value):
    again = json.loads(canonical(value))
    assert canonical(again) == canonical(value)
    if isinstance(value, dict):
        assert digest_of(dict(reversed(value.items()))) == digest_of(value)


@given(before=FIELDS, now=FIELDS)
def test_there_is_a_first_difference_exactly_if_the_keys_differ(before, now):
    assert (first_difference(before, now) == "") == (digest_of(before) == digest_of(now))
    assert first_difference(now, now) == ""


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b: 2 -> 3"),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, "a: 1 -> 2"),
        ({"tools": {"nncf": "3.1", "x": "1"}}, {"tools": {"nncf": "3.2", "x": "1"}}, "tools.nncf: 3.1 -> 3.2"),
        ({"data": {"train": "a" * 64}}, {"data": {"train": "b" * 64}}, f"data.train: {'a' * 12} -> {'b' * 12}"),
        ({"a": None}, {}, "a: null -> nothing"),
        ({}, {"a": {"b": 1}}, 'a: nothing -> {"b":1}'),
        ({"a": 1}, {"a": 1.0}, "a: 1 -> 1.0"),
        ({"a": 1}, {"a": True}, "a: 1 -> true"),
    ],
)
def test_first_difference_is_a_path_with_both_values(before, now, expected):
    assert first_difference(before, now) == expected


# Death and company: each worker is a real process on the same folder.

WORKER = """\
import os, sys, time
from pathlib import Path
from edgeopt import artifact
from edgeopt.artifact import Action, Store, digest_of

artifact._GRACE_SECONDS = 0.0  # so that cleaning up removes something


def work(store, number):
    fields = {"stage": "work", "number": number}
    key = digest_of(fields)
    with store.lock(key):
        if store.action(key) is not None:
            return
        with open(store.root / "log", "a") as log:
            log.write(f"{number}\\n")
        with store.scratch() as folder:
            for part in range(3):
                (folder / f"part{part}").write_bytes(number.to_bytes(4, "big") * 5000)
            made = store.put("onnx", folder, {"number": number // 2})
        store.record(Action(key, fields, made.digest, 0.0, "", (), time.time()))
    store.remember(f"slot {number % 3}", key)
"""
FOREVER = """
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    work(store, number)
    if number % 7 == 0:
        store.gc(0.0)
    number += 1
"""
SHARED = """
store = Store(Path(sys.argv[1]))
for number in [*range(25), *range(25)]:
    work(store, number)
    fields = {"stage": "work", "number": number}
    action, made = store.action(digest_of(fields))
    assert made.path("part1").read_bytes() == number.to_bytes(4, "big") * 5000
print("done", flush=True)
"""


SAME = """
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(150):
    with store.scratch() as folder:
        (folder / "part").write_bytes(number.to_bytes(4, "big"))
        made = store.put("onnx", folder, {})
    assert store.get(made.digest) == made
print("done", flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER + script, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


EVERY_STEP = """
import shutil, signal

CHANGES = {"mkdir", "rename", "replace", "unlink", "rmdir", "chmod", "utime", "write", "__exit__", "fdopen"}


def die_before(call):
    # kill -9 this process before the call with that number of those that change files
    def count(frame, event, function):
        nonlocal call
        if event == "c_call" and function.__name__ in CHANGES:
            call -= 1
            if call == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def session(root):
    store = Store(root)
    work(store, 1)  # its object is damaged: repairs
    store.gc(1e9)  # there is an object that nobody needs: removes
    work(store, 2)  # adds


def unreadable(store):
    return [file.stem for file in (store.root / "actions").glob("*.json") if store.action(file.stem) is None]


top = Path(sys.argv[1])
start = Store(top / "start")
for number in (1, 9):
    work(start, number)
keys = {number: digest_of({"stage": "work", "number": number}) for number in (1, 9)}
damaged = start.action(keys[1])[1]
damaged.path("part2").chmod(0o644)
damaged.path("part2").write_bytes(b"damaged")
unneeded = start.action(keys[9])[1]
(start.root / "actions" / f"{keys[9]}.json").unlink()
os.utime(unneeded.root, (0, 0))

call, alive = 0, False
while not alive:
    call += 3  # every third is enough, and three times as fast
    root = shutil.copytree(start.root, top / "copy")
    child = os.fork()
    if child == 0:
        die_before(call)
        session(root)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    alive = os.WIFEXITED(status)
    assert not alive or os.WEXITSTATUS(status) == 0, status
    store = Store(root)
    assert set(store.verify()) <= {damaged.digest}, (call, store.verify())
    assert set(unreadable(store)) <= {keys[1]}, (call, unreadable(store))
    session(root)
    assert store.verify() == unreadable(store) == [], call
    shutil.rmtree(root)
print(call, flush=True)
"""


def test_a_store_is_whole_after_a_kill_at_any_step(tmp_path):
    with start(EVERY_STEP, str(tmp_path)) as worker:
        output, errors = worker.communicate(timeout=100)
    assert errors == ""
    assert int(output) > 90  # calls, so more than thirty deaths


def _lines(file):
    return file.read_text().count("\n") if file.is_file() else 0


def test_a_store_is_whole_after_a_kill_at_any_moment(tmp_path):
    chance = random.Random(5)
    root = tmp_path / "store"
    for life in range(15):
        before = _lines(root / "log")
        with start(FOREVER, str(root), str(1000 * life)) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            while _lines(root / "log") < before + 1:  # it does work, however busy the machine is
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.08))
            worker.send_signal(signal.SIGKILL)
        store = Store(root)
        assert store.verify() == []
        for file in (root / "actions").glob("*.json"):
            assert store.action(file.stem) is not None
    with start(SHARED, str(root)) as worker:
        assert worker.communicate(timeout=60) == ("done\n", "")
    store.gc(0.0)
    assert store.verify() == []


def test_processes_on_one_store_do_each_work_once_and_read_only_whole_objects(tmp_path):
    root = tmp_path / "store"
    workers = [start(SHARED, str(root)) for _ in range(3)]
    assert [worker.communicate(timeout=120) for worker in workers] == [("done\n", "")] * 3
    assert sorted((root / "log").read_text().split(), key=int) == [str(number) for number in range(25)]
    store = Store(root)
    assert store.verify() == []
    assert store.info()["actions"] == 25
    assert list((root / "tmp").iterdir()) == []


def test_processes_may_put_equal_objects_at_the_same_moment(tmp_path):
    """Two different actions may well give the same artefact."""
    workers = [start(SAME, str(tmp_path)) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=120) for worker in workers] == [("done\n", "")] * 3
    store = Store(tmp_path)
    assert store.info()["objects"] == 150
    assert store.verify() == []
