"""How imbalanced will a run be? Log-probabilities, λ and lengths of its pairs under the model that it starts from."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import count, one_of
from gradlab.llm import models
from gradlab.llm.data import prepare
from gradlab.llm.logps import with_logps
from gradlab.llm.measures import slopes
from gradlab.llm.pairs import Report
from gradlab.llm.processes import Processes
from gradlab.llm.reference import score
from gradlab.llm.settings import RECIPES
from gradlab.llm.tokens import Encoded, check_positions, check_vocabulary
from gradlab.losses import (
    PAIR_LOSSES,
    NaiveBalancedDPO,
    PairLogps,
    PairLoss,
    balanced_weights,
    hyper_parameters,
    log_prob_ratio,
    pair_loss,
)
from gradlab.ratings import wilson_interval

CLIP = RECIPES["paper"]["clip"]
FOLLOWS, PARTLY = 0.8, 0.3  # R² from which λ is said to follow length, or to follow it in part. Ours.
LITTLE = 0.1  # a smaller share of DPO's imbalance taken away is little. Ours.
TWO_VALUED = 0.8  # share of pairs at the ends of λ's range from which it is said to take two values. Ours.
_STREAM = 6_102  # of the draw of pairs
_PAIRS_TO_CORRELATE = 3  # two always lie on a line
_WIDTH = 100

_MEASURES = {
    "win": "log π_w",
    "lose": "log π_l",
    "win_per_token": "log π_w per token",
    "lose_per_token": "log π_l per token",
    "win_len": "tokens of the winner",
    "lose_len": "tokens of the loser",
    "lose_length_share": "loser's share of the tokens",
    "log_ratio": "log π_l/π_w, DPO's imbalance",
    "imbalance": "its size, |log π_l/π_w|",
    "magnitude": "its size in orders of magnitude",
    "win_weight": "λ_w of bDPO",
    "win_weight_mean": "λ_w of bDPO, --reduction mean",
    "weight_ratio": "log λ_w/λ_l, which bDPO adds",
}
_OF_LOSSES = ("weight_", "log_prob_ratio_", "corrected_")  # what the names of columns begin with
_Rows = Mapping[str, Mapping[str, float]]  # of a table: by name of row, then of column
_COLUMNS = {"q10": "10%", "q50": "50%", "q90": "90%", "mean": "mean"}


@dataclass(frozen=True)
class Inspection:
    """Pairs under a model, and where they come from.

    frame     a row a pair, see ``inspect_pairs``, with ``place``, where it was read.
    read      what became of all pairs of the data.
    settings  model, data, and whatever else decides the numbers: a manifest.
    """

    frame: pd.DataFrame
    read: Report
    settings: dict[str, Any]

    def __str__(self) -> str:
        own = self.settings
        drawn = f", drawn by seed {own['seed']}" if len(self.frame) < self.read.kept else ""
        number = f"{len(self.frame):,} of {self.read.kept:,} pairs{drawn}"
        title = f"{own['model']} on {own['data']}: {number}; nats, {own['precision']} on {own['device']}"
        return report(self.frame, self.read, title=title, clip=own["clip"])


def inspect_data(
    model: str, data: str, *, choice: str | None = None, split: str = "train", template: str = "plain",
    max_length: int = 512, max_prompt: int | None = None, pairs: int = 500, seed: int = 0,
    precision: Literal["auto", "fp32", "bf16"] = "auto", batch: int = 8, clip: float = CLIP, title: str = "",
) -> Inspection:  # fmt: skip
    """Look at the pairs of a data set under a model, as a run of ``scripts/llm_train.py`` would start with them.

    model       folder or hub name of a causal language model, or of a LoRA adapter.
    data        as for ``read_pairs``, with ``choice`` and ``split``.
    template, max_length, max_prompt  as for ``encode_pairs``.
    pairs       how many are scored, drawn by the seed from those that are kept; 0: all.
    precision   "auto": bfloat16 on a GPU, float32 on a CPU.
    batch       pairs scored at a time; the numbers depend on it by rounding only.
    clip        of the naive variants. title: of the progress bar, which is absent without.

    One line as ValueError, OSError or FloatingPointError where something is wrong; MemoryError for lack of memory.
    """
    count("batch", batch, 1)
    number, seed = count("pairs", pairs), count("seed", seed)
    one_of("precision", precision, ("auto", "fp32", "bf16"))
    _losses(clip)  # refuses a bad clip before the work
    tokenizer = models.load_tokenizer(model)
    asked = {
        "data": str(data), "choice": choice, "split": split, "template": template, "max_length": max_length,
        "max_prompt": max_prompt, "seed": seed,
    }  # fmt: skip
    prepared = prepare({**asked, "validation": None, "held_out": 0}, tokenizer)
    chosen = prepared.train
    if 0 < number < len(chosen):
        chosen = np.sort(np.random.default_rng([_STREAM, seed]).permutation(chosen)[:number])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind: Any = precision if precision != "auto" else "bf16" if device.type == "cuda" else "fp32"
    try:
        half = kind == "bf16" and device.type == "cuda"
        loaded = models.load_model(model, dtype=torch.bfloat16 if half else torch.float32).to(device)
        frame = inspect_pairs(
            loaded, tokenizer, prepared.part(chosen), batch=batch, precision=kind, clip=clip, title=title
        )
    except torch.OutOfMemoryError:
        raise MemoryError("the device has too little memory for this model; lower batch or max_length") from None
    frame.insert(0, "place", [prepared.pairs[index].place for index in chosen])
    settings = {
        "model": str(model), "weights": models.weights_hash(model), **asked, "data_fingerprint": prepared.fingerprint,
        "pairs": number, "precision": kind, "device": device.type, "batch": batch, "clip": clip,
        "read": str(prepared.report),
    }  # fmt: skip
    return Inspection(frame, prepared.report, settings)


def inspect_pairs(
    model: Any, tokenizer: Any, encoded: Sequence[Encoded], *, batch: int = 8,
    precision: Literal["fp32", "bf16"] = "fp32", clip: float = CLIP, title: str = "",
) -> pd.DataFrame:  # fmt: skip
    """A row a pair: lengths and log-probabilities under the model, and what ``measured`` makes of them.

    model     of ``load_model``, on its device; it learns ``with_logps``, and is otherwise left as it was.
    batch, precision, clip, title  as for ``inspect_data``.

    Columns: ``prompt_len``, ``win_len``, ``lose_len`` (tokens), ``cut`` (whether a response lost its end to the limit),
    ``win``, ``lose`` (log π, nats), and those of ``measured``. ValueError for no pairs, ids that the model has no
    embedding for, and pairs longer than its positions; FloatingPointError where log π is not finite.
    """
    if not encoded:
        raise ValueError("encoded must hold one pair or more, got none")
    rows = [(pair.prompt, side) for pair in encoded for side in (pair.win, pair.lose)]
    check_vocabulary(tokenizer, model.config)
    check_positions(model.config, max(len(prompt) + len(side) for prompt, side in rows))
    own, training = Processes(device=model.device), model.training
    scorer = with_logps(model.eval())

    def forward(**inputs: Tensor) -> Tensor:
        with torch.autocast(own.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return scorer(**inputs)

    try:
        logps = score(forward, rows, own, pad=tokenizer.pad_token_id, micro=2 * batch, title=title).view(-1, 2)
    finally:
        model.train(training)
    strange = int((~logps.isfinite()).any(1).sum())
    if strange:
        raise FloatingPointError(
            f"log π is not finite for {strange} of {len(encoded)} pairs: the model's weights are broken, "
            f"or too large for {precision}"
        )
    end = tokenizer.eos_token_id
    frame = pd.DataFrame({
        "prompt_len": [len(pair.prompt) for pair in encoded],
        "win_len": [len(pair.win) for pair in encoded], "lose_len": [len(pair.lose) for pair in encoded],
        "cut": [pair.win[-1] != end or pair.lose[-1] != end for pair in encoded],
        "win": logps[:, 0].numpy(), "lose": logps[:, 1].numpy(),
    })  # fmt: skip
    return measured(frame, clip=clip)


def measured(frame: pd.DataFrame, *, clip: float = CLIP) -> pd.DataFrame:
    """The frame with what follows from its columns ``win``, ``lose`` (nats, ≤ 0), ``win_len`` and ``lose_len``.

    Policy and reference are one, h = 0, and each registered loss has its default hyper-parameters, ``clip`` aside.

    - ``win_per_token``, ``lose_per_token``: log π over the tokens; ``lose_length_share``: L_l/(L_w + L_l);
    - ``log_ratio``: log π_l/π_w, which is DPO's log(|∂L/∂π_w| / |∂L/∂π_l|); ``imbalance``: its size;
      ``magnitude``: the same over ln 10;
    - ``win_weight``: λ_w of bDPO, ``win_weight_mean``: the same from ``…_per_token``; ``weight_ratio``: log λ_w/λ_l;
    - ``weight_NAME``, ``floor_NAME``, ``ceiling_NAME`` of each naive variant: its λ, and whether the clip holds it;
    - ``log_prob_ratio_NAME`` of each loss; ``corrected_NAME``: how much of DPO's imbalance it takes away: 1 all,
      0 nothing, negative where it adds to it; NaN where there is none.

    Source: ours.
    """
    win, lose, win_len, lose_len = (
        torch.tensor(frame[name].to_numpy(float)) for name in ("win", "lose", "win_len", "lose_len")
    )
    logps = PairLogps(win, lose, win, lose, win_len, lose_len)
    ratio = lose - win
    weights = balanced_weights(win, lose)
    columns = {
        "win_per_token": win / win_len, "lose_per_token": lose / lose_len,
        "lose_length_share": lose_len / (win_len + lose_len), "log_ratio": ratio, "imbalance": ratio.abs(),
        "magnitude": ratio.abs() / math.log(10), "win_weight": weights[0],
        "win_weight_mean": balanced_weights(win / win_len, lose / lose_len)[0],
        "weight_ratio": weights[0].log() - weights[1].log(),
    }  # fmt: skip
    for name, loss in _losses(clip).items():
        if isinstance(loss, NaiveBalancedDPO):
            steep, other = slopes(loss.margin, logps)
            weight, (floor, ceiling) = -steep / other, _ends(loss)
            columns |= {
                f"weight_{name}": weight, f"floor_{name}": weight <= floor + 1e-9,
                f"ceiling_{name}": weight >= ceiling - 1e-9,
            }  # fmt: skip
        own = log_prob_ratio(loss, logps)
        columns[f"log_prob_ratio_{name}"] = own
        columns[f"corrected_{name}"] = torch.where(ratio != 0, 1 - own.abs() / ratio.abs(), math.nan)
    return frame.assign(**{name: values.numpy() for name, values in columns.items()})


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Quantiles and mean over the pairs: a row a measure of a frame of ``measured``, its column's name as the index.

    Columns: ``q10``, ``q50``, ``q90``, ``mean``, and ``pairs``, those that have it.
    """
    names = [name for name in frame.columns if name in _MEASURES or name.startswith(_OF_LOSSES)]
    rows = [_quantiles(frame[name].dropna().to_numpy(float)) for name in names]
    return pd.DataFrame(rows, columns=[*_COLUMNS, "pairs"], index=pd.Index(names, name="measure"))


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Shares of the pairs of a frame of ``measured``, with 95% Wilson intervals: ``share``, ``low``, ``high``.

    By index: ``loser_steeper`` (π_w > π_l: DPO's gradient is the larger one on the loser's probability);
    ``floor_NAME``, ``ceiling_NAME`` (see ``measured``); and how often a rule that has learned nothing prefers the
    winner, ties ½: ``shorter``, ``more_probable``, ``more_probable_per_token``.
    """
    rules = {
        "shorter": frame["lose_len"] - frame["win_len"],
        "more_probable": frame["win"] - frame["lose"],
        "more_probable_per_token": frame["win_per_token"] - frame["lose_per_token"],
    }
    found = {"loser_steeper": (frame["win"] > frame["lose"]).mean()}
    ends = [name for name in frame.columns if name.startswith(("floor_", "ceiling_"))]
    found |= {name: frame[name].mean() for name in ends}
    found |= {name: ((value > 0) + 0.5 * (value == 0)).mean() for name, value in rules.items()}
    rows = {name: (float(share), *wilson_interval(float(share), len(frame))) for name, share in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["share", "low", "high"])


def length_correlation(frame: pd.DataFrame, weight: str = "win_weight") -> float:
    """Correlation of λ_w with the loser's share of the tokens; with the winner's it is the opposite.

    NaN with fewer than three pairs, and where one of the two does not vary.
    """
    both = frame[[weight, "lose_length_share"]].to_numpy(float)
    if len(both) < _PAIRS_TO_CORRELATE or (both.std(0) < 1e-9).any():
        return math.nan
    return float(np.corrcoef(both.T)[0, 1])


def report(frame: pd.DataFrame, read: Report | None = None, *, title: str = "", clip: float = CLIP) -> str:
    """A frame of ``measured`` as text for a terminal: numbers, then what they mean for a run.

    read  what became of the data. clip: the one that the frame was made with.
    """
    numbers: _Rows = summary(frame).to_dict("index")  # type: ignore[assignment]
    losses = _named(frame, "log_prob_ratio_")
    taken = {name: _percent(numbers[f"corrected_{name}"]["q50"]) for name in losses}
    naive = {f"weight_{name}": f"λ of {name}, clip {clip:g}" for name in _named(frame, "floor_")}
    ratios = {f"log_prob_ratio_{name}": name for name in losses}
    blocks = [
        _wrapped(title) + _wrapped(str(read) if read is not None else ""),
        _table("over pairs", numbers, {**_MEASURES, **naive}),
        [
            *_table("log(|∂L/∂π_w| / |∂L/∂π_l|), h = 0", numbers, ratios, corrected=list(taken.values())),
            "corrected: the share of DPO's imbalance that a loss takes away, in the median pair",
        ],
        _told(frame),
        [line for sentence in sentences(frame, read) for line in _wrapped(sentence, "- ")],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(head: str, numbers: _Rows, rows: Mapping[str, str], **more: Sequence[str]) -> list[str]:
    """Lines of some rows of ``summary``, with columns of words after them."""
    texts = [[*_COLUMNS.values(), *more]]
    for place, name in enumerate(rows):
        digits = 3 if name.startswith(("win_weight", "weight_", "lose_length")) and name != "weight_ratio" else 2
        texts.append([_number(numbers[name][column], digits) for column in _COLUMNS])
        texts[-1] += [words[place] for words in more.values()]
    width = max(map(len, (head, *_MEASURES.values()))) + 1
    cells = ["".join(f"{text:>11}" for text in own) for own in texts]
    return [f"{title:<{width}}{own}" for title, own in zip((head, *rows.values()), cells, strict=True)]


def _told(frame: pd.DataFrame) -> list[str]:
    """Lines of ``shares``, and the correlation."""
    titles = {"loser_steeper": "π_w > π_l: DPO's larger gradient is on the loser's probability"}
    for name in _named(frame, "floor_"):
        titles |= {f"floor_{name}": f"λ of {name} at its floor", f"ceiling_{name}": f"λ of {name} at its ceiling"}
    titles |= {
        "shorter": "preferring the shorter answer is right in",
        "more_probable": "preferring the more probable answer is right in",
        "more_probable_per_token": "preferring the more probable per token is right in",
    }
    width = max(map(len, titles.values())) + 2
    parts: _Rows = shares(frame).to_dict("index")  # type: ignore[assignment]
    lines = [f"{text:<{width}}{parts[name]['share']:6.1%}  {_interval(parts[name])}" for name, text in titles.items()]
    with_loser = length_correlation(frame)
    if not math.isnan(with_loser):
        lines.append(
            f"λ_w of bDPO correlates with the loser's share of the tokens by {with_loser:+.3f}, with the winner's by "
            f"{-with_loser:+.3f}; R² = {with_loser**2:.3f}"
        )
    return lines


def _named(frame: pd.DataFrame, prefix: str) -> list[str]:
    """The losses that have a column of this prefix."""
    return [name.removeprefix(prefix) for name in frame.columns if name.startswith(prefix)]


def sentences(frame: pd.DataFrame, read: Report | None = None) -> list[str]:
    """What the numbers of a frame of ``measured`` mean for a run, in a few plain sentences."""
    numbers: _Rows = summary(frame).to_dict("index")  # type: ignore[assignment]
    parts: _Rows = shares(frame).to_dict("index")  # type: ignore[assignment]
    found = [
        _about_dpo(numbers["imbalance"]["q50"], parts["loser_steeper"]["share"]),
        _about_bdpo(frame, numbers["corrected_bdpo"]["q50"]), _about_lengths(frame), _about_the_clip(frame, parts),
        _about_the_baseline(parts["shorter"]),
    ]  # fmt: skip
    cut, number = int(frame["cut"].sum()) if "cut" in frame else 0, len(frame)
    if read is not None:
        cut, number = read.notes.get("response cut", 0), read.kept
    if cut:
        found.append(
            f"{cut:,} of {number:,} pairs ({cut / number:.1%}) have a response cut at the limit: their lengths and "
            "log π are those of what is left, which makes the two sides more alike than they are; a larger "
            "--max-length keeps more."
        )
    return [one for one in found if one]


def _about_dpo(size: float, loser: float) -> str:
    if size == 0:
        return "DPO: in the median pair both responses are equally probable, and so both gradients are equal."
    return (
        f"DPO: in the median pair its gradients on the two probabilities differ by a factor of e^{size:.1f} = "
        f"10^{size / math.log(10):.1f}, though its slopes in log π are equal; the loser's is the larger one in "
        f"{loser:.0%} of the pairs."
    )


def _about_bdpo(frame: pd.DataFrame, taken: float) -> str:
    if math.isnan(taken):
        return ""
    typical = float(np.median(frame[["win", "lose"]].to_numpy(float)))
    if taken < 0:
        return (
            f"bDPO goes beyond balance, as log-probabilities are so near 0 (median {typical:.2g}); it adds imbalance."
        )
    factor = math.exp(min(frame["weight_ratio"].abs().median(), 700.0))  # λ_l may be all but 0
    said = f"its two weights differ by a factor of {factor:.3g} in the median pair"
    if taken < LITTLE:
        return (
            f"Log-probabilities are so low (median {typical:.4g}) that bDPO takes away {_percent(taken)} of that, "
            f"about 1/|log π|: {said}."
        )
    return f"bDPO takes away {_percent(taken)} of that in the median pair, about 1/|log π|: {said}."


def _about_lengths(frame: pd.DataFrame) -> str:
    explained = length_correlation(frame) ** 2
    low, high = frame["win_weight"].quantile([0.1, 0.9])
    spread = f"λ_w of the middle 80% of pairs is {low:.2f} to {high:.2f}"
    if math.isnan(explained):
        return (
            "Whether λ_w follows length cannot be told, as that needs three pairs, and lengths and λ_w that vary; "
            f"{spread}."
        )
    by_token = frame["win_weight_mean"].quantile([0.1, 0.9])
    if explained >= FOLLOWS:
        return (
            f"λ_w follows length: R² = {explained:.2f} with the loser's share of the tokens, so it is mostly that "
            f"share; {spread}, and would be {by_token[0.1]:.3f} to {by_token[0.9]:.3f} with --reduction mean."
        )
    how = "in part" if explained >= PARTLY else "hardly"
    return f"λ_w follows length {how}: R² = {explained:.2f} with the loser's share of the tokens; {spread}."


def _about_the_clip(frame: pd.DataFrame, parts: _Rows) -> str:
    names = _named(frame, "floor_")
    held = {name: parts[f"floor_{name}"]["share"] + parts[f"ceiling_{name}"]["share"] for name in names}
    told = ", ".join(f"{name} {share:.0%}" for name, share in held.items() if share >= TWO_VALUED)
    return told and (
        f"The clip holds λ of the naive variants at an end of its range ({told} of the pairs): λ tells which response "
        "is more probable, and not by how much."
    )


def _about_the_baseline(shorter: Mapping[str, float]) -> str:
    right = f"“Prefer the shorter answer” is right in {shorter['share']:.1%} {_interval(shorter)}"
    if shorter["low"] <= 0.5 <= shorter["high"]:
        return f"{right}: length alone gives no accuracy that differs from chance."
    which = "shorter" if shorter["low"] > 0.5 else "longer"
    best = max(shorter["share"], 1 - shorter["share"])
    return f"{right}: an accuracy up to {best:.1%} is no more than preferring the {which} answer gives."


def _interval(row: Mapping[str, float]) -> str:
    return f"[{row['low']:.1%}, {row['high']:.1%}]"


def _quantiles(values: np.ndarray) -> list[float]:
    """Quantiles, mean and number."""
    if not len(values):
        return [math.nan] * len(_COLUMNS) + [0]
    # A loss that leaves one side alone has an infinite ratio, and between infinities nothing can be interpolated.
    method = "linear" if np.isfinite(values).all() else "nearest"
    with np.errstate(invalid="ignore"):
        return [*np.quantile(values, [0.1, 0.5, 0.9], method=method), values.mean(), len(values)]


def _losses(clip: float) -> Mapping[str, PairLoss]:
    owners = hyper_parameters()["clip"].defaults
    return {name: pair_loss(name, **({"clip": clip} if name in owners else {})) for name in PAIR_LOSSES}


def _ends(loss: NaiveBalancedDPO) -> tuple[float, float]:
    """The least and the largest λ that the clip allows."""
    return 1 / (1 + loss.clip) if loss.symmetric else 1.0, 1 + loss.clip


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.3g}"


def _percent(value: float) -> str:
    """A share, with two digits that count."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value}"
    return f"{value:.0%}" if abs(value) >= 0.095 or value == 0 else f"{100 * value:.2g}%"


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
