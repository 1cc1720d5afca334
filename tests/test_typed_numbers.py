"""No text for readers has a result typed in: shares and counts are read from the report, or a test holds them."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A share, or a count among many. 95% is the level of intervals and a bound of the rules.
TYPED = re.compile(r"\b(?!95 ?%)\d[\d.,]* ?%|\b\d[\d,]* of \d[\d,]*\b")
OLD_WORDS = re.compile(r"\binconclusive\b|\bleast favou?rable\b|\bholds when\b|\bat least half show\b|\bmost show\b")
SETTING, QUANTILE, STATED = "a setting of the story", "quantiles that are drawn", "what the paper states"
PROTOCOL = "of the plan, or of its simulated power; test_study_protocol.py holds it"
ALLOWED = {
    ("frontier_explorer.py", "40%"): SETTING,
    ("grid_explorer.py", "40%"): SETTING,
    ("grid_explorer.py", "80%"): QUANTILE,
    ("explore-by-hand.md", "80%"): QUANTILE,
    ("sigmoid_explorer.py", "90%"): "arithmetic: 9 of 10, as Δu = log 9",
    ("training_log_explorer.py", "10%"): QUANTILE,
    ("training_log_explorer.py", "90%"): QUANTILE,
    ("rating_explorer.py", "42%"): "of the sample; test_widgets_rating.py holds it",
    ("rating_explorer.py", "49%"): "of the sample; test_widgets_rating.py holds it",
    ("shift_explorer.py", "31%"): "of the story; test_widgets_shift.py holds it",
    ("shift_explorer.py", "20%"): "of the story; test_widgets_shift.py holds it",
    ("variance_explorer.py", "27 of 50"): "of the story; test_widgets_variance.py holds it",
    ("07-training-log.ipynb", "80%"): QUANTILE,
    ("08-rating.ipynb", "42%"): "of the sample; test_widgets_rating.py holds it",
    ("08-rating.ipynb", "49%"): "of the sample; test_widgets_rating.py holds it",
    ("08-rating.ipynb", "2 of 12"): "in the code of a test",
    ("09-through-the-paper.ipynb", "18%"): STATED,
    ("09-through-the-paper.ipynb", "21%"): STATED,
    ("human-study-protocol.md", "42.5%"): PROTOCOL,
    ("human-study-protocol.md", "57.5%"): PROTOCOL,
    ("human-study-protocol.md", "60%"): PROTOCOL,
    ("human-study-protocol.md", "55%"): PROTOCOL,
    ("human-study-protocol.md", "9 of 10"): PROTOCOL,
    ("human-study-protocol.md", "3 of 4"): PROTOCOL,
    ("human-study-protocol.md", "90%"): PROTOCOL,
    ("inner_products.py", "60%"): "a setting of the experiment",
    ("cost.py", "2.0%"): "the form of a number, in a docstring",
    ("claims.py", "18%"): STATED,
    ("claims.py", "21%"): STATED,
    ("paper_map.py", "18%"): STATED,
    ("paper_map.py", "21%"): STATED,
    ("stability.py", "0.6%"): "how far recorded steps lie apart, a setting",
    ("claims.py", "0.6%"): "how far recorded steps lie apart, a setting",
    ("open_claims.py", "21%"): STATED,
    ("seven_billion.py", "18%"): STATED,
    ("seven_billion.py", "21%"): STATED,
    ("seven-billion.md", "18%"): STATED,
    ("seven-billion.md", "21%"): STATED,
    ("scale_answer.py", "90%"): "of a prediction that is fixed before the run",
    ("scale_explorer.py", "90%"): "the bound that the guess is about; test_widgets_scale.py holds it",
    ("scale_explorer.py", "99%"): "of the story; test_widgets_scale.py holds it",
    ("15-scale.ipynb", "90%"): "the bound that the guess is about; test_widgets_scale.py holds it",
    ("other_claims.py", "5%"): "the false discovery rate, a setting of the rules",
    ("other_claims.py", "73%"): "of a pilot, in a prediction that is fixed before the run",
    ("other_claims.py", "100%"): "of a pilot, in a prediction that is fixed before the run",
    ("proofs.py", "1%"): "arithmetic: 1/LM at LM = 100",
}  # fmt: skip
PROGRAMS = sorted([*(ROOT / "gradlab/widgets").glob("*.py"), *(ROOT / "gradlab/experiments").rglob("*.py"),
                   *(ROOT / "gradlab/plotting").glob("*.py")])  # fmt: skip
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]  # scripts/README.md cites benchmarks


def texts(path):
    """The texts of a file as they are typed: what a program puts into them is not there."""
    if path.suffix == ".py":
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        specs = [node.format_spec for node in nodes if isinstance(node, ast.FormattedValue) and node.format_spec]
        formats = {part for spec in specs for part in ast.walk(spec)}
        return [node.value for node in nodes
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in formats]  # fmt: skip
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    return [re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", path.read_text("utf-8"), flags=re.DOTALL)]  # without tables


def typed(path):
    return [found for text in texts(path) for found in TYPED.findall(text)]


@pytest.mark.parametrize("path", [*PROGRAMS, *NOTEBOOKS, *PAGES], ids=lambda path: path.name)
def test_no_share_and_no_count_is_typed(path):
    wrong = [found for found in typed(path) if (path.name, found) not in ALLOWED]
    assert not wrong, f"{path.name}: read {', '.join(wrong)} from the report, or hold it by a test and say so here"


@pytest.mark.parametrize("path", [*PROGRAMS, *NOTEBOOKS, *PAGES], ids=lambda path: path.name)
def test_no_word_of_the_former_rules_is_left(path):
    assert not [found for text in texts(path) for found in OLD_WORDS.findall(text)]


def test_what_is_allowed_is_there():
    there = {(path.name, found) for path in (*PROGRAMS, *NOTEBOOKS, *PAGES) for found in typed(path)}
    assert not set(ALLOWED) - there


def test_a_typed_share_is_found_and_one_that_is_read_is_not(tmp_path):
    path = tmp_path / "some_explorer.py"
    path.write_text('share = 0.23\na = "held in 23% of cases, 68 of 186"\nb = f"held in {share:.0%}, 95% intervals"\n')
    assert typed(path) == ["23%", "68 of 186"]
