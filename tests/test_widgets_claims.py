"""The claims explorer: what it shows is the saved report, word for word, and damage is one clear line."""

import io
import re
import shutil
from pathlib import Path

import made_up
import pandas as pd
import pytest
from PIL import Image

from gradlab.experiments.report import pages, saved, sections, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.sections import EVERY
from gradlab.stats.words import WORDS
from gradlab.store.artifacts import save_frame
from gradlab.store.csv_text import csv_text
from gradlab.widgets import ClaimsExplorer

FIGURES = Path(__file__).parents[1] / "figures"
TOLD = made_up.told()
REPORT = saved.records(TOLD.values())
DRAWN = ["answer-grid-reward", *dict.fromkeys(figure for claim in CLAIMS.values() for figure in claim.figures)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a made-up report, some figures and a frame."""
    folder = tmp_path_factory.mktemp("figures")
    pages.write(TOLD, folder, quick=False)
    for number, name in enumerate(DRAWN):
        Image.new("RGB", (40 + number, 20)).save(folder / f"{name}.png")
    for name in ("grid", "ratios", "variance"):
        save_frame(made_up.frame(), folder / "data" / f"{name}.parquet", {})
    return folder


@pytest.fixture(scope="module")
def explorer(home):
    made = ClaimsExplorer(home, guess="shown")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def afresh(explorer):
    explorer.reset()
    assert explorer.error is None


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the folder that a test may damage."""
    return shutil.copytree(home, tmp_path / "copy")


def values(explorer, key):
    """What a menu offers."""
    return [value for _, value in explorer.controls[key].options]


def markdown(rows):
    """Lines of a Markdown table as texts, without emphasis and escapes."""
    cells = [line.strip("| ").replace("\\|", "¦").split(" | ") for line in rows]
    return [[cell.replace("¦", "|").replace("*", "").strip() for cell in row] for row in cells]


def test_the_table_is_the_one_of_the_written_report(explorer, home):
    page = (home / "CLAIMS.md").read_text("utf-8")
    written = markdown(line for line in page.splitlines() if line.startswith("| [") and "](#" in line)
    shown = []
    for part in values(explorer, "part"):
        explorer.set(part=part)
        shown += explorer._table.rows
    assert len(shown) == len(written) == len(EVERY) > len(CLAIMS) == 16
    for (name, *rest), line in zip(shown, written, strict=True):
        assert [f"[{name}](#{name})", *rest] == line


def test_every_row_of_every_claim_is_in_the_written_report(explorer, home):
    page = (home / "CLAIMS.md").read_text("utf-8")
    for name in EVERY:
        explorer.set(claim=name)
        assert explorer.error is None
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        written = markdown(line for line in section.splitlines() if line.startswith("| "))
        shown = explorer._rows.rows
        assert len(shown) == len(TOLD[name].rows)
        assert all(row[1:] in written for row in shown)
        assert {row[0]: row[1] for row in explorer._about.rows}["rule"] == EVERY[name].rule


def test_figures_are_the_saved_ones_and_in_the_static_picture(explorer, home):
    for name, claim in CLAIMS.items():
        for figure in filter(DRAWN.__contains__, (f"answer-{name}", *claim.figures)):
            explorer.set(claim=name, figure=figure)
            png = (home / f"{figure}.png").read_bytes()
            (picture,) = explorer.charts(explorer.result, None)
            assert picture.png == png == explorer.png()
            assert picture.width == Image.open(io.BytesIO(png)).width
            assert picture.description.startswith(f"{figure}: ")
            assert len(picture.description) > len(figure) + 40
            assert bytes(explorer.front.shown["charts"][0]["png"]) == png
    assert explorer.pdf().startswith(b"%PDF")
    explorer.set(claim="llm")
    assert explorer.charts(explorer.result, None) == []
    assert Image.open(io.BytesIO(explorer.png())).size == (1000, 60)


def test_a_claims_answer_is_its_first_figure(explorer):
    explorer.set(claim=made_up.CLAIM)
    assert values(explorer, "figure")[0] == "answer-grid-reward"


def test_nothing_is_read_before_it_is_asked_for(home, monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or whole(path))
    monkeypatch.setattr(verdicts, "judge_claims", None)  # never judged anew
    made = ClaimsExplorer(home)
    assert read == ["gradient-field.png"]
    made.set(data="data/ratios.parquet")
    made.set(rows=7)
    assert read == ["gradient-field.png", "ratios.parquet"]
    made.close()


def test_data_are_shown_with_their_number_of_rows(explorer, home):
    explorer.set(claim="variance", data="data/variance.parquet", rows=3)
    frame = pd.read_parquet(home / "data" / "variance.parquet")
    assert explorer._data.caption == f"{home.name}/data/variance.parquet: 3 of {len(frame):,} rows"
    assert explorer._data.head == ["", *frame.columns]
    assert len(explorer._data.rows) == 3
    assert explorer._data.rows[2] == ["2", *(f"{v:.6g}" if isinstance(v, float) else str(v) for v in frame.iloc[2])]
    pd.testing.assert_frame_equal(explorer.frame(), frame)
    explorer.reset()
    assert explorer._data.layout.display == "none"


def test_filter_and_claim_stay_together(explorer):
    words = {name: TOLD[name].word for name in CLAIMS}
    assert values(explorer, "word") == ["all", "refuted", "holds throughout", "not run", "not judged"]
    for word in values(explorer, "word")[1:]:
        explorer.set(word=word)
        listed = [row[0] for row in explorer._table.rows]
        assert listed == [name for name in words if words[name] == word]
        assert explorer.state["claim"] in listed
        assert set(explorer.frame()["claim"]) == set(listed)
    explorer.set(word="not judged")
    explorer.controls["claim"].value = "variance"  # the filter gives way
    assert (explorer.state["word"], explorer.state["claim"]) == ("all", "variance")


def test_a_part_of_the_report_and_the_claim_stay_together(explorer):
    titles = [one.title for one in sections.SECTIONS[1:] if one.claims]
    assert values(explorer, "part") == ["The paper's claims", *titles]
    explorer.set(part=sections.OTHER_PAPERS.title)
    assert [row[0] for row in explorer._table.rows] == list(sections.OTHER_PAPERS.claims)
    assert explorer.state["claim"] == next(iter(sections.OTHER_PAPERS.claims))
    assert explorer._table.head[-1] == sections.OTHER_PAPERS.controls
    explorer.controls["claim"].value = "ratio"
    assert explorer.state["part"] == "The paper's claims"
    explorer.set(word="refuted")
    explorer.controls["part"].value = sections.OTHER_PAPERS.title  # where none is refuted
    assert (explorer.state["word"], explorer.error) == ("all", None)


def test_a_report_older_than_the_open_questions_is_shown(folder):
    report = saved.former(folder)
    (folder / "claims.csv").write_text(csv_text(report[report["claim"].isin(CLAIMS)], float_format="%.6g"))
    made = ClaimsExplorer(folder)
    assert (made.error, values(made, "part")) == (None, ["The paper's claims"])
    made.close()


def test_a_row_of_the_table_opens_its_claim(explorer):
    explorer.set(word="not judged")
    place = [row[0] for row in explorer._table.rows].index("grid-stability")
    explorer._table.chosen = place  # as the page does
    assert explorer.numbers["claim"] == "grid-stability"
    assert explorer.state["figure"] == "stability"
    explorer.controls["claim"].value = "variance"
    assert explorer._table.rows[explorer._table.chosen][0] == "variance"


def test_menus_of_a_claim_change_with_it_in_the_page_too(explorer):
    explorer.set(claim="ratio")
    assert [one["value"] for one in explorer.front.offers["figure"]["options"]] == values(explorer, "figure")
    assert explorer.spec()["controls"]["figure"]["changing"]
    before = explorer.state
    explorer.front.state = {**before, "claim": "shift-bdpo"}  # the page does not know the figures of that claim yet
    assert explorer.error is None
    assert explorer.state["figure"] in values(explorer, "figure") != [before["figure"]]
    assert [one["value"] for one in explorer.front.offers["figure"]["options"]] == values(explorer, "figure")
    assert explorer.front.state == explorer.state
    explorer.front.state = before  # undo
    assert (explorer.error, explorer.state) == (None, before)


def test_the_words_come_after_the_guess(explorer):
    explorer.set(guess="none")
    assert {text for row in explorer._table.rows for text in row[2:]} == {"…"}
    assert explorer._table.layout.display is None
    settled = sum(one.word in ("proved", "refuted") for one in TOLD.values())
    truth, sentence = explorer.outcome(explorer.result)
    assert sentence == f"{settled} of the paper's 16 claims are proved or refuted."
    assert truth == ("few" if settled <= 5 else "half" if settled <= 10 else "most")
    explorer.set(guess=truth)
    assert {row[2] for row in explorer._table.rows} == {TOLD[name].word for name in CLAIMS}


def test_a_state_comes_back_from_any_other(explorer):
    explorer.set(claim="shift-bdpo", figure="shift-phase", data="data/shift.parquet", rows=9)
    explorer.set(data="none")
    state = explorer.state
    explorer.set(claim="llm")
    explorer.set(**state)
    assert explorer.state == state
    with pytest.raises(ValueError, match=r"^figure must be one of weight-functions, .*; got 'ppo'$"):
        explorer.set(figure="ppo")
    with pytest.raises(ValueError, match=r"^claim must be one of ratio, .*; got 'nonsense'$"):
        explorer.set(claim="nonsense", figure="ppo")
    with pytest.raises(ValueError, match=r"^rows must be"):
        explorer.set(claim="ppo", rows=1000)
    assert explorer.state == state


def test_a_missing_or_damaged_folder_is_one_line(folder):
    def line(**state):
        made = ClaimsExplorer(folder, **state)
        status, error = made.status, made.error
        assert "text/plain" in made._repr_mimebundle_()  # it can be shown, with its error
        made.close()
        assert error is not None
        assert "\n" not in status
        return status

    (folder / "variance-region.png").unlink()
    assert "variance-region.png is missing or damaged; `gradlab figures`" in line(claim="variance")
    (folder / "gradient-field.png").write_bytes((folder / "gradient-field.png").read_bytes()[:50])
    assert "gradient-field.png is missing or damaged" in line()
    report = (folder / "claims.csv").read_text("utf-8")
    (folder / "claims.csv").write_text(report.replace(",refuted,", ",perhaps,"), "utf-8")
    assert "must be one of proved, refuted, mixed" in line()
    (folder / "claims.csv").write_text("".join(report.splitlines(keepends=True)[:3]), "utf-8")
    assert "claims.csv must have a line of " in line()
    (folder / "claims.csv").write_text("a,b\n1,2\n", "utf-8")
    assert "claims.csv must be a report of `gradlab figures` of this version, and is not; restore it" in line()
    (folder / "claims.csv").unlink()
    assert "folder must hold claims.csv" in line()
    assert str(folder) in line()


def test_missing_or_damaged_data_are_one_line(folder):
    (folder / "data" / "ratios.parquet").unlink()
    made = ClaimsExplorer(folder)
    made.set(data="data/ratios.parquet")
    assert made.status.endswith("ratios.parquet or its manifest is missing; `gradlab figures` makes it again")
    save_frame(pd.DataFrame({"text": ["<b>bold</b>"]}), folder / "data" / "ratios.parquet", {}, overwrite=True)
    made.set(data="none")
    made.set(data="data/ratios.parquet")
    assert made.error is None
    assert made._data.rows == [["0", "<b>bold</b>"]]  # the page puts it in as text
    made.close()
    (folder / "data" / "ratios.parquet").write_bytes(b"torn")
    made = ClaimsExplorer(folder, data="data/ratios.parquet")
    assert made.status.endswith("ratios.parquet is not the data that its manifest describes; regenerate both")
    made.close()


def test_it_finds_the_figures_below_the_current_folder(folder, monkeypatch):
    package = folder / "elsewhere" / "gradlab"
    monkeypatch.setattr("gradlab.store.shipped.__file__", str(package / "store" / "shipped.py"))
    (folder / "figures").mkdir()
    for file in list(folder.glob("*.*")):
        shutil.move(file, folder / "figures")
    monkeypatch.chdir(folder)
    made = ClaimsExplorer()
    assert (made.folder, made.error) == (Path("figures"), None)
    made.close()
    shutil.move(folder / "figures", package / "figures")  # as in a wheel
    made = ClaimsExplorer()
    assert (made.folder.parent.name, made.error) == ("gradlab", None)
    made.close()
    shutil.rmtree(package / "figures")
    with pytest.raises(FileNotFoundError, match=r"^this installation of gradlab lacks its figures; install it again"):
        ClaimsExplorer()


def test_the_page_puts_texts_in_as_texts():
    script = (FIGURES.parent / "gradlab/web" / "table.js").read_text("utf-8")
    assert "innerHTML" not in script
    assert 'cell("th", text, "col")' in script
    assert 'cell("th", "", "row")' in script
    style = (FIGURES.parent / "gradlab/web/table.css").read_text("utf-8")
    styled = set(re.findall(r'data-word="([^"]+)"', style))
    assert styled <= set(WORDS)
    assert {"proved", "refuted", "holds throughout", "holds on average", "mixed", "reversed"} <= styled
    assert 'head[place] === "word"' in script
    assert "word" in wording.HEAD


@pytest.mark.parametrize("story", [None, *[story.title for story in ClaimsExplorer.stories]])
def test_the_code_gives_what_is_shown(explorer, story, capsys):
    if story:
        explorer.tell(story)
    data = next((one for one in values(explorer, "data")[1:] if (explorer.folder / one).exists()), "none")
    explorer.set(data=data)
    space = {}
    exec(explorer.as_python(), space)
    assert explorer.numbers["word"] in capsys.readouterr().out
    assert space["claim"]["word"].iloc[0] == explorer.numbers["word"]
    if data != "none":
        pd.testing.assert_frame_equal(space["data"], explorer.frame())
    else:
        rows = explorer.frame()
        pd.testing.assert_frame_equal(
            rows[rows["claim"] == explorer.state["claim"]].reset_index(drop=True),
            space["claim"].reset_index(drop=True),
        )


def test_an_answer_is_shown_in_its_parts(explorer):
    explorer.tell("Ahead, and why?")
    head, *_ = saved.lines(TOLD[made_up.CLAIM])
    about = dict(explorer._about.rows)
    assert about["answer"] == f"{head.sentence}: {head.word}"
    assert about["elsewhere"] == wording.elsewhere(saved.lines(TOLD[made_up.CLAIM]))
    assert about["is it the balancing"] == explorer.numbers["is it the balancing"] == wording.because(head)
    assert [row[0] for row in explorer._rows.rows][:2] == [wording.ROLE["primary"]] * 2


def test_not_run(explorer):
    explorer.tell("Not run")
    about = dict(explorer._about.rows)
    assert about["answer"] == "Nobody has measured it here: not run"
    assert "`gradlab protocol" in about["needs"]
    assert "figure" not in about
    assert "data" not in about


def test_texts_state_no_result_of_the_report():
    """A number in them would be one that no test holds to the frames."""
    texts = [ClaimsExplorer.prediction, ClaimsExplorer.reading, ClaimsExplorer.takeaway]
    texts += [story.look_at for story in ClaimsExplorer.stories]
    assert f"there are {len(CLAIMS)} claims of the paper" in texts[0]
    texts[0] = texts[0].replace(str(len(CLAIMS)), "")
    assert not [
        text for text in texts if any(sign.isdigit() for sign in text.replace("Theorem 3", "").replace("β/2", ""))
    ]


def test_the_committed_report_is_shown():
    made = ClaimsExplorer(FIGURES)
    assert made.error is None
    for name in CLAIMS:
        made.set(claim=name)
        assert made.error is None
    made.close()
