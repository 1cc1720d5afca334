"""Notebooks and figures travel with the package; what a user has changed is never written over."""

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gradlab.store import shipped
from gradlab.store.shipped import copy_notebooks

ROOT = Path(__file__).parent.parent


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Two notebooks and a picture in the place of the shipped ones."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for name in ("00-start.ipynb", "01-more.ipynb", "images/one.png"):
        (folder / name).write_text(f"first {name}")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints/00-start-checkpoint.ipynb").write_text("left over")
    monkeypatch.setattr(shipped, "shipped", lambda name: folder)
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_notebooks_and_pictures_are_copied_and_nothing_else(source, tmp_path):
    target = tmp_path / "deep/er"
    assert copy_notebooks(target) == []
    assert names(target) == [".gradlab-notebooks.json", "00-start.ipynb", "01-more.ipynb", "images/one.png"]
    assert (target / "01-more.ipynb").read_text() == "first 01-more.ipynb"
    assert copy_notebooks(target) == []


def test_a_changed_file_is_kept_and_named_and_an_unchanged_one_gives_way_to_a_newer(source, tmp_path):
    target = tmp_path / "mine"
    copy_notebooks(target)
    (target / "01-more.ipynb").write_text("my notes")
    for file in source.glob("*.ipynb"):
        file.write_text(f"second {file.name}")
    for _ in range(2):
        assert copy_notebooks(target) == ["01-more.ipynb"]
        assert (target / "01-more.ipynb").read_text() == "my notes"
        assert (target / "00-start.ipynb").read_text() == "second 00-start.ipynb"
    (target / "01-more.ipynb").write_text("second 01-more.ipynb")
    assert copy_notebooks(target) == []


@pytest.mark.parametrize("record", ["", "[1]", "{broken", "\xff"])
def test_without_a_readable_record_everything_that_differs_is_kept(source, tmp_path, record):
    target = tmp_path / "mine"
    copy_notebooks(target)
    (target / ".gradlab-notebooks.json").write_text(record, encoding="latin-1")
    (target / "00-start.ipynb").write_text("mine")
    assert copy_notebooks(target) == ["00-start.ipynb"]
    assert (target / "00-start.ipynb").read_text() == "mine"


def test_files_of_others_are_left_alone(source, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.ipynb").write_text("chapter one")
    (target / "00-start.ipynb").write_text("another start")
    assert copy_notebooks(target) == ["00-start.ipynb"]
    assert (target / "thesis.ipynb").read_text() == "chapter one"
    assert "00-start.ipynb" not in json.loads((target / ".gradlab-notebooks.json").read_text())


@pytest.mark.parametrize("renamed", range(4))
def test_what_an_interrupted_copy_has_written_is_known_as_ours(source, tmp_path, monkeypatch, renamed):
    target = tmp_path / "mine"
    copy_notebooks(target)
    for file in source.glob("*.ipynb"):
        file.write_text(f"second {file.name}")
    rename, calls = os.replace, []

    def stopped(old, new):
        if len(calls) == renamed:
            raise KeyboardInterrupt
        calls.append(rename(old, new))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        with contextlib.suppress(KeyboardInterrupt):
            copy_notebooks(target)
    for file in source.glob("*.ipynb"):
        file.write_text(f"third {file.name}")
    assert copy_notebooks(target) == []
    for name in ("00-start.ipynb", "01-more.ipynb"):
        assert (target / name).read_text() == f"third {name}"


def test_a_link_in_a_notebook_s_place_is_kept(source, tmp_path):
    target = tmp_path / "mine"
    copy_notebooks(target)
    (tmp_path / "theirs").write_text("first 00-start.ipynb")
    (target / "00-start.ipynb").unlink()
    (target / "00-start.ipynb").symlink_to(tmp_path / "theirs")
    (source / "00-start.ipynb").write_text("second")
    assert copy_notebooks(target) == ["00-start.ipynb"]
    assert (tmp_path / "theirs").read_text() == "first 00-start.ipynb"
    assert (target / "00-start.ipynb").is_symlink()


def test_a_folder_in_a_notebook_s_place_is_kept_and_the_rest_is_copied(source, tmp_path):
    target = tmp_path / "mine"
    (target / "00-start.ipynb").mkdir(parents=True)
    assert copy_notebooks(target) == ["00-start.ipynb"]
    assert (target / "01-more.ipynb").is_file()


def test_the_shipped_ones_are_not_copied_into_themselves(source):
    for folder in (source, source / "deeper"):
        with pytest.raises(ValueError, match="folder must lie outside of"):
            copy_notebooks(folder)


def test_a_file_in_the_folder_s_place_is_refused(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder must be a folder, or not be there yet, got the file"):
        copy_notebooks(tmp_path / "file")


def test_what_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "gradlab/store/shipped.py"))
    with pytest.raises(FileNotFoundError, match="lacks its notebooks"):
        shipped.shipped("notebooks")


def test_the_checkout_ships_the_real_ones():
    assert shipped.shipped("notebooks") == ROOT / "notebooks"
    assert (shipped.shipped("figures") / "claims.csv").is_file()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that the wheel is installed to, and the paths in it."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
        return folder / "site", set(archive.namelist())


def installed(site, code, folder):
    """Run code on the installed wheel, in a folder, and return what it printed."""
    start = f"import sys; sys.path.insert(0, {str(site)!r}); import gradlab; assert {str(site)!r} in gradlab.__file__"
    ran = subprocess.run([sys.executable, "-I", "-c", f"{start}; {code}"], capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_wheel_holds_notebooks_figures_and_the_code_of_the_pages(site, tmp_path):
    target, inside = site
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"gradlab/notebooks/{file.name}" in inside
    wanted = (
        "figures/claims.csv", "web/gradlab.js", "web/gradlab.licenses.txt", "web/table.js", "web/keys.js",
        "web/rating.js", "web/rating.css",
    )  # fmt: skip
    assert {f"gradlab/{name}" for name in wanted} <= inside
    assert not any("ipynb_checkpoints" in name or "figures/quick" in name or "/.parts" in name for name in inside)
    code = (
        "from pathlib import Path; from gradlab.store.shipped import copy_notebooks; print(copy_notebooks(Path('got')))"
    )
    assert installed(target, code, tmp_path).strip() == "[]"
    assert (tmp_path / "got/00-start.ipynb").is_file()


@pytest.mark.slow
def test_the_wheel_trains_a_model(site, tmp_path):
    pytest.importorskip("transformers")
    from tiny_llm import options, write_inputs

    from gradlab.doctor.training_log import read_log

    write_inputs(tmp_path)
    command = ["train", *options(tmp_path, tmp_path / "out")]
    said = installed(site[0], f"from gradlab.cli import main; sys.exit(main({command}))", tmp_path)
    assert "dpo, gradlab doctor:" in said
    assert read_log(tmp_path / "out/dpo/log.jsonl")["step"].tolist() == [1, 2, 3, 4, 5]
    assert (tmp_path / "out/dpo/model/model.safetensors").is_file()
