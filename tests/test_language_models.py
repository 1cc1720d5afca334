"""What frames of language models say of the claims: each rule on invented ones, with and without them in the report."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import cli
from gradlab.experiments import MEASURED, gallery
from gradlab.experiments.make import make_figures
from gradlab.experiments.questions import language_models
from gradlab.experiments.report import terminal, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.store.artifacts import save_frame

ROOT = Path(__file__).parents[1]
SEEDS, SIZES = (0, 1, 2), ("1M", "2M")
METHODS = ("dpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight", "ppo")
EXTENDED = ("ratio-corrected", "ablation", "log-ratio")  # claims that have experiments, too
STATED = "symmetric-unstable"


def runs(*methods):
    """Every run of the laptop run: task, size, seed and method."""
    keys = [(task, size, seed, method) for task in language_models.TASKS for size in SIZES for seed in SEEDS
            for method in methods]  # fmt: skip
    return pd.DataFrame(keys, columns=["task", "size", "seed", "method"])


def evaluation(win_rates=None, accuracy=0.65, shorter=0.5, held_out=160):
    """Win-rates with little noise around ½, or what is given of a method."""
    frame = runs("reference", *METHODS)
    rng = np.random.default_rng(0)
    rates = frame["method"].map({**dict.fromkeys(METHODS, 0.5), "reference": 0.5, **(win_rates or {})})
    judge = frame["task"].map({"hh": "reward model", "tokens": "true reward"})
    rates = rates + rng.normal(0, 1e-3, len(frame))
    return frame.assign(
        judge=judge, win_rate=rates, win_rate_low=rates - 0.05, win_rate_high=rates + 0.05,
        kl=rng.uniform(1, 3, len(frame)), pairs=held_out, reward_accuracy=accuracy, shorter_accuracy=shorter,
    )  # fmt: skip


def logs(spikes=None, slope=0.0, realised=0.0, evaluations=12):
    """Logs of 150 steps; ``spikes`` of a method, in each run, and slopes of both ratios on log(π_l/π_w)."""
    steps = np.arange(1, 151)
    tables = []
    for number, key in enumerate(runs(*METHODS).to_dict("records")):
        rng = np.random.default_rng(number)
        lose_win = rng.normal(0, 5, len(steps))
        loss = 0.69 - 0.0005 * steps + rng.normal(0, 1e-3, len(steps))
        seen = np.linspace(0, len(steps) - 1, evaluations).astype(int)
        for place in seen[2 : 2 + 3 * (spikes or {}).get(key["method"], 0) : 3]:
            loss[place] += 1.0
        sides = {
            f"{name}_{side}": np.exp(sign * 0.5 * (by * lose_win + rng.normal(0, 0.05, len(steps))))
            for name, by in (("grad_norm", slope), ("delta", realised)) for side, sign in (("win", 1), ("lose", -1))
        }  # fmt: skip
        sides["delta_lose"] = -sides["delta_lose"]
        frame = pd.DataFrame({"step": steps, "logp_win": -80.0, "logp_lose": -80.0 + lose_win, **sides})
        frame["validation_loss"] = np.where(np.isin(np.arange(len(steps)), seen), loss, np.nan)
        frame.loc[steps % 15 != 0, list(sides)] = np.nan
        tables.append(frame.assign(**key))
    return pd.concat(tables, ignore_index=True)


def pairs(by_length=True, win=-80.0, lose=-100.0):
    """Held-out pairs at the scale of sequences; log π follows the number of tokens, or not at all."""
    tables = []
    for number, key in enumerate(runs("reference", *METHODS).to_dict("records")):
        rng = np.random.default_rng(number)
        lengths = rng.integers(10, 60, (40, 2))
        logps = -1.5 * lengths if by_length else np.array([win, lose]) * np.exp(rng.normal(0, 0.1, (40, 2)))
        tables.append(pd.DataFrame({
            "pair": np.arange(40), "win_len": lengths[:, 0], "lose_len": lengths[:, 1], "ref_win": logps[:, 0],
            "ref_lose": logps[:, 1], "win": logps[:, 0], "lose": logps[:, 1], **key,
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def invented(**given):
    return {"evaluation": evaluation(), "logs": logs(), "pairs": pairs(), **given}


def save(folder, frames, **manifest):
    for name, frame in frames.items():
        save_frame(frame, folder / language_models.FILES[name], manifest, overwrite=True)


def rows(table, words):
    """The rows whose statement has these words."""
    found = table[table["statement"].str.contains(words, regex=False)]
    assert len(found)
    return found


# --- symmetric-unstable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spikes", "verdict", "calm"),
    [
        ({"nbdpo-symmetric": 2}, "holds", "holds"),
        pytest.param({"nbdpo-symmetric": 2, "dpo": 2}, "inconclusive", "fails", marks=pytest.mark.slow),
        pytest.param({"dpo": 3}, "inconclusive", "fails", marks=pytest.mark.slow),
        pytest.param({}, "inconclusive", "holds", marks=pytest.mark.slow),
    ],
)
def test_spikes_can_be_shown_and_never_refuted(spikes, verdict, calm, tmp_path):
    table = language_models.unstable(logs(spikes))
    stated = table[~table["control"]]
    assert list(stated["verdict"]) == [verdict]
    assert list(rows(table, "DPO's own runs")["verdict"]) == [calm]
    others = table[table["control"] & ~table["statement"].str.startswith("DPO's own")]
    assert len(others) == 3
    assert set(others["verdict"]) <= {"holds", "inconclusive"}
    ours, theirs = (6 * spikes.get(name, 0) for name in ("nbdpo-symmetric", "dpo"))
    assert f"{ours} in 6 runs, against {theirs} in 6 runs" in stated["statement"].item()
    save(tmp_path, invented(logs=logs(spikes)))
    one = verdicts.judge_claims(tmp_path, [STATED])[STATED]
    assert one.verdict == verdict  # no correction over the claim's rows decides it anew
    assert (one.decisive.fails, one.decisive.no_difference) == (0, 0)
    assert one.decisive.holds + one.decisive.inconclusive == one.decisive.cells == len(SIZES)


def test_one_size_alone_shows_no_claim():
    frame = logs({"nbdpo-symmetric": 2})
    calm = logs()
    frame.loc[frame["size"] == "2M", "validation_loss"] = calm.loc[calm["size"] == "2M", "validation_loss"]
    stated = language_models.unstable(frame).iloc[0]
    assert (stated["verdict"], stated["holds"], stated["inconclusive"]) == ("inconclusive", 1, 1)


def test_a_run_with_too_few_evaluations_is_no_evidence_of_calm():
    with pytest.raises(ValueError, match=r"validation_loss must have 6 values a run or more, hh 1M 0 dpo has 5"):
        language_models.unstable(logs(evaluations=5))


# --- ablation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "verdict"), [(0.4, "holds"), (0.6, "fails"), (0.5, "no difference"), (0.515, "no difference")]
)
def test_win_rates_are_compared_with_each_other_method(others, verdict):
    table = language_models.ablation(evaluation({name: others for name in METHODS if name != "bdpo"}))
    assert len(table) == len(language_models.TASKS) * len(language_models.BASELINES)
    assert set(table["verdict"]) == {verdict}
    assert table["control"].all()


@pytest.mark.parametrize(
    ("accuracy", "shorter", "counts"),
    [
        (0.65, 0.5, True),
        (0.65, 0.58, True),
        (0.53, 0.5, False),  # near chance, for 480 held-out pairs
        (0.65, 0.64, False),  # not above "prefer the shorter answer"
        (0.65, 0.36, False),  # nor above "prefer the longer answer"
        (0.30, 0.5, False),
    ],
)
def test_a_weak_reward_model_makes_its_task_inconclusive_whatever_the_win_rates(accuracy, shorter, counts):
    frame = evaluation({"dpo": 0.4, "nbdpo": 0.6}, accuracy, shorter)
    table = language_models.ablation(frame)
    real, tokens = rows(table, "real pairs"), rows(table, "task of tokens")
    plain = ["fails", "no difference", "holds", "no difference"]
    assert list(tokens["verdict"]) == plain  # the true reward needs no proof
    assert list(real["verdict"]) == (plain if counts else ["inconclusive"] * 4)
    assert list(real["inconclusive"]) == [0 if counts else len(SIZES)] * 4
    for statement in real["statement"]:
        assert f"right on {accuracy:.1%} [" in statement
        assert f"of 480 held-out pairs, “prefer the shorter answer” on {shorter:.1%}" in statement
        assert ("inconclusive whatever the win-rates" in statement) == (not counts)


def test_the_judges_accuracy_is_pooled_over_seeds_and_sizes_share_their_pairs():
    frame = evaluation()
    frame["reward_accuracy"] = frame["seed"].map({0: 0.5, 1: 0.6, 2: 0.7}) + frame["size"].map(
        {"1M": -0.05, "2M": 0.05}
    )
    judge = language_models.judge_of(frame, "hh")
    assert judge.pairs == 480
    assert judge.accuracy == pytest.approx(0.6)
    assert judge.high - judge.low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 480))
    with pytest.raises(ValueError, match="task hh must have one judge, got reward model, me"):
        language_models.judge_of(frame.assign(judge=np.where(frame["seed"] == 1, "me", "reward model")), "hh")


# --- log-ratio -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "realised", "verdict"),
    [(1.0, 1.0, ["holds", "holds"]), (0.0, 0.9, ["fails", "holds"]), (1.5, -1.0, ["fails", "fails"])],
)
def test_a_ratio_follows_where_its_slope_is_one(slope, realised, verdict):
    table = language_models.followed(logs(slope=slope, realised=realised))
    assert list(table["verdict"]) == verdict
    assert list(table["cells"]) == [len(SIZES) * len(language_models.TASKS)] * 2
    assert table["control"].all()
    for statement, mean in zip(table["statement"], (slope, realised), strict=True):
        assert float(statement.partition("mean slope ")[2].partition(",")[0]) == pytest.approx(mean, abs=0.03)


def test_steps_without_gradients_of_both_sides_do_not_count():
    frame = logs(slope=1.0)
    assert len(language_models.side_ratios(frame)) == (frame["step"] % 15 == 0).sum()
    with pytest.raises(ValueError, match="grad_norm needs three logged steps or more, hh 1M 0 has 2"):
        language_models.followed(frame[frame["step"] <= 30])
    same = r"log\(π_l/π_w\) must vary over a run's logged steps, hh 1M 0 has -20 in all of its 10"
    with pytest.raises(ValueError, match=same):
        language_models.followed(frame.assign(logp_lose=-100.0))


# --- ratio-corrected -------------------------------------------------------------------------------------------------


def test_at_the_scale_of_sequences_little_is_corrected_and_length_explains_the_weight():
    table = language_models.corrected(pairs())
    halves, lengths = rows(table, "at least half"), rows(table, "share of length")
    assert list(halves["verdict"]) == list(lengths["verdict"]) == ["fails", "fails"]
    assert list(halves["effect"]) == [0, 0]
    assert halves["low"].notna().all()  # over seeds
    assert "mean R²: 1.00 (real pairs), 1.00 (task of tokens)" in lengths["statement"].iloc[0]
    assert sum("bDPO's policy at the end" in statement for statement in table["statement"]) == 2


def test_where_probabilities_are_large_half_is_corrected_and_where_length_is_no_matter_the_weight_is_more_than_it():
    table = language_models.corrected(pairs(by_length=False, win=-0.5, lose=-2.0))
    assert list(rows(table, "at least half")["verdict"]) == ["holds", "holds"]
    assert list(rows(table, "share of length")["verdict"]) == ["holds", "holds"]


def test_the_share_corrected_is_that_of_the_closed_form():
    one = pd.DataFrame({"win": [-20.0], "lose": [-80.0], "win_len": [10], "lose_len": [30]})
    found = language_models.weighed(one).iloc[0]
    assert found["weight"] == pytest.approx(0.8)
    assert found["share"] == pytest.approx(1 - abs(np.log(4) - 60) / 60)
    assert (found["imbalance"], found["length_share"]) == (60, 0.25)


def test_equal_lengths_explain_nothing():
    frame = pairs(by_length=False).assign(win_len=5, lose_len=5)
    assert (language_models.length_explains(language_models.weighed(frame))["r2"] == 0).all()


# --- in the report ---------------------------------------------------------------------------------------------------


def test_only_the_claims_that_name_it_are_judged_by_it_and_only_one_as_stated():
    table = language_models.verdict(invented())
    naming = [name for name, claim in CLAIMS.items() if "language-models" in claim.measurements]
    assert sorted(naming) == sorted(table["claim"].unique()) == sorted([STATED, *EXTENDED])
    assert set(table.loc[~table["control"], "claim"]) == {STATED}
    assert {one for claim in CLAIMS.values() for one in claim.measurements} == set(MEASURED)
    assert table["statement"].is_unique
    assert table["statement"].str.contains("1M and 2M parameters").all()


@pytest.mark.parametrize("frame", language_models.FILES)
def test_a_frame_without_a_column_is_refused(frame):
    frames = invented()
    with pytest.raises(ValueError, match=f"the frame {frame} of the language models must have method"):
        language_models.verdict({**frames, frame: frames[frame].drop(columns="method")})


@pytest.fixture
def with_runs(copy):
    """The quick run of all experiments, with frames of language models beside it that are no quick ones."""
    save(copy / "quick", invented(logs=logs({"nbdpo-symmetric": 2})))
    return copy / "quick"


def test_claims_with_experiments_get_rows_where_the_frames_are_there_and_stay_as_they_are_where_not(quick, with_runs):
    names = [STATED, *EXTENDED, "overhead", "llm"]
    before, after = (verdicts.judge_claims(folder, names, quick=True) for folder in (quick, with_runs))
    for name in EXTENDED:
        assert after[name].verdict == before[name].verdict
        added = [row for row in after[name].rows if row.experiment == "language-models"]
        assert added
        assert all(row.control for row in added)
        kept = [row.statement for row in after[name].rows if row.experiment != "language-models"]
        assert kept == [row.statement for row in before[name].rows]
        assert len(after[name].rows) == len(kept) + len(added)
        assert before[name].measured == ()
        assert not any(file.startswith("llm/") for file in wording.data_files(before[name]))
        assert wording.data_files(after[name])[-3:] == list(language_models.FILES.values())
        assert wording.commands(after[name])[-1] == language_models.COMMAND
    assert before[STATED].why == f"needs a measurement that `{language_models.COMMAND}` makes; none has been committed"
    assert (before[STATED].verdict, after[STATED].verdict) == ("not run here", "holds")
    for name in ("overhead", "llm"):
        assert before[name].verdict == after[name].verdict == "not run here"
    script = (ROOT / "scripts/README.md").read_text("utf-8").replace("\\\n", " ")
    assert re.search(r"`(torchrun .*)`", after["llm"].why)[1] in " ".join(script.split())


@pytest.mark.parametrize("how", ["one file is missing", "a manifest is missing", "quick"])
def test_frames_in_parts_or_of_a_quick_run_are_none(how, tmp_path):
    save(tmp_path, invented(), quick=how == "quick")
    file = tmp_path / language_models.FILES["pairs"]
    {"one file is missing": file.unlink, "a manifest is missing": file.with_suffix(".json").unlink}.get(how, list)()
    one = verdicts.judge_claims(tmp_path, [STATED])[STATED]
    assert (one.verdict, one.rows, wording.data_files(one)) == ("not run here", (), [])


def test_damaged_frames_are_one_line(with_runs, capsys):
    file = with_runs / language_models.FILES["logs"]
    file.write_bytes(file.read_bytes()[:-1])
    assert cli.main(["claims", STATED, "--folder", str(with_runs)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{file} is not the data that its manifest describes" in err


@pytest.fixture(scope="module")
def reported(quick, tmp_path_factory):
    """Frames, figures and report in one folder, for tests that only look."""
    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(quick, folder / "quick")
    save(folder / "quick", invented(logs=logs({"nbdpo-symmetric": 2})))
    drawn = make_figures(["log-ratio"], folder=folder, quick=True)
    assert {file.stem for file in drawn} == set(language_models.CAPTIONS)
    return folder / "quick"


def test_report_and_terminal_tell_rows_data_and_command(reported, capsys):
    pages = [(reported / name).read_text("utf-8") for name in ("CLAIMS.md", "METHODS.md")]
    settled = verdicts.judge_claims(reported, [STATED, *EXTENDED], quick=True)
    for name, one in settled.items():
        section, method = (page.partition(f"# {name}\n")[2].partition("\n##")[0] for page in pages)
        printed = terminal.explained(one, reported, quick=True).replace("\n", " ")
        for file in language_models.FILES.values():
            assert f"[{file}]({file})" in section
            assert str(reported / file) in printed
        for text in (section, method, printed):
            assert "gradlab/experiments/questions/language_models.py" in text
        assert f"`{language_models.COMMAND}`" in section
        assert language_models.COMMAND in printed
        for row in one.rows:
            statement = row.statement.replace("|", "\\|")
            assert statement in section
            assert statement in method
    assert cli.main(["claims", STATED, "--folder", str(reported)]) == 0
    assert re.search(r"^verdict +holds$", capsys.readouterr().out, re.MULTILINE)


def test_figures_are_shown_and_explained_and_every_link_leads_somewhere(reported):
    pages = {name: (reported / f"{name}.md").read_text("utf-8") for name in ("README", "CLAIMS", "METHODS")}
    for figure, caption in language_models.CAPTIONS.items():
        assert (reported / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert f"![{figure}]({figure}.png)" in pages["README"]
        assert caption in pages["README"]
        assert f"[{figure}]({figure}.png)" in pages["CLAIMS"]
        assert f"| [{figure}]({figure}.png) | [" in pages["METHODS"]
    assert "![llm-validation](llm-validation.png)" in pages["CLAIMS"]
    assert f"Regenerate: `{language_models.COMMAND}`." in pages["README"]
    for page in pages.values():
        links = [link for link in re.findall(r"\]\(([^)#]+)", page) if not link.startswith("..")]
        assert all((reported / link).exists() for link in links)


@pytest.mark.slow
def test_figures_are_drawn_anew_only_where_their_frames_have_changed(with_runs):
    assert len(gallery.draw_measured(with_runs)["language-models"]) == 2 * len(language_models.CAPTIONS)
    assert gallery.draw_measured(with_runs) == {"language-models": []}
    save(with_runs, {"logs": logs({"dpo": 1})})
    assert len(gallery.draw_measured(with_runs)["language-models"]) == 2 * len(language_models.CAPTIONS)


def test_where_there_are_no_frames_nothing_is_drawn_or_shown(quick):
    assert not list(quick.glob("llm-*"))
    for name in ("README.md", "CLAIMS.md"):
        assert "llm-ablation" not in (quick / name).read_text("utf-8")
    assert "None has been committed" in (quick / "METHODS.md").read_text("utf-8")


def test_the_explorer_of_claims_shows_them_where_they_are_there(reported):
    widgets = pytest.importorskip("gradlab.widgets")
    explorer = widgets.ClaimsExplorer(folder=reported)
    explorer.set(claim=STATED, figure="llm-validation", data="llm/logs.parquet")
    assert explorer.error is None
    assert explorer.numbers["verdict"] == "holds"
    assert explorer.png() == (reported / "llm-validation.png").read_bytes()
    explorer.close()


def test_the_rules_are_told_before_there_is_any_run(quick):
    page = (quick / "METHODS.md").read_text("utf-8")
    assert "## The rules: language models" in page
    assert "fails" in page.partition("## The rules: language models")[2]
    for name in EXTENDED:
        assert "language_models.py" in page.partition(f"\n### {name}\n")[2].partition("\n##")[0]
