"""The atlas's page, its CSV and its command: every loss is there, columns stay, equal losses give equal files."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest

from gradlab import atlas, cli
from gradlab.atlas import page
from gradlab.atlas.rows import as_published
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES
from gradlab.store.artifacts import save_frame

FIRST = ["key", "family", "convention", "source", "rho", "start", "winner_down", "loser_up", "bounded", "lengths"]
NAMES = [*PAIR_LOSSES, *BATCH_LOSSES]


def made_up(losses=("dpo", "ipo")):
    """Return trainings as the frame of the atlas has them."""
    kinds = [("published", "base", 0.1), ("grid", "beta", 0.1), ("grid", "beta", 1.0)]
    rows = [(loss, *kind, seed) for loss in losses for kind in kinds for seed in (0, 1)]
    frame = pd.DataFrame(rows, columns=["loss", "preset", "factor", "beta", "seed"])
    return frame.assign(
        level=frame["beta"], expected_utility=3 - frame["beta"] + 0.1 * frame["seed"], unobserved_mass=0.1,
        kl_to_reference=1 / (1 + frame["beta"]), win_logp_change=0.5, lose_logp_change=-2.0, rest_logp_change=-0.1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    return atlas.table(page.registered())


@pytest.fixture(scope="module")
def text(rows):
    return page.page(page.registered(), rows)


def test_the_page_has_a_section_a_row_and_a_picture_for_every_registered_loss(text):
    headings = re.findall(r"^### (\S+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(NAMES)
    for name in NAMES:
        assert f"| [{name}](#{name}) |" in text
        assert f"](atlas/{name}.png)" in text


def test_losses_of_a_family_stand_together(text):
    families = re.findall(r"^## Family: (.+)$", text, re.MULTILINE)
    assert len(families) == len(set(families)) > 1


def test_every_note_and_every_remark_is_in_the_table_of_disagreements(text):
    table = text.partition("## Where papers and code disagree")[2].replace("\\|", "|")
    for loss in page.registered():
        for words in (*loss.notes, *(one.remark for one in loss.shipped)):
            assert words in table


def test_the_page_answers_which_losses_go_against_the_label(text):
    (line,) = re.findall(r"^- \*\*Go against the label at π = π_ref\*\*: (.+)$", text, re.MULTILINE)
    assert ("(#discopop)" in line) == ("discopop" in PAIR_LOSSES)
    assert "(#dpo)" not in line
    (line,) = re.findall(r"^- \*\*Never lower a winner and never raise a loser\*\*: (.+)$", text, re.MULTILINE)
    assert "(#dpo)" in line
    assert "(#ipo)" not in line


def test_averaged_losses_are_converted_to_sums(text):
    if "trl-ipo" in PAIR_LOSSES:
        summed, factor = PAIR_LOSSES["trl-ipo"]().summed(page.TOKENS)
        assert f"it is {factor:.3g}".replace("e-05", "e-5").replace("-", "−") in text
        assert f"times `ipo` with beta {summed.beta:g}" in text


def test_losses_are_shown_as_published():
    assert as_published(PAIR_LOSSES["dpo"]()).beta == 0.1
    assert {loss.name: loss for loss in page.registered()}["dpo"].beta == 0.1


def test_the_csv_has_its_columns_first_and_comes_back_as_it_was(rows):
    again = pd.read_csv(io.StringIO(page.as_csv(rows)), keep_default_na=False)
    assert list(again)[: len(FIRST)] == FIRST
    assert again["key"].tolist() == [loss.name for loss in page.registered()]
    starts = pd.to_numeric(again["start"], errors="coerce").to_numpy()
    np.testing.assert_array_equal(starts, rows["start"].to_numpy())
    for column in ("winner_down", "loser_up", "lengths"):
        assert again[column].map({True: True, False: False}).tolist() == rows[column].tolist()
    assert again["equation"].str.lstrip("'").tolist() == rows["equation"].tolist()


def test_pages_and_pictures_are_written_once_and_equal(tmp_path, monkeypatch):
    few = [as_published(PAIR_LOSSES[name]()) for name in ("dpo", "ipo")]
    monkeypatch.setattr(page, "registered", lambda: few)
    drawn = page.write(tmp_path / "a", made_up())
    assert sorted(file.name for file in drawn) == ["dpo.png", "how-to-read.png", "ipo.png"]
    assert page.write(tmp_path / "a", made_up()) == []
    page.write(tmp_path / "b", made_up())
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert [(tmp_path / "a" / file).read_bytes() for file in files] == [
        (tmp_path / "b" / file).read_bytes() for file in files
    ]
    other = made_up()
    other.loc[other["loss"] == "ipo", "expected_utility"] += 0.1
    assert [file.name for file in page.write(tmp_path / "a", other)] == ["ipo.png"]
    monkeypatch.setattr(page, "registered", lambda: few[:1])
    page.write(tmp_path / "a", other)
    assert not (tmp_path / "a" / "atlas" / "ipo.png").exists()


def test_pictures_of_others_beside_the_losses_stay(tmp_path, monkeypatch):
    """Where the atlas is written for the first time, and again."""
    monkeypatch.setattr(page, "registered", lambda: [as_published(PAIR_LOSSES["dpo"]())])
    holiday = tmp_path / "atlas" / "holiday.png"
    holiday.parent.mkdir()
    holiday.write_bytes(b"mine")
    for _ in range(2):
        page.write(tmp_path)
        assert holiday.read_bytes() == b"mine"


def test_trainings_add_columns_and_answers(rows):
    frame = atlas.table(page.registered(), made_up())
    text = page.page(page.registered(), frame)
    assert "| E[u] | KL | unobserved mass | Δ log π_w | Δ log π_l |" in text
    (line,) = re.findall(r"^- \*\*Raised the winners' mean log π .+\*\*: (.+)$", text, re.MULTILINE)
    assert line == "[dpo](#dpo), [ipo](#ipo)."
    assert "reward against KL" in text


def test_figures_of_trainings_are_shown_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "registered", lambda: [PAIR_LOSSES["dpo"]()])
    page.write(tmp_path)
    assert "atlas-map" not in (tmp_path / "ATLAS.md").read_text("utf-8")
    for name in ("atlas-map", "atlas-factors"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    page.write(tmp_path)
    text = (tmp_path / "ATLAS.md").read_text("utf-8")
    assert "](atlas-map.png)" in text
    assert "[one factor at a time](atlas-factors.png)." in text
    assert "atlas-frontier-reward" not in text


def test_the_command_prints_a_line_per_loss(capsys):
    assert cli.main(["atlas"]) == 0
    printed = capsys.readouterr().out
    for name in NAMES:
        assert re.search(rf"^{re.escape(name)} ", printed, re.MULTILINE)
    assert max(map(len, printed.splitlines())) <= 100


def test_the_command_says_all_of_some_losses_with_their_numbers(capsys):
    assert cli.main(["atlas", "dpo:beta=2", "ipo"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"slope of log π_w +−1$", printed, re.MULTILINE)
    assert "h_w − h_l = 1/(2β)" in printed
    assert re.findall(r"^  numbers +(.+)$", printed, re.MULTILINE) == ["beta 2", "beta 1"]


def test_the_command_gives_json_and_a_file(capsys, tmp_path):
    frame = save_frame(made_up(), tmp_path / "trained.parquet", {})
    assert cli.main(["atlas", "dpo", "--json", "--trained", str(frame)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["key"], row["winner_down"], row["reward"]) == ("dpo", False, 2.95)
    assert cli.main(["atlas", "--save", str(tmp_path / "rows.parquet")]) == 0
    assert pd.read_parquet(tmp_path / "rows.parquet")["key"].tolist() == NAMES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "loss must be one of"), (["dpo:gamma=1"], "hyper-parameter of dpo must be"),
     (["--save", "rows.csv"], "save must name a file that ends in .parquet"),
     (["--trained", "/no/such.parquet"], "/no/such.json")],
)  # fmt: skip
def test_bad_input_of_the_command_is_one_line(capsys, arguments, said):
    assert cli.main(["atlas", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
