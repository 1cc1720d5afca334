"""The code that runs in a browser: its built file is that of its sources, and its numbers are the library's."""

import json
import re
import subprocess
from typing import get_args

import matplotlib as mpl
import numpy as np
import pytest
import torch
from node import WEB, needs_node, needs_packages, node, with_bundle
from own_losses import PerToken, every_loss
from rounding import rounding

from gradlab.lab import metrics
from gradlab.lab.engine.webassembly import slopes_kernel, training_kernel
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.policy import RadialBasis
from gradlab.lab.world import MaskKind, Reference, Utility, draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import DPO, BalancedDPO, PairLogps, family_of, log_prob_ratio, slopes
from gradlab.plotting import palette
from gradlab.streams import Purpose, stream
from gradlab.widgets import compared_losses

BUILT = ("gradlab.js", "gradlab.licenses.txt", "rating.js")


@needs_node
@needs_packages
def test_the_built_file_and_its_licences_are_those_of_the_sources(tmp_path):
    node("build.mjs", str(tmp_path))
    for name in BUILT:
        assert (tmp_path / name).read_bytes() == (WEB / name).read_bytes(), f"{name} is stale: run make web"


@needs_node
@needs_packages
@pytest.mark.slow
def test_types_agree():
    run = subprocess.run(["npx", "--no-install", "tsc"], cwd=WEB, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_package_is_pinned_and_no_address_is_locked():
    asked = json.loads((WEB / "package.json").read_text("utf-8"))["devDependencies"]
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    for name, version in asked.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert not [name for name, one in lock.items() if "resolved" in one]
    assert all("integrity" in one for name, one in lock.items() if name)


def test_every_package_is_for_something():
    asked = set(json.loads((WEB / "package.json").read_text("utf-8"))["devDependencies"])
    files = [*(WEB / "src").glob("*.ts"), *WEB.glob("*.mjs"), *(WEB / "test").glob("*.mjs")]
    imported = {name for file in files for name in re.findall(r'from "([^."][^"]*)"', file.read_text("utf-8"))}
    used = {*imported, *(f"@types/{name}" for name in imported), "typescript"}
    assert asked - used == set()


# --- metrics ---


def worlds():
    rng = np.random.default_rng(0)
    for seed, reference in enumerate(get_args(Reference)):
        world = gaussian_world(6, 9, mask_rate=0.3 * (seed > 0), reference=reference, seed=seed)
        yield world, torch.log_softmax(torch.from_numpy(3 * rng.standard_normal(world.utility.shape)), -1)


METRICS = {  # by their names in the page: their names here, and their arguments
    "utility": ("expected_utility", ("logp", "utility")),
    "share": ("utility_share", ("logp", "utility", "ref_logp")),
    "kl": ("kl_to_reference", ("logp", "ref_logp")),
    "unobserved": ("unobserved_mass", ("logp", "observed")),
}
MEASURED = """
  return given.map(({ policies, utility, observed, refLogp, responses }) => lab.metricsOf(policies, {
    utility: Float64Array.from(utility), observed, refLogp, responses,
  }));
"""


@needs_node
def test_metrics_in_a_page_are_those_of_the_library():
    asked, expected = [], []
    for world, logp in worlds():
        tables = {name: torch.tensor(getattr(world, name)) for name in ("utility", "ref_logp", "observed")}
        policies = [logp, tables["ref_logp"]]
        flat = {name: table.numpy().ravel().astype(float).tolist() for name, table in tables.items()}
        flat["refLogp"] = flat.pop("ref_logp")
        flat["policies"] = [policy.numpy().ravel().tolist() for policy in policies]
        asked.append({**flat, "responses": world.responses})
        for policy in policies:
            given = {**tables, "logp": policy}
            expected.append(
                [getattr(metrics, name)(*map(given.get, wanted)).item() for name, wanted in METRICS.values()]
            )
    found = [[one[name] for name in METRICS] for world in with_bundle(MEASURED, asked) for one in world]
    # 54 terms of at most three functions and four products each, of at most 4 nats
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(54 * 10, 4.0))


@needs_node
def test_share_of_the_reward_is_no_number_where_nothing_can_be_gained():
    even = np.log([0.5] * 4).tolist()
    flat = {"policies": [even], "utility": [1, 1, 2, 2], "observed": [1] * 4, "refLogp": even, "responses": 2}
    assert with_bundle(MEASURED, [flat])[0][0]["share"] is None  # JSON has no NaN


# --- pairs ---


def pairs():
    """Pairs of every size of log-probability, at the reference and away from it: (37), not a multiple of the lanes."""
    rng = np.random.default_rng(0)
    sides = -rng.exponential([[2.0], [2.0], [2.0], [2.0]], (4, 37))
    sides[:, -3:] = np.array(
        [[-1e-9, -800.0, -30.0], [-40.0, -1e-5, -30.0], [-3.0, -700.0, -30.0], [-3.0, -2.0, -30.0]]
    )
    sides[2:, :5] = sides[:2, :5]
    return PairLogps(*map(torch.from_numpy, sides), *map(torch.from_numpy, 1 + rng.integers(30, size=(2, 37))))


@needs_node
@pytest.mark.parametrize("loss", [DPO(0.5), BalancedDPO(), PerToken()], ids=lambda one: one.name)
def test_slopes_and_ratios_of_pairs_are_those_of_the_library(loss):
    check_slopes(loss)


@needs_node
@pytest.mark.slow
@every_loss
def test_so_are_those_of_every_loss(loss):
    check_slopes(loss)


def check_slopes(loss):
    given = pairs()
    sides = {"win": given.win, "lose": given.lose, "refWin": given.ref_win, "refLose": given.ref_lose,
             "winLen": given.win_len, "loseLen": given.lose_len}  # fmt: skip
    body = """
      const kernel = await lab.Kernel.load(given.kernel);
      const { win, lose } = lab.slopes(kernel, given.pairs);
      const twice = lab.slopes(kernel, given.pairs); // as in the same memory
      const at = given.pairs;
      const ratios = [...win].map((one, n) => lab.logProbRatio(one, lose[n], at.win[n], at.lose[n]));
      const same = [...win].every((one, at) => Object.is(one, twice.win[at]));
      return [[...win].map(String), [...lose].map(String), ratios.map(String), same];
    """
    request = {
        "kernel": slopes_kernel(loss).record(), "pairs": {name: side.tolist() for name, side in sides.items()},
    }  # fmt: skip
    *found, ratios, same = with_bundle(body, request)
    assert same
    # About thirty roundings, of which those before an exp count by its argument, here at most 800. Under a link, e^h
    # stands beside 1, and what is small beside 1 is lost.
    linked = family_of(loss) == "links"
    lost = rounding(1, 0.1) if linked else 1e-300
    expected = np.stack([side.numpy() for side in slopes(loss, given)])
    np.testing.assert_allclose(np.array(found, float), expected, rtol=rounding(30, 800.0), atol=lost)
    kept = (np.abs(expected) > lost).all(0) if linked else slice(None)
    expected = log_prob_ratio(loss, given).numpy()
    np.testing.assert_allclose(np.array(ratios, float)[kept], expected[kept], rtol=0, atol=rounding(60, 800.0))


# --- pictures: what needs no page ---


@needs_node
def test_readings_are_for_people():
    body = """
      const { spelt, nearest, extent, cellAt, moved } = lab.reading;
      return [
        [0, 3.14159, -0.5, 1e-5, -1234567, NaN, Infinity, -Infinity].map(spelt),
        [[1, 2, 5], [], [7]].map((rising) => [0, 1.4, 1.5, 4, 9].map((at) => nearest(rising, at))),
        [extent([3, NaN, -1], [Infinity, 7]), extent([NaN]), extent([])],
        [[0, 0], [0.99, 0.5], [1, 0], [0.5, -0.01], [NaN, 0]].map(([right, down]) => cellAt(right, down, 2, 4)),
        ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "x", "toString"]
          .map((key) => moved(key, [0, 2], 3, 4)),
        [[0, 0], [0, 1], [2, 4], [-3, 0]].map((to) => lab.reading.cellsBetween([0, 0], to)),
        [[0, 0.1, 0.2], [1, 2, 4], [3, 2, 1], [5], []].map(lab.reading.stepOf),
      ];
    """
    numbers, places, ends, cells, steps, strokes, even = with_bundle(body, None)
    assert numbers == ["0", "3.142", "−0.5", "1e−5", "−1.235e6", "no value", "∞", "−∞"]
    assert places == [[0, 0, 0, 2, 2], [-1] * 5, [0] * 5]
    assert ends == [[-1, 7], [0, 1], [0, 1]]
    assert cells == [[0, 0], [1, 3], None, None, None]
    assert steps == [[0, 2], [1, 2], [0, 1], [0, 3], [0, 0], [0, 3], None, None]
    assert even == [pytest.approx(0.1), None, None, None, None]
    assert strokes == [[], [[0, 1]], [[1, 1], [1, 2], [2, 3], [2, 4]], [[-1, 0], [-2, 0], [-3, 0]]]


@needs_node
def test_colours_are_those_of_the_figures():
    names = ["TRUE", "NOT_TRUE", "BALANCED_WEIGHT", "WINNER", "LOSER", "CHOSEN", "SETTINGS", "LEAST"]
    there = with_bundle("return given.map((name) => lab.palette[name]);", names)
    assert there == [list(one) if isinstance(one := getattr(palette, name), tuple) else one for name in names]
    looks = with_bundle("return lab.palette.LOOKS;", None)
    assert {slot: tuple(look) for slot, look in looks.items()} == compared_losses.LOOKS
    maps = {
        "signed": palette.SIGNED, "sides": palette.SIDES, "moreOfB": palette.MORE_OF_B,
        "turned": palette.TURNED,
        "cividis": mpl.colormaps["cividis"],
    }  # fmt: skip
    body = "return [false, true].map((back) => given.map((name) => lab.palette.colorTable(name, back)));"
    tables, backwards = np.reshape(with_bundle(body, list(maps)), (2, len(maps), 256, 3))
    for table, colors in zip(tables, maps.values(), strict=True):
        assert np.abs(table - 255 * colors(np.arange(256))[:, :3]).max() <= 1
    assert (backwards == tables[:, ::-1]).all()


@needs_node
def test_marks_of_all_shapes_are_about_equally_large_and_stand_where_they_are_put():
    markers = ["dot", "cross", "triangle-up", "triangle-down", "diamond", "ring"]
    paths = with_bundle("return given.map((marker) => lab.markPath(marker, 5, 30, 40));", markers)
    assert all(path.startswith("M30,40m") for path in paths)
    assert len(set(paths)) == 5  # a ring is a dot that is not filled
    assert "NaN" not in "".join(paths)


@needs_node
def test_pixels_clip_at_the_ends_and_leave_what_is_no_number_transparent():
    body = """
      const table = lab.palette.colorTable("cividis");
      const values = [-1, 0, 0.5, 1, 2, NaN];
      return [lab.reading.pixels(values, table, [0, 1]), lab.reading.pixels(values, table, [1e-2, 1], true)];
    """
    linear, logarithmic = (np.reshape(one, (6, 4)) for one in with_bundle(body, None))
    colors = np.rint(255 * mpl.colormaps["cividis"](np.arange(256))).astype(int)
    assert linear.tolist() == [*colors[[0, 0, 128, 255, 255]].tolist(), [0, 0, 0, 0]]
    assert logarithmic.tolist() == [*colors[[0, 0, 217, 255, 255]].tolist(), [0, 0, 0, 0]]


# --- states, links and sliders ---

SPEC = """
  const spec = {
    beta: { kind: "number", low: 0.01, high: 100 }, seed: { kind: "number", low: 0, high: 99, whole: true },
    loss: { kind: "choice", options: ["dpo", "bdpo"] }, hard: { kind: "flag" },
  };
  const start = { beta: 1, seed: 0, loss: "dpo", hard: false };
"""


@needs_node
def test_undo_takes_back_a_whole_gesture_and_redo_brings_it_again():
    body = f"""
      {SPEC}
      const history = new lab.History(start, spec);
      const seen = [];
      const stop = history.watch((state) => seen.push(state.beta));
      for (const beta of [1.5, 2, 3]) history.set({{ beta }}, "drag");
      history.rest();
      for (const beta of [4, 5, 3]) history.set({{ beta }}, "drag"); // there and back: nothing to undo
      history.rest();
      history.set({{ loss: "bdpo" }});
      history.set({{ loss: "bdpo" }});
      const states = [history.state];
      history.undo(); states.push(history.state, history.canRedo);
      history.undo(); states.push(history.state === start, history.canUndo);
      history.undo();
      history.redo(); history.redo(); states.push(history.state);
      history.undo(); history.set({{ seed: 7 }}); states.push(history.canRedo);
      stop();
      history.set({{ beta: 9 }});
      return [states, seen];
    """
    states, seen = with_bundle(body, None)
    moved = {"beta": 3, "seed": 0, "loss": "dpo", "hard": False}
    other = {**moved, "loss": "bdpo"}
    assert states == [other, moved, True, True, False, other, False]
    assert seen == [1.5, 2, 3, 4, 5, 3, 3, 3, 1, 3, 3, 3, 3]


@needs_node
def test_names_that_every_object_has_are_no_settings():
    body = f"""
      {SPEC}
      const history = new lab.History(start, spec);
      return given.map((name) => {{
        try {{ history.set(JSON.parse(`{{"${{name}}": 1}}`)); }} catch (error) {{ return error.message; }}
      }});
    """
    names = ["__proto__", "constructor", "toString", "x" * 5000]
    told = with_bundle(body, names)
    assert told == [f'there is no setting "{name[:60]}" here' for name in names]


@needs_node
def test_what_follows_from_a_step_is_undone_with_it():
    body = f"""
      {SPEC}
      const history = new lab.History(start, spec);
      history.set({{ loss: "bdpo" }});
      history.amend({{ beta: 2 }});
      const states = [history.state];
      history.undo(); states.push(history.state);
      history.redo(); states.push(history.state);
      history.set({{ seed: 1 }}, "drag"); history.amend({{ hard: true }}); history.set({{ seed: 2 }}, "drag");
      history.undo(); states.push(history.state);
      return states;
    """
    start = {"beta": 1, "seed": 0, "loss": "dpo", "hard": False}
    both = {**start, "loss": "bdpo", "beta": 2}
    assert with_bundle(body, None) == [both, start, both, both]


@needs_node
def test_a_step_that_is_taken_back_at_once_leaves_nothing_to_undo():
    body = f"""
      {SPEC}
      const history = new lab.History(start, spec);
      history.set({{ loss: "bdpo" }});
      history.set({{ beta: 2 }});
      history.amend({{ beta: 1 }});
      const states = [history.state];
      history.undo(); states.push(history.state, history.canUndo);
      history.set({{ seed: 1 }}, "drag"); history.amend({{ seed: 0 }}); states.push(history.canUndo);
      history.set({{ seed: 2 }}, "drag"); states.push(history.canUndo); // a new step of the same hand
      history.undo(); states.push(history.state);
      return states;
    """
    start = {"beta": 1, "seed": 0, "loss": "dpo", "hard": False}
    assert with_bundle(body, None) == [{**start, "loss": "bdpo"}, start, False, False, True, start]


@needs_node
def test_a_link_brings_a_state_back_and_says_what_it_refuses():
    body = f"""
      {SPEC}
      const state = {{ beta: 0.1 + 0.2, seed: 3, loss: "bdpo", hard: true }};
      const link = lab.toFragment(state, start, spec);
      const odd = "#beta=-1&seed=1.5&loss=<b>&hard=1&toString=1&beta=&gamma=2&%E0%A4%A";
      const history = new lab.History(start, spec);
      const said = [];
      for (const changes of [{{ beta: NaN }}, {{ seed: "1" }}, {{ beta: 2, colour: 1 }}]) {{
        try {{ history.set(changes); }} catch (error) {{ said.push(error.message); }}
      }}
      return [link, lab.fromFragment(link, start, spec), lab.toFragment(start, start, spec),
              lab.fromFragment(odd, start, spec), said, history.state];
    """
    start = {"beta": 1, "seed": 0, "loss": "dpo", "hard": False}
    link, back, nothing, odd, said, after = with_bundle(body, None)
    assert link == "beta=0.30000000000000004&seed=3&loss=bdpo&hard=true"
    assert back == {"state": {"beta": 0.1 + 0.2, "seed": 3, "loss": "bdpo", "hard": True}, "refused": []}
    assert nothing == ""
    assert odd["state"] == start
    assert odd["refused"][:7] == [
        "beta must be a number from 0.01 to 100, got -1",
        "seed must be a whole number from 0 to 99, got 1.5",
        'loss must be one of dpo, bdpo, got "<b>"',
        'hard must be true or false, got "1"',
        'there is no setting "toString" here',
        'beta must be a number from 0.01 to 100, got ""',
        'there is no setting "gamma" here',
    ]
    assert len(odd["refused"]) == 8
    assert said == [
        "beta must be a number from 0.01 to 100, got NaN",
        'seed must be a whole number from 0 to 99, got "1"',
        'there is no setting "colour" here',
    ]
    assert after == start


@needs_node
def test_a_slider_has_a_place_for_every_value_and_takes_what_people_type():
    body = """
      const scales = [
        { low: 0.01, high: 100, scale: "log" }, { low: 1e-12, high: 1 - 1e-12, scale: "logit" },
        { low: -2, high: 3 }, { low: 1, high: 500, scale: "log", whole: true },
      ];
      const places = [...Array(1001).keys()].map((stop) => stop / 1000);
      const values = scales.map((scale) => places.map((place) => lab.valueAt(place, scale)));
      const back = scales.map((scale, at) => values[at].map((value) => lab.placeOf(value, scale)));
      const texts = "0.5|0,5| 1e-3 |−2|1 − 1e−3||x|1,000.5".split("|");
      return [values, back, texts.map((text) => String(lab.typed(text))),
              [0.25, 0.9995, 1 - 1e-9].map((value) => lab.written(value, scales[1]))];
    """
    values, back, typed, written = with_bundle(body, None)
    places = np.arange(1001) / 1000
    for value, place, ends in zip(values, back, [(0.01, 100), (1e-12, 1 - 1e-12), (-2, 3), (1, 500)], strict=True):
        assert (value[0], value[-1]) == ends
        assert (np.diff(value) >= 0).all()
        # at most half a digit of three away, or half the way from 1 to 2, of the logarithms' whole way
        most = np.log(1.5) / np.log(500) if ends == (1, 500) else 6e-4
        assert np.abs(place - places).max() < most + 1e-3
    assert values[1][500] == 0.5
    assert len(set(values[1])) == 1001  # no two stops of a probability are one value
    assert typed == ["0.5", "0.5", "0.001", "-2", "0.999", "NaN", "NaN", "NaN"]
    assert written == ["0.25", "1 − 5e−4", "1 − 1e−9"]


# --- streams and worlds ---


@needs_node
def test_a_pages_streams_are_numpys():
    asked = [(seed, ["data", split]) for seed in (0, 1, 7, 2**32 - 1, 2**32, 2**53 - 1) for split in (0, 1)]
    asked += [(3, ["centres"]), (3, ["mask"])]
    there = with_bundle("return given.map(([seed, purpose]) => new lab.Stream(seed, ...purpose).take(50));", asked)
    for (seed, (purpose, *more)), numbers in zip(asked, there, strict=True):
        assert numbers == stream(seed, Purpose[purpose.upper()], *more).random(50).tolist()


@needs_node
@pytest.mark.parametrize("purpose", ["utility", "reference"])
def test_so_are_its_normal_numbers_to_the_last_bit_but_in_the_tail(purpose):
    count = 100_000
    there = with_bundle(f"return new lab.Stream(given, '{purpose}').normals({count});", 2**40)
    here = stream(2**40, Purpose[purpose.upper()]).standard_normal(count)
    tail = np.abs(here) > 3.6541528853610088
    assert 10 < tail.sum() < 60
    np.testing.assert_array_equal(np.array(there)[~tail], here[~tail])
    # log1p of another library rounds otherwise: by its last digit, of numbers below 1 in a sum of about 4
    np.testing.assert_allclose(np.array(there)[tail], here[tail], rtol=rounding(3))


SETTINGS = [
    {},
    {"utility": "independent", "scale": 2.5, "reference": "random", "mask_rate": 0.3, "seed": 3},
    {"prompts": 7, "responses": 2, "utility": "independent", "reference": "shifted", "seed": 2**33},
    {"prompts": 1, "responses": 30, "reference": "random", "mask_kind": "pairs", "mask_rate": 0.2, "seed": 8},
    {"prompts": 3, "responses": 7, "utility": "gaussian-random", "sigma": 1.5, "mask_rate": 0.4, "seed": 5},
    {"utility": "log-gaussian", "scale": 2.0, "jitter": 0.1, "reference": "shifted", "shift": 4.5, "seed": 2**40},
    {"responses": 5, "mask_rate": 0.5, "mask_kind": "pairs", "reference": "shifted", "reference_sigma": 1.0, "seed": 9},
    {"responses": 10, "mask_rate": 0.25, "seed": 1},  # 2.5 responses: Python rounds to 2
]


@needs_node
@pytest.mark.parametrize("settings", SETTINGS)
def test_worlds_and_their_pairs_are_those_of_the_library(settings):
    body = """
      const world = lab.checkWorld(lab.gaussianWorld(given.settings));
      const { utility, observed, refLogp, hiddenPairs } = world;
      const drawn = ["hard", "soft"].map((labels) => lab.drawPairs(world, 60, { labels, seed: 4, split: 1 }));
      const exact = ["hard", "soft"].map((labels) => lab.exactPairs(world, labels));
      return { utility, observed, refLogp, hiddenPairs, drawn, exact };
    """
    spelt = {"mask_rate": "maskRate", "mask_kind": "maskKind", "reference_sigma": "referenceSigma"}
    there = with_bundle(body, {"settings": {spelt.get(name, name): value for name, value in settings.items()}})
    world = gaussian_world(**settings)
    assert np.array_equal(np.array(there["observed"], bool), world.observed.ravel())
    hidden = None if world.hidden_pairs is None else world.hidden_pairs.ravel().astype(int).tolist()
    assert there.get("hiddenPairs") == hidden
    size = float(max(np.abs(world.utility).max(), np.abs(world.ref_logp).max(), 1.0))
    tables = {"utility": world.utility, "refLogp": world.ref_logp}
    for name, here in tables.items():
        np.testing.assert_allclose(there[name], here.ravel(), rtol=0, atol=rounding(40, 3 * size))
    for labels, drawn, exact in zip(("hard", "soft"), there["drawn"], there["exact"], strict=True):
        # The same pairs: another would move a weight by a sixtieth, or by its probability of that.
        here = draw_pairs(world, 60, labels=labels, seed=4, split=1).ravel()
        np.testing.assert_allclose(drawn, here, rtol=0, atol=rounding(10, 1.0))
        np.testing.assert_allclose(exact, exact_pairs(world, labels=labels).ravel(), rtol=0, atol=rounding(10, 1.0))


@needs_node
def test_a_page_offers_every_kind_of_world_that_the_library_has():
    there = with_bundle("return [lab.UTILITIES, lab.MASK_KINDS, lab.REFERENCES];", None)
    assert there == [list(get_args(kind)) for kind in (Utility, MaskKind, Reference)]


@needs_node
@pytest.mark.parametrize("size", [(20, 8, 1.0), (9, 4, 0.5), (5, 1, 2.0)])
def test_features_of_shared_parameters_are_those_of_the_library(size):
    responses, centres, width = size
    there = with_bundle("return lab.radialBasis(...given);", size)
    here = RadialBasis(centres, width).features(responses).numpy().ravel()
    np.testing.assert_allclose(there, here, rtol=0, atol=rounding(20, 40.0))


@needs_node
def test_a_world_or_a_setting_that_is_not_fit_is_refused_in_one_sentence():
    body = """
      const said = (action) => { try { action(); return "nothing"; } catch (error) { return error.message; } };
      const good = () => lab.gaussianWorld({ prompts: 2, responses: 3 });
      const changed = (change) => said(() => { const world = good(); change(world); lab.checkWorld(world); });
      return [
        changed((world) => { world.utility[3] = NaN; }),
        changed((world) => { world.utility = new Float64Array(5); }),
        changed((world) => { world.refLogp[0] = 0; }),
        changed((world) => { world.observed.fill(0, 3, 5); }),
        changed((world) => { world.responses = 1; }),
        said(() => lab.gaussianWorld({ prompts: 2.5 })),
        said(() => lab.gaussianWorld({ sigma: 0 })),
        said(() => lab.gaussianWorld({ maskRate: 0.95 })),
        said(() => lab.gaussianWorld({ maskKind: "pairs", maskRate: 1 })),
        said(() => lab.gaussianWorld({ sigma: 1e-200, utility: "log-gaussian" })),
        said(() => lab.gaussianWorld({ seed: -1 })),
        said(() => lab.drawPairs(good(), 0)),
      ];
    """
    assert with_bundle(body, None) == [
        "utility must be finite everywhere, got NaN",
        "utility must have 6 numbers for 2 prompts and 3 responses, got 5",
        "ref_logp must sum to one over responses in every prompt, got a sum of 1.66667",
        "every prompt must keep a pair, but prompt 1 has none",
        "a world must have at least 1 prompt and 2 responses, got 2 and 1",
        "prompts must be a whole number of at least 1, got 2.5",
        "sigma must be above 0, got 0",
        "maskRate must leave two responses of each prompt, got 0.95",
        "maskRate must leave a pair of each prompt, got 1",
        "sigma, scale and referenceSigma must leave every number finite",
        "seed must be a whole number from 0 to 2^53 − 1, got -1",
        "pairs must be a whole number of at least 1, got 0",
    ]


# --- kernels and what they refuse ---


@needs_node
def test_a_kernel_or_a_problem_that_is_not_fit_is_refused_in_one_sentence():
    body = """
      const said = async (action) => {
        try { await action(); return "nothing"; } catch (error) { return error.message; }
      };
      const damaged = { ...given, module: given.module.slice(0, 400) };
      const kernel = await lab.Kernel.load(given);
      const other = await lab.Kernel.load({ ...given, optimizer: "lion" });
      const columns = { count: 1, responses: 2, weights: [0, 1, 1, 0], reference: [-1, -1], start: [-1, -1] };
      return [
        await said(() => lab.Kernel.load(damaged)),
        await said(() => lab.Kernel.load({ ...given, function: "ascend" })),
        await said(() => lab.train(kernel, { ...columns, start: [-1] }, 0.1, [1])),
        await said(() => lab.train(kernel, { ...columns, features: [1, 1] }, 0.1, [1])),
        await said(() => lab.train(kernel, columns, 0.1, [3, 2])),
        await said(() => lab.train(other, columns, 0.1, [1])),
        await said(() => kernel.allocate({ steps: 3 })),
        await said(async () => (await lab.Kernel.load({ ...given, laws: null })).at({ beta: 2 })),
        await said(() => kernel.at({ gamma: 2 })),
        await said(() => kernel.at({ beta: NaN })),
      ];
    """
    assert with_bundle(body, training_kernel(DPO(), general=True).record()) == [
        "this browser cannot run the kernel: it needs WebAssembly with SIMD, and an undamaged module",
        'the kernel has no function "ascend"',
        "start must have 2 numbers, got 1",
        "features must be absent for this kernel",
        "wanted must be whole steps that rise, got 3, 2",
        'optimizer must be one of adam, gd, got "lion"',
        'the kernel takes no array "steps"',
        "the kernel serves no other hyper-parameters than its own",
        'the kernel has no hyper-parameter "gamma" that a page moves',
        "beta must be a finite number, got NaN",
    ]


@needs_node
def test_factors_of_the_optimisers_are_those_of_the_library():
    body = """
      const steps = [...Array(500).keys()];
      return Object.entries(lab.FACTORS).map(([name, of]) => [name, steps.map((step) => of(0.05, step + 1))]);
    """
    there = dict(with_bundle(body, None))
    assert set(there) == set(OPTIMIZERS)
    for name, rule in OPTIMIZERS.items():  # a power of n rounds n times at most
        np.testing.assert_allclose(there[name], rule.factors(0.05, 500), rtol=rounding(500))
