"""Files of tensors: what is damaged is made again or passed over; what cannot be read is neither, and stays."""

import errno
import re
import shutil

import pytest
import torch

pytest.importorskip("transformers")

from tiny_llm import tiny_settings, write_inputs

from gradlab.llm.model import tensor_file
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.llm.train import checkpoints, hidden_cache
from gradlab.llm.train.stages import train
from gradlab.store.sealed import Damaged

RUN = {"steps": 4, "save_every": 2, "validate_every": 0, "loss": ("dpo",)}
BROKEN = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def file(tmp_path):
    write_tensors(tmp_path / "one.safetensors", {"a": torch.ones(3)}, key="k")
    return tmp_path / "one.safetensors"


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 100])
def test_another_content_is_damage(file, content):
    file.write_bytes(content)
    with pytest.raises(Damaged, match="is damaged"):
        read_tensors(file)


def test_what_cannot_be_read_is_no_damage(file, monkeypatch):
    with pytest.raises(FileNotFoundError):
        read_tensors(file.with_name("none"))
    with pytest.raises(IsADirectoryError):
        read_tensors(file.parent)

    def fails(error):
        def opened(*_):
            raise error

        monkeypatch.setattr(tensor_file, "safe_open", opened)

    for error in (BROKEN, PermissionError(errno.EACCES, "Permission denied")):
        fails(error)
        with pytest.raises(type(error), match=error.strerror):
            read_tensors(file)
    fails(tensor_file.SafetensorError("I/O error: Input/output error (os error 5)"))
    with pytest.raises(OSError, match=rf"^{re.escape(str(file))} cannot be read: I/O error"):
        read_tensors(file)
    fails(tensor_file.SafetensorError("Error while deserializing header: header too small"))
    with pytest.raises(Damaged):
        read_tensors(file)


class _Stopped(Exception):
    pass


def stopped(*_):
    raise _Stopped


def unreadable(error):
    def read(path):
        raise type(error)(error.errno, error.strerror, str(path))

    return read


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(inputs, tmp_path, monkeypatch, capsys):
    settings = tiny_settings(inputs, tmp_path / "out", **RUN)
    with pytest.raises(_Stopped):
        train(settings, lambda stage, model, step: stopped() if step == 4 else None)
    there = sorted((tmp_path / "out" / "dpo" / "checkpoints").iterdir())
    assert there
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "read_tensors", unreadable(BROKEN))
        with pytest.raises(OSError, match=r"Input/output error"):
            train(settings)
        patched.setattr(checkpoints, "read_tensors", unreadable(FileNotFoundError(errno.ENOENT, "No such file")))
        with pytest.raises(OSError, match=r"part-0000\.safetensors must be seen by every process, but process 0 does"):
            train(settings)
    assert "damaged" not in capsys.readouterr().err
    assert sorted((tmp_path / "out" / "dpo" / "checkpoints").iterdir()) == there
    train(settings)


def test_a_part_of_a_cache_that_cannot_be_read_stays(tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path)
    changed = {**RUN, "train_from": 1, "cache": tmp_path / "cache", "steps": 1}
    train(tiny_settings(tmp_path, tmp_path / "one", **changed))
    parts = sorted((tmp_path / "cache").glob("hidden-*/*.safetensors"))
    assert parts
    with monkeypatch.context() as patched:
        patched.setattr(hidden_cache, "read_tensors", unreadable(BROKEN))
        with pytest.raises(OSError, match=r"Input/output error"):
            train(tiny_settings(tmp_path, tmp_path / "two", **changed))
    assert sorted((tmp_path / "cache").glob("hidden-*/*.safetensors")) == parts
    assert "damaged" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "two")
    train(tiny_settings(tmp_path, tmp_path / "two", **changed))
