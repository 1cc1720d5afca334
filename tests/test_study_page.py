"""A rater's page is one file that asks for nothing, has only its own code in it, and shows texts as they are."""

import json
import re

import pytest
from small_study import plan, study, write_samples

from gradlab.store.page_policy import own_source
from gradlab.study.blind import blind_list
from gradlab.study.frozen import freeze
from gradlab.study.rater_page import rating_page


def given(page):
    """The list that stands in a page, as its script reads it."""
    (text,) = re.findall(r'<script type="application/json" id="list">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_a_page_holds_the_raters_blind_list_and_nothing_else_of_the_study(tmp_path):
    made = study(tmp_path)
    page = rating_page(made, "ben")
    assert given(page) == blind_list(made, "ben")
    assert not re.search(r"\bb?dpo\b", page, re.IGNORECASE)


def test_its_policy_forbids_requests_and_lets_in_its_own_script_and_style_alone(tmp_path):
    page = rating_page(study(tmp_path), "ada")
    (content,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = dict(part.strip().split(" ", 1) for part in content.split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy == {
        "default-src": "'none'", "script-src": own_source(script), "style-src": own_source(style),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not re.search(r"""(?:src|href)=|https?://|\bfetch\(|XMLHttp|\bimport\(""", page.replace("href:", ""))


def test_texts_that_look_like_markup_cannot_leave_their_place(tmp_path):
    rude = '</script><script>alert(1)</script><!-- <b>bold</b> \u2028 "quoted" &amp; \\'
    write_samples(tmp_path, text=lambda system, place: f"{rude} {place} {len(system)}")
    made = freeze(plan(), tmp_path)
    page = rating_page(made, "cleo")
    assert page.count("</script>") == 2
    assert "<b>" not in page
    texts = [task["left"] for task in given(page)["tasks"]]
    assert any(text.startswith(rude) for text in texts)


def test_a_page_is_for_a_rater_of_the_plan(tmp_path):
    with pytest.raises(ValueError, match=r"^rater must be one of ada, ben, cleo; got 'dora'$"):
        rating_page(study(tmp_path), "dora")
