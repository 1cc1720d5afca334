"""The claims explorer: what it shows is the committed report, word for word, and damage is one clear line."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gradlab.experiments.report import verdicts
from gradlab.experiments.report.claims import CLAIMS
from gradlab.store.artifacts import save_frame
from gradlab.widgets import ClaimsExplorer

FIGURES = Path(__file__).parents[1] / "figures"
REPORT = pd.read_csv(FIGURES / "claims.csv")


@pytest.fixture(scope="module")
def explorer():
    made = ClaimsExplorer()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def afresh(explorer):
    explorer.reset()
    assert explorer.error is None


@pytest.fixture
def folder(tmp_path):
    """A folder of figures that a test may damage."""
    for name in ("claims.csv", "gradient-field.png"):
        shutil.copy(FIGURES / name, tmp_path)
    return tmp_path


def row_of(claim, statement):
    """The one row of the report on a claim that contains these words, as a namedtuple."""
    rows = REPORT[(REPORT["claim"] == claim) & REPORT["statement"].str.contains(statement, regex=False)]
    return next(rows.itertuples())


def markdown(rows):
    """Lines of a Markdown table as texts, without emphasis and escapes."""
    cells = [line.strip("| ").replace("\\|", "¦").split(" | ") for line in rows]
    return [[cell.replace("¦", "|").replace("*", "").strip() for cell in row] for row in cells]


def test_the_table_is_the_one_of_the_written_report(explorer):
    page = (FIGURES / "CLAIMS.md").read_text("utf-8")
    written = markdown(line for line in page.splitlines() if line.startswith("| [") and "](#" in line)
    assert len(explorer._table.rows) == len(written) == len(CLAIMS) == 16
    for (name, claimed, verdict, effect, beside), line in zip(explorer._table.rows, written, strict=True):
        assert [f"[{name}](#{name})", claimed, verdict, effect] == line[:4]
        assert beside == line[5]


def test_every_row_of_every_claim_is_in_the_written_report(explorer):
    page = (FIGURES / "CLAIMS.md").read_text("utf-8")
    for name in CLAIMS:
        explorer.set(claim=name)
        assert explorer.error is None
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        table = [line for line in section.splitlines() if line.startswith("| ")][2:]
        assert explorer._rows.rows == markdown(table)
        assert {row[0]: row[1] for row in explorer._about.rows}["rule"] == CLAIMS[name].rule


def test_figures_are_the_saved_ones_and_in_the_static_picture(explorer):
    for name, claim in CLAIMS.items():
        for figure in filter(lambda figure: (FIGURES / f"{figure}.png").exists(), claim.figures):
            explorer.set(claim=name, figure=figure)
            saved = (FIGURES / f"{figure}.png").read_bytes()
            assert explorer._picture.png == saved == explorer.png()
            assert explorer._picture.alt.startswith(f"{figure}: ")
            assert len(explorer._picture.alt) > len(figure) + 40
    explorer.set(claim="llm")
    assert explorer._picture.layout.display == "none"
    assert Image.open(io.BytesIO(explorer.png())).size == (1000, 60)


def test_nothing_is_read_before_it_is_asked_for(monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or whole(path))
    monkeypatch.setattr(verdicts, "judge_claims", None)  # never judged anew
    made = ClaimsExplorer()
    assert read == ["gradient-field.png"]
    made.set(data="data/ratios.parquet")
    made.set(rows=7)
    assert read == ["gradient-field.png", "ratios.parquet"]
    made.close()


def test_data_are_shown_with_their_number_of_rows(explorer):
    explorer.set(claim="variance", data="data/variance.parquet", rows=3)
    frame = pd.read_parquet(FIGURES / "data" / "variance.parquet")
    assert explorer._data.caption == f"figures/data/variance.parquet: 3 of {len(frame):,} rows"
    assert explorer._data.head == ["", *frame.columns]
    assert len(explorer._data.rows) == 3
    assert explorer._data.rows[2] == ["2", *(f"{v:.6g}" if isinstance(v, float) else str(v) for v in frame.iloc[2])]
    pd.testing.assert_frame_equal(explorer.frame(), frame)
    explorer.set(claim="overhead", data="benchmarks/overhead.parquet")
    assert explorer.numbers["rows of data"] == len(pd.read_parquet(FIGURES / "benchmarks" / "overhead.parquet"))
    explorer.reset()
    assert explorer._data.layout.display == "none"


def test_filter_and_claim_stay_together(explorer):
    heads = REPORT[REPORT["row"] == "claim"].set_index("claim")["verdict"]
    for kind in explorer.controls["verdict"].options[1:]:
        explorer.set(verdict=kind)
        listed = [row[0] for row in explorer._table.rows]
        assert listed == list(heads[heads.str.startswith(kind) if kind == "holds when" else heads == kind].index)
        assert explorer.state["claim"] in listed
        assert set(explorer.frame()["claim"]) == set(listed)
    explorer.set(verdict="fails")
    explorer.controls["claim"].value = "ratio"  # an identity: the filter gives way
    assert (explorer.state["verdict"], explorer.state["claim"]) == ("all", "ratio")


def test_a_row_of_the_table_opens_its_claim(explorer):
    explorer.set(verdict="fails")
    place = [row[0] for row in explorer._table.rows].index("grid-stability")
    explorer._table.chosen = place  # as the page does
    assert explorer.numbers["claim"] == "grid-stability"
    assert explorer.state["figure"] == "stability"
    explorer.controls["claim"].value = "variance"
    assert explorer._table.rows[explorer._table.chosen][0] == "variance"


def test_a_state_comes_back_from_any_other(explorer):
    explorer.set(claim="shift-bdpo", figure="shift-phase", data="data/shift.parquet", rows=9)
    state = explorer.state
    explorer.set(claim="llm")
    explorer.set(**state)
    assert explorer.state == state
    with pytest.raises(ValueError, match=r"^figure must be one of weight-functions, .*; got 'ppo'$"):
        explorer.set(figure="ppo")
    with pytest.raises(ValueError, match=r"^claim must be one of ratio, .*; got 'nonsense'$"):
        explorer.set(claim="nonsense", figure="ppo")
    with pytest.raises(ValueError, match=r"^rows must be finite and lie in"):
        explorer.set(claim="ppo", rows=1000)
    assert explorer.state == state


def test_a_missing_or_damaged_folder_is_one_line(folder, tmp_path):
    def line(**state):
        made = ClaimsExplorer(folder, **state)
        status, error, png = made.status, made.error, made.png()
        made.close()
        assert error is not None
        assert "\n" not in status
        assert png.startswith(b"\x89PNG")
        return status

    assert "variance-region.png is missing or damaged; `gradlab figures`" in line(claim="variance")
    (folder / "gradient-field.png").write_bytes((folder / "gradient-field.png").read_bytes()[:500])
    assert "gradient-field.png is missing or damaged" in line()
    report = (folder / "claims.csv").read_text("utf-8")
    (folder / "claims.csv").write_text(report.replace(",identity,", ",perhaps,"), "utf-8")
    assert "must be one of identity, holds, holds when" in line()
    (folder / "claims.csv").write_text("a,b\n1,2\n", "utf-8")
    assert "claims.csv must be a report of `gradlab figures`, and is not; restore it" in line()
    (folder / "claims.csv").unlink()
    assert "folder must hold claims.csv" in line()
    assert str(tmp_path) in line()


def test_missing_or_damaged_data_are_one_line(folder):
    made = ClaimsExplorer(folder)
    made.set(data="data/ratios.parquet")
    assert made.status.endswith("ratios.parquet or its manifest is missing; `gradlab figures` makes it again")
    save_frame(pd.DataFrame({"text": ["<b>bold</b>"]}), folder / "data" / "ratios.parquet", {})
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


@pytest.mark.parametrize("story", [None, *[story.title for story in ClaimsExplorer.stories]])
def test_the_code_gives_what_is_shown(explorer, story, capsys):
    if story:
        explorer.tell(story)
    data = explorer.controls["data"].options[-1]
    explorer.set(data=data)
    space = {}
    exec(explorer.as_python(), space)
    assert explorer.numbers["verdict"] in capsys.readouterr().out
    assert space["claim"]["verdict"].iloc[0] == explorer.numbers["verdict"]
    if data != "none":
        pd.testing.assert_frame_equal(space["data"], explorer.frame())
    else:
        rows = explorer.frame()
        pd.testing.assert_frame_equal(
            rows[rows["claim"] == explorer.state["claim"]].reset_index(drop=True),
            space["claim"].reset_index(drop=True),
        )


def test_ahead_on_average_and_yet_it_fails(explorer):
    explorer.tell("Ahead on average, and yet it fails")
    head = next(REPORT[(REPORT["claim"] == "grid-reward") & (REPORT["row"] == "claim")].itertuples())
    assert head.verdict == "fails"
    assert 0 < head.low < head.effect
    assert head.fails > 40
    half = row_of("grid-reward", "constant λ = ½ (DPO at β/2), finite data")
    assert half.fails == half.cells
    assert half.statement in dict(explorer._about.rows)["control beside it"]


def test_true_by_algebra(explorer):
    explorer.tell("True by algebra")
    assert explorer.numbers["verdict"] == "identity"
    first = explorer._rows.rows[1]
    assert "cDPO, IPO" in first[1]
    assert first[2] == "no difference"


def test_what_a_coarse_grid_hides(explorer):
    explorer.tell("What a coarse grid hides")
    assert explorer.state["figure"] == "shift-refinement"
    assert 0.2 < row_of("shift-balanced", "grids of 20 to 800, one cell allowed").effect < 0.3
    assert row_of("shift-balanced", "the continuous limit, no cell allowed").effect == 0


def test_holds_with_a_condition(explorer):
    explorer.tell("Holds, with a condition")
    rows = REPORT[(REPORT["claim"] == "ablation") & (REPORT["row"] == "as stated")]
    grid, worlds = rows[rows["experiment"] == "grid"], rows[rows["experiment"] == "worlds"]
    assert (grid["holds"] == grid["cells"]).all()
    assert worlds["verdict"].str.startswith("holds when scale ≤").all()
    assert row_of("ablation", "against a constant λ = ½").high < 0


def test_not_run_here_and_the_takeaway(explorer):
    explorer.tell("Not run here")
    about = dict(explorer._about.rows)
    assert about["verdict"] == f"not run here: {CLAIMS['llm'].needs}"
    assert "figure" not in about
    assert "data" not in about
    heads = REPORT[REPORT["row"] == "claim"].set_index("claim")["verdict"]
    assert list(heads[heads == "not run here"].index) == ["llm"]
    spikes = REPORT[(REPORT["claim"] == "symmetric-unstable") & (REPORT["row"] == "as stated")]
    assert spikes[["verdict", "effect"]].to_numpy().tolist() == [["inconclusive", 0]]
    assert list(heads[heads.isin(["identity", "holds"])].index) == ["ratio", "shift-dpo", "log-ratio"]
