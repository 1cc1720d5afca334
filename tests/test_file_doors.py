"""What is no plain file is refused in one line by every command that reads a file, and keeps none of them waiting."""

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from gradlab.checks import input_file, resolved
from gradlab.cli import main
from gradlab.doctor.training_log import append_step, read_log
from gradlab.llm.data.pair_files import records
from gradlab.store.artifacts import load_frame, save_frame
from gradlab.store.json_lines import GrowingLines, append_line, read_lines
from gradlab.store.ratings import read_comparison


@contextlib.contextmanager
def no_longer_than(seconds):
    """Fail where the work inside takes longer, as a reader of a pipe would."""

    def fail(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def bind(path):
    with socket.socket(socket.AF_UNIX) as end, contextlib.chdir(path.parent):
        end.bind(path.name)


def circle(path):
    path.symlink_to(path.name)


KINDS = {
    "pipe": os.mkfifo,
    "link to a pipe": lambda path: (os.mkfifo(f"{path}.pipe"), path.symlink_to(f"{path}.pipe")),
    "socket": bind,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "circle": circle,
    "nothing": lambda path: None,
    "empty": lambda path: path.touch(),
}
if os.geteuid() != 0:  # root may read everything
    KINDS["unreadable"] = lambda path: path.touch(mode=0)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def planted(request, tmp_path):
    """A function that puts something else than a file at a path below the test's folder."""

    def plant(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        request.param(path)
        return path

    return plant


COMMANDS = {
    "sweep": ("f.toml", ["sweep", "{file}"]),
    "config": ("f.toml", ["train", "--config", "{file}"]),
    "doctor": ("f.jsonl", ["doctor", "{file}"]),
    "doctor csv": ("f.csv", ["doctor", "{file}"]),
    "doctor json": ("f.json", ["doctor", "{file}"]),
    "gguf": ("f.gguf", ["inspect", "{file}", "{folder}/none.jsonl"]),
    "merge": ("a/adapter_config.json", ["merge", "{folder}/a", "--out", "{folder}/merged"]),
    "evaluate": ("out/data.json", ["evaluate", "{folder}/out"]),
    "claims": ("data", ["claims", "--folder", "{folder}"]),
    "save": ("f.parquet", ["fit", "--prompts", "2", "--responses", "3", "--steps", "1", "--save", "{file}"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_waits_or_ends_in_a_traceback(planted, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, arguments = COMMANDS[command]
    file = planted(name)
    with no_longer_than(20):
        try:
            status = main([word.format(file=file, folder=tmp_path) for word in arguments])
        except SystemExit:  # an empty file is settings, of which the required ones are missing
            assert command == "config"
            return
    said = capsys.readouterr().err
    if status == 0:  # nothing was there before; an empty file is a sweep of one run; an empty folder holds no frames
        assert command in ("save", "sweep", "claims")
        return
    assert status in (1, 2), said
    assert said.startswith("gradlab: ")
    assert said.count("\n") == 1, said


READERS = {
    "log": ("f.jsonl", read_log),
    "frame": ("f.parquet", load_frame),
    "lines": ("f.jsonl", lambda path: read_lines(path, "a file")),
    "growing lines": ("f.jsonl", lambda path: GrowingLines(path, "a file").read()),
    "samples": ("f.jsonl", read_comparison),
    "pairs": ("f.jsonl", lambda path: list(records(str(path), "train"))),
    "packed pairs": ("f.jsonl.gz", lambda path: list(records(str(path), "train"))),
    "frame of pairs": ("f.parquet", lambda path: list(records(str(path), "train"))),
    "append": ("f.jsonl", lambda path: append_line(path, {"step": 1})),
    "append a step": ("f.jsonl", lambda path: append_step(path, 1)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits(planted, reader):
    name, read = READERS[reader]
    path = planted(name)
    with no_longer_than(5), contextlib.suppress(OSError, ValueError):
        read(path)
        assert path.is_file() or not path.exists()  # a pipe or a device took nothing that it would have lost


@pytest.mark.parametrize("text", ["a\0b", b"bytes", None, 3, ["a"]])
def test_what_no_file_can_be_called_is_refused(text):
    for check in (input_file, resolved):
        with pytest.raises(ValueError, match=r"^log must be a path, got "):
            check("log", text)


def test_the_kinds_are_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert input_file("log", str(file)) == file
    os.mkfifo(tmp_path / "pipe")
    circle(tmp_path / "circle")
    for name, words in {"pipe": "a plain file, got a pipe", ".": "a plain file, got a folder"}.items():
        with pytest.raises(ValueError, match=rf"^log must be {words}: "):
            input_file("log", tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"^log must be a file that can be read, got .*: No such file"):
        input_file("log", tmp_path / "none")
    with pytest.raises(
        OSError, match=r"^log must be a file that can be read, got .*circle: Too many levels of symbolic"
    ):
        input_file("log", tmp_path / "circle")
    with pytest.raises(ValueError, match=r"^folder must not be a circle of links, got "):
        resolved("folder", tmp_path / "circle")


def test_a_folder_that_has_been_removed_is_no_circle_of_links(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["lab", "notebooks", "--copy-only"]) == 1
    assert capsys.readouterr().err == (
        "gradlab: folder must be a usable path, got notebooks: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("command", "options"),
    [("lab", ["--copy-only"]), ("sweep", ["--workers", "1"]), ("figures", ["variance"])],
)
def test_a_link_to_nowhere_is_no_folder_to_write_to(command, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("nowhere")
    Path("s.toml").write_text("prompts = 2\nresponses = 3\nsteps = 2\n")
    where = {"lab": ["link"], "sweep": ["s.toml", "--folder", "link"], "figures": ["--folder", "link"]}[command]
    assert main([command, *where, *options]) == 2
    said = "gradlab: folder must be a folder, or not be there yet, got a link to nowhere 'link'\n"
    assert capsys.readouterr().err == said


def test_a_circle_of_links_is_no_folder_for_notebooks(tmp_path, capsys):
    circle(tmp_path / "loop")
    assert main(["lab", str(tmp_path / "loop"), "--copy-only"]) == 2
    assert capsys.readouterr().err.startswith("gradlab: folder must not be a circle of links, got ")


def test_a_frame_is_not_written_over_a_pipe(tmp_path):
    pd = pytest.importorskip("pandas")
    os.mkfifo(tmp_path / "f.parquet")
    with no_longer_than(5), pytest.raises(FileExistsError, match="is no result that gradlab wrote"):
        save_frame(pd.DataFrame({"a": [1]}), tmp_path / "f.parquet", {})
