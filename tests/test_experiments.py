"""The experiments run whole on their quick settings, resume, and judge by what the frames say."""

import ast
import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import rounding

from gradlab.experiments import EXPERIMENTS, MEASURED, frames, long_experiments, make, methods, questions
from gradlab.experiments.experiment import plain
from gradlab.experiments.make import make_figures
from gradlab.experiments.questions import frontier
from gradlab.lab.fit import fit
from gradlab.lab.objective import Deal, PairObjective
from gradlab.lab.world import gaussian_world
from gradlab.losses import BalancedDPO, PairLogps
from gradlab.store import provenance
from gradlab.store.artifacts import load_frame, save_frame
from gradlab.streams import Purpose, stream

USUAL = {name: one for name, one in EXPERIMENTS.items() if not one.is_long}  # a plain run makes their frames


def test_every_experiment_leaves_frame_manifest_and_figures(quick):
    for name, experiment in USUAL.items():
        frame, manifest = load_frame(quick / "data" / f"{name}.parquet")
        assert len(frame) > 0
        assert manifest["quick"] is True
        assert manifest["settings"] == frames.settings_of(experiment, quick=True)
        for figure in experiment.captions:
            assert (quick / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
            assert (quick / f"{figure}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize("name", long_experiments())
def test_a_long_experiment_can_be_run_quickly_judged_drawn_and_answered(name, tmp_path):
    experiment = EXPERIMENTS[name]
    drawn = {file.name for file in make_figures([name], folder=tmp_path, quick=True, workers=2)}
    assert drawn == {f"{figure}.{kind}" for figure in experiment.captions for kind in ("png", "pdf")}
    assert frames.is_current(experiment, tmp_path / "quick" / "data", quick=True)
    picked, parts = (make(frames.declared(experiment, False)) for make in (experiment.sample, experiment.parts))
    texts = [json.dumps(plain(part), sort_keys=True) for part in parts]
    assert all(json.dumps(plain(part), sort_keys=True) in texts for part in picked)


def test_no_number_is_missing_where_one_is_expected(quick):
    frame = load_frame(quick / "data" / "grid.parquet")[0]
    numbers = ["utility", "utility_share", "kl", "entropy", "unobserved_mass", "top1_accuracy", "win_rate"]
    assert np.isfinite(frame[numbers]).all().all()


def test_the_page_shows_every_figure_and_marks_a_quick_run(quick):
    page = (quick / "README.md").read_text()
    assert "These are not results" in page
    for experiment in USUAL.values():
        for figure, caption in experiment.captions.items():
            assert f"![{figure}]({figure}.png)" in page
            assert caption in page


def test_an_effect_is_the_mean_over_worlds_of_the_paired_differences_in_the_frame(quick):
    worlds = EXPERIMENTS["worlds"]
    frame = load_frame(quick / "data" / "worlds.parquet")[0]
    row = worlds.verdict(frame, frames.declared(worlds, quick=True))[0]
    wide = frame.pivot_table(index=["world", "seed"], columns="method", values="utility_share")
    by_world = (wide["bdpo"] - wide["dpo"]).groupby("world").mean()
    assert row.effect == pytest.approx(by_world.mean(), abs=1e-12)
    assert (row.seeds, row.replicates) == (2, frame["world"].nunique())


def test_a_word_follows_the_data(quick):
    """Were bDPO's reward higher everywhere, the claim would hold; were it lower, it would be reversed."""
    worlds = EXPERIMENTS["worlds"]
    frame = load_frame(quick / "data" / "worlds.parquet")[0]
    base = frame[frame["method"] == "dpo"]
    others = frame[frame["method"] != "dpo"]
    settings = frames.declared(worlds, quick=True)
    for shift, word in ((0.2, "holds on average"), (-0.2, "reversed"), (0.0, "no practical difference")):
        noise = stream(0, Purpose.SIMULATED, 0).normal(0, 1e-4, len(base))
        by_seed = pd.Series(base["utility_share"].to_numpy() + shift + noise, base["seed"])
        shifted = others.assign(utility_share=others["seed"].map(by_seed))
        assert worlds.verdict(pd.concat([base, shifted]), settings)[0].word == word


def test_a_second_run_does_nothing_and_changes_no_byte(copy, capsys):
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    assert make_figures(folder=copy, quick=True) == []
    assert {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()} == before
    assert capsys.readouterr().out.count("frame up to date, up to date") == len(USUAL)


def test_fresh_gives_the_same_data(copy):
    path = copy / "quick" / "data" / "log-ratio.parquet"
    before = path.read_bytes()
    assert make_figures(["log-ratio"], folder=copy, quick=True, fresh=True, workers=1) != []
    assert path.read_bytes() == before


def test_only_what_is_stale_is_done_again(copy):
    data = copy / "quick" / "data"
    manifest = json.loads((data / "picture.json").read_text())
    (data / "picture.json").write_text(json.dumps({**manifest, "key": "of other sources"}))
    (copy / "quick" / "starts.png").unlink()
    drawn = {path.stem for path in make_figures(folder=copy, quick=True)}
    assert drawn == {"picture-free", "picture-shared", "starts"}


def test_a_damaged_frame_is_run_again(copy):
    path = copy / "quick" / "data" / "log-ratio.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.warns(UserWarning, match=r"log-ratio\.parquet is no result .*, or is damaged: kept as"):
        make_figures(["log-ratio"], folder=copy, quick=True)
    assert path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_an_interrupted_run_resumes_without_losing_a_part(tmp_path, monkeypatch, fresh):
    original = EXPERIMENTS["log-ratio"]
    whole = frames.run(original, quick=True, workers=1)
    calls = []

    def breaks_at_the_third(**part):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original.run_part(**part)

    experiment = dataclasses.replace(original, run_part=breaks_at_the_third)
    monkeypatch.setattr(frames, "frame_key", lambda *_: "key")  # other processes could not find that function
    with pytest.raises(KeyboardInterrupt):
        frames.bring_up_to_date([experiment], tmp_path, quick=True, fresh=fresh, workers=1)
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith(".") and file.is_file()]
    assert frames.bring_up_to_date([experiment], tmp_path, quick=True, fresh=False, workers=1) == [experiment]
    different = {json.dumps(plain(part), sort_keys=True) for part in calls}
    assert len(calls) == len(different) + 1  # the broken part alone was run again, further seeds included
    assert len(different) >= len(experiment.parts(frames.declared(experiment, True)))
    resumed = load_frame(frames.frame_path(experiment, tmp_path))[0]
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []
    assert frames.bring_up_to_date([experiment], tmp_path, quick=True, fresh=False, workers=1) == []


def test_the_number_of_workers_does_not_change_a_bit(quick):
    experiment = EXPERIMENTS["log-ratio"]
    alone = frames.run(experiment, quick=True, workers=1)
    pd.testing.assert_frame_equal(alone, load_frame(quick / "data" / "log-ratio.parquet")[0], check_exact=True)


@pytest.mark.parametrize(
    "name",
    ["README.md", "CLAIMS.md", "METHODS.md", "PAPER.md", "OPEN-QUESTIONS.md", "claims.csv", "data/grid.json",
     "data/grid.parquet", "starts.png", "data/starts.figures.json", "ATLAS.md", "atlas.csv", "atlas/dpo.png"],
)  # fmt: skip
def test_files_of_others_are_refused_before_anything_runs(tmp_path, name):
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text('{"sha256": "mine", "key": "mine"}')
    with pytest.raises(ValueError, match=rf"{re.escape(name)} was not written by `gradlab figures`: name another"):
        make_figures(["ratios"], folder=tmp_path)
    assert theirs.read_text() == '{"sha256": "mine", "key": "mine"}'


def test_the_committed_figures_are_known_as_ours():
    make._refuse_others(Path(__file__).parent.parent / "figures")


def test_an_unknown_experiment_names_those_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"experiment must be one of ratios, .*picture, grid, .*did you mean 'worlds'"):
        make_figures(["world"], folder=tmp_path)


def test_a_file_in_the_place_of_the_figures_folder_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    for quick in (False, True):
        with pytest.raises(ValueError, match=r"^folder must be a folder, or not be there yet, got the file '.*/file'$"):
            make_figures(["ratios"], folder=tmp_path / "file", quick=quick)


def test_parts_can_be_written_down_and_are_all_different():
    for experiment in EXPERIMENTS.values():
        for quick in (False, True):
            parts = experiment.parts(frames.declared(experiment, quick))
            texts = [json.dumps(plain(part), sort_keys=True) for part in parts]
            assert len(set(texts)) == len(texts)


def test_a_recipe_is_written_down_by_its_fields_and_nothing_else_is_guessed():
    settings = frames.settings_of(EXPERIMENTS["grid"], quick=False)
    written = settings["training"]
    assert (written["optimizer"], written["learning_rate"], written["steps"], written["pairs"]) == (
        "adam",
        0.05,
        500,
        100,
    )
    assert [one["learning_rate"] for one in settings["other_training"]] == [0.01, 10.0, 40.0]
    with pytest.raises(TypeError, match="a setting must be JSON-able or a Training, got array"):
        plain({"levels": np.ones(2)})


def test_the_declared_grid_is_the_protocols():
    grid, worlds = EXPERIMENTS["grid"].settings, EXPERIMENTS["worlds"].settings
    assert (grid["seeds"], grid["block"], grid["cap"]) == (24, 24, 240)
    assert grid["mask_rates"] == [0.0, 0.2, 0.4]
    assert set(grid["methods"]) == set(methods.METHODS)
    assert (worlds["worlds"], worlds["block"], worlds["cap"], worlds["seeds"]) == (120, 120, 480, 6)
    assert EXPERIMENTS["stability"].settings["training"].steps == 10 * grid["training"].steps


# --- staleness -----------------------------------------------------------------------------------------------------


@pytest.fixture
def key_after(monkeypatch):
    """The key of an experiment's frame once the source of a module, its own by default, has been edited."""
    source = provenance._source

    def key(experiment, edit, module=None):
        edited = module or experiment.module
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "_source", lambda name: edit(source(name)) if name == edited else source(name))
            return frames.frame_key(experiment, quick=True)

    return key


def altered(name):
    """An edit that changes the function, class or constant of that name, which must be there."""

    def edit(text):
        tree = ast.parse(text)
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else node
            if name == (getattr(target, "name", None) or getattr(target, "id", None)):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    node.body.insert(0, ast.parse("changed = 1").body[0])
                else:
                    node.value = ast.List([node.value])
                return ast.unparse(tree)
        raise AssertionError(f"no {name} here")

    return edit


def with_helper(text):
    """An edit after which ``run_part`` uses a helper, and that a constant."""
    tree = ast.parse(text + "\n\n_SIZE = 3\n\n\ndef _helper():\n    return _SIZE\n")
    body = next(node.body for node in tree.body if getattr(node, "name", "") == "run_part")
    body.insert(0, ast.parse("_helper()").body[0])
    return ast.unparse(tree)


every_experiment = pytest.mark.parametrize("experiment", USUAL.values(), ids=USUAL)


@every_experiment
@pytest.mark.parametrize("name", ["parts", "run_part"])
def test_a_frame_is_stale_once_what_makes_it_has_changed(experiment, name, key_after):
    assert key_after(experiment, altered(name)) != frames.frame_key(experiment, quick=True)


@every_experiment
def test_a_frame_is_stale_once_a_helper_of_its_parts_has_changed(experiment, key_after):
    before = key_after(experiment, with_helper)
    for name in ("_helper", "_SIZE"):
        assert key_after(experiment, lambda text, name=name: altered(name)(with_helper(text))) != before
    assert key_after(experiment, lambda text: altered("verdict")(with_helper(text))) == before


@every_experiment
def test_a_frame_is_stale_once_its_settings_or_the_methods_have_changed(experiment, key_after, monkeypatch):
    before = frames.frame_key(experiment, quick=True)
    assert key_after(experiment, altered("train"), "gradlab.experiments.methods") != before
    assert frames.frame_key(experiment, quick=False) != before
    monkeypatch.setitem(experiment.settings, "another", 1)
    assert frames.frame_key(experiment, quick=True) != before


@every_experiment
def test_a_frame_is_not_stale_because_it_is_judged_shown_or_told_otherwise(experiment, key_after):
    before = frames.frame_key(experiment, quick=True)
    bound = vars(sys.modules[experiment.module])
    for name in filter(bound.__contains__, ("verdict", "figures", "CAPTIONS", "EXPERIMENT")):
        assert key_after(experiment, altered(name)) == before, name
    assert key_after(experiment, lambda text: "# a comment\n" + text) == before
    assert key_after(experiment, altered("curves"), "gradlab.plotting.training_runs") == before
    assert key_after(experiment, altered("judged"), "gradlab.experiments.contrasts") == before
    assert key_after(experiment, altered("Experiment"), "gradlab.experiments.experiment") == before


@pytest.mark.parametrize("name", ["worlds", "stability", "ppo-against-dpo"])
def test_a_frame_is_not_stale_because_other_contrasts_are_declared(name, key_after):
    experiment = EXPERIMENTS[name]
    declared = next(filter(vars(sys.modules[experiment.module]).__contains__, ("contrasts", "CONTRASTS")))
    assert key_after(experiment, altered(declared)) == frames.frame_key(experiment, quick=True)


def test_a_part_must_be_run_by_a_function_that_other_processes_find():
    experiment = dataclasses.replace(EXPERIMENTS["log-ratio"], parts=lambda settings: [])
    with pytest.raises(ValueError, match=r"roots must be names that gradlab\.experiments\..*log_ratio defines"):
        frames.frame_key(experiment, quick=True)


def test_every_question_has_a_file_of_its_name_and_is_listed():
    folder = Path(questions.__file__).parent
    listed = {one.module.rsplit(".", 1)[1] for one in (*EXPERIMENTS.values(), *MEASURED.values())}
    beside = tuple(f"{name}_" for name in listed)  # a question may have further files, which begin with its name
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert {name for name in files if not name.startswith(beside)} == listed
    for name, one in EXPERIMENTS.items():
        assert one.module == f"gradlab.experiments.questions.{name.replace('-', '_')}"
        assert one.question.endswith((".", "?"))


# --- the permuted-λ control -----------------------------------------------------------------------------------------


def columns(runs, seed=0):
    """Log-probabilities of all pairs of 9 responses, in 20 prompts per run."""
    rng = torch.Generator().manual_seed(seed)
    width = -(-runs * 20 // 32) * 32
    draw = lambda: -5 * torch.rand(36, width, dtype=torch.float64, generator=rng) - 0.01  # noqa: E731
    return PairLogps(draw(), draw(), draw(), draw())


def dealing(loss, seeds):
    weights = np.tile(1.0 - np.eye(9), (len(seeds), 20, 1, 1))
    return PairObjective(loss, weights, np.zeros(weights.shape[:3]), "cpu", torch.float64, Deal.of(loss, seeds)).dealt


def excess(loss, logps, runs, dealt=None):
    """λ_w − ½ of every pair, by run: read off a margin with h_w = 1 and h_l = 0."""
    unit = PairLogps(logps.win, logps.lose, logps.win - 1, logps.lose)
    margin = loss.margin(unit) if dealt is None else loss.margin(unit, dealt(unit))
    return margin[:, : runs * 20].unflatten(1, (runs, 20)) - 0.5


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("runs", [1, 3, 8])
def test_permuted_weights_are_the_same_ones_dealt_to_other_pairs(runs, oriented):
    logps, loss = columns(runs), methods.PermutedBalancedDPO(1.0, oriented)
    dealt = excess(loss, logps, runs, dealing(loss, [3] * runs))
    kept, balanced = (excess(each, logps, runs) for each in (loss, BalancedDPO(1.0)))
    torch.testing.assert_close(kept, balanced, atol=1e-12, rtol=0)  # a loss alone deals nothing
    for run in range(runs):
        sizes = [side[:, run].abs().flatten().sort().values for side in (dealt, balanced)]
        torch.testing.assert_close(*sizes, atol=1e-12, rtol=0)  # the sizes are a permutation
        assert not torch.allclose(dealt[:, run].abs(), balanced[:, run].abs())
    same = (dealt.sign() == balanced.sign()).double().mean()
    assert same == 1 if oriented else 0.4 < same < 0.6  # the direction: Balanced-DPO's, or a coin's


def test_in_a_tie_the_permuted_control_favours_neither_side():
    loss, logps = methods.PermutedBalancedDPO(1.0, oriented=True), columns(1)
    moved = torch.where(torch.arange(36)[:, None] < 3, logps.win * (1 + 1e-14), logps.lose)
    tied = PairLogps(logps.win, moved, logps.ref_win, logps.ref_lose)
    found = excess(loss, tied, 1, dealing(loss, [3]))
    assert found[:3].abs().max() < rounding(8, 5.0)
    assert (found[3:].abs() > 1e-6).double().mean() > 0.85  # but for those that get the number of a tie


@pytest.mark.parametrize("oriented", [False, True])
def test_the_permuted_control_keeps_antisymmetry_and_scale(oriented):
    loss, half = (methods.PermutedBalancedDPO(beta, oriented) for beta in (2.0, 1.0))
    logps, dealt = columns(2), dealing(loss, [1, 2])
    margin, swapped = (loss.margin(pairs, dealt(pairs)) for pairs in (logps, logps.swapped()))
    torch.testing.assert_close(margin, -swapped, atol=rounding(8, 10.0), rtol=0)
    torch.testing.assert_close(margin, 2 * half.margin(logps, dealt(logps)))


def test_each_seed_of_the_permuted_control_has_a_permutation_of_its_own():
    worlds = [gaussian_world(8, 6, seed=0)] * 3
    together = methods.train("permuted λ", worlds, pairs=None, steps=60, seeds=[0, 1, 0])
    assert torch.equal(together.logp[0], together.logp[2])
    assert not torch.allclose(together.logp[0], together.logp[1])
    assert list(together.history["run"]) == [0, 1, 2, 0, 1, 2]
    alone = methods.train("permuted λ", worlds[:1], pairs=None, steps=60, seeds=[1])
    assert torch.equal(alone.logp[0], together.logp[1])


def test_the_page_leaves_out_what_is_stale_and_says_so(copy):
    stamp = copy / "quick" / "data" / "grid.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "key": "of other sources"}))
    make_figures(["log-ratio"], folder=copy, quick=True)
    page = (copy / "quick" / "README.md").read_text()
    assert "Not shown, because stale or never run: grid." in page
    assert "grid-curves.png" not in page


def test_the_theorem_line_is_never_crossed_at_its_own_trade(quick):
    """π_ref exp(u/β) maximises E[u] − β KL: no trained policy of the sweep does better, for any β of the line."""
    frame = load_frame(quick / "data" / "frontier.parquet")[0].query("policy == 'free'")
    last = frame[frame["step"] == frame["step"].max()]
    ideal, trained = last[last["method"] == "ideal"], last[last["method"] != "ideal"]
    for (mask, seed), line in ideal.groupby(["mask", "seed"]):
        cell = trained[(trained["mask"] == mask) & (trained["seed"] == seed)]
        for point in line.itertuples():
            assert (cell["utility"] - point.beta * cell["kl"]).max() <= point.utility - point.beta * point.kl + 1e-9


def test_where_all_weights_agree_the_permuted_control_is_bdpo():
    world = gaussian_world(mask_rate=0.2, seed=0)
    pair = methods.PermutedBalancedDPO(), BalancedDPO()
    first = [fit(world, loss, steps=1, record=1, engine="eager").logp for loss in pair]
    assert torch.allclose(*first, atol=1e-12)  # a uniform start: λ = ½ everywhere
    later = [fit(world, loss, steps=50, record=1, engine="eager").logp for loss in pair]
    assert not torch.allclose(*later, atol=1e-3)


@pytest.mark.parametrize("method", methods.PERMUTED)
@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_the_permuted_control_trains_a_batch_as_it_trains_each_run(method, engine, monkeypatch):
    worlds = [gaussian_world(8, 6, mask_rate=rate, seed=seed) for seed, rate in enumerate((0.0, 0.4, 0.2, 0.4, 0.0))]
    settings = {"pairs": 30, "steps": 30, "engine": engine}
    batch = methods.train(method, worlds, seeds=range(5), **settings)
    assert batch.settings["engine"] == engine
    for seed, (world, logp) in enumerate(zip(worlds, batch.logp, strict=True)):
        assert torch.equal(methods.train(method, [world], seeds=[seed], **settings).logp[0], logp)
    monkeypatch.setattr("gradlab.lab.runs.BLOCK_SLOTS", 1)
    monkeypatch.setattr("gradlab.lab.engine.run.PANEL", 1)
    split = methods.train(method, worlds, seeds=range(5), **settings)
    assert torch.equal(split.policies, batch.policies)
    pd.testing.assert_frame_equal(split.history, batch.history, check_exact=True)


def test_every_method_trains(tmp_path):
    worlds = [gaussian_world(8, 6, mask_rate=0.3, seed=seed) for seed in range(2)]
    for method in methods.METHODS:
        fitted = methods.train(method, worlds, pairs=30, steps=40, seeds=range(2))
        gained = fitted.history.query("step == 40")["utility_share"].mean()
        # λ = 0.4 pushes losers down more than it pulls winners up, and so piles mass on unobserved responses.
        assert gained > 0 or method == "fixed λ=0.4", method
    assert len(methods.train("ipo", worlds, steps=2, seeds=range(2)).history)  # registered; no experiment declares it
    with pytest.raises(ValueError, match="method must be one of dpo, "):
        methods.train("dpoo", worlds, seeds=range(2))


def test_equal_kl_reads_paths_where_they_pass_a_level_and_nowhere_else():
    path = pd.DataFrame({
        "method": "dpo", "mask": 0.0, "policy": "free", "seed": 0, "beta": 1.0, "step": [0, 1, 2, 3],
        "kl": [0.0, 0.4, 0.8, 0.6], "utility_share": [0.0, 0.2, 0.6, 9.0], "unobserved_mass": [0.4, 0.4, 0.2, 9.0],
        "win_rate": [0.5, 0.6, 0.8, 9.0],
    })  # fmt: skip
    levels = frontier.at_equal_kl(path).set_index("kl")
    assert list(levels.index) == [0.25, 0.5]  # 1 nat is never reached
    assert levels.loc[0.5, "utility_share"] == pytest.approx(0.3)  # a quarter of the way from 0.2 to 0.6
    assert levels.loc[0.25, "utility_share"] == pytest.approx(0.125)
    assert levels.loc[0.5, "win_rate"] == pytest.approx(0.65)


def test_a_result_of_another_version_is_not_taken_for_ours(copy):
    path = copy / "quick" / "data" / "log-ratio.parquet"
    frame, manifest = load_frame(path)
    save_frame(frame * 1, path, {"key": manifest["key"], "quick": True}, overwrite=True)
    stamp = path.with_suffix(".json")
    stamp.write_text(stamp.read_text().replace('"format": 1', '"format": 0'))
    make_figures(["log-ratio"], folder=copy, quick=True)
    assert load_frame(path)[1]["format"] == 1
