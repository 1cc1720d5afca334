"""The cost of Balanced-DPO beside DPO: step time and peak memory, paired and interleaved.

Writes figures/benchmarks/overhead.parquet, which the claims report reads, and prints the medians. ``make bench`` runs
it. Where there is a CUDA device, the steps are measured on it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from gradlab.lab.world import gaussian_world
from gradlab.losses import PairLogps, PairLoss, pair_loss
from gradlab.store.artifacts import save_frame
from scripts.benchmarks.lab_speed import training_step
from scripts.benchmarks.timing import RESULTS, Step, drawing, in_turn, one_thread, peak_of

METHODS = ("dpo", "bdpo")
PAIRS, MEMORY_PAIRS = 40, 5  # paired measurements of time, and of memory (each side a process of its own)
VOCABULARY, WIDTH, LAYERS, HEADS = 4096, 256, 4, 4  # of the small language model
BATCH, TOKENS = 4, 96  # preference pairs a step, tokens a response


class CausalModel(nn.Module):
    """A small decoder-only transformer, randomly initialised."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def logp(self, tokens: Tensor) -> Tensor:
        """Return the summed log-probability of each sequence of tokens (B, T) after its first token, (B,)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1] - 1, device=tokens.device)
        hidden = self.body(self.embed(tokens[:, :-1]), mask=mask, is_causal=True)
        by_token = torch.log_softmax(self.head(hidden), -1).gather(-1, tokens[:, 1:, None])
        return by_token.sum((1, 2))


def language_model_step(loss: PairLoss, device: str) -> Step:
    """Return one optimiser step of a small language model on a batch of pairs; the reference is precomputed."""
    with drawing(device):
        model = CausalModel().to(device)
        tokens = torch.randint(VOCABULARY, (2 * BATCH, TOKENS), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    reference = model.logp(tokens).detach()

    def step() -> None:
        logp = model.logp(tokens)
        pairs = PairLogps(logp[:BATCH], logp[BATCH:], reference[:BATCH], reference[BATCH:])
        optimizer.zero_grad()
        loss(pairs).mean().backward()
        optimizer.step()

    return step


def tabular_step(loss: PairLoss, device: str) -> Step:
    """Return ten optimiser steps of the loop that one would write by hand, on all ordered pairs of a 20 × 20 world."""
    _, once = training_step(gaussian_world(), loss, torch.float64, device)

    def step() -> None:
        for _ in range(10):
            once()

    return step


def loss_alone(loss: PairLoss, device: str) -> Step:
    """Return a step that takes the loss of 65,536 pairs and its gradient, and nothing else."""
    with drawing(device):
        logps = -20 * torch.rand(2, 65_536, device=device) - 0.1
    win, lose = (side.requires_grad_() for side in logps.unbind())
    reference = win.detach() - 0.1

    def step() -> None:
        win.grad = lose.grad = None
        loss(PairLogps(win, lose, reference, reference)).sum().backward()

    return step


CASES: dict[str, Callable[[PairLoss, str], Step]] = {
    "language-model step": language_model_step, "tabular step": tabular_step, "loss alone": loss_alone,
}  # fmt: skip


def bench(folder: Path = RESULTS, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where overhead.parquet goes.
        quick: Two pairs: shows that it works, and nothing about cost.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    frame = pd.concat(
        [measure_times(devices, 2 if quick else PAIRS), measure_peaks(devices, 1 if quick else MEMORY_PAIRS)],
        ignore_index=True,
    )
    settings = {"quick": quick, "parameters": sum(p.numel() for p in CausalModel().parameters()), "batch": BATCH,
                "tokens": TOKENS, "threads": 1}  # fmt: skip
    save_frame(frame, folder / "overhead.parquet", settings, overwrite=True)
    medians = frame.groupby(["what", "device", "method"])[["seconds", "peak_mb"]].median().unstack("method")
    print(medians.to_string(float_format="%.4g"))


def measure_times(devices: list[str], pairs: int) -> pd.DataFrame:
    """Measure seconds of each step, DPO and Balanced-DPO in turn; which goes first changes from pair to pair."""
    rows = []
    with one_thread():
        for what, make in CASES.items():
            for device in devices:
                steps = {method: make(pair_loss(method), device) for method in METHODS}
                rows += [
                    {"what": what, "device": device, "pair": one.round, "method": one.way, "seconds": one.seconds}
                    for one in in_turn(steps, pairs, f"{what}, {device}", device=device, warm=2)
                ]
    return pd.DataFrame(rows)


def measure_peaks(devices: list[str], pairs: int) -> pd.DataFrame:
    """Measure peak memory in MB of five steps, each in a fresh process: of the device, or resident on the CPU."""
    rows = []
    cases = [(what, device, pair, method) for what in CASES for device in devices for pair in range(pairs)
             for method in METHODS]  # fmt: skip
    for what, device, pair, method in tqdm(cases, desc="memory", disable=not sys.stderr.isatty()):
        peak = peak_of(CASES[what], pair_loss(method), device, steps=5, device=device)
        rows.append({"what": what, "device": device, "pair": pair, "method": method, "peak_mb": peak.end})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    tyro.cli(bench)
