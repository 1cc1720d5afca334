"""What frames of language models say of the claims: each rule on invented ones, with and without them in the report."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from remembered import remembered

from gradlab import cli
from gradlab.experiments import MEASURED, gallery
from gradlab.experiments.contrasts import not_run
from gradlab.experiments.make import make_figures
from gradlab.experiments.questions import language_models
from gradlab.experiments.questions.language_models_runs import BASELINES, PAIR_LOSSES, TASKS
from gradlab.experiments.questions.language_models_sides import fits, followed, side_ratios
from gradlab.experiments.questions.language_models_spikes import unstable
from gradlab.experiments.questions.language_models_weights import corrected, length_explains, weighed
from gradlab.experiments.questions.language_models_wins import ablation, judge_of, ppo
from gradlab.experiments.report import saved, terminal, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.store.artifacts import save_frame
from gradlab.theory import bdpo_share_corrected

ROOT = Path(__file__).parents[1]
SEEDS, SIZES = (0, 1, 2), ("1M", "2M")
METHODS = ("dpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight", "ppo")
EXTENDED = ("ratio-corrected", "ablation", "ppo", "log-ratio")  # claims that have experiments, too
STATED = "symmetric-unstable"


def runs(*methods):
    """Every run of the laptop run: task, size, seed and method."""
    keys = [(task, size, seed, method) for task in TASKS for size in SIZES for seed in SEEDS
            for method in methods]  # fmt: skip
    return pd.DataFrame(keys, columns=["task", "size", "seed", "method"])


@remembered
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


@remembered
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


@remembered
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


def rows(answers, words):
    """The answers on statements with these words."""
    found = [row for row in answers if words in row.statement.statement]
    assert found
    return found


# --- symmetric-unstable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spikes", "word", "calm"),
    [
        ({"nbdpo-symmetric": 2}, "holds on average", "undecided"),
        pytest.param({"nbdpo-symmetric": 2, "dpo": 2}, "undecided", "holds on average", marks=pytest.mark.slow),
        pytest.param({"dpo": 3}, "undecided", "holds on average", marks=pytest.mark.slow),
        pytest.param({}, "undecided", "undecided", marks=pytest.mark.slow),
    ],
)
def test_spikes_can_be_shown_and_never_refuted(spikes, word, calm, tmp_path):
    answers = unstable(logs(spikes))
    (stated,) = [row for row in answers if row.role == "primary"]
    assert (stated.word, rows(answers, "DPO's own")[0].word) == (word, calm)
    assert {row.word for row in answers} <= {"holds on average", "undecided"}
    assert [row.role for row in answers] == ["primary", *["robustness"] * 3, "context"]
    ours, theirs = (6 * (name in spikes) for name in ("nbdpo-symmetric", "dpo"))
    assert (
        f"a sudden spike in {ours} of 6 runs, and that of DPO in {theirs} of 6 runs" in stated.sentence
    )  # a run counts once
    assert stated.high - stated.low > 0.4
    save(tmp_path, invented(logs=logs(spikes)))
    one = verdicts.judge_claims(tmp_path, [STATED])[STATED]
    assert one.word == word  # no correction over the claim's rows decides it anew
    assert one.decisive.number("against") == 0 or word == "undecided"


def test_one_spike_against_one_is_no_information_and_has_an_interval():
    """The first report printed [+0.000, +0.000] here."""
    frame, calm = logs({"nbdpo-symmetric": 1, "dpo": 1}), logs()
    first = (frame["size"] == "1M") & (frame["seed"] == 0)
    frame.loc[~first, "validation_loss"] = calm.loc[~first, "validation_loss"]
    stated = unstable(frame)[0]
    assert (stated.word, stated.effect) == ("undecided", 0)
    assert stated.low == pytest.approx(-stated.high)
    assert stated.high > 0.4
    assert set(stated.rows["state"]) == {"undecided"}
    assert "427 runs of each method would tell the difference to ± 5 percentage points" in stated.note
    assert stated.needs == 214  # seeds, of two sizes each
    assert stated.sentence == (
        "on real pairs the validation loss of symmetric naive bDPO has a sudden spike in 1 of 6 runs, and that of DPO "
        "in 1 of 6 runs, but that decides nothing"
    )


def test_three_of_six_runs_against_none_are_not_enough_and_four_are():
    for runs_with_spikes, word in ((3, "undecided"), (4, "holds on average")):
        frame, calm = logs({"nbdpo-symmetric": 1}), logs()
        number = frame["seed"] + 3 * (frame["size"] == "2M")
        frame.loc[number >= runs_with_spikes, "validation_loss"] = calm["validation_loss"]
        assert unstable(frame)[0].word == word


def test_a_run_with_too_few_evaluations_is_no_evidence_of_calm():
    with pytest.raises(ValueError, match=r"validation_loss must have 6 values per run or more, hh 1M 0 dpo has 5"):
        unstable(logs(evaluations=5))


def test_runs_that_one_method_lacks_are_refused():
    frame = logs()
    with pytest.raises(ValueError, match="must both have spiked for the same size, seed"):
        unstable(frame[~((frame["method"] == "dpo") & (frame["seed"] == 1))])


# --- ablation and ppo ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "word"),
    [
        (0.4, "holds throughout"),
        (0.6, "reversed"),
        (0.5, "no practical difference"),
        (0.515, "no practical difference"),
    ],
)
def test_win_rates_are_compared_with_each_other_method(others, word):
    answers = ablation(evaluation({name: others for name in METHODS if name != "bdpo"}))
    against = [row for row in answers if row.role == "robustness"]
    assert len(against) == len(TASKS) * len(BASELINES)
    assert {row.word for row in against} == {word}
    assert len(against[0].rows) == len(SIZES)
    more = "more" if others < 0.5 else "less"
    if others != 0.5:
        assert f"on real pairs bDPO wins against the reference {more} often than naive bDPO, by " in against[0].sentence


def test_it_is_said_which_losses_lose_to_the_reference():
    below = dict.fromkeys(PAIR_LOSSES, 0.45)
    answers = ablation(evaluation(below))
    context = [row for row in answers if row.role == "context" and "real pairs" in row.statement.statement]
    assert [row.word for row in context] == ["reversed"] * len(below)
    assert {row.note.partition(".")[0] for row in context} == {
        "All 5 pair losses lose to the reference on real pairs, 5 of them beyond chance"
    }
    assert re.match(r"on real pairs bDPO loses to the reference, by (4.9|5.0|5.1) points of win-rate below ½",
                    context[0].sentence)  # fmt: skip
    mixed = ablation(evaluation({**below, "dpo": 0.6}))
    assert rows(mixed, "DPO beats the reference")[0].note.startswith("4 of 5 pair losses lose to the reference on real")


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
def test_a_weak_reward_model_decides_nothing_whatever_the_win_rates(accuracy, shorter, counts):
    answers = ablation(evaluation({"dpo": 0.4, "nbdpo": 0.6}, accuracy, shorter))
    against = [row for row in answers if row.role == "robustness"]
    real, tokens = rows(against, "real pairs"), rows(against, "task of tokens")
    plain = ["reversed", "no practical difference", "holds throughout", "no practical difference"]
    assert [row.word for row in tokens] == plain  # the true reward needs no proof
    assert [row.word for row in real] == (plain if counts else ["undecided"] * 4)
    for row in rows(answers, "real pairs"):
        assert row.word == "undecided" or counts
        assert f"right on {accuracy:.1%} [" in row.note
        assert f"of 480 held-out pairs, “prefer the shorter answer” on {shorter:.1%}" in row.note
        assert ("decide nothing" in row.note) == (not counts)


def test_the_judges_accuracy_is_pooled_over_seeds_and_sizes_share_their_pairs():
    frame = evaluation()
    frame["reward_accuracy"] = frame["seed"].map({0: 0.5, 1: 0.6, 2: 0.7}) + frame["size"].map(
        {"1M": -0.05, "2M": 0.05}
    )
    judge = judge_of(frame, "hh")
    assert judge.pairs == 480
    assert judge.accuracy == pytest.approx(0.6)
    assert judge.high - judge.low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 480))
    with pytest.raises(ValueError, match="task hh must have one judge, got reward model, me"):
        judge_of(frame.assign(judge=np.where(frame["seed"] == 1, "me", "reward model")), "hh")


def test_on_real_pairs_ppo_is_judged_by_its_own_reward_model_and_no_word_rests_on_it():
    real, tokens = ppo(evaluation({"ppo": 0.7}))
    assert (real.role, real.word) == ("context", "undecided")
    assert "is the one that PPO was trained on" in real.note
    assert (tokens.role, tokens.word) == ("robustness", "holds throughout")
    assert tokens.note.startswith("Judge: true reward")
    assert "PPO is judged by the reward model that it was trained on" in language_models.CAPTIONS["llm-ablation"]


# --- log-ratio -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "realised", "words"),
    [(1.0, 1.0, ["holds throughout"] * 2), (0.0, 0.9, ["undecided", "holds throughout"]),
     (-1.5, 1.0, ["reversed", "holds throughout"])],
)  # fmt: skip
def test_a_ratio_follows_where_it_correlates(slope, realised, words):
    answers = followed(logs(slope=slope, realised=realised))
    follows = [row for row in answers if row.role == "robustness"]
    assert [row.word for row in follows] == words or slope == 0
    assert follows[1].word == words[1]
    for row, true in zip([row for row in answers if row.role == "context"], (slope, realised), strict=True):
        assert row.effect == pytest.approx(true - 1, abs=0.03)
        assert len(row.rows) == len(SIZES) * len(TASKS)


def test_a_correlation_is_not_a_slope():
    found = fits(logs(slope=0.1, realised=2.0)).groupby("method")[["r", "excess"]].mean()
    assert found["r"].min() > 0.9
    assert found.loc["grad_norm", "excess"] == pytest.approx(0.1 - 1, abs=0.03)
    flat = logs(slope=0.0).assign(grad_norm_win=1.0, grad_norm_lose=1.0)
    assert (fits(flat).query("method == 'grad_norm'")["r"] == 0).all()


def test_steps_without_gradients_of_both_sides_do_not_count():
    frame = logs(slope=1.0)
    assert len(side_ratios(frame)) == (frame["step"] % 15 == 0).sum()
    with pytest.raises(ValueError, match="grad_norm needs three logged steps or more, hh 1M 0 has 2"):
        followed(frame[frame["step"] <= 30])
    same = r"log\(π_l/π_w\) must vary over a run's logged steps, hh 1M 0 has -20 in all of its 10"
    with pytest.raises(ValueError, match=same):
        followed(frame.assign(logp_lose=-100.0))


# --- ratio-corrected -------------------------------------------------------------------------------------------------


def test_at_the_scale_of_sequences_little_is_corrected_and_length_explains_the_weight():
    answers = corrected(pairs(), logs())
    shares, lengths = rows(answers, "the share corrected"), rows(answers, "length explains")
    assert {row.role for row in answers} == {"context"}
    assert [row.word for row in lengths] == ["holds throughout"] * 2
    assert "Mean R²: 1 (real pairs), 1 (task of tokens)" in lengths[0].note
    assert [row.effect for row in shares] == pytest.approx([1 / 50, 1 / 50, 1 / 80], rel=0.2)  # about 1/LM
    assert re.match(r"bDPO corrects 2\.\d percent of DPO's imbalance in the median held-out pair under bDPO's policy",
                    shares[0].sentence)  # fmt: skip


def test_where_probabilities_are_large_most_is_corrected_and_lengths_that_do_not_matter_explain_little():
    near = logs().assign(logp_win=-0.5, logp_lose=-2.0)
    answers = corrected(pairs(by_length=False, win=-0.5, lose=-2.0), near)
    assert min(row.effect for row in rows(answers, "the share corrected")) > 0.8
    assert max(row.effect for row in rows(answers, "length explains")) < 0.1


def test_the_share_corrected_is_that_of_the_law():
    one = pd.DataFrame({"win": [-20.0], "lose": [-80.0], "win_len": [10], "lose_len": [30]})
    found = weighed(one).iloc[0]
    assert found["weight"] == pytest.approx(0.8)
    assert found["share"] == pytest.approx(1 - abs(np.log(4) - 60) / 60)
    assert found["share"] == pytest.approx(np.log(4) / 60)  # 1/LM
    assert (found["imbalance"], found["length_share"]) == (60, 0.25)


def test_the_law_at_a_batchs_mean_is_at_most_the_mean_share_of_the_batch():
    rng = np.random.default_rng(0)
    win, lose = -rng.uniform(1, 200, (2, 1000, 8))
    at_mean = bdpo_share_corrected(win.mean(1), lose.mean(1))
    assert (at_mean <= bdpo_share_corrected(win, lose).mean(1) + 1e-12).all()


def test_equal_lengths_explain_nothing():
    frame = pairs(by_length=False).assign(win_len=5, lose_len=5)
    assert (length_explains(weighed(frame))["r2"] == 0).all()


# --- statements that nobody has run ----------------------------------------------------------------------------------


def test_a_control_that_nobody_has_run_is_named_and_weakens_nothing():
    control = CLAIMS["ablation"].not_run[0]
    assert control.label.startswith("length-weighted DPO")
    row = not_run(control)
    line = saved.line(row)
    assert (row.word, row.role, row.seeds, row.needs, wording.effect(line)) == ("not run", "explains away", 0, 0, "—")
    assert wording.counts(line) == "—"
    stated = ablation(evaluation({"dpo": 0.4, "nbdpo": 0.4}))[0]
    primary = replace(stated, statement=replace(stated.statement, role="primary"), experiment="grid")
    context, names = replace(stated.statement, role="context"), CLAIMS["ablation"].experiments
    others = [replace(primary, statement=context, experiment=name) for name in names]
    one = verdicts.settle([primary, *others], dict.fromkeys(names, "current"), ["ablation"])["ablation"]
    assert (one.word, one.because, one.explains) == ("holds throughout", "", None)
    assert [row.word for row in one.of("explains away")] == ["not run"]
    assert verdicts.settle([], {}, ["ablation"])["ablation"].rows == ()


def test_what_was_declared_of_the_paper_s_scale_is_in_the_report_as_not_run():
    one = verdicts.settle([], {}, ["llm"])["llm"]
    assert (one.word, one.because) == ("not run", "")
    assert [row.role for row in one.rows] == ["primary"] * 2 + ["explains away"] * 6 + ["robustness"]
    assert one.why == MEASURED["seven-billion"].needs
    assert list(saved.records([one])["word"]) == ["not run"] * 10


# --- in the report ---------------------------------------------------------------------------------------------------


def test_only_the_claims_that_name_it_are_judged_by_it_and_only_one_as_stated():
    answers = language_models.verdict(invented())
    naming = [name for name, claim in CLAIMS.items() if "language-models" in claim.measurements]
    assert sorted(naming) == sorted({row.statement.claim for row in answers}) == sorted([STATED, *EXTENDED])
    assert {row.statement.claim for row in answers if row.role == "primary"} == {STATED}
    assert {one for claim in verdicts.EVERY.values() for one in claim.measurements} == set(MEASURED)
    statements = [(row.statement.claim, row.statement.statement, row.role) for row in answers]
    assert len(set(statements)) == len(statements)
    for row in answers:
        assert "1M and 2M parameters" in row.statement.statement
        assert row.statement.label
        assert not re.search(r"nan|\{|\.$", row.sentence)
        assert row.statement.better
        assert row.statement.worse


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
        assert after[name].word == before[name].word
        added = [row for row in after[name].rows if row.experiment == "language-models"]
        assert added
        assert all(row.role in ("robustness", "context") for row in added)
        kept = [row.statement for row in after[name].rows if row.experiment != "language-models"]
        assert kept == [row.statement for row in before[name].rows]
        assert len(after[name].rows) == len(kept) + len(added)
        assert before[name].measured == ()
        assert not any(file.startswith("llm/") for file in wording.data_files(before[name].claim, quick))
        assert wording.data_files(after[name].claim, with_runs)[-3:] == list(language_models.FILES.values())
        assert language_models.COMMAND in wording.commands(after[name].claim)
    assert before[STATED].why == f"needs a measurement that `{language_models.COMMAND}` makes; none has been committed"
    assert (before[STATED].word, after[STATED].word) == ("not run", "holds on average")
    for name in ("overhead", "llm"):
        assert before[name].word == after[name].word == "not run"
    plan = (ROOT / "docs/how-to/seven-billion.md").read_text("utf-8")
    assert re.search(r"`(gradlab protocol \S+)", after["llm"].why)[1] in " ".join(plan.split())


@pytest.mark.parametrize("how", ["one file is missing", "a manifest is missing", "quick"])
def test_frames_in_parts_or_of_a_quick_run_are_none(how, tmp_path):
    save(tmp_path, invented(), quick=how == "quick")
    file = tmp_path / language_models.FILES["pairs"]
    {"one file is missing": file.unlink, "a manifest is missing": file.with_suffix(".json").unlink}.get(how, list)()
    one = verdicts.judge_claims(tmp_path, [STATED])[STATED]
    assert (one.word, one.rows, wording.data_files(one.claim, tmp_path)) == ("not run", (), [])


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
            statement = row.statement.statement.replace("|", "\\|")
            assert statement in section or row.role == "explains away"
            assert statement in method
    assert cli.main(["claims", STATED, "--folder", str(reported)]) == 0
    assert "holds on average" in capsys.readouterr().out


def test_figures_are_shown_and_explained_and_every_link_leads_somewhere(reported):
    pages = {name: (reported / f"{name}.md").read_text("utf-8") for name in ("README", "CLAIMS", "METHODS")}
    for figure, caption in language_models.CAPTIONS.items():
        assert (reported / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert f"![{figure}]({figure}.png)" in pages["README"]
        assert caption in pages["README"]
        assert f"[{figure}]({figure}.png)" in pages["CLAIMS"]
        assert f"| [{figure}]({figure}.png) | [" in pages["METHODS"]
    assert "![answer-symmetric-unstable](answer-symmetric-unstable.png)" in pages["CLAIMS"]
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
    assert explorer.numbers["word"] == "holds on average"
    assert explorer.png() == (reported / "llm-validation.png").read_bytes()
    explorer.close()


def test_the_rules_are_told_before_there_is_any_run(quick):
    page = (quick / "METHODS.md").read_text("utf-8")
    assert "## The rules: language models" in page
    assert "undecided" in page.partition("## The rules: language models")[2]
    for name in EXTENDED:
        assert "language_models.py" in page.partition(f"\n### {name}\n")[2].partition("\n##")[0]
