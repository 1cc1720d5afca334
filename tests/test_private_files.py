"""Machine code is read back only from files that nobody but this user can have written."""

import contextlib
import os
import signal
import socket
import stat
import time
import warnings

import pytest

from gradlab.lab.engine import machine
from gradlab.store.private_files import NotPrivate, read_private, write_private

OTHER = 65533  # a user that owns nothing here
LARGEST = 1000


@pytest.fixture
def folder(tmp_path):
    """A folder that is ours, with a file of ours."""
    write_private(tmp_path / "made/here", "kernel", b"ours")
    return tmp_path / "made/here"


def test_a_file_is_read_as_it_was_written_and_is_for_this_user_alone(folder):
    assert read_private(folder, "kernel", LARGEST) == b"ours"
    write_private(folder, "kernel", b"newer")
    assert read_private(folder, "kernel", LARGEST) == b"newer"
    assert [path.name for path in folder.iterdir()] == ["kernel"]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "kernel")]
    assert modes == [0o700, 0o700, 0o600]


def test_what_is_missing_or_too_large_is_none(folder):
    assert read_private(folder, "other", LARGEST) is None
    assert read_private(folder / "none", "kernel", LARGEST) is None
    assert read_private(folder, "kernel", 3) is None


def link(path, beside):
    path.symlink_to(beside)


def hard_link(path, beside):
    path.hardlink_to(beside)


def pipe(path, _):
    os.mkfifo(path)


def door(path, _):
    with socket.socket(socket.AF_UNIX) as end, contextlib.chdir(path.parent):  # a socket's path must be short
        end.bind(path.name)


def writable(path, beside):
    path.write_bytes(beside.read_bytes())
    path.chmod(0o660)


@pytest.mark.parametrize("plant", [link, hard_link, pipe, door, writable, lambda path, _: path.mkdir()],
                         ids=["link", "hard link", "pipe", "socket", "group-writable", "folder"])  # fmt: skip
def test_only_a_plain_file_of_ours_is_read(folder, plant):
    plant(folder / "planted", folder / "kernel")
    content = b"anything"
    with contextlib.suppress(OSError):
        content = read_private(folder, "planted", LARGEST)
    assert content in (None, b"anything")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(folder, mode):
    folder.chmod(mode)
    for refused in (lambda: read_private(folder, "kernel", LARGEST), lambda: write_private(folder, "new", b"")):
        with pytest.raises(NotPrivate, match=r"here must belong to you and be writable for you alone: chmod go-w"):
            refused()
    assert not (folder / "new").exists()


@pytest.mark.parametrize(("mode", "fine"), [(0o775, False), (0o777, False), (0o755, True), (0o1777, True)])
def test_so_is_a_folder_on_the_way_to_it_except_one_like_tmp(folder, mode, fine):
    folder.parent.chmod(mode)
    if fine:
        assert read_private(folder, "kernel", LARGEST) == b"ours"
        return
    with pytest.raises(NotPrivate, match=r"others may replace what lies in .*made: chmod go-w"):
        read_private(folder, "kernel", LARGEST)


def test_a_link_on_the_way_is_followed_to_where_it_leads(folder):
    (folder.parents[1] / "link").symlink_to(folder)
    assert read_private(folder.parents[1] / "link", "kernel", LARGEST) == b"ours"
    folder.chmod(0o777)
    with pytest.raises(NotPrivate):
        read_private(folder.parents[1] / "link", "kernel", LARGEST)


def test_a_write_that_fails_leaves_the_file_and_nothing_else(folder, monkeypatch):
    def fail(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_private(folder, "kernel", b"newer")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"ours"]


def test_a_home_that_nothing_names_is_no_folder_named_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotPrivate, match="no home folder is known"):
        write_private("~/.cache/gradlab", "kernel", b"")
    assert not any(tmp_path.iterdir())


def test_a_refused_cache_is_one_notice_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_SAID", set())
    tmp_path.chmod(0o777)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            assert machine.load("text") is None
            machine.save("text", b"code")
    (notice,) = said
    assert "compiled kernels are not kept (see GRADLAB_CACHE): others may replace what lies in" in str(notice.message)
    assert not any(tmp_path.iterdir())
    tmp_path.chmod(0o755)
    machine.save("text", b"code")
    assert machine.load("text") == b"code"


# --- another user on the machine ---

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")


def as_another(work):
    """Start a process of another user that does the work; return its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        work()
        status = 0
    finally:
        os._exit(status)


def done(child):
    return os.waitpid(child, 0)[1] == 0


@pytest.fixture
def shared():
    """A folder like /tmp: everybody may make files in it, and each may replace only their own."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o1777)
        yield os.path.realpath(place)


@needs_root
def test_a_folder_of_another_user_is_refused(shared):
    def plant():
        os.umask(0)
        os.mkdir(f"{shared}/cache", 0o755)
        with open(f"{shared}/cache/kernel", "wb") as file:
            file.write(b"theirs")

    assert done(as_another(plant))
    with pytest.raises(NotPrivate, match="cache must belong to you"):
        read_private(f"{shared}/cache", "kernel", LARGEST)
    with pytest.raises(NotPrivate, match="others may replace what lies in"):
        write_private(f"{shared}/cache/inner", "kernel", b"ours")
    os.chown(f"{shared}/cache", 0, 0)  # ours now, with their file in it
    assert read_private(f"{shared}/cache", "kernel", LARGEST) is None


@needs_root
def test_another_user_cannot_read_or_change_what_is_kept(shared):
    write_private(f"{shared}/cache", "kernel", b"ours")

    def attack():
        for attempt in (
            lambda: os.open(f"{shared}/cache/kernel", os.O_RDONLY),
            lambda: os.rename(f"{shared}/cache", f"{shared}/away"),
            lambda: os.unlink(f"{shared}/cache/kernel"),
        ):
            with contextlib.suppress(PermissionError):
                attempt()
                raise SystemExit

    assert done(as_another(attack))
    assert read_private(f"{shared}/cache", "kernel", LARGEST) == b"ours"


def swap(shared):
    """Exchange, without end, a folder of another user for a link to the folder that is ours; the file in it as well."""
    names = f"{shared}/cache", f"{shared}/cache/kernel"
    while True:
        for change in (
            lambda: os.mkdir(names[0], 0o777),
            lambda: os.symlink(f"{shared}/ours/kernel", names[1]),
            lambda: os.unlink(names[1]),
            lambda: _write(names[1]),
            lambda: os.rename(names[0], f"{shared}/away"),
            lambda: os.symlink(f"{shared}/ours", names[0]),
            lambda: os.unlink(names[0]),
            lambda: os.rename(f"{shared}/away", names[0]),
        ):
            with contextlib.suppress(OSError):
                change()


def _write(name):
    with open(name, "wb") as file:
        file.write(b"theirs")


def raced(shared, tries):
    """Read and write again and again while another user swaps; return how often another's code was read or kept."""
    write_private(f"{shared}/ours", "kernel", b"ours")
    child, lost, seen = as_another(lambda: swap(shared)), 0, set()
    try:
        time.sleep(0.05)
        for _ in range(tries):
            content = None
            with contextlib.suppress(OSError):
                content = read_private(f"{shared}/cache", "kernel", LARGEST)
            seen.add(content)
            with contextlib.suppress(OSError):
                write_private(f"{shared}/cache", "kernel", b"ours")
            lost += content not in (None, b"ours")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert b"ours" in seen  # the two did meet
    return lost


@needs_root
def test_a_folder_that_is_swapped_between_look_and_read_gives_nothing_of_theirs(shared):
    assert raced(shared, 300) == 0


@needs_root
@pytest.mark.long
def test_nor_in_many_tries(shared, faults):
    tries = 50_000
    lost = raced(shared, tries)
    faults("another user", "a kernel cache swapped between look and read", tried=tries, lost=lost)
    assert lost == 0
