"""Long tables of the site are sorted by a click on a column's name."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "docs/_static/site.js"
ROWS = [("dpo", "0.693", "yes"), ("ipo", "25", "yes"), ("simpo", "—", "no"), ("nca", "1.386", "yes"),
        ("sppo", "5e5", "yes"), ("spo", "0", "no"), ("turned", "−0.5", "no"), ("cpo", "differs", "no"),
        ("exo", "2.76", "yes"), ("savage", "0.25", "no")]  # fmt: skip


def table(rows):
    cells = ["".join(f"<td><p>{cell}</p></td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    head = "".join(f"<th><p>{name}</p></th>" for name in ("loss", "value", "reference"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@pytest.fixture
def page(chromium, tmp_path):
    file = tmp_path / "page.html"
    short = table(ROWS[:3])
    html = f"<script>{SCRIPT.read_text('utf-8')}</script><main>{table(ROWS)}{short}</main>"
    file.write_text(f"<!doctype html><meta charset='utf-8'>{html}", "utf-8")
    opened = chromium.new_page()
    problems = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(file.as_uri())
    yield opened
    opened.close()
    assert problems == []


def column(page, place):
    return page.locator(f"table >> nth=0 >> tbody tr td:nth-child({place})").all_inner_texts()


@pytest.mark.browser
def test_a_click_sorts_numbers_before_words_and_what_is_missing_last(page):
    page.get_by_role("button", name="value").click()
    rising = ["−0.5", "0", "0.25", "0.693", "1.386", "2.76", "25", "5e5", "differs", "—"]
    assert column(page, 2) == rising
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="value").click()
    assert column(page, 2) == [*rising[-2::-1], "—"]
    page.get_by_role("button", name="loss").click()
    assert column(page, 1) == sorted(name for name, *_ in ROWS)
    assert page.locator("th[aria-sort]").all_inner_texts() == ["loss"]


@pytest.mark.browser
def test_rows_of_equal_cells_keep_their_order_and_short_tables_stay(page):
    page.get_by_role("button", name="reference").click()
    assert column(page, 1) == [name for name, _, value in ROWS if value == "no"] + [
        name for name, _, value in ROWS if value == "yes"
    ]
    assert page.locator("table >> nth=1 >> button").count() == 0
