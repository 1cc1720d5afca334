"""What a loss says of itself is what it does, and a loss of one's own joins the registry, or is refused in one line."""

import math
import re
import subprocess
import sys
from dataclasses import dataclass, field, is_dataclass, replace
from itertools import product
from pathlib import Path

import pytest
import torch
from matplotlib.lines import Line2D
from own_losses import Lopsided

from gradlab import cli
from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.llm.train.run_settings import settings_of
from gradlab.losses import (
    BATCH_LOSSES,
    PAIR_LOSSES,
    DealtLoss,
    FixedWeightDPO,
    LogisticLoss,
    Look,
    NaiveBalancedDPO,
    PairLogps,
    differentiated,
    hyper_parameters,
    pair_loss,
    register_loss,
    slopes,
    unregister_loss,
)
from gradlab.losses.definition import definition
from gradlab.losses.registry import FAMILIES, measured_start

KNOWN = {name: make() for name, make in PAIR_LOSSES.items()} | {
    "nbdpo, clip 2": NaiveBalancedDPO(clip=2.0),
    "symmetric, clip 2": NaiveBalancedDPO(0.5, 2.0, True),
    "fixed 0.2": FixedWeightDPO(0.3, 0.2),
    "ipo 0.1": pair_loss("ipo", beta=0.1) if "ipo" in PAIR_LOSSES else None,
}
every_known_loss = pytest.mark.parametrize("loss", KNOWN.values(), ids=KNOWN)


def pairs_of(win, lose, away=1.0):
    """Pairs with h_w = away and h_l = 0, of 3 and 5 tokens."""
    win, lose, *lengths = (torch.tensor(side, dtype=torch.float64) for side in (win, lose, 3, 5))
    return PairLogps(win, lose, win - away, lose, *lengths)


@every_known_loss
def test_the_start_is_the_loss_at_the_reference(loss):
    value = loss(pairs_of([-5.0, -50.0, -3.1], [-50.0, -5.0, -3.0], away=0.0))
    if loss.start_value is None:  # it differs from pair to pair
        assert measured_start(loss) is None
    else:
        assert value.tolist() == pytest.approx([loss.start_value] * 3, rel=1e-12)


FAR = [-1e300, -1e150, -1e75, -1e9, -50.0, -5.0, -3.1, -3.0, -1e-9]  # nats


def far_pairs(log_ratios=(0.0,)):
    """Pairs of all log-probabilities in FAR, with h_w and h_l out of these, of 1 to 999 tokens."""
    sides = torch.tensor(list(product(FAR, FAR, log_ratios, log_ratios, [1, 999], [1, 999])), dtype=torch.float64).T
    return PairLogps(sides[0], sides[1], sides[0] - sides[2], sides[1] - sides[3], *sides[4:])


@every_known_loss
def test_the_weight_stays_within_the_range_that_is_stated(loss):
    win, lose = (side.abs() for side in slopes(differentiated(loss), far_pairs([-9.0, -0.25, 0.0, 0.25, 9.0])))
    weight = (win / (win + lose))[win + lose > 0]
    least, most = loss.weight_range
    assert weight.min() >= least - 1e-9
    assert weight.max() <= most + 1e-9
    assert loss.constant_weight == (least == most)


@every_known_loss
def test_the_weight_of_a_logistic_loss_comes_to_the_ends_of_its_range(loss):
    if not isinstance(loss, LogisticLoss) or loss.needs_lengths or loss.bounded_above:  # a clip, whose edge is missed
        pytest.skip("its weights depend on more than log-probabilities")
    win, lose = (side.abs() for side in slopes(loss.margin, far_pairs([-40.0, 0.0, 40.0])))
    weight = (win / (win + lose))[win + lose > 0]
    assert (weight.min().item(), weight.max().item()) == pytest.approx(loss.weight_range, abs=1e-9)


@every_known_loss
def test_a_side_is_pushed_against_its_label_somewhere_exactly_where_that_is_stated(loss):
    reach = torch.logspace(-2, 4, 49, dtype=torch.float64)
    ratios = torch.cat([-reach, torch.zeros(1), reach])
    win, lose = (sides.flatten() for sides in torch.meshgrid(ratios, ratios, indexing="ij"))
    policy = torch.full_like(win, -2.0), torch.full_like(win, -3.0)
    for lengths in ((3, 5), (40, 7)):
        pairs = PairLogps(*policy, policy[0] - win, policy[1] - lose, *(torch.tensor(length) for length in lengths))
        win_slope, lose_slope = slopes(loss, pairs)
        assert bool((win_slope > 0).any()) is loss.winner_down
        assert bool((lose_slope < 0).any()) is loss.loser_up


@every_known_loss
def test_bounds_are_those_of_the_values(loss):
    def most(reach):
        """The largest and the least value of pairs with log-ratios as large as this."""
        sides = torch.tensor(list(product([-reach, 0.0, reach], repeat=2)), dtype=torch.float64).T
        win, lose = -1 - (-sides).clamp(min=0)  # far from the reference, whichever of the two is the less probable
        lengths = torch.full_like(win, 7.0)
        values = loss(PairLogps(win, lose, win - sides[0], lose - sides[1], lengths, lengths))
        return values.max(), -values.min()

    for nearer, farther, bounded in zip(most(1e9), most(1e12), (loss.bounded_above, loss.bounded_below), strict=True):
        assert bool(farther <= nearer + 1e-6) is bounded  # even log |m| grows by more
    assert not loss.logistic or -farther >= 0


def test_only_what_is_made_of_log_sigma_is_called_logistic():
    losses = {name: loss for name, loss in KNOWN.items() if loss.logistic and not isinstance(loss, LogisticLoss)}
    assert set(losses) == {"cdpo"}
    starts = [loss.start_value for loss in KNOWN.values() if loss.logistic]
    assert all(start is None or start >= math.log(2) - 1e-12 for start in starts)


def test_every_loss_of_a_family_is_registered_and_no_name_is_taken_twice():
    names = [make().name for family in FAMILIES for make in family.LOSSES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(PAIR_LOSSES)
    for family in FAMILIES:
        classes = {kind for kind in vars(family).values() if is_dataclass(kind) and kind.__module__ == family.__name__}
        assert classes == {type(make()) for make in family.LOSSES}


def test_labels_and_looks_tell_the_losses_apart():
    losses = [make() for make in (*PAIR_LOSSES.values(), *BATCH_LOSSES.values())]
    for said in ([loss.label for loss in losses], [loss.look for loss in losses]):
        assert len(set(said)) == len(losses)
    for loss in losses:
        Line2D([0], [0], **loss.look._asdict())  # which raises for what Matplotlib does not know
    assert FixedWeightDPO(win_weight=0.4).label == "constant λ = 0.4"
    shades = {share: FixedWeightDPO(win_weight=share).look for share in (0.4, 0.5, 0.6)}
    assert shades == {0.4: ("#BBBBBB", ":", "<"), 0.5: ("#888888", ":", "P"), 0.6: ("#555555", ":", ">")}


@pytest.mark.parametrize("key", hyper_parameters())
def test_sliders_stop_only_at_values_that_their_losses_take(key):
    of = hyper_parameters()[key]
    assert of.sliders.keys() == of.defaults.keys()
    for name, (low, high, step, log) in [(name, stops) for name, stops in of.sliders.items() if stops]:
        assert step > 0
        for end in (low, high):
            pair_loss(name, **{key: 10**end if log else end})
        loss = PAIR_LOSSES[name]()
        for value in {of.defaults[name], getattr(loss, "published", {}).get(key, of.defaults[name])}:
            assert low <= (math.log10(value) if log else value) <= high, (name, value)


# --- losses of one's own ---


SUITES = (
    "losses", "loss_facts", "engine", "objective", "training", "sweeps", "cli", "doctor", "llm_core", "llm_measures",
    "llm_inspect", "widgets_pair",
)  # fmt: skip


@pytest.mark.slow
def test_all_suites_over_the_registry_pass_with_a_loss_of_ones_own():
    here = Path(__file__).parent
    files = [str(here / f"test_{name}.py") for name in SUITES]
    options = ["-q", "--with-lopsided", "-p", "no:cacheprovider", "-k", "lopsided"]  # only what is named after the loss
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= 90


def test_readmes_loss_is_live_once_it_is_registered(registered, capsys):
    if "lopsided" in PAIR_LOSSES:
        pytest.skip("registered for the whole session")
    assert registered(Lopsided) is Lopsided
    assert pair_loss("lopsided", beta=0.5) == Lopsided(0.5)
    assert "lopsided" in hyper_parameters()["beta"].defaults
    made = pair_loss("lopsided")
    facts = made.label, made.start_value, made.weight_range, made.constant_weight, made.logistic
    assert facts == ("lopsided", 1.0, (0.0, 1.0), False, False)
    assert cli.main(["losses"]) == 0
    assert Lopsided.equation in capsys.readouterr().out
    assert cli.main(["fit", "--loss", "lopsided", "--beta", "0.5", "--steps", "3", "--prompts", "2"]) == 0
    from gradlab.widgets.controls import loss_controls

    assert "lopsided" in dict(loss_controls("a", ["dpo"])["loss_a"].options)
    unregister_loss("lopsided")
    with pytest.raises(ValueError, match=r"^loss must be one of"):
        pair_loss("lopsided")


def test_an_instance_is_registered_with_its_values_as_defaults(registered):
    @dataclass(frozen=True)
    class Scaled(Lopsided):
        name = "scaled"

    half = Scaled(beta=0.5)
    assert registered(half) is half
    assert pair_loss("scaled") == half
    assert pair_loss("scaled", beta=2.0) == Scaled(2.0)
    assert hyper_parameters()["beta"].defaults["scaled"] == 0.5


def test_a_class_that_is_defined_again_takes_its_former_place(registered):
    def cell(start):
        @registered
        @dataclass(frozen=True)
        class Mine(Lopsided):
            name = "mine"

            def __call__(self, logps):
                return super().__call__(logps) + start

        return Mine

    assert cell(0.0) is not cell(1.0)
    assert pair_loss("mine").start_value == 2.0


def test_the_hyper_parameters_of_a_loss_of_ones_own_are_options_and_settings(registered, capsys):
    import pandas as pd

    from gradlab.sweeps.settings_frame import check_settings

    @registered
    @dataclass(frozen=True)
    class Wide(Lopsided):
        width: float = 2.0
        name = "wide"

    assert cli.main(["fit", "--loss", "wide", "--width", "3", "--steps", "2", "--prompts", "2"]) == 0
    assert "Wide(beta=1.0, width=3.0)" in capsys.readouterr().out
    assert check_settings(pd.DataFrame({"loss": ["wide"], "width": [3.0]}))["width"].tolist() == [3.0]
    world = gaussian_world(2, 3)
    assert torch.equal(fit(world, pair_loss("wide"), steps=2).logp, fit(world, Lopsided(), steps=2).logp)


def other(**changes):
    """A class beside Lopsided with other contents; None takes one away."""
    plain = {key: getattr(Lopsided, key) for key in ("name", "equation", "source", "antisymmetric", "__call__")}
    inside = {key: value for key, value in {**plain, "name": "other", **changes}.items() if value is not None}
    return dataclass(frozen=True)(type("Other", (), {"__annotations__": {"beta": float}, "beta": 1.0, **inside}))


def logistic(**changes):
    inside = {"margin": lambda self, logps: logps.win_logratio - 2 * logps.lose_logratio, **changes}
    plain = {"name": "other", "equation": "−log σ(m)", "source": "a test", "antisymmetric": False}
    return dataclass(frozen=True)(type("Other", (LogisticLoss,), {**plain, **inside}))


def fails(self, logps):
    raise KeyError("weights")


@dataclass(frozen=True)
class Demanding(Lopsided):
    width: float = None  # type: ignore[assignment]

    def __post_init__(self):
        if self.width is None:
            raise TypeError("width is needed")


REFUSED = {
    "lacks fields": (other(equation=None, source=None), r"Other lacks equation, source, which every loss has"),
    "no call": (other(__call__=None), r"Other lacks __call__"),
    "not frozen": (type("Plain", (), {}), r"Plain must be a frozen dataclass"),
    "dealt": (
        dataclass(frozen=True)(type("Other", (DealtLoss,), {"name": "other", "equation": "", "source": ""})),
        r"Other must not be a DealtLoss to be registered: only gradlab.fit deals numbers out",
    ),
    "no defaults": (Demanding, r"Demanding must have a default for every hyper-parameter \(width is needed\)"),
    "taken": (other(name="dpo"), r"name of Other must be one that no registered loss has, got 'dpo'"),
    "taken by a loss of batches": (other(name="kto"), r"name of Other must be one that .* has, got 'kto'"),
    "reads lengths": (
        logistic(margin=lambda self, logps: logps.win_logratio / logps.win_len, needs_lengths=False),
        r"needs_lengths of Other must be True, as made-up pairs show, got False",
    ),
    "reads the reference": (logistic(needs_reference=False), r"needs_reference of Other must be True, as made-up"),
    "lowers the winner": (
        logistic(margin=lambda self, logps: -logps.win_logratio, winner_down=False),
        r"winner_down of Other must be True, as made-up pairs show, got False",
    ),
    "raises the loser": (
        logistic(margin=lambda self, logps: logps.lose_logratio, loser_up=False),
        r"loser_up of Other must be True, as made-up pairs show, got False",
    ),
    "not bounded": (logistic(bounded_above=True), r"bounded_above of Other must be False, as made-up pairs show"),
    "two words": (other(name="my loss"), r"name of Other must be one word .*, got 'my loss'"),
    "two lines": (other(equation="a\nb"), r"equation of Other must be one line of text, got 'a\\nb'"),
    "no truth": (other(antisymmetric="no"), r"antisymmetric of Other must be True or False, got 'no'"),
    "reduced": (other(__call__=lambda self, logps: logps.win.mean()), r".* here of shape \(8, 25\), got shape \(\)"),
    "no tensor": (other(__call__=lambda self, logps: 1.0), r"Other must return a loss per pair, .* got float"),
    "fails": (other(__call__=fails), r"Other must take a PairLogps, but raises KeyError: 'weights'"),
    "not finite": (
        other(__call__=lambda self, logps: (logps.win_logratio - logps.lose_logratio).log()),
        r"Other must be finite at π = π_ref, got -inf",
    ),
    "cannot be antisymmetric": (
        other(antisymmetric=True),
        r"antisymmetric of Other must be False: only a LogisticLoss",
    ),
    "is not antisymmetric": (
        logistic(antisymmetric=True),
        r"antisymmetric of Other must be False: its margin does not",
    ),
    "another start": (
        logistic(margin=lambda self, logps: logps.win_logratio - logps.lose_logratio - 1, start_value=math.log(2)),
        r"start_value of Other must be its loss at π = π_ref, 1\.313\d+, got 0\.693\d+",
    ),
    "no weights": (
        other(weight_range=(1, 0)),
        r"weight_range of Other must be two numbers .* got \(1, 0\)",
    ),
    "other weights": (
        logistic(weight_range=(0.5, 0.5)),
        r"weight_range of Other must hold λ_w .* 0\.3333",
    ),
    "no range": (other(weight_range=5), r"weight_range of Other must be two numbers .* got 5"),
    "a range of texts": (
        other(weight_range=("a", "b")),
        r"weight_range of Other must be two numbers .* got \('a', 'b'\)",
    ),
    "no number at the start": (other(start_value="1"), r"start_value of Other must be its loss at .* 1\.0, got '1'"),
    "not constant": (
        logistic(
            margin=lambda self, logps: logps.win_logratio * logps.lose_logratio.exp() - logps.lose_logratio,
            constant_weight=True,
            start_value=None,
        ),
        r"constant_weight of Other must be False: λ_w varies, from 0",
    ),
    "no yes": (other(bounded_below="yes"), r"bounded_below of Other must be True or False, got 'yes'"),
    "an equation that is a number": (other(start_equation=5), r"start_equation of Other must be a line of text"),
    "no slopes": (
        other(__call__=lambda self, logps: (logps.win > logps.lose).double()),
        r"Other must have slopes in log π, but autograd raises RuntimeError: element 0",
    ),
    "changes its pairs": (
        other(__call__=lambda self, logps: logps.win.mul_(2)),
        r"Other must have slopes in log π, but autograd raises RuntimeError: a leaf Variable",
    ),
    "a path": (other(name="../other"), r"name of Other must be one word .*, got '\.\./other'"),
    "an unknown type": (
        other(__annotations__={"beta": "flaot"}),
        r"annotations of Other must be types, but NameError",
    ),
    "a text to set": (
        other(__annotations__={"beta": float, "kind": str}, kind="a"),
        r"kind of Other must be a float, int or bool, got <class 'str'>",
    ),
    "no default number": (
        other(__annotations__={"beta": float, "width": float}, width=math.nan),
        r"width of Other must have a finite number as its default, got nan",
    ),
    "no slider": (
        other(beta=field(default=1.0, metadata={"slider": 3})),
        r"slider of beta of Other must be a SliderRange\(low, high, step\), got 3",
    ),
    "no look": (other(look="red"), r"look of Other must be a Look\(color, linestyle, marker\), got 'red'"),
}


@pytest.mark.parametrize(("loss", "message"), REFUSED.values(), ids=REFUSED)
def test_a_loss_that_owes_something_is_refused_in_one_line_and_stays_out(loss, message, registered):
    before = dict(PAIR_LOSSES)
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as error:
        registered(loss)
    assert "\n" not in str(error.value)
    assert dict(PAIR_LOSSES) == before


def test_a_loss_may_state_its_facts(registered):
    stated = other(
        label="Mine", start_value=1.0, start_equation="1", weight_range=(2 / 3, 2 / 3), look=Look("red", "-", "o")
    )
    registered(stated)
    assert (pair_loss("other").label, pair_loss("other").constant_weight) == ("Mine", True)
    assert replace(pair_loss("other"), beta=2.0).look.color == "red"


@pytest.mark.parametrize("name", ["steps", "sigma", "seeds", "loss"])
def test_a_hyper_parameter_named_like_another_option_is_refused_where_both_are_asked_for(name, registered, capsys):
    import pandas as pd

    from gradlab.sweeps.settings_frame import check_settings

    registered(other(__annotations__={name: float}, **{name: 1.0}, __call__=lambda self, logps: -logps.win_logratio))
    message = f"{name} of other must have another name, since a setting is called {name}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_settings(pd.DataFrame({"loss": ["dpo"]}))
    assert cli.main(["fit", "--steps", "2"]) == 2
    assert capsys.readouterr().err == f"gradlab: {message}\n"


@pytest.mark.parametrize("name", ["run", "step", "error", "kl", "expected_utility", "win_rate", "training_loss"])
def test_a_hyper_parameter_named_like_a_column_of_a_sweep_would_be_lost_in_it(name, registered):
    import pandas as pd

    from gradlab.sweeps.settings_frame import check_settings

    registered(other(__annotations__={name: float}, **{name: 1.0}, __call__=lambda self, logps: -logps.win_logratio))
    message = f"^{name} of other must have another name, since a sweep has a column called {name}$"
    with pytest.raises(ValueError, match=message):
        check_settings(pd.DataFrame({"loss": ["other"], name: [2.0]}))


def test_a_loss_that_is_called_like_a_part_of_a_run_is_no_loss_of_a_run(registered):
    registered(other(name="reference"))
    with pytest.raises(
        ValueError, match=r"^loss must have another name than sft, reference, ppo, cache, .*'reference'"
    ):
        settings_of({"model": "a/b", "data": "d", "out": Path("o"), "loss": ("reference",)})


def test_gradlabs_losses_stay():
    with pytest.raises(ValueError, match=r"^loss to take out must be one .* added, and there is none, got 'dpo'"):
        unregister_loss("dpo")
    with pytest.raises(ValueError, match=r"^name of DPO must be one that no registered loss has, got 'dpo'"):
        register_loss(PAIR_LOSSES["dpo"])


def made_of(base, static, shown, called):
    """Return a loss of a class, and of a base, whose functions return these numbers."""
    scope = {"dataclass": dataclass}
    code = f"""
class Base:
    def shared(self): return {base}

@dataclass(frozen=True)
class Made(Base):
    scale: float = 1.0
    @staticmethod
    def plain(): return {static}
    @property
    def shown(self): return {shown}
    def __call__(self, logps): return {called}
"""
    exec(code, scope)
    return scope["Made"]()


def test_the_definition_of_a_loss_sees_its_bases_static_methods_and_properties():
    cases = [(1, 2, 3, 4), (9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 9)]
    definitions = [definition(made_of(*case)) for case in cases]
    assert definition(made_of(*cases[0])) == definitions[0]
    assert len(set(definitions)) == len(cases)
