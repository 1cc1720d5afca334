"""How imbalanced will a run be? Log-probabilities, λ and lengths of its pairs under the model that it starts from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import count, one_of, positive
from gradlab.console import out_of_memory
from gradlab.llm.data.batches import pair_rows
from gradlab.llm.data.hold_out import repeats
from gradlab.llm.data.pairs import Report
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.template_dates import TemplateDate, check_date, fix_date, today
from gradlab.llm.data.tokens import Encoded, check_positions, check_vocabulary
from gradlab.llm.data.turn_ends import turn_ends
from gradlab.llm.look.imbalance import CLIP, chosen_losses, measured
from gradlab.llm.look.imbalance_words import report
from gradlab.llm.look.side_gradients import score_gradients
from gradlab.llm.model import loading
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.group import AskedPrecision, Group, Precision, computing, precision_on
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.origins import origin, origin_note
from gradlab.llm.train.reference import check_finite, score
from gradlab.streams import Purpose, stream


@dataclass(frozen=True)
class Inspection:
    """The pairs of a data set under a model.

    frame     one row per pair, see ``inspect_pairs``, with ``place``, where the pair was read, and ``twice``, whether
              the data hold it twice or more, token for token.
    read      the report on reading all pairs of the data.
    notes     on these pairs: how many prompts they have and how many are repeated, and the date of a chat template.
    settings  model, data, and whatever else decides the numbers: a manifest.
    """

    frame: pd.DataFrame
    read: Report
    notes: tuple[str, ...]
    settings: dict[str, Any]

    def __str__(self) -> str:
        settings = self.settings
        drawn = f", drawn by seed {settings['seed']}" if len(self.frame) < self.read.kept else ""
        number = f"{len(self.frame):,} of {self.read.kept:,} pairs{drawn}"
        how = f"nats, {settings['precision']} on {settings['device']}"
        title = f"{settings['model']} on {settings['data']}: {number}; {how}"
        return report(self.frame, self.read, title=title, clip=settings["clip"], notes=self.notes)


def inspect_data(
    model: str, data: str, *, choice: str | None = None, split: str = "train", template: str = "plain",
    template_date: str | None = None, max_length: int = 512, max_prompt: int | None = None, pairs: int = 500,
    seed: int = 0, precision: AskedPrecision = "auto", batch: int = 8, clip: float = CLIP,
    gradients: int = 0, losses: Sequence[str] = (), title: str = "",
) -> Inspection:  # fmt: skip
    """Look at the pairs of a data set under a model, as a run of ``gradlab train`` would start with them.

    model       folder or hub name of a causal language model or LoRA adapter; or a GGUF file, see ``whole_model``.
    data        as for ``read_pairs``, with ``choice`` and ``split``.
    template, max_length, max_prompt  as for ``encode_pairs``.
    template_date  the date that a chat template writes as today's, YYYY-MM-DD; left out: today.
    pairs       how many are scored, drawn by the seed from those that are kept; 0: all.
    precision   "auto": bfloat16 on a GPU, float32 on a CPU.
    batch       pairs scored at a time; the numbers depend on it by rounding only.
    clip        the clip of the naive variants.
    gradients   of how many of these pairs the gradients in the model's parameters are taken, see ``score_gradients``.
    losses      losses beside the paper's, see ``chosen_losses``.
    title       the progress bar's title; left out: no bar.

    Raises ValueError, OSError or FloatingPointError with one line; MemoryError for lack of memory.
    """
    count("batch", batch, 1)
    number, seed = count("pairs", pairs), count("seed", seed)
    count("gradients", gradients)
    one_of("precision", precision, get_args(AskedPrecision))
    positive("clip", clip)
    chosen_losses(losses, clip)  # now, and not after the model has been asked
    check_date("template_date", template_date)
    model = whole_model(model)
    tokenizer = loading.load_tokenizer(model)
    date = TemplateDate(template_date, today())
    fix_date(tokenizer, date)
    written = date.written_by(tokenizer) if template == "chat" else None
    asked = {
        "data": str(data), "choice": choice, "split": split, "template": template, "template_date": written,
        "max_length": max_length, "max_prompt": max_prompt, "seed": seed,
    }  # fmt: skip
    prepared = prepare({**asked, "validation": None, "held_out": 0, "hold_out": "pairs"}, tokenizer)
    chosen = prepared.train
    if 0 < number < len(chosen):
        chosen = np.sort(stream(seed, Purpose.INSPECTED).permutation(chosen)[:number])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = precision_on(device, precision)
    with _in_memory_of(device):
        half = kind == "bf16" and device.type == "cuda"
        loaded = loading.load_model(model, dtype=torch.bfloat16 if half else torch.float32).to(device)
        frame = inspect_pairs(
            loaded,
            tokenizer,
            prepared.part(chosen),
            batch=batch,
            precision=kind,
            clip=clip,
            gradients=gradients,
            losses=losses,
            title=title,
        )
    frame["twice"] = prepared.encoded.repeated()[chosen]
    places = prepared.places
    frame.insert(0, "place", [places[index] for index in chosen])
    settings = {
        "model": str(model), "weights": loading.weights_hash(model), **asked, "data_fingerprint": prepared.fingerprint,
        "pairs": number, "precision": kind, "device": device.type, "batch": batch, "clip": clip, "gradients": gradients,
        "losses": list(losses), "read": str(prepared.report),
    }  # fmt: skip
    made = origin_note(model)
    if made:
        settings["model_weights"] = origin(model)
    notes = [*([made] if made else []), repeats(prepared.keys)]
    if written is not None:
        notes.append(f"the chat template writes a date: {written}, see --template-date")
    return Inspection(frame, prepared.report, tuple(notes), settings)


@contextlib.contextmanager
def _in_memory_of(device: torch.device) -> Iterator[None]:
    """Raise MemoryError, which names the options that need less, where the memory of the device is full inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"the memory of the {device.type} is too small for this model; lower batch or max_length, or take "
            "precision bf16"
        ) from None


def inspect_pairs(
    model: Any, tokenizer: Any, encoded: Sequence[Encoded], *, batch: int = 8,
    precision: Precision = "fp32", clip: float = CLIP, gradients: int = 0,
    losses: Sequence[str] = (), title: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Return one row per pair: lengths and log-probabilities under the model, and the columns of ``measured``.

    model     a model from ``load_model``, on its device; ``with_logps`` is applied to it, and nothing else changes.
    batch, precision, clip, gradients, losses, title  as for ``inspect_data``.

    Columns: ``prompt_len``, ``win_len``, ``lose_len`` (tokens), ``win_ends``, ``lose_ends`` (whether the response ends
    with the end of a turn), ``cut`` (whether one of them lost its end to the limit),
    ``win``, ``lose`` (log π, nats), and those of ``measured``. ValueError for no pairs, ids that the model has no
    embedding for, and pairs longer than its positions; FloatingPointError where log π is not finite.
    """
    if not encoded:
        raise ValueError("encoded must hold one pair or more, got none")
    rows = pair_rows(encoded)
    check_vocabulary(tokenizer, model.config)
    check_positions(model.config, max(len(prompt) + max(map(len, sides)) for prompt, *sides in rows))
    group, training = Group(device=model.device), model.training
    scorer = with_logps(model.eval())

    def forward(**inputs: Tensor) -> Tensor:
        with computing(group.device, precision):
            return scorer(**inputs)

    try:
        how: dict[str, Any] = {"pad": tokenizer.pad_token_id, "layout": scorer.layout}
        logps = score(forward, rows, group, micro=batch, title=title, **how).view(-1, 2)
        # Pairs spread over all, since they stand in the order of the file.
        places = np.unique(np.linspace(0, len(encoded) - 1, min(gradients, len(encoded))).round().astype(int))
        chosen = [encoded[place] for place in places]
        sides = score_gradients(model, forward, chosen, title=title and "gradients", **how)
    finally:
        model.train(training)
    check_finite(logps, "model", precision)
    ends = turn_ends(tokenizer)
    frame = pd.DataFrame({
        "prompt_len": [len(pair.prompt) for pair in encoded],
        "win_len": [len(pair.win) for pair in encoded], "lose_len": [len(pair.lose) for pair in encoded],
        "win_ends": [pair.win[-1] in ends for pair in encoded],
        "lose_ends": [pair.lose[-1] in ends for pair in encoded],
        "cut": [pair.win[-1] not in ends or pair.lose[-1] not in ends for pair in encoded],
        "win": logps[:, 0].numpy(), "lose": logps[:, 1].numpy(),
    })  # fmt: skip
    if gradients:
        frame = frame.join(sides.set_index(places))
    return measured(frame, clip=clip, losses=losses)
