"""``import gradlab as gl``: what it promises is there, and importing it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gradlab as gl

STUB = Path(gl.__file__).with_suffix(".pyi")


def imported_names() -> set[str]:
    """The names that the stub imports."""
    tree = ast.parse(STUB.read_text("utf-8"))
    return {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_stub_promises_what_it_imports():
    assert set(gl.__all__) == imported_names()
    promised = next(node.value for node in ast.parse(STUB.read_text("utf-8")).body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(promised)) == imported_names()


@pytest.mark.parametrize("name", sorted(gl.__all__))
def test_every_promised_name_is_there_and_says_what_it_is(name):
    if name == "widgets":
        pytest.importorskip("ipywidgets")
    assert getattr(gl, name).__doc__, name


def test_the_names_that_notebooks_and_docs_rely_on_are_promised():
    names = {
        "gaussian_world", "World", "PairLogps", "DPO", "BalancedDPO", "NaiveBalancedDPO", "losses", "register_loss",
        "log_prob_ratio", "Training", "fit", "Fit", "theory", "metrics", "read_log", "examine_log",
    }  # fmt: skip
    assert names <= set(gl.__all__)
    for name in ("slopes", "PAIR_LOSSES", "pair_loss"):
        assert hasattr(gl.losses, name)
    for name in (
        "dpo_weight",
        "balanced_weight",
        "bdpo_weight",
        "extrema",
        "variance_ratio",
        "gradient_inner_products",
    ):
        assert hasattr(gl.theory, name)
    for name in ("expected_utility", "kl_to_reference", "unobserved_mass", "entropy", "win_rate"):
        assert hasattr(gl.metrics, name)


def test_the_studys_names_are_functions_and_records_whatever_was_imported_before():
    import gradlab.study.planned_power
    import gradlab.study.report_page  # noqa: F401  a file of a function's name would hide the function

    assert {"Plan", "Goal", "Primary", "Design", "Exclusions", "Stop", "Analysis", "power", "report", "freeze", "Study",
            "read_study", "assign", "read_answers", "RaterModel", "simulated",
            "rating_page", "interim"} <= set(gl.study.__all__)  # fmt: skip
    for name in gl.study.__all__:
        assert callable(getattr(gl.study, name)), name
        assert getattr(gl.study, name).__doc__, name


def test_importing_it_loads_no_library_of_numbers():
    code = "import sys, gradlab; print(sorted({'torch', 'numpy', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_name_is_refused():
    with pytest.raises(AttributeError, match="ballanced"):
        _ = gl.ballanced  # type: ignore[attr-defined]
