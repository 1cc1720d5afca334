"""The page of faults names every test that counted, and adds their counts per kind."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = """
def test_kills(faults):
    faults("kill", "a ledger: no line is lost", tried=3)

def test_more_kills(faults):
    faults("kill", "a letter: whole or absent", tried=1_000)

def test_kills_again(faults):
    faults("kill", "a ledger: no line is lost", tried=4)

def test_flips(faults):
    faults("flipped bit", "a letter: noticed", tried=2, lost=1)
"""


def test_what_tests_counted_is_on_the_page(tmp_path):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text("utf-8"), "utf-8")
    (tmp_path / "test_it.py").write_text(TESTS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--faults", "page.md", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "page.md").read_text("utf-8").splitlines()
    assert "| flipped bit | 2 | 1 |" in page
    assert "| kill | 1,007 | 0 |" in page
    assert [line for line in page if "letter" in line or "ledger" in line] == [
        "| flipped bit | a letter: noticed | 2 | 1 |",
        "| kill | a ledger: no line is lost | 7 | 0 |",
        "| kill | a letter: whole or absent | 1,000 | 0 |",
    ]
