"""The committed notebooks: executed, with static pictures; running them again changes nothing."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import ipywidgets
import numpy as np
import pytest

from gradlab.widgets import EXPLORERS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLOSED = re.compile(
    r"^<details>\n<summary><b>Takeaway</b>: open it when you have made your prediction.</summary>(.*?)</details>$",
    re.DOTALL | re.MULTILINE,
)
# The trainings of notebook 14 whose weights leave [0, 1] make rounding errors larger at every step
# (``test_line.test_near_its_pole_...``), so that some of its curves and dots lie elsewhere on another processor.
ELSEWHERE = {"14-continuous": 0.03}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The folder with every notebook run anew; two at a time."""
    folder = tmp_path_factory.mktemp("again")
    command = [sys.executable, ROOT / "scripts/notebooks.py", "--out", folder]
    halves = [subprocess.Popen([*command, *NOTEBOOKS[half::2]], stderr=subprocess.PIPE, text=True) for half in (0, 1)]
    for half in halves:
        _, complaints = half.communicate()
        assert half.returncode == 0, complaints
    return folder


@pytest.fixture(scope="module")
def notebooks():
    """The script, whose packages take seconds to load."""
    return importlib.import_module("scripts.notebooks")


def read(path):
    import nbformat

    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_one_from_the_start_to_the_end():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(len(NOTEBOOKS))]
    shown = "".join(path.read_text("utf-8") for path in NOTEBOOKS)
    for explorer in EXPLORERS.values():
        assert f"{explorer.__name__}(" in shown


@every_notebook
def test_its_cells_run_one_after_the_other(path, monkeypatch, registered):
    """In this process, where PyTorch is loaded; ``make test-all`` gives each notebook a kernel of its own instead."""
    monkeypatch.chdir(path.parent)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(read(path)), 1):
        *steps, last = ast.parse(cell.source, f"{path.name}, cell {number}").body
        if not isinstance(last, ast.Expr):
            steps, last = [*steps, last], None
        exec(compile(ast.Module(steps, []), f"{path.name}, cell {number}", "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), f"{path.name}, cell {number}", "eval"), names)
            assert shown is None or "image/png" in shown._repr_mimebundle_()
    for value in names.values():
        if isinstance(value, ipywidgets.Widget):
            value.close()


@pytest.mark.slow
@every_notebook
def test_running_it_again_changes_nothing(path, again, notebooks):
    committed, new = read(path), read(again / path.name)
    for old, fresh in zip(notebooks.pictures(committed), notebooks.pictures(new), strict=True):
        assert old.shape == fresh.shape
        # Another processor may round a number otherwise, and so move an edge by a shade.
        differs = np.abs(old.astype(int) - fresh.astype(int)).max(-1) > 24
        assert differs.mean() < ELSEWHERE.get(path.stem, 0.002)
    for notebook in (committed, new):
        for cell in code_cells(notebook):
            for output in cell.outputs:
                output.get("data", {}).pop("image/png", None)
    assert committed == new


@every_notebook
def test_it_is_executed_reads_well_without_a_kernel_and_holds_nothing_live(path):
    notebook = read(path)
    text = path.read_text("utf-8")
    assert "widget-view" not in text
    assert "model_id" not in text
    assert "widgets" not in notebook.metadata
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for shows, drives in zip(cells[::2], cells[1::2], strict=True):
        (output,) = shows.outputs
        assert "image/png" in output.data
        assert re.match(r"\w*Explorer: |StudyRating: |Report: ", output.data["text/plain"])
        assert drives.outputs == []
        assert "assert " in drives.source
        assert ".reset()" in drives.source or ".undo()" in drives.source


@every_notebook
def test_checks_are_folded_and_a_takeaway_is_closed_after_its_prediction(path, notebooks):
    predicted = False
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.metadata == (notebooks.FOLDED if "assert " in cell.source else {})
            continue
        closed = CLOSED.findall(cell.source)
        # Blank lines around the text: without them its markdown and mathematics would stay as they are written.
        assert all(text == f"\n\n{text.strip()}\n\n" for text in closed)
        assert "<details open" not in cell.source
        # A prediction, a question and what to try stay open; only a closed text says what to take away.
        assert not any("Prediction" in text or "Try this" in text for text in closed)
        assert len(closed) == cell.source.count("Takeaway") == cell.source.count("<details>")
        if closed:
            assert predicted, cell.source
            predicted = False
        predicted |= "rediction" in CLOSED.sub("", cell.source)


@every_notebook
def test_its_links_lead_somewhere_in_a_copy_too(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if not target.startswith("https://"):
            assert (path.parent / target).is_file(), target
            assert ".." not in target  # the notebooks travel without what is beside them


def test_cleaning_takes_out_what_changes_and_folds_checks(notebooks):
    import nbformat

    output = nbformat.v4.new_output("display_data", {"text/plain": "x", notebooks.LIVE: {"model_id": "1"}})
    timed = {"execution": {"iopub.status.idle": "now"}}
    cell = nbformat.v4.new_code_cell("1", outputs=[output], metadata=timed)
    check = nbformat.v4.new_code_cell("assert 1", metadata=timed)
    text = nbformat.v4.new_markdown_cell("we assert that", metadata={"jupyter": {"source_hidden": True}})
    metadata = {"widgets": {"state": 1}, "language_info": {"name": "python", "version": "3"}}
    cleaned = notebooks.cleaned(nbformat.v4.new_notebook(cells=[cell, check, text], metadata=metadata))
    assert [cell.metadata for cell in cleaned.cells] == [{}, {"jupyter": {"source_hidden": True}}, {}]
    assert cleaned.cells[0].outputs[0].data == {"text/plain": "x"}
    assert set(cleaned.metadata) == {"kernelspec", "language_info"}
    assert cleaned.metadata.language_info == {"name": "python"}


@pytest.mark.slow
def test_an_error_in_a_cell_is_told_and_nothing_is_written(tmp_path):
    import nbformat

    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    ran = subprocess.run([sys.executable, ROOT / "scripts/notebooks.py", path], capture_output=True, text=True,
                         check=False)  # fmt: skip
    assert ran.returncode != 0
    assert "ZeroDivisionError" in ran.stderr
    assert path.read_bytes() == before
