"""Any input gives a result, or an error of one line that names the argument: never another error, and no waiting."""

import contextlib
import io
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradlab as gl
from gradlab import checks
from gradlab.cli import main
from gradlab.lab.ppo import fill_unobserved
from gradlab.losses import PAIR_LOSSES, slopes
from gradlab.stats.agreement import agreement, preference_rates, wilson_interval
from gradlab.stats.equivalence import holm
from gradlab.stats.intervals import bootstrap_interval
from gradlab.stats.population import paired_differences
from gradlab.streams import Purpose, stream, torch_seed

WORLD = gl.gaussian_world(2, 3)
LOGP = torch.tensor(WORLD.ref_logp)
SIDE = torch.tensor([-1.0, -2.0])
THREE = np.log([0.2, 0.3, 0.5])
ANSWERS = pd.DataFrame({"rater": ["a", "b"], "item": ["x", "x"], "score": [0.0, 1.0]})
FRAME = pd.DataFrame({"method": ["a", "b"] * 2, "seed": [0, 0, 1, 1], "value": [1.0, 2.0, 3.0, 4.0]})

# Each function, with arguments that it takes. Sizes stay as small as they are: wild numbers are tiny or enormous.
CALLS = {
    "World": (
        gl.World,
        {
            "utility": WORLD.utility,
            "observed": WORLD.observed,
            "ref_logp": WORLD.ref_logp,
            "hidden_pairs": None,
            "lengths": WORLD.token_counts,
        },
    ),
    "gaussian_world": (
        gl.gaussian_world,
        {
            "prompts": 2,
            "responses": 3,
            "utility": "gaussian",
            "sigma": 3.0,
            "scale": 4.0,
            "jitter": 0.5,
            "mask_rate": 0.0,
            "mask_kind": "responses",
            "reference": "shifted",
            "shift": 1.0,
            "reference_sigma": 1.0,
            "seed": 0,
        },
    ),
    "fit": (
        gl.fit,
        {
            "worlds": WORLD,
            "loss": gl.DPO(),
            "steps": 2,
            "seed": 0,
            "start": WORLD.ref_logp,
            "pairs": 5,
            "batch": None,
            "record": 2,
            "learning_rate": 0.1,
            "optimizer": "adam",
            "policy": "free",
            "labels": None,
            "device": "cpu",
            "dtype": "float64",
            "engine": "eager",
            "gradients": False,
        },
    ),
    "fit_ppo": (
        gl.fit_ppo,
        {
            "worlds": WORLD,
            "reward": WORLD.utility,
            "steps": 2,
            "beta": 1.0,
            "clip": 0.2,
            "epochs": 1,
            "samples": None,
            "seed": 0,
        },
    ),
    "fit_reward": (gl.fit_reward, {"worlds": WORLD, "steps": 2, "l2": 0.0, "seed": 0}),
    "dpo_reference": (gl.dpo_reference, {"world": WORLD, "steps": 2}),
    "ideal_logp": (WORLD.ideal_logp, {"beta": 1.0}),
    "with_reference": (WORLD.with_reference, {"ref_logp": WORLD.ref_logp}),
    "fill_unobserved": (fill_unobserved, {"reward": WORLD.utility, "observed": WORLD.observed, "how": "mean"}),
    "RadialBasis": (gl.RadialBasis, {"centres": 3, "width": 1.0}),
    "PairLogps": (gl.PairLogps, dict.fromkeys(("win", "lose", "ref_win", "ref_lose", "win_len", "lose_len"), SIDE)),
    "pair_loss": (gl.pair_loss, {"name": "dpo", "beta": 1.0}),
    "slopes": (slopes, {"value": gl.DPO(), "logps": gl.PairLogps(SIDE, SIDE, SIDE, SIDE)}),
    "log_prob_ratio": (gl.log_prob_ratio, {"loss": gl.DPO(), "logps": gl.PairLogps(SIDE, SIDE, SIDE, SIDE)}),
    **{
        f"loss {name}": (make, {field: getattr(make(), field) for field in vars(make())})
        for name, make in PAIR_LOSSES.items()
    },
    "expected_utility": (gl.metrics.expected_utility, {"logp": LOGP, "utility": LOGP}),
    "kl_to_reference": (gl.metrics.kl_to_reference, {"logp": LOGP, "ref_logp": LOGP}),
    "entropy": (gl.metrics.entropy, {"logp": LOGP}),
    "unobserved_mass": (gl.metrics.unobserved_mass, {"logp": LOGP, "observed": torch.tensor(WORLD.observed)}),
    "win_rate": (gl.metrics.win_rate, {"logp": LOGP, "opponent_logp": LOGP, "utility": LOGP}),
    "dpo_weight": (gl.theory.dpo_weight, {"log_p": THREE, "log_q": THREE}),
    "balanced_weight": (gl.theory.balanced_weight, {"log_p": THREE, "log_q": THREE}),
    "gradient_inner_products": (gl.theory.gradient_inner_products, {"p": np.exp(THREE), "kernel": np.eye(3)}),
    "extrema": (gl.theory.extrema, {"y": [0.0, 1, 2, 3], "f": [0.0, 1, 0, 1], "noise": 0.0}),
    "wilson_interval": (wilson_interval, {"rate": 0.5, "number": 10}),
    "bootstrap_interval": (bootstrap_interval, {"values": [1.0, 2.0], "seed": 0}),
    "holm": (holm, {"p_values": [0.1, 0.2]}),
    "preference_rates": (preference_rates, {"answers": ANSWERS}),
    "agreement": (agreement, {"answers": ANSWERS}),
    "paired_differences": (
        paired_differences,
        {"frame": FRAME, "value": "value", "method": "a", "baseline": "b", "by": []},
    ),
    "stream": (stream, {"seed": 0, "purpose": Purpose.MASK}),
    "torch_seed": (torch_seed, {"seed": 0, "purpose": Purpose.MODEL_WEIGHTS}),
    "count": (checks.count, {"value": 1, "least": 0}),
    "input_file": (checks.input_file, {"path": __file__}),
    "read_log": (gl.read_log, {"path": __file__}),
}


def any_of(values):
    """Choose one of some values, of which not all need be hashable."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


NUMBERS = any_of(
    [
        -1,
        0,
        1,
        2,
        3,
        2**53,
        2**63,
        2**64,
        -(2**70),
        10**30,
        10**400,
        0.0,
        -0.0,
        0.5,
        1.0,
        -1.5,
        1e-320,
        1e-9,
        1e9,
        1e308,
        float("nan"),
        float("inf"),
        float("-inf"),
        True,
        False,
        1j,
        Decimal("NaN"),
        Decimal(1),
        Fraction(1, 3),
        np.float32(0.5),
        np.int8(-1),
        np.uint64(2**63),
        np.bool_(True),
        np.complex64(1),
        np.datetime64("2020"),
        np.timedelta64(1),
        np.ma.masked,
    ]
)
WORDS = st.one_of(
    st.sampled_from(["", "dpo", "x", "cpu:99", "cuda:7", "meta", "float16", "a\0b", "∞", "nan", "\ud800"]),
    st.text(max_size=5),
    st.binary(max_size=3),
)
SHAPES = st.sampled_from([(), (0,), (1,), (2,), (3,), (2, 3), (2, 2), (1, 2, 3), (2, 3, 3), (0, 3), (2, 0)])
TYPES = st.sampled_from(
    ["float64", "float32", "float16", "int8", "uint64", "bool", "complex128", "U1", "S1", "object", "M8[s]"]
)
ARRAYS = st.builds(
    lambda shape, kind, fill: _array(shape, kind, fill),
    SHAPES,
    TYPES,
    st.sampled_from([0, 1, -1, np.nan, np.inf, 1e308]),
)
TENSORS = st.builds(
    lambda shape, kind, how: how(torch.zeros(shape, dtype=kind)),
    SHAPES,
    st.sampled_from([torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]),
    st.sampled_from(
        [
            lambda t: t,
            lambda t: t.to("meta"),
            lambda t: t.to_sparse() if t.ndim else t,
            lambda t: t.requires_grad_() if t.is_floating_point() else t,
            lambda t: t.neg() if t.dtype != torch.bool else t,
        ]
    ),
)
OBJECTS = any_of(
    [
        None,
        object(),
        [],
        {},
        set(),
        (),
        [[1.0], [2.0, 3.0]],
        [None],
        ["a", 1.0],
        WORLD,
        [WORLD, WORLD],
        [[WORLD], WORLD],
        gl.DPO,
        gl.DPO(),
        gl.Training(),
        ANSWERS,
        FRAME,
        pd.DataFrame(),
        pd.Series([1.0]),
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        iter([1.0]),
        range(3),
        type,
        lambda *_: None,
        torch.float32,
        torch.device("meta"),
        slice(1),
        Ellipsis,
        Purpose.DATA,
    ]
)
ANYTHING = st.one_of(NUMBERS, WORDS, ARRAYS, TENSORS, OBJECTS)


def _array(shape, kind, fill):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.full(shape, fill, kind)
        except (TypeError, ValueError, OverflowError):
            return np.zeros(shape, kind)


def check_call(name, replaced):
    """Call a function with other arguments: it gives a result, or an error of one line that names an argument."""
    function, arguments = CALLS[name]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if name == "count":
            replaced = {"name": "value", "value": 1, **replaced}
            replaced.pop("least", None)
            arguments = {}
        if name == "input_file":
            arguments = {"name": "path", **arguments}
        said = answer(function, {**arguments, **replaced})
    assert len(said.splitlines()) <= 1, f"{name}({replaced!r:.300}): {said}"
    names = ("loss", *arguments, *replaced)
    assert not said or any(key in said for key in names), f"{name}({replaced!r:.300}): {said:.200}"


def answer(function, arguments):
    """Return the words of the error that a call raises, empty where it has a result or does not fit into the memory."""
    try:
        function(**arguments)
    except (MemoryError, FloatingPointError):  # 2⁵³ of something; a training that blew up
        return ""
    except OSError as error:
        return str(error) if "\n" in str(error) else ""  # its words name the file
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def some_call(data):
    name = data.draw(st.sampled_from(list(CALLS)))
    keys = data.draw(
        st.lists(st.sampled_from(list(CALLS[name][1]) or ["nothing"]), min_size=1, max_size=2, unique=True)
    )
    check_call(name, {key: data.draw(ANYTHING) for key in keys})


QUIET = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


WORDS_OF_OPTIONS = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "0.5",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "9" * 30,
    "9" * 5000,
    "x",
    "",
    "é",
    "adam",
    "gd",
    "free",
    "shared",
    "dpo",
    "nbdpo",
    "pairs",
    "soft",
    "float32",
    "cuda:9",
    "a.parquet/b",
)
OPTIONS = (
    "--loss",
    "--seeds",
    "--prompts",
    "--responses",
    "--utility",
    "--sigma",
    "--scale",
    "--mask-rate",
    "--mask-kind",
    "--reference",
    "--shift",
    "--policy",
    "--optimizer",
    "--learning-rate",
    "--steps",
    "--pairs",
    "--batch",
    "--labels",
    "--record",
    "--device",
    "--dtype",
    "--engine",
    "--beta",
    "--clip",
    "--save",
    "--nothing",
)


@pytest.mark.slow
@settings(max_examples=40, **QUIET)
@given(st.dictionaries(st.sampled_from(OPTIONS), st.sampled_from(WORDS_OF_OPTIONS), min_size=1, max_size=3))
def test_a_command_ends_with_a_table_or_one_line(given_options):
    small = {"--seeds": "1", "--prompts": "2", "--responses": "3", "--steps": "2", "--engine": "eager"}
    words = [word for pair in {**small, **given_options}.items() for word in pair]
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            status = main(["fit", *words])
        except SystemExit:  # an option that does not exist, or whose value is no number
            return
    assert status == 0 or (status in (1, 2) and said.getvalue().count("\n") == 1), f"{words}: {said.getvalue()}"


@pytest.mark.slow
@settings(max_examples=400, **QUIET)
@given(st.data())
def test_any_argument_is_taken_or_refused_in_one_line(data):
    some_call(data)


@pytest.mark.long
def test_so_are_thousands(faults):
    tried = 20_000

    @settings(max_examples=tried, **QUIET)
    @given(st.data())
    def run(data):
        some_call(data)

    run()
    faults("fuzz", "arguments of the public functions", tried=tried)
