"""A sweep trains what its file asks for, loses nothing, and gives the same bits however it was run."""

import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from own_losses import dear_every_name

from gradlab import cli
from gradlab.lab.fit import fit
from gradlab.lab.policy import tabular_policy
from gradlab.lab.world import gaussian_world
from gradlab.losses import named_loss, pair_loss
from gradlab.store.artifacts import load_frame, save_frame
from gradlab.sweeps import sweep
from gradlab.sweeps.settings_frame import check_settings, read_settings
from gradlab.sweeps.sweep import run_sweep, sweep_status

SMALL = """
seeds = 4
prompts = 3
responses = 6
steps = 20
[[grid]]
loss = ["dpo", "bdpo"]
beta = [0.5, 2.0]
mask_rate = [0.0, 0.4]
[[grid]]
loss = "nbdpo"
clip = 0.3
policy = "shared"
optimizer = "gd"
pairs = 30
dtype = "float32"
"""


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture
def blocks_of_three(monkeypatch):
    monkeypatch.setattr(sweep, "_width", lambda group: 3)


def result(folder):
    return load_frame(folder / "runs.parquet")[0]


def test_losses_of_batches_are_swept_with_their_numbers(tmp_path):
    rows = [{"loss": "kto", "desirable_weight": weight, "prompts": 2, "responses": 3, "steps": 5} for weight in (1, 3)]
    run_sweep(check_settings(pd.DataFrame(rows)), tmp_path, workers=1, progress=False)
    kl = result(tmp_path)["kl"]
    worlds, losses = gaussian_world(2, 3), [named_loss("kto", desirable_weight=weight) for weight in (1, 3)]
    assert kl.tolist() == [fit(worlds, loss, steps=5, record=1).history["kl"].iloc[-1] for loss in losses]


def test_a_grid_is_every_combination_and_grids_add_up(small):
    settings = read_settings(small)
    assert len(settings) == 2 * 2 * 2 * 4 + 4
    assert not settings.duplicated().any()
    first = settings[settings["loss"] != "nbdpo"]
    assert set(zip(first["loss"], first["beta"], first["mask_rate"], first["seed"], strict=True)) == {
        (loss, beta, mask, seed)
        for loss in ("dpo", "bdpo")
        for beta in (0.5, 2.0)
        for mask in (0.0, 0.4)
        for seed in range(4)
    }


def test_a_run_that_two_grids_ask_for_is_run_once(tmp_path):
    (tmp_path / "a.toml").write_text("seed = [3, 5]\n[[grid]]\nbeta = [1.0, 2.0]\n[[grid]]\nbeta = [2.0, 4.0]\n")
    settings = read_settings(tmp_path / "a.toml")
    assert settings[["beta", "seed"]].to_numpy().tolist() == [[1, 3], [1, 5], [2, 3], [2, 5], [4, 3], [4, 5]]


def test_every_run_is_what_fit_gives_for_its_settings(small, tmp_path):
    frame = pd.read_parquet(run_sweep(read_settings(small), tmp_path / "out", workers=1, progress=False))
    assert sorted(frame["run"]) == list(range(36))
    for _, row in frame.iterrows():
        given = {name: row[name] for name in ("beta", "clip") if not pd.isna(row[name])}
        other = {} if row["loss"] != "nbdpo" else {
            "policy": tabular_policy("shared"), "optimizer": "gd", "pairs": 30, "dtype": torch.float32,
        }  # fmt: skip
        mask = 0.0 if pd.isna(row["mask_rate"]) else row["mask_rate"]
        world = gaussian_world(3, 6, mask_rate=mask, seed=row["seed"])
        alone = fit(world, pair_loss(row["loss"], **given), steps=20, seed=row["seed"], record=1, **other)
        expected = alone.history.iloc[-1]
        assert row["step"] == 20
        assert row["expected_utility"] == expected["utility"]
        assert row["training_loss"] == expected["loss"]
        for name in ("kl", "entropy", "unobserved_mass", "win_rate", "held_out_loss", "top1_accuracy"):
            assert row[name] == expected[name]
        assert pd.isna(row["error"])


@dear_every_name
def test_every_registered_loss_can_be_swept(name, tmp_path):
    settings = pd.DataFrame({"loss": [name], "prompts": 2, "responses": 4, "steps": 3})
    assert len(pd.read_parquet(run_sweep(settings, tmp_path, progress=False))) == 1


STRAIGHT = """
from dataclasses import dataclass
import gradlab as gl


@gl.register_loss
@dataclass(frozen=True)
class Straight:
    slope: float = 1.0
    name = "straight"
    equation = "−s(h_w − h_l)"
    source = "ours"
    antisymmetric = False

    def __call__(self, logps):
        return -SLOPE * self.slope * (logps.win_logratio - logps.lose_logratio)


if __name__ == "__main__":
    import sys
    import pandas as pd
    settings = pd.DataFrame({"loss": "straight", "prompts": 2, "responses": 5, "steps": 3, "seed": range(6)})
    print(gl.sweeps.run_sweep(settings, sys.argv[1], workers=2, progress=False))
"""


@pytest.mark.slow
def test_a_loss_of_a_users_own_is_known_in_the_workers_too(tmp_path, blocks_of_three):
    def sweep(slope):
        script = tmp_path / "script.py"  # a main program, whose classes no worker can import
        script.write_text(STRAIGHT.replace("SLOPE", slope))
        command = [sys.executable, str(script), str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True)

    done = sweep("1.0")
    assert done.returncode == 0, done.stderr
    first = pd.read_parquet(tmp_path / "out" / "runs.parquet")
    assert len(first) == 6
    assert first["training_loss"].lt(0).all()
    again = sweep("2.0")  # the same name and numbers, another loss: not to be taken for the former
    assert "holds a sweep of other settings, or by other sources" in again.stderr


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_a_bit(small, tmp_path, blocks_of_three):
    for workers in (1, 3):
        run_sweep(read_settings(small), tmp_path / str(workers), workers=workers, progress=False)
    one, three = ((tmp_path / name / "runs.parquet").read_bytes() for name in ("1", "3"))
    assert one == three


def test_the_size_of_a_block_does_not_change_a_bit(small, tmp_path, monkeypatch):
    run_sweep(read_settings(small), tmp_path / "whole", workers=1, progress=False)
    monkeypatch.setattr(sweep, "_width", lambda group: 1)
    run_sweep(read_settings(small), tmp_path / "single", workers=1, progress=False)
    pd.testing.assert_frame_equal(result(tmp_path / "whole"), result(tmp_path / "single"), check_exact=True)


def test_more_recorded_steps_are_more_rows(tmp_path):
    settings = pd.DataFrame({"record": [4], "prompts": 2, "responses": 4, "steps": 9})
    frame = pd.read_parquet(run_sweep(settings, tmp_path, progress=False))
    assert frame["step"].tolist() == [0, 1, 2, 4, 9]


def test_a_run_that_explodes_does_not_take_the_others_with_it(tmp_path):
    settings = pd.DataFrame(
        {"loss": "ipo", "learning_rate": 1e4, "optimizer": "gd", "beta": 1e-3, "scale": [1.0, 1.0, 1.0, 1e308]}
    )
    settings = pd.concat([settings.assign(learning_rate=1e308), settings.head(1).assign(learning_rate=0.1)])
    frame = pd.read_parquet(run_sweep(settings, tmp_path, workers=1, progress=False)).set_index("run")
    assert "not finite" in frame.loc[0, "error"]
    assert pd.isna(frame.loc[0, "expected_utility"])
    assert pd.isna(frame.loc[4, "error"])
    assert frame.loc[4, "expected_utility"] > 0
    status = sweep_status(tmp_path)
    assert status.failed == frame["error"].notna().sum() > 0
    assert "broke off" in str(status)


def test_a_sweep_goes_on_where_it_was(small, tmp_path, blocks_of_three, monkeypatch):
    settings, calls = read_settings(small), []

    def breaks_at_the_fifth(settings, losses):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(settings)

    train = sweep.train_block
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "train_block", breaks_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(settings, tmp_path / "out", workers=1, progress=False)
    status = sweep_status(tmp_path / "out")
    assert (status.blocks_done, status.running) == (4, False)
    assert "not running: the same command goes on" in str(status)
    run_sweep(settings, tmp_path / "out", workers=1, progress=False)
    run_sweep(settings, tmp_path / "whole", workers=1, progress=False)
    assert (tmp_path / "out/runs.parquet").read_bytes() == (tmp_path / "whole/runs.parquet").read_bytes()
    assert str(sweep_status(tmp_path / "out")).endswith("finished")
    assert not (tmp_path / "out/blocks").exists()


LONG = 'seeds = 150\nsteps = 1500\nbeta = [0.5, 1.0]\n[[grid]]\nloss = ["dpo", "bdpo", "nbdpo"]\n'


def sweep_process(file, *more):
    """A sweep in a process of its own. It writes to files: a pipe would stay open as long as an orphaned worker."""
    command = [sys.executable, "-m", "gradlab.cli", "sweep", str(file), *more]
    with open(file.with_suffix(".out"), "w") as out, open(file.with_suffix(".err"), "w") as err:
        return subprocess.Popen(command, stdout=out, stderr=err)


def wait_for_blocks(folder, count, process):
    until = time.monotonic() + 120
    while len(list((folder / "blocks").glob("*.json"))) < count:
        assert process.poll() is None, "the sweep has ended"
        assert time.monotonic() < until, "no block was finished in time"
        time.sleep(0.02)


@pytest.mark.long
def test_killed_parents_and_workers_lose_nothing(tmp_path):
    psutil = pytest.importorskip("psutil")
    file, folder = tmp_path / "long.toml", tmp_path / "long"
    file.write_text(LONG)
    parent = sweep_process(file, "--workers", "2")
    wait_for_blocks(folder, 2, parent)
    status = sweep_status(folder)
    assert status.running
    assert 0 < status.done < status.runs == 900
    refused = subprocess.run([sys.executable, "-m", "gradlab.cli", "sweep", str(file)], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "another process is running" in refused.stderr
    workers = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []  # they look at their parent
    kept = {path: path.stat().st_mtime_ns for path in (folder / "blocks").glob("*.parquet")}
    assert not sweep_status(folder).running

    again = sweep_process(file, "--workers", "2")
    wait_for_blocks(folder, len(kept) + 1, again)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    victims = [
        one for one in psutil.Process(again.pid).children(recursive=True) if "popen_loky" in " ".join(one.cmdline())
    ]
    victims[-1].send_signal(signal.SIGKILL)
    assert again.wait(timeout=240) == 0, file.with_suffix(".err").read_text()
    assert "900 of 900 runs" in file.with_suffix(".out").read_text()
    assert "a worker was killed" in file.with_suffix(".err").read_text()
    settings = read_settings(file)
    block = sweep._parts(settings, folder, "")[-1].arguments["settings"]
    whole = result(folder).set_index("run")
    pd.testing.assert_frame_equal(
        whole.loc[block["run"]].reset_index(), sweep.train_block(block)[["run", *whole.columns]], check_exact=True,
        check_dtype=False,
    )  # fmt: skip


def test_another_sweep_is_not_overwritten_unless_asked(small, tmp_path):
    settings = read_settings(small).head(4)
    run_sweep(settings, tmp_path / "out", progress=False)
    before = (tmp_path / "out/runs.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"holds a sweep of other settings, .* start again"):
        run_sweep(settings.head(2), tmp_path / "out", progress=False)
    assert (tmp_path / "out/runs.parquet").read_bytes() == before
    run_sweep(settings.head(2), tmp_path / "out", fresh=True, progress=False)
    assert len(result(tmp_path / "out")) == 2


def test_a_finished_sweep_is_not_run_again(small, tmp_path, monkeypatch):
    settings = read_settings(small).head(4)
    run_sweep(settings, tmp_path, progress=False)
    monkeypatch.setattr(sweep, "run_parts", None)
    run_sweep(settings, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("betta = 1.0", r"a setting must be one of loss, .* got 'betta'; did you mean 'beta'\?"),
        ("[[grid]]\nbetta = 1.0", "did you mean 'beta'"),
        ("beta = -1.5", r"beta must be finite and > 0, got -1.5"),
        ("beta = [1.5, -1.5]", r"beta must be finite and > 0, got -1.5"),
        ("beta = []", r"beta must be a number, a text, or a list of such, got \[\]"),
        ("beta = [[1.0]]", r"beta must be a number, a text, or a list of such, got \[\[1.0\]\]"),
        ("beta = 'high'", "beta must be finite and > 0, got 'high'"),
        ("beta = true", "beta must be a number, a text, or a list of such, got True"),
        ("beta = [1.0, true]", "beta must be a number, a text, or a list of such"),
        ("beta = 2020-01-01", "beta must be a number, a text, or a list of such"),
        ("steps = [3, 2.5]", "steps must be a whole number ≥ 1, got 2.5"),
        ("seed = [0, -1]", "seed must be a whole number ≥ 0, got -1"),
        ("beta = 99999999999999999999999999", "beta must fit into 64 bits, got 99999999999999999999999999"),
        ("seeds = 99999999999999999999999999", "seeds must be a whole number ≥ 1 and ≤ 10000000"),
        ("beta = nan", "beta must be a number, a text, or a list of such, got nan"),
        ("clip = 0.5", "hyper-parameter of dpo must be one of beta; got 'clip'"),
        ("loss = 'dppo'", "loss must be one of .* did you mean 'dpo'"),
        ("policy = 'freed'", "policy must be one of free, shared"),
        ("optimizer = 'sgd'", "optimizer must be one of adam, gd"),
        ("learning_rate = 0", "learning_rate must be finite and > 0, got 0"),
        ("steps = 0", "steps must be a whole number ≥ 1, got 0"),
        ("steps = 1.5", "steps must be a whole number ≥ 1, got 1.5"),
        ("pairs = 0", "pairs must be a whole number ≥ 1, got 0"),
        ("batch = -3", "batch must be a whole number ≥ 1, got -3"),
        ("labels = 'firm'", "labels must be one of soft, hard"),
        ("record = 0", "record must be a whole number ≥ 1, got 0"),
        ("dtype = 'float16'", "dtype must be one of float64, float32"),
        ("mask_rate = 1.0", r"mask_rate must be finite and lie in \[0, 1\)"),
        ("mask_rate = 0.95", "mask_rate=0.95 hides 19 of 20 responses"),
        ("utility = 'cubic'", "utility must be one of"),
        ("seeds = 0", "seeds must be a whole number ≥ 1, got 0"),
        ("seeds = 3\nseed = 1", "seed and seeds must not both be given"),
        ("seed = -1", "seed must be a whole number ≥ 0, got -1"),
        ("grid = 3", r"grid must be one or more tables, each headed \[\[grid\]\], got 3"),
        ("seeds = 100000\nbeta = [1.0, 2.0]\nsteps = [" + ", ".join(map(str, range(1, 100))) + "]", "19,800,000 runs"),
        ("beta = ", "is no TOML"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_settings(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (pd.DataFrame({"beta": []}), "a data frame with one row per run"),
        ({"beta": 1.0}, "a data frame with one row per run"),
        (pd.DataFrame({"sigmma": [1.0]}), "did you mean 'sigma'"),
        (pd.DataFrame({"beta": [[1.0]]}), r"beta must hold numbers or text, got \[1.0\]"),
        (pd.DataFrame({"beta": [np.ones(2)]}), "beta must hold numbers or text"),
        (pd.DataFrame({"beta": [True]}), "beta must hold numbers or text, got True"),
        (pd.DataFrame([[1.0, 2.0]], columns=["beta", "beta"]), "columns of different names"),
        (pd.DataFrame({"seed": np.array([2**63 + 5], "uint64")}), "seed must fit into 64 bits"),
    ],
)
def test_bad_frames_are_told_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        check_settings(settings)


@pytest.mark.parametrize("text", ["", "[[grid]]", "prompts = 2\nresponses = 4\nsteps = 3\nbeta = 0.5"])
def test_a_sweep_needs_no_text_nor_anything_else(tmp_path, text):
    file = tmp_path / "a.toml"
    file.write_text(text)
    assert cli.main(["sweep", str(file)]) == 0
    assert len(result(tmp_path / "a")) == 1


def test_any_kind_of_column_will_do(tmp_path):
    settings = pd.DataFrame({
        "steps": [3, np.nan], "beta": pd.arrays.SparseArray([0.5, 2.0]), "loss": pd.Categorical(["dpo", "bdpo"]),
        "prompts": np.array([2, 2], "int8"), "responses": [4, None],
    }, index=[7, 7])  # fmt: skip
    frame = pd.read_parquet(run_sweep(settings, tmp_path, workers=1, progress=False)).sort_values("run")
    assert frame["step"].tolist() == [3, 500]
    assert frame["loss"].tolist() == ["dpo", "bdpo"]


def test_settings_that_differ_in_the_last_digit_are_other_settings(tmp_path):
    settings = pd.DataFrame({"prompts": 2, "responses": 4, "steps": 3, "learning_rate": [1e-11]})
    run_sweep(settings, tmp_path, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        run_sweep(settings.assign(learning_rate=4e-11), tmp_path, progress=False)


def test_blocks_of_another_cut_are_not_taken_for_ours(small, tmp_path, monkeypatch):
    settings = read_settings(small).head(12)
    parts = sweep._parts(settings, tmp_path, "key")
    monkeypatch.setattr(sweep, "_width", lambda group: 2)
    assert not {part.key for part in parts} & {part.key for part in sweep._parts(settings, tmp_path, "key")}


def test_fresh_with_bad_arguments_throws_nothing_away(small, tmp_path):
    settings = read_settings(small).head(2)
    run_sweep(settings, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="workers must be a whole number ≥ 1, got 0"):
        run_sweep(settings, tmp_path / "out", workers=0, fresh=True, progress=False)
    assert len(result(tmp_path / "out")) == 2


THEIRS = ["blocks/thesis.tex", "blocks/123456.png", "runs.parquet", "runs.json", "settings.parquet", "settings.json"]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", THEIRS)
def test_files_of_others_are_left_alone(small, tmp_path, name, fresh):
    settings = read_settings(small).head(2)
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"theme": "dark", "sha256": "abc", "format": 1}')
    message = f"holds {name.split('/')[0]}, which no sweep wrote; name another folder"
    with pytest.raises(ValueError, match=message):
        run_sweep(settings, tmp_path / "out", fresh=fresh, progress=False)
    assert theirs.read_text() == '{"theme": "dark", "sha256": "abc", "format": 1}'
    with pytest.raises(ValueError, match="must hold a sweep"):
        sweep_status(tmp_path / "out")


@pytest.mark.parametrize("name", ["settings", "runs"])
def test_another_result_of_ours_is_no_sweep(small, tmp_path, name):
    saved = save_frame(pd.DataFrame({"a": [1]}), tmp_path / f"{name}.parquet", {"command": "gradlab fit"})
    with pytest.raises(ValueError, match=rf"holds {name}\.json, which no sweep wrote"):
        run_sweep(read_settings(small).head(1), tmp_path, fresh=True, progress=False)
    assert load_frame(saved)[0]["a"].tolist() == [1]


@pytest.mark.parametrize("fresh", [False, True])
def test_in_a_sweep_s_folder_what_no_manifest_proves_is_kept(small, tmp_path, blocks_of_three, monkeypatch, fresh):
    settings, folder = read_settings(small).head(12), tmp_path / "out"
    with monkeypatch.context() as patch:  # a sweep that ends before its results are joined
        patch.setattr(sweep, "merge_frames", lambda *_: exit())
        with pytest.raises(SystemExit):
            run_sweep(settings, folder, workers=1, progress=False)
    blocks = folder / "blocks"
    damaged = blocks / "000001.parquet"
    flipped = bytearray(damaged.read_bytes())
    flipped[100] ^= 1
    damaged.write_bytes(flipped)
    (blocks / "123456.png").write_text("picture")
    (blocks / "999999.json").write_text('{"sha256": "abc"}')
    with pytest.warns(UserWarning, match=r"000001\.parquet is no result .*: kept as 000001\.parquet\.kept-1"):
        run_sweep(settings, folder, workers=1, fresh=fresh, progress=False)
    kept = {file.name: file.read_bytes() for file in blocks.iterdir()}
    assert kept == {
        "123456.png": b"picture", "999999.json": b'{"sha256": "abc"}', "000001.parquet.kept-1": bytes(flipped),
    }  # fmt: skip
    run_sweep(settings, tmp_path / "whole", workers=1, progress=False)
    assert (folder / "runs.parquet").read_bytes() == (tmp_path / "whole/runs.parquet").read_bytes()


def test_a_sweep_s_folder_may_be_a_link(small, tmp_path):
    settings = read_settings(small).head(2)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for fresh in (False, True):
        run_sweep(settings, tmp_path / "out", fresh=fresh, progress=False)
    assert (tmp_path / "out").is_symlink()
    assert len(result(tmp_path / "disk")) == 2


def test_a_link_in_the_place_of_a_sweep_s_file_is_left_alone(small, tmp_path):
    settings, folder = read_settings(small).head(2), tmp_path / "out"
    run_sweep(settings, folder, progress=False)
    (folder / "runs.parquet").rename(tmp_path / "moved")
    (folder / "runs.parquet").symlink_to(tmp_path / "moved")
    before = (tmp_path / "moved").read_bytes()
    with pytest.raises(ValueError, match=r"holds runs\.json, which no sweep wrote"):
        run_sweep(settings.head(1), folder, fresh=True, progress=False)
    assert (tmp_path / "moved").read_bytes() == before
    assert (folder / "runs.parquet").is_symlink()


def test_what_others_put_among_the_blocks_stays(small, tmp_path):
    settings = read_settings(small).head(2)
    save = sweep.run_parts

    def beside(*arguments, **more):
        save(*arguments, **more)
        (tmp_path / "out/blocks/thesis.tex").write_text("mine")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "run_parts", beside)
        run_sweep(settings, tmp_path / "out", progress=False)
    assert [file.name for file in (tmp_path / "out/blocks").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"torn"), lambda file: file.unlink()])
def test_damaged_settings_are_saved_again(small, tmp_path, damage):
    settings = read_settings(small).head(2)
    run_sweep(settings, tmp_path / "out", progress=False)
    damage(tmp_path / "out/settings.parquet")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run_sweep(settings, tmp_path / "out", progress=False)
    assert len(said) == len(list((tmp_path / "out").glob("*.kept-1")))
    assert sweep_status(tmp_path / "out").done == 2


def test_a_folder_that_is_a_file_is_told_in_one_line(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a folder, or not be there yet, got the file"):
        run_sweep(read_settings(small).head(1), tmp_path / "file", progress=False)


def test_a_grid_may_have_seeds_of_its_own(tmp_path):
    (tmp_path / "a.toml").write_text("seeds = 2\n[[grid]]\nbeta = 1.0\n[[grid]]\nbeta = 2.0\nseed = 5\n")
    settings = read_settings(tmp_path / "a.toml")
    assert settings[["beta", "seed"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 5]]


@pytest.mark.slow
def test_from_the_command_line(small, capsys):
    assert cli.main(["sweep", str(small)]) == 0
    out = capsys.readouterr().out
    assert f"saved: {small.with_suffix('') / 'runs.parquet'}" in out
    assert "36 of 36 runs" in out
    assert cli.main(["sweep", str(small), "--status"]) == 0
    assert capsys.readouterr().out == out.splitlines()[-1] + "\n"


def test_the_command_line_complains_in_one_line(tmp_path, capsys):
    for file, message in ((tmp_path / "none.toml", "No such file"), (tmp_path / "a.yaml", "must end in .toml")):
        assert cli.main(["sweep", str(file)]) in (1, 2)
        assert message in capsys.readouterr().err
    (tmp_path / "a.toml").write_text("steps = 1")
    assert cli.main(["sweep", str(tmp_path / "a.toml"), "--status"]) == 2
    assert "must hold a sweep" in capsys.readouterr().err


def test_the_documented_example_is_ten_thousand_runs():
    assert len(read_settings("scripts/sweeps/when-balancing-helps.toml")) == 10_000


def test_a_hundred_thousand_runs_are_small_parts(tmp_path):
    settings = check_settings(pd.DataFrame({"seed": range(100_000)}))
    parts = sweep._parts(settings, tmp_path, "key")
    assert sum(part.size for part in parts) == 100_000
    assert max(part.size for part in parts) * 20 * 20 * 20 <= sweep._BLOCK_SLOTS
    assert sum(part.arguments["settings"].memory_usage(deep=True).sum() for part in parts) < 100 * len(settings)


@pytest.mark.long
def test_a_sweep_that_is_told_to_stop_takes_its_workers_with_it(tmp_path):
    psutil = pytest.importorskip("psutil")
    file = tmp_path / "long.toml"
    file.write_text(LONG)
    process = sweep_process(file, "--workers", "2")
    wait_for_blocks(tmp_path / "long", 1, process)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in children if "popen_loky" in " ".join(one.cmdline())]
    assert workers
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert "stopped; no file was left half-written" in file.with_suffix(".err").read_text()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
