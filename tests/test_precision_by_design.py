"""Seeds are added by widths alone, in blocks up to a cap; methods stay paired; an interrupted run goes on as it was."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments import frames
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.stats.equivalence import mean_of
from gradlab.stats.precision import Design
from gradlab.store.artifacts import load_frame

DESIGN = Design(0.1, first=4, block=4, cap=18)
NOISE = {0.0: 0.001, 0.2: 0.05, 0.4: 1.0}  # by mask: precise at once, after some blocks, never
METHODS = ("dpo", "bdpo", "nbdpo")
ENDPOINTS = [Endpoint("x", "bdpo", other, ("mask",), DESIGN) for other in ("dpo", "nbdpo")]


def run_part(method, mask, first_seed, seeds):
    """Rows whose spread grows with the mask; equal arguments give equal numbers."""
    noise = [
        np.random.default_rng([seed, METHODS.index(method), round(10 * mask)]).standard_normal()
        for seed in range(first_seed, first_seed + seeds)
    ]
    return pd.DataFrame(
        {
            "method": method,
            "mask": mask,
            "seed": range(first_seed, first_seed + seeds),
            "x": NOISE[mask] * np.array(noise),
        }
    )


def parts(settings):
    """The first block of every method and cell."""
    return [{"method": method, "mask": mask, "first_seed": 7, "seeds": 4} for mask in NOISE for method in METHODS]


def more(frame, settings):
    """The further parts that the endpoints ask for."""
    asked = runs_to_add(frame, ENDPOINTS, ("mask",))
    return [
        {"method": row.method, "mask": row.mask, "first_seed": 7 + row.seeds, "seeds": row.more}
        for row in asked.itertuples()
    ]


EXPERIMENT = Experiment("by-design", {}, {}, parts, run_part, lambda *_: [], lambda _: {}, {}, more)


@pytest.fixture
def keyed(monkeypatch):
    """Frames have a fixed key, since no source of the package makes this one."""
    monkeypatch.setattr(frames, "frame_key", lambda *_: "key")


def first_block():
    return pd.concat([run_part(**part) for part in parts({})], ignore_index=True)


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: x + 5.0, lambda x: 5.0 - x])
def test_signs_and_sizes_of_effects_change_nothing(change):
    """bDPO against zeros, so that a change of its values is that change of the differences."""
    frame = first_block()
    frame = frame.assign(x=frame["x"].where(frame["method"] == "bdpo", 0.0))
    changed = frame.assign(x=frame["x"].where(frame["method"] != "bdpo", change(frame["x"])))
    assert changed["x"].ne(frame["x"]).any()
    wanted = runs_to_add(frame, ENDPOINTS, ("mask",))
    assert set(wanted["mask"]) == {0.2, 0.4}
    pd.testing.assert_frame_equal(runs_to_add(changed, ENDPOINTS, ("mask",)), wanted)


def test_a_precise_cell_gets_nothing_and_every_method_of_a_wide_one_a_block():
    asked = runs_to_add(first_block(), ENDPOINTS, ("mask",))
    assert asked.groupby("mask")["method"].apply(set).to_dict() == {0.2: set(METHODS), 0.4: set(METHODS)}
    assert set(asked["more"]) == {4}


def test_where_one_endpoint_asks_all_methods_of_the_cell_stay_paired():
    narrow = dataclasses.replace(ENDPOINTS[0], design=Design(1e-6, first=4, block=4, cap=18))
    wide = dataclasses.replace(ENDPOINTS[1], design=Design(1e6, first=4, block=4, cap=18))
    asked = runs_to_add(first_block(), [narrow, wide], ("mask",))
    assert asked.groupby("mask")["method"].apply(set).to_dict() == {key: set(METHODS) for key in NOISE}


def test_an_endpoint_may_look_at_some_cells_only():
    some = [
        dataclasses.replace(ENDPOINTS[0], where="mask > 0.2"),
        dataclasses.replace(ENDPOINTS[1], where="mask < 0.4"),
    ]
    assert set(runs_to_add(first_block(), some, ("mask",))["mask"]) == {0.2, 0.4}
    assert set(runs_to_add(first_block(), some[:1], ("mask",))["mask"]) == {0.4}


def test_blocks_are_added_until_each_cell_is_precise_or_at_the_cap(keyed):
    frame = frames.run(EXPERIMENT, workers=1)
    assert not frame.duplicated(["method", "mask", "seed"]).any()
    for mask, cell in frame.groupby("mask"):
        wide = cell.pivot(index="seed", columns="method", values="x")
        assert not wide.isna().any().any()  # paired
        assert list(wide.index) == list(range(7, 7 + len(wide)))
        differences = np.stack([wide["bdpo"] - wide[other] for other in ("dpo", "nbdpo")])
        precise = (mean_of(differences).half_width() <= DESIGN.target).all()
        if mask == 0.0:
            assert precise
            assert len(wide) == DESIGN.first
        elif mask == 0.2:
            assert precise
            assert DESIGN.first < len(wide) < DESIGN.cap
            before = differences[:, : -DESIGN.block]
            assert (mean_of(before).half_width() > DESIGN.target).any()
        else:
            assert not precise
            assert len(wide) == DESIGN.cap


@pytest.mark.parametrize("breaks_at", [9, 13])
def test_a_run_that_breaks_in_any_round_goes_on_to_the_same_frame(tmp_path, keyed, breaks_at):
    whole = frames.run(EXPERIMENT, workers=1)
    calls = []

    def breaks(**part):
        calls.append(part)
        if len(calls) == breaks_at:
            raise KeyboardInterrupt
        return run_part(**part)

    broken = dataclasses.replace(EXPERIMENT, run_part=breaks)
    with pytest.raises(KeyboardInterrupt):
        frames.bring_up_to_date([broken], tmp_path, quick=False, fresh=False, workers=1)
    assert frames.bring_up_to_date([broken], tmp_path, quick=False, fresh=False, workers=1) == [broken]
    pd.testing.assert_frame_equal(load_frame(tmp_path / "by-design.parquet")[0], whole, check_exact=True)
    assert len({tuple(call.items()) for call in calls}) == len(calls) - 1  # only the broken part was run again
    assert [file for file in tmp_path.iterdir() if file.is_dir()] == []


def test_parts_that_were_run_cannot_be_asked_for_again(keyed):
    again = dataclasses.replace(EXPERIMENT, more=lambda frame, settings: parts(settings)[:1])
    with pytest.raises(ValueError, match=r"^more must ask by-design for parts that were not run, got .*\.parquet$"):
        frames.run(again, workers=1)


def test_an_endpoint_without_a_baseline_is_a_value_of_its_method():
    frame = first_block()
    frame = frame[frame["method"] == "bdpo"]
    endpoint = dataclasses.replace(ENDPOINTS[0], baseline=None)
    asked = runs_to_add(frame, [endpoint], ("mask",))
    assert set(asked["method"]) <= {"bdpo"}
    widths = endpoint.to_add(frame).set_index("mask")["half_width"]
    for mask, rows in frame.groupby("mask"):
        assert widths[mask] == pytest.approx(float(mean_of(rows["x"].to_numpy()).half_width()))
