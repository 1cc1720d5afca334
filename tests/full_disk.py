"""A disk with little room: a limit on the size of files, a small file system in memory, and what must hold there."""

import contextlib
import resource
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def limit(size):
    """Files cannot grow beyond ``size`` bytes inside: a write takes a part, the next one fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(folder, pages):
    """Mount a file system of so many pages of memory; the test is skipped where it may not."""
    if not shutil.which("mount"):
        pytest.skip("mount is not installed")
    folder.mkdir()
    size = f"size={pages * resource.getpagesize()}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def filled(disk, free):
    """Leave ``free`` pages of a small disk free inside."""
    filler, page = disk / ".filler", bytes(resource.getpagesize())
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(page) == len(page):
                pass
        file.truncate(max(filler.stat().st_size // len(page) - free, 0) * len(page))
    try:
        yield
    finally:
        filler.unlink()


def contents(folder):
    """The content of every file below a folder, by its name; locks, which are empty, left out."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != ".filler")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if not file.name.endswith(".lock")}


def strike(write, folder, scarce):
    """Call ``write`` where there is little room; return whether it failed, which must be in one line.

    Each file must then be the old one or the new one, and ``write`` must succeed where there is room.
    """
    old, said = contents(folder), ""
    try:
        with scarce:
            write()
    except OSError as error:
        said = str(error)
    if not said:
        return False
    assert str(folder) in said
    assert "\n" not in said
    between = contents(folder)
    write()
    new = contents(folder)
    for name, content in between.items():
        finished = "/blocks/" in name and name not in new  # of a sweep, whose blocks are removed at its end
        assert finished or content in (old.get(name), new[name]), f"{name} is neither the old file nor the new one"
    assert old.keys() <= between.keys()
    return True
