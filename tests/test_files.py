"""Files and folders are written whole or not at all; what killed writers leave is removed, and nothing else."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.store import files


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_while_writing_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, fault):
    path = tmp_path / "a.txt"
    files.write_whole({path: "old"})

    def broken(_):
        raise fault

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(type(fault)):
        files.write_whole({path: "new"})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_written_together_or_not_at_all(tmp_path):
    first, second, third = (tmp_path / "new" / name for name in ("a.txt", "b.bin", "c.txt"))
    files.write_whole({first: "1", second: b"1", third: lambda name: Path(name).write_text("1")})
    assert [path.read_bytes() for path in (first, second, third)] == [b"1"] * 3
    for fault in (OSError(28, "No space left on device"), ValueError("no such figure"), KeyboardInterrupt()):

        def broken(_, fault=fault):
            assert [path.read_bytes() for path in (first, second)] == [b"1"] * 2  # none is renamed so early
            raise fault

        with pytest.raises(type(fault)) as raised:
            files.write_whole({first: "2", second: broken, third: "2"})
        if isinstance(fault, OSError):
            assert raised.value.filename == str(second)
        assert [path.read_bytes() for path in (first, second, third)] == [b"1"] * 3
        assert sorted(first.parent.iterdir()) == [first, second, third]


@pytest.mark.parametrize("other", ["sub/../a", "a/b"])
def test_a_path_that_is_given_twice_or_lies_in_another_is_refused_before_anything_is_written(tmp_path, other):
    with pytest.raises(ValueError, match=r"^files must be different paths, none inside another, got .*/a"):
        files.write_whole({tmp_path / "a": "1", tmp_path / other: "2"})
    assert list(tmp_path.iterdir()) == []
    files.write_whole({})


def test_a_folder_is_written_together_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "model"

    def fill(number):
        return lambda place: (place / f"{number}.txt").write_text(number)

    def broken(place):
        (place / "3.txt").write_text("3")
        raise OSError(28, "No space left on device", str(place / "3.txt"))

    files.write_folder(folder, fill("1"))
    files.write_folder(folder, fill("2"))
    for _ in range(2):
        assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("2.txt", "2")]
        assert list(folder.parent.iterdir()) == [folder]
        with pytest.raises(OSError, match="No space left") as raised:
            files.write_folder(folder, broken)
        assert raised.value.filename == str(folder)


def test_a_folder_behind_a_link_stays_there_and_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    files.write_folder(tmp_path / "link", lambda place: (place / "a").write_text("1"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a").read_text() == "1"
    with pytest.raises(NotADirectoryError, match="disk/a is there and is no folder"):
        files.write_folder(tmp_path / "disk" / "a", lambda place: None)
    assert (tmp_path / "disk" / "a").read_text() == "1"


def test_a_folder_is_replaced_also_where_two_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    test_a_folder_is_written_together_or_not_at_all(tmp_path)


WRITER = """
import os, sys
from pathlib import Path
from gradlab.store import files
kind, folder, call = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if "two" in kind:
    files._exchanged = lambda *_: False
calls = [0]
def killed(function):
    def at_once(*given, **more):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), 9)
        return function(*given, **more)
    return at_once
for name in ("mkdir", "open", "write", "fsync", "chmod", "replace", "rename", "unlink", "rmdir"):
    setattr(os, name, killed(getattr(os, name)))
if kind == "files":
    files.write_whole({folder / "a": "new a", folder / "b": lambda name: Path(name).write_text("new b")})
else:
    files.write_folder(folder / "model", lambda place: [(place / name).write_text(f"new {name}") for name in "ab"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "folder", "folder in two steps"])
def test_a_writer_killed_anywhere_leaves_old_or_new_and_the_next_removes_the_rest(tmp_path, kind):
    states, ended = set(), False
    for call in range(1, 100):
        folder = tmp_path / str(call)
        of_names = folder if kind == "files" else folder / "model"
        of_names.mkdir(parents=True)
        for name in "ab":
            (of_names / name).write_text(f"old {name}")
        (folder / ".a.gradlab-thesis").mkdir()
        ended = subprocess.run([sys.executable, "-c", WRITER, kind, str(folder), str(call)]).returncode == 0
        if kind != "folder in two steps":  # there the folder may be missing until the next writer comes
            assert of_names.is_dir()
        files.remove_leftovers(folder)
        there = {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
        assert there - {".a.gradlab-thesis", "model", "a", "b", "model/a", "model/b"} == set(), call
        state = tuple((of_names / name).read_text() for name in "ab")
        states.add(state)
        if ended:
            break
    assert ended
    assert states == {("old a", "old b"), ("new a", "new b")}


def test_an_error_without_a_number_keeps_its_text(tmp_path):
    def broken(_):
        raise OSError("encoder error -2")

    with pytest.raises(OSError, match=r"a\.png could not be written: encoder error -2"):
        files.write_whole({tmp_path / "a.png": broken})


def leftover(folder, host=None):
    place = folder / f".a.txt.gradlab-{host or files._host()}-abcd1234"
    place.mkdir()
    (place / ".gradlab").touch()
    (place / "a.txt").write_text("half")
    return place


def test_only_what_a_killed_writer_left_is_removed(tmp_path):
    ours = leftover(tmp_path)
    theirs = [tmp_path / name for name in (".a.txt.gradlab-12345678", "a.gradlab-123456-12345678", ".gradlab")]
    for folder in theirs:
        folder.mkdir()
    link = tmp_path / ".b.gradlab-123456-abcd1234"
    link.symlink_to(theirs[0])
    with_a_file = tmp_path / ".c.gradlab-123456-abcd1234"  # without a lock: not from here
    with_a_file.mkdir()
    (with_a_file / "thesis").touch()
    os.utime(with_a_file / "thesis", (0, 0))
    os.utime(with_a_file, (0, 0))
    files.write_whole({tmp_path / "z": "z"})
    assert not ours.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*theirs, link, with_a_file, tmp_path / "z"])
    files.remove_leftovers(tmp_path / "none")


@pytest.mark.parametrize("name", ["../victim", "sub/../../victim", "/{folder}/victim", "..", ".", "", "new\0"])
def test_a_note_moves_nothing_from_or_to_elsewhere(tmp_path, name):
    """A folder from elsewhere may hold what looks like the rest of a killed writer."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "sub").mkdir()
    place = leftover(data)
    (place / "sub").symlink_to(place.parent / "sub")
    (place / "victim").write_text("planted")
    (data / "victim").write_text("mine")
    (tmp_path / "outside").write_text("mine too")
    name = name.format(folder=data)
    (place / ".gradlab-renames").write_text(json.dumps({name: None}))
    files.remove_leftovers(data)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["data", "outside", "sub", "victim"]
    assert (data / "victim").read_text() == "mine"


def test_a_note_plants_nothing_outside_the_folder_that_is_looked_at(tmp_path):
    data = tmp_path / "home" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "deep" / "one").mkdir(parents=True)
    (data / "deep" / "victim").write_text("planted")  # found as PLACE/sub/../victim
    place = leftover(data)
    (place / "sub").symlink_to(data / "deep" / "one")
    (place / ".gradlab-renames").write_text(json.dumps({"sub/../../victim": None, "sub/../victim": None}))
    files.remove_leftovers(data)
    assert not (data.parent / "victim").exists()
    assert not (data / "victim").exists()
    assert not place.exists()


@pytest.mark.parametrize("note", ["[]", "null", "3", '"a"', "{", "[" * 100_000, "pipe", "link"])
def test_a_note_that_is_none_ends_nothing_and_holds_up_nothing(tmp_path, note):
    place = leftover(tmp_path)
    if note == "pipe":
        os.mkfifo(place / ".gradlab-renames")
    elif note == "link":
        (place / "b").symlink_to("/etc/hostname")
        (place / ".gradlab-renames").write_text('{"b": null}')
    else:
        (place / ".gradlab-renames").write_text(note)
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_that_the_user_has_set(tmp_path):
    def modes(*names):
        return [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names]

    before = os.umask(0o077)
    try:
        files.write_whole({tmp_path / "a": "1", tmp_path / "b": lambda name: Path(name).write_text("1")})
        files.write_folder(tmp_path / "c", lambda place: (place / "d").write_text("1"))
        assert modes("a", "b", "c", "c/d") == [0o600, 0o600, 0o700, 0o600]
        (tmp_path / "a").chmod(0o640)
        (tmp_path / "c").chmod(0o750)
        os.umask(0o022)
        files.write_whole({tmp_path / name: "2" for name in ("a", "b", "e")})
        files.write_folder(tmp_path / "c", lambda place: (place / "d").write_text("2"))
        assert modes("a", "b", "c", "e") == [0o640, 0o600, 0o750, 0o644]
    finally:
        os.umask(before)


def test_what_a_living_writer_holds_stays(tmp_path):
    seen = []

    def fill(name):
        files.remove_leftovers(tmp_path)
        seen.append(Path(name).parent.is_dir())

    with pytest.raises(FileNotFoundError) as raised:
        files.write_whole({tmp_path / "a.txt": fill})
    assert seen == [True]
    assert raised.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_another_machines_files_stay_for_a_minute(tmp_path):
    place = leftover(tmp_path, host="123456")
    files.remove_leftovers(tmp_path)
    assert place.exists()
    for file in (*place.iterdir(), place):
        os.utime(file, (0, 0))
    files.remove_leftovers(tmp_path)
    assert not place.exists()


def test_without_locks_files_are_written_and_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    place = leftover(tmp_path)
    monkeypatch.setattr(files.fcntl, "flock", none)
    files.write_whole({tmp_path / "a.txt": "whole"})
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == [place, tmp_path / "a.txt"]


def test_a_folder_that_is_taken_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, calls = files.fcntl.flock, []

    def late(handle, how):
        calls.append(handle)
        if len(calls) == 1:
            for place in tmp_path.iterdir():
                files._remove(place)
        lock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    files.write_whole({tmp_path / "a.txt": "whole"})
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_names_of_any_length_are_written(tmp_path):
    for name in ("a" * 250 + ".txt", "é" * 120, "a." + "b" * 250):
        files.write_whole({tmp_path / name: "whole"})
        assert (tmp_path / name).read_text() == "whole"


def test_a_short_write_is_completed_and_a_failed_one_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file, write = tmp_path / "a.txt", os.write
    file.write_bytes(b"before\n")
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    handle = os.open(file, os.O_WRONLY | os.O_APPEND)
    files.write_all(handle, b"a longer line\n")
    assert file.read_bytes() == b"before\na longer line\n"

    def full(handle, data):
        if len(data) < 8:
            raise OSError(28, "No space left on device")
        return write(handle, data[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_all(handle, b"a longer line\n")
    os.close(handle)
    assert file.read_bytes() == b"before\na longer line\n"


def test_a_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
