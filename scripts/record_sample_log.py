"""Record the training logs that come with the explorer *Training log*: real runs of a tiny transformer.

The task is synthetic, without any text: a prompt names one of four tokens, and a response is worth as much as it has
of that token, less what it has of the next one. Lengths vary, and say nothing about worth. Labels are drawn by
Bradley–Terry. The reference learns the responses first, as supervised training would. The runs differ in the loss only.

``python scripts/record_sample_log.py`` takes about a minute on one core.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from gradlab.doctor.training_log import append_step, start_log
from gradlab.llm.train.measures import batch_row
from gradlab.losses import DPO, BalancedDPO, PairLogps

SAMPLES = Path(__file__).resolve().parent.parent / "gradlab/widgets/samples"
Loss = DPO | BalancedDPO
RUNS: dict[str, Loss] = {"dpo": DPO(beta=0.2), "bdpo": BalancedDPO(beta=0.2), "dpo-half-beta": DPO(beta=0.1)}
VOCABULARY, WIDTH, LAYERS, HEADS, LONGEST = 24, 48, 2, 4, 24  # tokens 0 to 3 are worth something, or cost; 23 ends
PAIRS, HELD_OUT, BATCH, STEPS, EVERY = 768, 256, 64, 120, 5
SFT_STEPS, SFT_RATE, RATE = 150, 3e-3, 5e-4
END, PADDING = VOCABULARY - 1, VOCABULARY  # padding is no token of the model's


@dataclass(frozen=True)
class Pairs:
    """Sequences (N, 1 + LONGEST): the prompt's token, the response, its end, padding."""

    win: Tensor
    lose: Tensor

    def __getitem__(self, index: Tensor) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.win[index], self.lose[index])


class TinyModel(nn.Module):
    """A decoder-only transformer that reads and writes a vocabulary of 24 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY + 1, WIDTH, padding_idx=PADDING)
        self.place = nn.Parameter(0.02 * torch.randn(LONGEST + 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def logp(self, tokens: Tensor) -> Tensor:
        """Return the summed log-probability of each response, (N,), from tokens (N, 1 + LONGEST)."""
        mask = nn.Transformer.generate_square_subsequent_mask(LONGEST)
        hidden = self.body(self.embed(tokens[:, :-1]) + self.place[:-1], mask=mask, is_causal=True)
        target = tokens[:, 1:]
        there = target != PADDING
        by_token = torch.log_softmax(self.head(hidden), -1).gather(-1, (target * there)[..., None])[..., 0]
        return (by_token * there).sum(1)


def draw_pairs(number: int, generator: torch.Generator) -> Pairs:
    """Draw preference pairs, labelled by Bradley–Terry from the worth of the two responses."""
    prompt = torch.randint(4, (number, 1), generator=generator)
    sides = []
    for _ in range(2):
        length = torch.randint(4, LONGEST, (number, 1), generator=generator)
        common = torch.randint(4, (number, 1), generator=generator)  # a token that this response has often
        often = torch.rand(number, LONGEST, generator=generator) < 0.25
        tokens = torch.where(often, common, torch.randint(END, (number, LONGEST), generator=generator))
        place = torch.arange(LONGEST)
        tokens = torch.where(place < length, tokens, torch.where(place == length, END, PADDING))
        sides.append(torch.cat([prompt, tokens], 1))
    worth = [((side[:, 1:] == prompt).sum(1) - (side[:, 1:] == (prompt + 1) % 4).sum(1)).float() for side in sides]
    first = torch.rand(number, generator=generator) < torch.sigmoid(worth[0] - worth[1])
    return Pairs(torch.where(first[:, None], *sides), torch.where(first[:, None], *sides[::-1]))


def batches(pairs: Pairs, steps: int, generator: torch.Generator) -> Iterator[Pairs]:
    """Yield batches, in a new order each epoch."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(pairs.win), generator=generator)
        yield pairs[order[:BATCH]]
        order = order[BATCH:]


def reference_model(pairs: Pairs, generator: torch.Generator) -> TinyModel:
    """Return a model that has learnt what responses look like, good and bad alike."""
    model = TinyModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=SFT_RATE)
    for batch in batches(pairs, SFT_STEPS, generator):
        optimizer.zero_grad()
        (-model.logp(torch.cat([batch.win, batch.lose])).mean() / LONGEST).backward()
        optimizer.step()
    return model


def train(model: TinyModel, loss: Loss, data: Pairs, held_out: Pairs, steps: int) -> Iterator[dict]:
    """Train a copy of the model, which is the reference, and yield each step's row of the log."""
    reference, model = model, copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step, batch in enumerate(batches(data, steps, torch.Generator().manual_seed(1)), 1):
        logps = both(model, reference, batch)
        row = {"step": step, **batch_row(loss, logps), "learning_rate": RATE}
        at_once = flat(torch.autograd.grad(loss(logps).mean(), list(model.parameters()), retain_graph=True))
        slope = torch.autograd.grad(loss(logps).mean(), (logps.win, logps.lose), retain_graph=True)
        gradients = [gradient(model, side, by) for side, by in zip((logps.win, logps.lose), slope, strict=True)]
        whole = gradients[0] + gradients[1]
        if step % EVERY == 0 or step == 1:
            norms = [float(one.norm()) for one in (*gradients, whole)]
            row |= dict(zip(("grad_norm_win", "grad_norm_lose", "grad_norm"), norms, strict=True))
            row["grad_cosine"] = float(gradients[0] @ gradients[1]) / (norms[0] * norms[1])
            row["grad_split_error"] = float((at_once - whole).norm()) / norms[2]
            with torch.no_grad():
                unseen = both(model, reference, held_out)
            seen = batch_row(loss, unseen)
            row |= {f"validation_{name}": seen[name] for name in ("loss", "reward_margin", "accuracy")}
        parts = whole.split([one.numel() for one in model.parameters()])
        for one, part in zip(model.parameters(), parts, strict=True):
            one.grad = part.view_as(one)
        optimizer.step()
        if step % EVERY == 0 or step == 1:
            with torch.no_grad():
                moved = both(model, reference, batch)
            row["delta_win"] = float(moved.win.double().mean()) - row["logp_win"]
            row["delta_lose"] = float(moved.lose.double().mean()) - row["logp_lose"]
        yield {name: float(f"{value:.4g}") for name, value in row.items()}


def both(model: TinyModel, reference: TinyModel, pairs: Pairs) -> PairLogps:
    """Return log-probabilities of both sides under both models, with one forward per side to separate gradients."""
    with torch.no_grad():
        frozen = [reference.logp(side) for side in (pairs.win, pairs.lose)]
    lengths = [(side != PADDING).sum(1) - 1 for side in (pairs.win, pairs.lose)]
    return PairLogps(model.logp(pairs.win), model.logp(pairs.lose), *frozen, *lengths)


def gradient(model: TinyModel, logp: Tensor, slope: Tensor) -> Tensor:
    """Return the parameters' gradient of a loss through one side's log-probabilities, as one vector."""
    return flat(torch.autograd.grad(logp, list(model.parameters()), slope))


def flat(parts: Sequence[Tensor]) -> Tensor:
    """Return all tensors as one vector."""
    return torch.cat([part.flatten() for part in parts])


def record(folder: Path = SAMPLES, steps: int = STEPS) -> None:
    """Train and write the logs.

    Args:
        folder: Where they go; older ones there are replaced.
        steps: Of preference training.
    """
    generator = torch.Generator().manual_seed(0)
    data, held_out = draw_pairs(PAIRS, generator), draw_pairs(HELD_OUT, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the model's weights
        reference = reference_model(data, generator)
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(one.numel() for one in reference.parameters())
    for file, loss in RUNS.items():
        settings = {
            "loss": loss.name, "beta": loss.beta, "learning_rate": RATE, "optimizer": "adamw", "batch": BATCH,
            "pairs": PAIRS, "validation_pairs": HELD_OUT, "parameters": size, "seed": 0,
            "data": "synthetic tokens, no text; scripts/record_sample_log.py drew them and recorded this log",
        }  # fmt: skip
        path = folder / f"{file}.jsonl"
        path.unlink(missing_ok=True)
        start_log(path, settings)
        for row in train(reference, loss, data, held_out, steps):
            append_step(path, int(row.pop("step")), **row)


if __name__ == "__main__":
    tyro.cli(record)
