"""The three foundations: their closed forms against samples and against the library, and their stories."""

import numpy as np
import pytest
from scipy.special import expit

from gradlab.widgets import CreditExplorer, OfflineExplorer, SigmoidExplorer
from gradlab.widgets.credit_explorer import gradient_moments
from gradlab.widgets.offline_explorer import bell, effective_share
from gradlab.widgets.sigmoid_explorer import expected_loss

SETTINGS = [(kind, title) for kind in (SigmoidExplorer, CreditExplorer, OfflineExplorer)
            for title in ("", *(story.title for story in kind.stories))]  # fmt: skip


@pytest.mark.parametrize(("kind", "title"), SETTINGS)
def test_the_copied_python_computes_what_is_shown(kind, title, capsys):
    explorer = kind()
    if title:
        explorer.tell(title)
    exec(explorer.as_python(), {})
    printed = capsys.readouterr().out.replace("{'whole': ", "").replace("'own': ", "").strip("{}\n")
    numbers = [float(number) for number in printed.replace(",", " ").split()]
    shown = list(explorer.numbers.values())[-len(numbers) :]
    assert numbers == pytest.approx(shown, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_moments(1.0, 5, "none"), r"right must be finite and lie in \(0, 1\), got 1.0"),
        (lambda: gradient_moments(0.5, [3, 0], "none"), "length must be at least 1, got 0"),
        (lambda: gradient_moments(0.5, 5, "runs"), "baseline must be one of none, mean; got 'runs'"),
        (lambda: bell(3.0, 0.0), "width must be finite and > 0, got 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


@pytest.mark.parametrize("gap", [-3.0, 0.0, 0.7, 2.2])
def test_the_expected_loss_is_least_at_the_gap(gap):
    margins = np.linspace(-8, 8, 16001)
    assert margins[expected_loss(gap, margins).argmin()] == pytest.approx(gap, abs=1e-3)
    slope = (expected_loss(gap, 1 + 1e-6) - expected_loss(gap, 1 - 1e-6)) / 2e-6
    assert -slope == pytest.approx(expit(gap) - expit(1), abs=1e-8)


def test_nine_of_ten_and_a_pair_at_rest():
    explorer = SigmoidExplorer()
    explorer.tell("Nine out of ten")
    assert explorer.numbers["P(w ≻ l)"] == pytest.approx(0.9, abs=0.001)
    explorer.tell("A pair at rest")
    assert explorer.numbers["pull on m"] == 0
    explorer.tell("Never contradicted")
    assert (np.diff(explorer.result.loss) < 1e-4).all()  # falls all the way, but for the last bit


@pytest.mark.parametrize("baseline", ["none", "mean"])
@pytest.mark.parametrize(("right", "length"), [(0.5, 1), (0.3, 4), (0.9, 12)])
def test_the_moments_of_the_gradient_are_those_of_samples(right, length, baseline):
    rng = np.random.default_rng(3)
    tokens = rng.random((400_000, length)) < right
    score = tokens[:, 0] - right
    rewards = {"whole": tokens.sum(1), "own": tokens[:, 0]}
    means = {"whole": length * right, "own": right}
    for scheme, (mean, variance) in gradient_moments(right, length, baseline).items():
        sampled = score * (rewards[scheme] - (means[scheme] if baseline == "mean" else 0))
        assert mean == pytest.approx(right * (1 - right))
        assert sampled.mean() == pytest.approx(mean, abs=5 * sampled.std() / 600)
        assert sampled.var() == pytest.approx(variance, rel=0.03, abs=1e-12)


def test_samples_needed_grow_as_the_takeaway_says():
    def needed(length, baseline, scheme):
        mean, variance = gradient_moments(0.5, length, baseline)[scheme]
        return variance / mean**2

    assert needed(1000, "none", "whole") / needed(100, "none", "whole") == pytest.approx(100, rel=0.05)
    assert needed(1000, "mean", "whole") / needed(100, "mean", "whole") == pytest.approx(10, rel=0.05)
    assert needed(1000, "none", "own") == needed(100, "none", "own")


def test_the_effective_share_is_that_of_weighted_samples():
    data, policy = bell(7, 3), bell(9, 2)
    assert effective_share(data, data) == pytest.approx(1)
    rng = np.random.default_rng(0)
    drawn = rng.choice(20, size=400_000, p=np.exp(data))
    weights = np.exp(policy - data)[drawn]
    assert weights.sum() ** 2 / (weights**2).sum() / len(drawn) == pytest.approx(
        effective_share(policy, data), rel=0.02
    )


def test_the_stories_of_the_offline_foundation_are_true():
    explorer = OfflineExplorer()
    explorer.tell("Three widths away")
    near = explorer.numbers["worth samples"]
    assert round(near) == 2
    explorer.tell("Wide data")
    assert 700 < explorer.numbers["worth samples"] / near < 1000
    explorer.tell("A sharper policy")
    assert explorer.numbers["share left"] == pytest.approx(2 / 3, abs=0.02)
