"""A rater's page: one HTML file that needs no Python, asks for nothing, and keeps answers in the browser."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from gradlab.store.page_policy import own_source
from gradlab.study.blind import blind_list
from gradlab.study.frozen import Study

WEB = Path(__file__).parents[1] / "web"
_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: light-dark(#f4f5f7, #121519); color: light-dark(#1b1f24, #e6e9ee); }
main { max-width: 1500px; margin: 0 auto; font: 16px/1.5 system-ui, sans-serif; }
main > p { padding: 1rem; }
main > .gl-rating { height: max(100dvh, 34rem); }
@media (max-width: 640px) { main > .gl-rating { height: max(100dvh, 42rem); } }
"""
_START = """
gradlabRating.mountPage(document.querySelector("main"), JSON.parse(document.getElementById("list").textContent));
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main><p>The study begins as soon as the script of this page runs; without JavaScript it cannot.</p></main>
<script type="application/json" id="list">{given}</script>
<script>{script}</script>
</body>
</html>
"""


def rating_page(study: Study, rater: str) -> str:
    """Return the page by which a rater of the plan answers, as HTML; ``RATER.answers.jsonl`` is what it exports.

    Its policy forbids every request, and all code and styles but its own. It names no system. ValueError in one line
    for a name that is no rater's.
    """
    style = (WEB / "rating.css").read_text("utf-8") + _STYLE
    script = (WEB / "rating.js").read_text("utf-8") + _START
    policy = (
        f"default-src 'none'; script-src {own_source(script)}; style-src {own_source(style)}; base-uri 'none'; "
        "form-action 'none'"
    )
    given = json.dumps(blind_list(study, rater), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return _PAGE.format(policy=policy, title=escape(study.plan.title), style=style, given=given, script=script)
