"""Every loss type of the installed TRL that has a twin, run through TRL's own code, is that twin and no other."""

import importlib
import re

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

import trl

from gradlab.conformance import check, confirm, vector_pairs
from gradlab.conformance.checking import UNITS
from gradlab.conformance.trl_losses import trl_loss
from gradlab.losses import BATCH_LOSSES, DPO, PAIR_LOSSES, PairLogps, named_loss, slopes

pytestmark = pytest.mark.slow  # TRL's imports and trainers take seconds
TWINS = {
    "sigmoid": ("dpo", {"beta": 0.1}),
    "sigmoid,beta=0.3,label_smoothing=0.2": ("dpo", {"beta": 0.3}),  # it ignores label_smoothing
    "hinge": ("hinge", {"beta": 0.1}),
    "ipo": ("trl-ipo", {"beta": 0.1}),
    "exo_pair,label_smoothing=0.001": ("exo", {"beta": 0.1, "label_smoothing": 0.001}),
    "nca_pair": ("nca", {"beta": 0.1}),
    "robust,label_smoothing=0.1": ("robust", {"beta": 0.1, "label_smoothing": 0.1}),
    "robust": ("dpo", {"beta": 0.1}),
    "bco_pair": ("bco", {"beta": 0.1}),
    "sppo_hard": ("sppo", {"beta": 0.1}),
    "aot": ("aot", {"beta": 0.1, "label_smoothing": 0.0}),
    "aot,label_smoothing=0.1": ("aot", {"beta": 0.1, "label_smoothing": 0.1}),
    "aot_unpaired,beta=0.2": ("aot-unpaired", {"beta": 0.2, "label_smoothing": 0.0}),
    "apo_zero": ("apo-zero", {"beta": 0.1}),
    "apo_down": ("apo-down", {"beta": 0.1}),
    "discopop": ("discopop", {"beta": 0.1, "temperature": 0.05}),
    "discopop,discopop_tau=0.5": ("discopop", {"beta": 0.1, "temperature": 0.5}),
    "sigmoid_norm": ("sigmoid-norm", {"beta": 0.1}),
    "sigmoid,f_divergence_type=forward_kl": ("forward-kl", {"beta": 0.1}),
    "sigmoid,f_divergence_type=js_divergence": ("js", {"beta": 0.1}),
    "simpo,cpo_alpha=0,beta=2,simpo_gamma=1.6": ("simpo", {"beta": 2.0, "gamma": 1.6}),
    "alphapo,alpha=0.25": ("alphapo", {"beta": 0.1, "gamma": 0.5, "reward_shape": 0.25}),
}
TWINS_OF_A_PAIR = {  # their likelihood term is a mean over the batch's tokens
    "cpo": ("trl-cpo", {"beta": 0.1, "sft_weight": 1.0}),
    "simpo": ("trl-simpo", {"beta": 0.1, "gamma": 0.5, "sft_weight": 1.0}),
    "orpo": ("orpo", {"odds_weight": 0.1}),
}
WITHOUT = {"sft"}  # no preference loss


@pytest.fixture(scope="module")
def described():
    """TRL's text on its loss types; loading it takes seconds."""
    return importlib.import_module("trl").DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]


def test_every_type_of_trls_has_a_twin_here(described):
    types = set(re.findall(r"'([a-z_]+)'", described))
    assert len(types) > 12
    tried = {name.partition(",")[0] for name in (*TWINS, *TWINS_OF_A_PAIR)}
    assert types - tried - WITHOUT == set()


@pytest.mark.parametrize("text", TWINS)
def test_a_loss_of_trls_is_its_twin(text):
    frame = judged(text, *TWINS[text])
    fitting = frame[frame["fits"]]
    assert fitting["loss"].tolist() == [frame["loss"].iloc[0]], frame.attrs["summary"]


@pytest.mark.parametrize("text", TWINS_OF_A_PAIR)
def test_a_loss_of_trls_that_weighs_pairs_by_their_lengths_is_its_twin_for_single_pairs_alone(text):
    frame = judged(text, *TWINS_OF_A_PAIR[text])
    assert not frame["fits"].any()
    assert frame["departs"].iloc[0] == "the loss of a pair depends on the other pairs of its batch"


def judged(text, name, hyper):
    """Return TRL's loss judged among its twin and those that it could be taken for; the twin is first."""
    frame = check(f"trl:{text}", among=[name, *(other for other in ("dpo", "ipo", "cpo") if other != name)])
    assert frame["loss"].iloc[0] == name, frame.attrs["summary"]
    assert frame["hyper"].iloc[0] == ", ".join(f"{key}={value:.6g}" for key, value in hyper.items())
    assert frame["units"].iloc[0] <= UNITS
    assert frame.attrs["dtype"] == "float32"
    return frame


def test_what_is_shipped_is_what_trl_computes(described):
    """Each ``Shipped`` of TRL that names a loss type states the hyper-parameters of that type's defaults."""
    stated = [
        (make().name, one)
        for make in (*PAIR_LOSSES.values(), *BATCH_LOSSES.values())
        for one in make().shipped
        if one.library.startswith("trl 1") and re.fullmatch(r'loss_type="(\w+)"', one.key)
    ]
    assert len(stated) > 8
    for name, one in stated:
        kind = re.fullmatch(r'loss_type="(\w+)"', one.key)[1]
        if kind in described and kind != "exo_pair":  # needs ε
            assert check(f"trl:{kind}", named_loss(name, **one.hyper), among=[name])["fits"].iloc[0], kind


@pytest.mark.parametrize(
    ("alpha", "name", "hyper", "where"),
    [
        (2, "link-u", "beta=0.1", "references at -1000"),
        (0.5, "f-dpo", "beta=0.1, order=0.5", "winner at -1000, both at -1000"),
    ],
)
def test_the_clamp_of_trls_alpha_is_found_at_the_pairs_that_it_changes(alpha, name, hyper, where):
    text = f"trl:sigmoid,f_divergence_type=alpha_divergence,f_alpha_divergence_coef={alpha}"
    first = check(text, among=[name]).iloc[0]
    assert (first["fits"], first["hyper"]) == (False, hyper)
    assert first["departs"] == f"they agree except at: {where}"


def test_numbers_that_trl_loses_in_float32_are_named():
    notes = check("trl:discopop", among=["discopop"]).attrs["notes"]
    assert notes == ["It is not finite at: winner at -1000."]
    notes = check("trl:sigmoid,f_divergence_type=forward_kl", among=["forward-kl"]).attrs["notes"]
    assert "both at -1000" in notes[0]


def test_tokens_past_the_shorter_response_count_less_under_ld_alpha():
    """TRL's log-probabilities of a response are halves on its first and last token: the last counts α if it is past."""
    pairs = vector_pairs(torch.float32)
    win, lose = pairs.lengths("this test")
    share = [torch.where(mine > other, 0.5 + 0.5 * 0.25, 1.0) for mine, other in ((win, lose), (lose, win))]
    short = PairLogps(pairs.win * share[0], pairs.lose * share[1], pairs.ref_win * share[0], pairs.ref_lose * share[1])
    asked = trl_loss("sigmoid", {"ld_alpha": 0.25, "beta": 0.2})
    for place in range(len(win)):
        one = PairLogps(*(side[place : place + 1] for side in vars(pairs).values()))
        wanted = PairLogps(*(side[place : place + 1] for side in list(vars(short).values())[:4]))
        torch.testing.assert_close(asked(one), DPO(0.2)(wanted).mean(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            [slope.item() for slope in slopes(asked, one)],
            [slope.item() * part[place].item() for slope, part in zip(slopes(DPO(0.2), wanted), share, strict=True)],
            rtol=1e-5, atol=1e-9,
        )  # fmt: skip


def test_what_is_said_to_differ_does_in_the_installed_version():
    seen = confirm()
    assert seen["holds"].all(), seen.loc[~seen["holds"], "disagreement"].tolist()
    assert seen.attrs["trl"] == trl.__version__


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trl:nope", "nope"),
        ("trl:sigmoid,gamma=1", "option of trl:sigmoid must be one of beta, label_smoothing"),
        ("trl:exo_pair", "refuses trl:exo_pair"),
        ("trl:nca_pair,f_divergence_type=js_divergence", "refuses trl:nca_pair"),
        ("trl:cpo,loss_type=nope", "nope"),
    ],
)
def test_what_trl_refuses_is_one_line(text, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        check(text)
    assert "\n" not in str(error.value)


def test_without_trl_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(ImportError, match=r"trl:sigmoid needs TRL \(.*\): pip install 'gradlab\[trl\]'"):
        check("trl:sigmoid")
