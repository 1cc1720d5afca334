"""The site: what is laid out and rewritten for it, that it builds without a warning, and that it works offline."""

import html
import inspect
import io
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site's packages are not installed: pip install -e '.[site]'")

from docutils import nodes
from docutils.core import publish_doctree

from scripts.site import docstrings, lab, links, mathml, pages, sources, symbols, versions
from scripts.site.__main__ import build

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
INCLUDE = re.compile(r'```\{include\} (\S+)\n:start-after: "(.+)"\n:end-before: "(.+)"\n```')


# ---- what is laid out


@pytest.fixture
def tree(tmp_path):
    """A small repository: a README of two sections, a page of docs/, a notebook, a file of code and one of data."""
    files = {
        "README.md": "# Name\n\n## First thing\n\n[a](docs/index.md)\n\n## Second\n\n[b](code.py)\n",
        "docs/index.md": '# H\n\n```{include} ../README.md\n:start-after: "## First thing"\n:end-before: "## S"\n```\n',
        "docs/guide/one.md": "# One\n\n[up](../index.md) [s](../../README.md#first-thing) [c](../../code.py) "
        "[d](../../data)\n",
        "notebooks/01.ipynb": json.dumps(
            {
                "cells": [
                    {"cell_type": "markdown", "source": ["[x](#Step-1.-The-end) [y](../docs/guide/one.md#one)"]},
                    {"cell_type": "code", "source": "assert True", "outputs": [
                        {"data": {"image/png": "", "text/plain": ["A: why?"]}}],
                        "metadata": {"jupyter": {"source_hidden": True}}},
                ]
            }
        ),
        "figures/a.md": "# A\n\n![p](p.png) [![p](p.png)](p.csv) [out](https://example.org)\n\n```\n[no](nowhere)\n```\n",
        "figures/p.png": "png",
        "figures/p.csv": "csv",
        "data/x": "x",
        "code.py": "x = 1\n",
    }  # fmt: skip
    for path, text in files.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_text(text, "utf-8")
    return tmp_path / "repo"


def test_pages_keep_their_place_and_links_their_meaning(tree, tmp_path):
    out = tmp_path / "out"
    assert sources.lay_out(out, {"made/up.md": "[here](../guide/one.md)"}, tree) == {"code.py"}
    text = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert set(text) == {
        "README.md", "index.md", "guide/one.md", "notebooks/01.ipynb", "figures/a.md", "figures/p.png", "figures/p.csv",
        "made/up.md",
    }  # fmt: skip
    assert "[a](/index.md)" in text["README.md"]
    assert "```{include} /README.md\n" in text["index.md"]
    assert text["guide/one.md"].endswith("[up](/index.md) [s](/index.md) [c](source:code.py) d\n")
    assert "![p](/figures/p.png) [![p](/figures/p.png)](/figures/p.csv) [out](https://" in text["figures/a.md"]
    assert "[no](nowhere)" in text["figures/a.md"]
    assert text["made/up.md"] == "[here](/guide/one.md)"
    prose, code = json.loads(text["notebooks/01.ipynb"])["cells"]
    assert prose["source"] == "[x](#step-1-the-end) [y](/guide/one.md#one)"
    assert code["metadata"] == {"tags": ["hide-cell"], "mystnb": {"image": {"alt": "A: why?"}}}


def test_a_second_time_only_what_has_changed_is_written(tree, tmp_path):
    out = tmp_path / "out"
    sources.lay_out(out, {"old.md": "old"}, tree)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.md")}
    (tree / "docs/guide/one.md").write_text("# Other\n")
    sources.lay_out(out, {}, tree)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.md")}
    assert {path.name for path in before if before[path] != after.get(path)} == {"one.md", "old.md"}


def test_a_link_that_leads_nowhere_is_named_with_its_page(tree, tmp_path):
    (tree / "docs/guide/one.md").write_text("# One\n\n[x](gone.md)\n")
    with pytest.raises(ValueError, match=r"^links that lead nowhere: docs/guide/one.md: gone.md$"):
        sources.lay_out(tmp_path / "out", {}, tree)


def test_building_stops_at_it_with_one_line(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise ValueError("links that lead nowhere: docs/faq.md: gone.md")

    monkeypatch.setattr(sources, "lay_out", refuse)
    monkeypatch.setattr(pages, "generated", dict)
    assert build(tmp_path) == 1
    assert capsys.readouterr().err == "links that lead nowhere: docs/faq.md: gone.md\n"


def test_every_section_of_the_readme_stands_on_one_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    included = [found for page in DOCS for found in INCLUDE.findall(page.read_text("utf-8"))]
    assert len(included) == sum(page.read_text("utf-8").count("{include}") for page in DOCS)
    for _, start, end in included:
        assert start in readme, start
        assert end in readme.partition(start)[2], end
    headings = re.findall(r"^## .+$", readme, re.MULTILINE)
    assert sorted(start for _, start, _ in included if start.startswith("## ")) == sorted(headings)


# ---- what is rendered


def test_a_table_of_names_in_a_docstring_becomes_a_list():
    text = """Return x_ of |y|.

    steps      (S,) the steps;
               more.
    before, after  (S, X) two, see ``a_*``.
    no word        of two words.

    ==  ==
    a   b
    ==  ==
    """
    assert docstrings.rendered([line[4:] if line.startswith("    ") else line for line in text.splitlines()]) == [
        "Return x\\_ of \\|y\\|.", "", "``steps``", "    (S,) the steps;", "    more.", "", "``before, after``",
        "    (S, X) two, see ``a_*``.", "", "``no word``", "    of two words.", "", "==  ==", "a   b", "==  ==", "",
    ]  # fmt: skip


def test_every_docstring_of_the_reference_is_well_formed():
    names = [name for page in pages.api().values() for name in re.findall(r"^\.\. auto\w+:: (\S+)", page, re.MULTILINE)]
    texts = {}
    for name in names:
        thing = pkgutil.resolve_name(name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        texts[name] = inspect.getdoc(thing)
        texts |= {
            f"{name}.{member}": inspect.getdoc(of)
            for member, of in members
            if not member.startswith("_") and (inspect.isroutine(of) or isinstance(of, property))
        }
    assert len(texts) > 700
    assert {name: said for name, text in texts.items() if text and (said := _problems(text))} == {}


def _problems(text):
    """Return what docutils says of a docstring, but for Sphinx's roles, which docutils does not know."""
    options = {"report_level": 2, "halt_level": 5, "warning_stream": io.StringIO()}
    tree = publish_doctree("\n".join(docstrings.rendered(text.splitlines())), settings_overrides=options)
    said = [node.astext() for node in tree.findall(nodes.system_message)]
    return [one for one in said if "role" not in one]


def test_a_signature_shows_no_private_field_and_plain_types():
    for shown, whole in (
        ("(log_p: float, at_end: bool = False)", "(log_p: float, at_end: bool = False)"),
        ("(steps: int)", "(steps: int, _history: Callable[[], int])"),
        ("()", "(_history: int)"),
        ("(w: ArrayLike | None = None)", "(w: TypeAliasForwardRef('ArrayLike') | None = None)"),
    ):
        assert docstrings.for_readers(whole) == shown


@pytest.mark.parametrize(
    ("tex", "has"),
    [(r"\tfrac12", "<mfrac>"), (r"\sigma\big(x\big)", "σ"), (r"\hat p \pm \sqrt{n}", "<msqrt>")],
)
def test_mathematics_becomes_mathml(tex, has):
    assert mathml.mathml(tex, block=False).startswith("<math")
    assert has in mathml.mathml(tex, block=True)


def test_indices_of_symbols_are_lowered_and_names_are_not():
    text = "|∂L/∂π_w| : E_t[Δπ_l] = c_ij, π_ref, Δ_max; log_rho, gl.x_y, a_b_c, p_value"
    lowered = "".join(
        f"<{part.astext()}>" if isinstance(part, nodes.subscript) else part.astext() for part in symbols.parts(text)
    )
    assert lowered == "|∂L/∂π<w>| : E<t>[Δπ<l>] = c<ij>, π<ref>, Δ<max>; log_rho, gl.x_y, a_b_c, p_value"


def test_the_reference_says_what_the_shapes_of_a_file_mean():
    page = pages.api()["reference/api/theory.md"]
    weights = page.partition("## weights")[2].partition("\n## ")[0]
    assert "All functions take and give arrays (..., n), responses last" in weights
    assert ".. autofunction:: gradlab.theory.dpo_weight" in weights


def test_a_formula_that_cannot_be_said_is_named():
    with pytest.raises(ValueError, match=r"in the formula \\unheard x"):
        mathml.mathml(r"\unheard x", block=False)


@pytest.mark.parametrize(
    ("source", "explorer", "start"),
    [
        ("import gradlab as gl\n\nexplorer = gl.widgets.PairExplorer()\nexplorer", "pair", {}),
        ("grid = gl.widgets.GridExplorer(mask_rate=0.2, loss_a='ipo')", "grid", {"mask_rate": 0.2, "loss_a": "ipo"}),
        ("log = gl.widgets.TrainingLogExplorer()", "training-log", {}),
    ],
)
def test_a_cell_that_shows_an_explorer_has_a_place_for_the_live_one(source, explorer, start):
    (found,) = re.findall(
        r'^<span class="gradlab-place" data-explorer="(.*)" data-start="(.*)"></span>$', lab.marker(source)
    )
    assert (found[0], json.loads(html.unescape(found[1]))) == (explorer, start)
    output = {"data": {"image/png": "", "text/plain": "A: why?"}}
    cell = {"cell_type": "code", "source": source, "outputs": [output], "metadata": {}}
    (after,) = json.loads(sources.notebook(json.dumps({"cells": [cell]}), str))["cells"]
    assert [*after["outputs"][0]["data"].values(), after["outputs"][1]] == [lab.marker(source), output]


def test_other_cells_and_pages_have_no_place_and_load_no_scripts():
    assert lab.marker("explorer.reset()\nassert explorer.numbers") == ""
    assert lab.marker("gl.widgets.GridExplorer(world=gl.gaussian_world())") == ""
    assert lab.marker("gl.widgets.ExplorerOfMine()") == ""
    assert lab.scripts("<p>gradlab-place</p>", str) == ""
    assert lab.scripts('<div id="gradlab-lab"></div>', "../{}".format).count('<script defer src="../lab') == 3


# ---- the check of links


def test_links_that_lead_nowhere_and_foreign_hosts_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="../a.html">4</a>'
        '<a href="https://example.org/x">5</a><script src="https://cdn.example/x.js"></script><img src="no.png">'
        '<a href="#top">6</a><p id="top"></p>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p>')
    (tmp_path / "s.css").write_text('a {background: url("//fonts.example/f")} b {background: url(x.png)}')
    assert links.problems(tmp_path) == [
        "a.html loads https://cdn.example/x.js",
        "a.html: no.png is not there",
        "a.html: b.html#gone has no such anchor",
        "a.html: c.html is not there",
        "a.html: ../a.html is not there",
        "s.css loads //fonts.example/f",
    ]


# ---- versions


@pytest.fixture
def built(tmp_path):
    """A function that writes a small site of some pages, with the scripts of the real one."""

    def write(*names):
        folder = tmp_path / "html"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "_static").mkdir(parents=True)
        shutil.copy(ROOT / "docs/_static/site.js", folder / "_static")
        (folder / versions.MENU).write_text(versions.menu())
        (folder / "llms.txt").write_text("- [One](guide/one.html): x\n")
        for name in names:
            root = "../" * name.count("/") or "./"
            scripts = "".join(f'<script src="{root}_static/{file}.js"></script>' for file in ("versions", "site"))
            menu = (ROOT / "docs/_templates/version-menu.html").read_text().replace("{{ pagename }}", name)
            (folder / f"{name}.html").parent.mkdir(exist_ok=True)
            text = f'<html data-content_root="{root}"><meta charset="utf-8">{menu}<h1>{name}</h1>{scripts}</html>'
            (folder / f"{name}.html").write_text(text)
        return folder

    return write


def test_versions_stand_side_by_side_and_all_menus_follow(built, tmp_path):
    folder = tmp_path / "versions"
    for tag in ("v0.9.0", "v0.10.0", "v0.11.0rc1", ""):
        versions.add(built("index", "guide/one", "source/x.py"), folder, tag)
    order = ["latest", "0.11.0rc1", "0.10.0", "0.9.0"]
    assert versions.names(folder) == order
    for name in order:
        value = json.loads(
            (folder / name / versions.MENU).read_text().removeprefix("globalThis.gradlabVersions = ")[:-2]
        )
        assert value == {"here": name, "pages": {each: ["guide/one", "index"] for each in order}}
    assert 'url=0.10.0/index.html"' in (folder / "index.html").read_text()
    assert (folder / "llms.txt").read_text() == "- [One](0.10.0/guide/one.html): x\n"
    assert links.problems(folder) == []
    versions.add(built("index"), folder, "v0.9.0")  # built again: nothing of the former one is left
    assert not (folder / "0.9.0/guide").exists()
    assert '"0.9.0": ["index"]' in (folder / "latest" / versions.MENU).read_text()


def test_before_a_release_the_start_page_leads_to_latest(built, tmp_path):
    versions.add(built("index"), tmp_path / "versions")
    assert 'url=latest/index.html"' in (tmp_path / "versions/index.html").read_text()
    assert versions.newest(["latest", "1.0.0rc1"]) == "latest"


@pytest.mark.parametrize(
    ("tag", "said"), [("main", "tag: 'main' is not a version"), ("", "index.html was not written by make site")]
)
def test_what_is_no_version_or_no_folder_of_versions_is_refused(built, tmp_path, tag, said):
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "index.html").write_text("my own")
    with pytest.raises(ValueError, match=said):
        versions.add(built("index"), folder, tag)
    assert [path.name for path in folder.iterdir()] == ["index.html"]


@pytest.mark.browser
def test_the_menu_leads_to_the_same_page_of_another_version_or_to_its_first(chromium, built, tmp_path):
    folder = tmp_path / "versions"
    versions.add(built("index", "guide/one"), folder, "v0.9.0")
    versions.add(built("index", "guide/one", "guide/two"), folder)
    one = Window(chromium, folder)
    page = one.open("latest/guide/one.html")
    select = page.get_by_label("version")
    assert select.locator("option").all_inner_texts() == ["latest", "0.9.0"]
    assert select.input_value() == "latest"
    select.select_option("0.9.0")
    page.wait_for_url("**/0.9.0/guide/one.html")
    page.get_by_label("version").select_option("latest")
    page.wait_for_url("**/latest/guide/one.html")
    one.open("latest/guide/two.html").get_by_label("version").select_option("0.9.0")
    page.wait_for_url("**/0.9.0/index.html")
    page.go_back()
    assert page.get_by_label("version").input_value() == "latest"
    one.site = built("index")
    assert one.open("index.html").locator(".version-menu").is_hidden()
    assert one.problems == []
    one.context.close()


# ---- the whole site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; building it takes about 20 seconds."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "scripts.site", "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_all_its_links_lead_somewhere(site):
    assert links.problems(site) == []
    listed = (site / "llms.txt").read_text("utf-8")
    for page in re.findall(r"\]\((.+?)\)", listed):
        assert (site / page).is_file(), page
    assert len(re.findall(r"notebooks/\d\d-", listed)) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 100e6


@pytest.mark.slow
def test_every_public_name_has_its_place_in_the_reference(site):
    import gradlab as gl

    text = "".join(path.read_text("utf-8") for path in (site / "reference/api").glob("*.html"))
    missing = [name for name in gl.__all__ if f'id="gradlab.{name}"' not in text and f">gradlab.{name}<" not in text]
    assert missing == []
    assert "Alias for field" not in text
    assert "ForwardRef" not in text
    assert "<dt><code" in text.replace("\n", "")  # tables of names are lists
    assert "(X, Y) float: log π<sub>ref</sub>(y|x), each row normalised." in text


@pytest.mark.slow
def test_the_first_page_has_the_answer_and_a_place_for_the_lab(site):
    page = (site / "index.html").read_text("utf-8")
    answer = (ROOT / "README.md").read_text("utf-8").partition("<!-- answer -->")[2].partition("<!-- /answer -->")[0]
    words = re.sub(r"\s+", " ", re.sub("[*_]", "", answer)).strip()
    assert words in re.sub(r"\s+", " ", re.sub(r"<.+?>", "", page)).replace("’", "'")
    assert re.search(r'<div id="gradlab-lab">\s*.*?<img [^>]*alt="The lab', page, re.DOTALL)


# ---- in a browser, from file://


class Window:
    """A window of a browser that opens pages of the site from file://, and notes what goes wrong."""

    def __init__(self, chromium, site, *, width=1280, theme="light"):
        self.site, self.problems = site, []
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request):
        if not request.url.startswith(("file:", "blob:", "data:")):
            self.problems.append(f"asked for {request.url}")

    def open(self, path):
        self.page.goto(f"file://{self.site}/{path}")
        self.page.wait_for_load_state("networkidle")
        return self.page


@pytest.fixture
def window(chromium, site):
    windows = []

    def new(**how):
        windows.append(Window(chromium, site, **how))
        return windows[-1]

    yield new
    for one in windows:
        one.context.close()


PAGES = ("index.html", "notebooks/01-one-pair.html", "reference/api/gradlab.html", "figures/CLAIMS.html")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_open_from_a_folder_without_a_word_to_anybody(window, theme, width):
    one = window(width=width, theme=theme)
    for path in PAGES:
        page = one.open(path)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("h1").first.inner_text()
    assert one.problems == []


@pytest.mark.browser
@pytest.mark.slow
def test_mathematics_and_pictures_are_seen(window):
    one = window()
    page = one.open("notebooks/01-one-pair.html")
    assert page.locator("math").count() > 10
    assert page.locator("math").first.evaluate("math => math.getBoundingClientRect().width") > 5
    page = one.open("notebooks/06-claims.html")  # whose explorer no page computes
    pictures = page.locator("article img")
    assert pictures.count() > 0
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
        assert len(picture.get_attribute("alt")) > 10


@pytest.mark.browser
@pytest.mark.slow
def test_a_takeaway_is_closed_and_opens_with_its_mathematics(window):
    page = window().open("notebooks/01-one-pair.html")
    takeaway = page.locator("details", has_text="Takeaway")
    text = takeaway.get_by_text("calculus gives it to every loss")
    assert not text.is_visible()
    takeaway.locator("summary").click()
    assert text.is_visible()
    assert takeaway.locator("math").count() == 8
    assert "$" not in takeaway.inner_text()
    assert not page.get_by_text("assert start").is_visible()


@pytest.mark.browser
@pytest.mark.slow
def test_the_search_finds_a_page_from_a_folder(window):
    one = window()
    page = one.open("search.html?q=logarithmic+mean")
    page.locator("#search-results a").first.wait_for(timeout=20_000)
    assert any("proofs" in link.get_attribute("href") for link in page.locator("#search-results a").all())
    assert one.problems == []


BUNDLE = """
const show = (name) => (root, given, ...more) => {
  if (more[0] === "grid" && given.broken) throw new Error("no kernel");
  root.textContent = [name, ...more.map((one) => JSON.stringify([one, given.explorers[one].controls]))].join(" ");
};
const mountLab = show("lab"), mountExplorer = show("explorer");
export { EXPORTS };
"""


@pytest.fixture
def page_with_places(chromium, tmp_path):
    """A function that opens a page with places, a bundle and data; nothing may go wrong in its console."""
    windows = []

    def open_page(bundle, **data):
        (tmp_path / "bundle.js").write_text(bundle, "utf-8")
        explorers = {"pair": {"controls": {}}, "grid": {"controls": {"seed": {"low": 0, "start": 1}}}}
        given = {"explorers": explorers, "words": "</script>\u2028", **data}
        lab.write_files(tmp_path, tmp_path / "bundle.js", given)
        shutil.copy(ROOT / "docs/_static/lab.js", tmp_path)
        cells = [f"gl.widgets.{name}" for name in ("PairExplorer()", "ClaimsExplorer()", "GridExplorer(seed=3)")]
        places = "".join(f'<div class="cell_output"><p>{lab.marker(cell)}</p><img></div>' for cell in cells)
        body = f'<div id="gradlab-lab"><img></div>{places}'
        (tmp_path / "page.html").write_text(f'<meta charset="utf-8">{body}{lab.scripts(body, str)}', "utf-8")
        windows.append(Window(chromium, tmp_path))
        page = windows[-1].open("page.html")
        page.evaluate("gradlabLive")  # waits until all are in place
        return [div.inner_text() + "picture" * div.locator("img").count() for div in page.locator("body > div").all()]

    yield open_page
    for one in windows:
        one.context.close()
        assert one.problems == []


@pytest.mark.browser
def test_live_explorers_take_the_place_of_the_pictures_that_the_bundle_can_replace(page_with_places):
    live = ["lab", 'explorer ["pair",{}]', "picture", 'explorer ["grid",{"seed":{"low":0,"start":3}}]']
    assert page_with_places(BUNDLE.replace("EXPORTS", "mountLab, mountExplorer")) == live
    assert page_with_places(BUNDLE.replace("EXPORTS", "mountLab")) == ["lab", *["picture"] * 3]
    assert page_with_places(BUNDLE.replace("EXPORTS", "show")) == ["picture"] * 4


@pytest.mark.browser
def test_what_does_not_run_leaves_its_picture_and_says_so(page_with_places):
    said = "The live explorer does not run here: "
    *_, grid = page_with_places(BUNDLE.replace("EXPORTS", "mountLab, mountExplorer"), broken=True)
    assert grid == f"{said}no kernelpicture"
    first, *rest = page_with_places("import 1")
    assert first.startswith(said)
    assert first.endswith("picture")
    assert rest == ["picture"] * 3


@pytest.mark.browser
@pytest.mark.slow
def test_the_first_page_is_live(window):
    one = window()
    page = one.open("index.html")
    page.locator("#gradlab-lab .gl-tabs").wait_for()
    assert page.locator("#gradlab-lab > img").count() == 0
    assert one.problems == []


@pytest.mark.browser
@pytest.mark.slow
def test_pages_of_notebooks_are_live_where_the_page_can_compute(window):
    one = window()
    for name, live in (("00-start", 1), ("01-one-pair", 1), ("02-grid-training", 1), ("06-claims", 0)):
        page = one.open(f"notebooks/{name}.html")
        page.evaluate("globalThis.gradlabLive")
        assert page.locator(".cell_output .gl-explorer").count() == live, name
        assert page.locator(".cell_output > img").count() == 1 - live, name
    page = one.open("notebooks/09-through-the-paper.html")
    grid = page.locator('.cell_output .gl-explorer[aria-label*="whole policy"]')
    grid.wait_for()
    mask = grid.get_by_label("mask rate", exact=True).and_(grid.locator("input[type=range]"))
    start = mask.input_value()
    mask.press("ArrowRight")
    assert mask.input_value() != start
    grid.get_by_role("button", name="reset", exact=True).click()
    assert mask.input_value() == start != "0"
    page.evaluate("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }")
    grid.get_by_role("button", name="copy link").click()
    link = page.evaluate("globalThis.copied")
    assert link == f"file://{one.site}/index.html#view=grid&mask_rate=0.2"
    page.goto(link)
    page.locator("#gradlab-lab").get_by_label("mask rate, typed").wait_for()
    assert page.locator("#gradlab-lab").get_by_label("mask rate, typed").input_value() == "0.2"
    assert one.problems == []
