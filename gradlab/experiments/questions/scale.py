"""With more responses, and with longer ones: when does Balanced-DPO become DPO at β/2, and when length weighting?

Its weights are λ_w = log π_l/(log π_w + log π_l), and −log π of a long sequence is about its length times the mean
surprisal of a token: so equally long sequences leave λ near ½, and others near the loser's share of tokens. Sequences
come from chains, whose token log-probabilities add up; responses of one token from the lab's world, with a utility of
one shape. Claims: scale-halved, scale-lengths.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Unit, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows, picked
from gradlab.experiments.questions.scale_runs import HALF, LENGTH, chain_rows, response_rows

SETTINGS: dict[str, Any] = {
    "lengths": [1, 4, 16, 64, 256, 1024],  # mean tokens of a response
    "variations": [0.0, 0.1, 0.5, 1.0],  # coefficients of variation of the lengths; from 4 tokens on
    "length_utilities": [0.0, 1.0],  # of labels: what a length one standard deviation above the mean adds, in nats
    "vocabulary": 8,
    "vocabularies": [2, 32],  # looked at under the reference alone
    "methods": ["dpo", HALF, "bdpo", "bdpo at 2β", LENGTH],
    "responses": [10, 20, 50, 100, 200, 400, 800, 1600, 3200, 10**6],  # of one prompt
    "response_methods": ["dpo", HALF, "bdpo", "bdpo at 2β"],
    "pairs": 500,  # of sequences; of responses there are the exact ones
    "steps": 500,
    "learning_rate": 0.05,
    "first_seed": FIRST_SEED,
    "seeds": 8,  # of sequences
    "response_seeds": 12,
}  # fmt: skip
QUICK: dict[str, Any] = {
    "lengths": [1, 16, 256, 1024], "variations": [0.0, 0.5], "length_utilities": [0.0], "vocabularies": [2],
    "responses": [10, 50, 200, 800], "pairs": 100, "steps": 100, "first_seed": 0, "seeds": 2,
    "response_seeds": 2,
}  # fmt: skip

MARGIN = 0.1  # of the way that the other method goes from the reference: a tenth
NEARER = 0.05  # of that way: a difference of two distances
GAIN = 0.05  # nats of utility
LONG = 256  # tokens: lengths from here on are long
UNEQUAL = 64  # tokens: with unequal lengths, mean lengths from here on
MANY, MOST = 800, 3200  # responses: numbers from here on are large, and the largest of the design
_WAY = Unit("percent of the way there", 100, 1)
_NATS = Unit("nats of utility", 1, 3)
_MEASURES = ["weight_sd", "explained", "corrected", "gain", "kl"]


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per kind of sequences and per number of responses, the slowest first."""
    shared = {key: settings[key] for key in ("first_seed", "steps", "learning_rate")}
    sequences = {**shared, "seeds": settings["seeds"], "pairs": settings["pairs"]}
    small = [one for one in settings["methods"] if one != LENGTH]  # with equal lengths that is DPO at β/2
    kinds = [(length, 0.0, 0.0, settings["vocabulary"], small) for length in settings["lengths"]]
    kinds += [
        (length, variation, utility, settings["vocabulary"], settings["methods"])
        for variation in settings["variations"] if variation > 0
        for utility in settings["length_utilities"]
        for length in settings["lengths"] if length > 1
    ]  # fmt: skip
    kinds += [
        (length, variation, 0.0, words, [])
        for words in settings["vocabularies"]
        for variation in (0.0, 0.5)
        for length in settings["lengths"] if length > 1
    ]  # fmt: skip
    names = ("length", "variation", "length_utility", "vocabulary", "methods")
    return [
        *({"kind": "responses", "settings": {
            "responses": number, "seeds": settings["response_seeds"], "methods": settings["response_methods"], **shared,
        }} for number in reversed(settings["responses"])),
        *({"kind": "sequences", "settings": {**dict(zip(names, kind, strict=True)), **sequences}} for kind in kinds),
    ]  # fmt: skip


def run_part(kind: str, settings: dict[str, Any]) -> pd.DataFrame:
    """Train on sequences of one kind, or on prompts with so many responses; return the measures at the end."""
    rows = (chain_rows if kind == "sequences" else response_rows)(**settings)
    measured = rows.select_dtypes(float).columns.difference(["length", "variation", "length_utility"])
    return rows.astype(dict.fromkeys(measured, "float32"))


def sample(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a few fast parts of each kind."""

    def fast(part: dict[str, Any]) -> bool:
        of = part["settings"]
        return of["responses"] == 50 if part["kind"] == "responses" else (
            (of["length"], of["vocabulary"]) == (16, settings["vocabulary"]) and of["length_utility"] == 0
            and of["variation"] in (0.0, 0.5)
        )  # fmt: skip

    return [part for part in parts(settings) if fast(part)]


_CHAINS = "kind == 'sequences' and vocabulary == {vocabulary}"
_EQUAL = " and variation == 0"
_OTHER = " and variation > 0"


def contrasts(settings: dict[str, Any]) -> list[Contrast]:
    """Return the statements on both claims."""
    chains = _CHAINS.format(**settings)
    equal, unequal = chains + _EQUAL, chains + _OTHER
    return [*_halved(equal, unequal), *_lengths(unequal)]


def _halved(equal: str, unequal: str) -> list[Contrast]:
    common: dict[str, Any] = {"claim": "scale-halved", "unit": _WAY, "margin": MARGIN, "lower_is_better": False}
    to_half = {"method": "bdpo", "baseline": None, "value": "to_half", **common}
    where = f"{equal} and length >= {LONG}"
    return [
        Contrast(
            statement=f"equally long responses of {LONG} tokens or more: how far bDPO ends from DPO at β/2",
            by=("length",), where=where,
            same=f"with equally long responses of {LONG} tokens or more, bDPO ends where DPO at β/2 ends, within "
            "{margin} (the distance is {size})",
            better=f"with equally long responses of {LONG} tokens or more, bDPO ends at a distance of {{size}} from "
            "DPO at β/2",
            **to_half,
        ),
        Contrast(
            claim="scale-halved", unit=_WAY, margin=MARGIN, lower_is_better=True,
            statement="the same distance, of DPO at β: does the measure see a difference of losses?", method="bdpo",
            baseline="dpo", value="to_half", by=("length",), where=where, role="robustness", label="the yardstick",
            better="with equally long responses bDPO ends nearer to DPO at β/2 than DPO at β does, by {size}",
            worse="with equally long responses bDPO ends farther from DPO at β/2 than DPO at β does, by {size}",
        ),
        Contrast(
            statement="at twice the β: how far bDPO at 2β ends from DPO at β", method="bdpo at 2β", baseline=None,
            value="to_full", by=("length",), where=where, role="robustness", label="bDPO at 2β, and DPO at β",
            same="at twice the β too: bDPO at 2β ends where DPO at β ends, within {margin} (the distance is {size})",
            better="at twice the β, bDPO at 2β ends at a distance of {size} from DPO at β", **common,
        ),
        Contrast(
            claim="scale-halved", unit=_NATS, margin=GAIN, statement="what bDPO gains in utility beyond DPO at β/2",
            method="bdpo", baseline=HALF, value="gain", by=("length",), where=where, role="robustness",
            label="utility",
            same="bDPO gains as much utility as DPO at β/2, within {margin} (the difference is {size})",
            better="bDPO gains {size} more than DPO at β/2", worse="bDPO gains {size} less than DPO at β/2",
        ),
        Contrast(
            statement=f"responses of one token, {MANY:,} to {MOST:,} of them: how far bDPO ends from DPO at β/2",
            by=("responses",), where=f"kind == 'responses' and {MANY} <= responses <= {MOST}", role="robustness",
            label="many responses of one token",
            same=f"with {MANY:,} to {MOST:,} responses of one token bDPO ends where DPO at β/2 ends, within {{margin}} "
            "(the distance is {size})",
            better=f"with {MANY:,} to {MOST:,} responses of one token bDPO ends at a distance of {{size}} from DPO "
            "at β/2", **to_half,
        ),
        Contrast(
            statement="equally long responses of 1 to 64 tokens: how far bDPO ends from DPO at β/2", by=("length",),
            where=f"{equal} and length < {LONG}", role="context", label="short responses",
            same="with equally long responses of 1 to 64 tokens bDPO ends where DPO at β/2 ends, within {margin} (the "
            "distance is {size})",
            better="with equally long responses of 1 to 64 tokens bDPO ends at a distance of {size} from DPO at β/2",
            **to_half,
        ),
        Contrast(
            statement=f"responses of unequal lengths, {LONG} tokens or more: how far bDPO ends from DPO at β/2",
            by=("length", "variation", "length_utility"), where=f"{unequal} and length >= {LONG}", role="context",
            label="unequal lengths", same="with unequal lengths bDPO ends where DPO at β/2 ends, within {margin} (the "
            "distance is {size})",
            better="with unequal lengths bDPO ends at a distance of {size} from DPO at β/2", **to_half,
        ),
    ]  # fmt: skip


def _lengths(unequal: str) -> list[Contrast]:
    cells = ("length", "variation", "length_utility")
    common: dict[str, Any] = {"claim": "scale-lengths", "by": cells}
    long = f"{unequal} and length >= {LONG}"
    return [
        Contrast(
            statement=f"unequal lengths, {UNEQUAL} tokens or more on average: is bDPO nearer to length-weighted DPO "
            "than to DPO at β/2?", method="bdpo", baseline=None, value="nearer", margin=NEARER, unit=_WAY,
            where=f"{unequal} and length >= {UNEQUAL}",
            better=f"with unequal lengths of {UNEQUAL} tokens or more bDPO ends nearer to length-weighted DPO than to "
            "DPO at β/2, by {size}",
            worse=f"with unequal lengths of {UNEQUAL} tokens or more bDPO ends farther from length-weighted DPO than "
            "from DPO at β/2, by {size}", **common,
        ),
        Contrast(
            statement=f"unequal lengths, {LONG} tokens or more on average: how far bDPO ends from length-weighted DPO",
            method="bdpo", baseline=None, value="to_length", margin=MARGIN, unit=_WAY, where=long, role="robustness",
            label="the distance itself",
            same=f"with unequal lengths of {LONG} tokens or more bDPO ends where length-weighted DPO ends, within "
            "{margin} (the distance is {size})",
            better=f"with unequal lengths of {LONG} tokens or more bDPO ends at a distance of {{size}} from "
            "length-weighted DPO",
            **common,
        ),
        Contrast(
            statement="the same distance, of DPO at β/2: do the lengths change anything?", method="bdpo", baseline=HALF,
            value="to_length", margin=MARGIN, unit=_WAY, where=long, role="robustness", label="the yardstick",
            lower_is_better=True,
            better="bDPO ends nearer to length-weighted DPO than DPO at β/2 does, by {size}",
            worse="bDPO ends farther from length-weighted DPO than DPO at β/2 does, by {size}", **common,
        ),
        Contrast(
            statement="what bDPO gains in utility beyond length-weighted DPO", method="bdpo", baseline=LENGTH,
            value="gain", margin=GAIN, unit=_NATS, where=long, role="robustness", label="utility: what is not length",
            same="beyond length-weighted DPO bDPO gains nothing, within {margin} (the difference is {size})",
            better="bDPO gains {size} more than length-weighted DPO",
            worse="bDPO gains {size} less than length-weighted DPO", **common,
        ),
        Contrast(
            statement="how much of λ_w's variance the loser's share of tokens explains, under the reference",
            method="reference", baseline=None, value="explained", margin=0.01,
            where=f"{unequal} and length >= {UNEQUAL}",
            unit=Unit("percent of λ_w's variance", 100, 1), role="context", label="R² on the share of tokens",
            better="under the reference the loser's share of tokens explains {size}", **common,
        ),
    ]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers on both claims.

    A distance ``to_half`` is √(KL(h‖π)/KL(h‖π_ref)), where h is the policy of DPO at β/2 at the end of its training on
    the same pairs: a share of the way that it goes from the reference. ``to_full`` is the same with DPO at β,
    ``to_length`` with length-weighted DPO. ``nearer`` is to_half − to_length. ``gain`` is E_π[u] − E_ref[u].
    """
    keys = ["kind", "length", "variation", "length_utility", "vocabulary", "responses", "method", "seed"]
    check_rows(frame, keys, _MEASURES, {"responses": [0, *settings["responses"]]})
    rows = frame.assign(nearer=frame["to_half"] - frame["to_length"])
    kinds = {"length": settings["lengths"], "method": ["reference", *settings["methods"]]}
    check_rows(picked(rows, _CHAINS.format(**settings) + _OTHER), keys, _MEASURES,
               {**kinds, "length": settings["lengths"][1:]})  # fmt: skip
    return judged(rows, contrasts(settings))


CAPTIONS = {
    "scale-halved": (
        "When does Balanced-DPO become DPO at β/2? Left: how far bDPO ends from DPO at β/2, as a share of the way that "
        "this goes from the reference, over the length of responses, all equally long; with DPO at β, which is another "
        "loss, as a yardstick, and the margin as a dashed line. Middle: the same for responses of one token, over "
        "their number. Right: how far bDPO's weights spread about ½. Points are means over seeds, with 95% bands (t); "
        "dashed is the law s/(2√2·a·√L), a and s being mean and long-run standard deviation of a token's surprisal."
    ),
    "scale-lengths": (
        "When does Balanced-DPO become length weighting? Left: how much of the variance of λ_w the loser's share of "
        "tokens explains under the reference, over the mean length, by the coefficient of variation of the lengths; "
        "dashed is the law c²/(c² + s²/(a²L)). Right: how far bDPO ends from length-weighted DPO (solid) and from DPO "
        "at β/2 (dashed), labels that do not depend on length; the margin is the dotted line. Points are means over "
        "seeds, with 95% bands (t)."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw when bDPO becomes DPO at β/2, and when length weighting."""
    chains = frame[(frame["kind"] == "responses") | (frame["vocabulary"] == SETTINGS["vocabulary"])]
    return {
        "scale-halved": plotting.halved(chains, MARGIN),
        "scale-lengths": plotting.by_lengths(chains, MARGIN),
    }


EXPERIMENT = Experiment(
    name="scale",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
    version=1,
    sample=sample,
)
