"""The training loop of a stage: supervised, or with a preference loss and the gradient of each of its sides."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.doctor.training_log import append_step, keep_steps, read_log, start_log
from gradlab.llm.data.batches import Row, batch_at, dealt
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import dot, stop_asked
from gradlab.llm.model.loading import sync
from gradlab.llm.train.measures import batch_row
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import score
from gradlab.losses import PairLogps, PairLoss, slopes
from gradlab.store.artifacts import write_whole

ENDED = ("validation_loss", "validation_accuracy", "reward")  # what is said of a finished training, where it is known
VALIDATED = ("loss", "reward_win", "reward_lose", "reward_margin", "accuracy", "logp_win", "logp_lose", "win_weight")


Values = Callable[[Tensor, np.ndarray], Tensor]  # as ``PolicyModel.accumulate`` takes them


class Task(Protocol):
    """What ``run_steps`` trains; all processes make the same calls."""

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of step 1, 2, … into the policy; columns of the log, ``grad_norm`` among them."""
        ...

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """More columns of a step that has been made, whose row was this; often none."""
        ...

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """Columns that tell of held-out data; none without any."""
        ...

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """What was trained on in a step that failed, for a person, by the places that ``NotFinite`` names."""
        ...


@dataclass(frozen=True)
class PairTask:
    """Pairs to train on and held-out ones, with their reference's log-probabilities (N, 2), and a loss.

    texts  of those to train on, for who has to look at a batch that failed.
    """

    loss: PairLoss
    train: Sequence[Encoded]
    train_ref: Tensor
    held_out: Sequence[Encoded]
    held_out_ref: Tensor
    texts: Sequence[Pair] = ()

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Some of the pairs to train on, as text and as tokens."""
        return described(index, self.texts, [asdict(self.train[one]) for one in index])

    def logps(self, pairs: Sequence[Encoded], by_side: Tensor, ref: Tensor) -> PairLogps:
        """The pairs as a loss takes them; by_side and ref are (N, 2)."""
        sides = [len_of(pairs, side) for side in ("win", "lose")]
        ref = ref.to(by_side)
        return PairLogps(by_side[:, 0], by_side[:, 1], ref[:, 0], ref[:, 1], *(one.to(by_side.device) for one in sides))

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the policy; what the log says of it."""
        settings = policy.settings
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        pairs, ref = [self.train[one] for one in index], self.train_ref[index]

        def run(values: Values, rows: Callable[[Sequence[Encoded]], list[Row]] = rows_of) -> Tensor:
            parts = dealt(lengths(pairs), settings.micro, policy.group.rank, policy.group.size)
            return policy.accumulate(
                parts, lambda places: rows([pairs[one] for one in places]), values,
                number=len(pairs), seed=(settings.seed, step),
            )  # fmt: skip

        def run_side(side: int, values: Values) -> Tensor:
            if settings.lora_rank and settings.lora_dropout:  # equal draws need equal rows
                return run(lambda logps, at: values(logps[[side]], at))
            return run(values, lambda pairs: [(one.prompt, (one.win, one.lose)[side]) for one in pairs])

        by_side = run(lambda logps, at: self.loss(self.logps([pairs[i] for i in at], logps.T, ref[at])))
        logps = self.logps(pairs, by_side, ref)
        check_finite("log π", by_side, step, index)
        row = batch_row(self.loss, logps)
        row["grad_norm"] = policy.norm()
        check_finite("the gradient", torch.tensor(row["grad_norm"]), step, index)
        if settings.sides_every and (step - 1) % settings.sides_every == 0:
            row |= self.sides(policy, run_side, torch.stack(slopes(self.loss, logps), 1))
        return row

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """How far the step, which has been made, moved the log-probabilities that its row tells; in sides' steps."""
        settings = policy.settings
        if "grad_norm_win" not in row:
            return {}
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        with frozen(policy):
            rows = side_rows([self.train[one] for one in index])
            found = score(policy, rows, policy.group, pad=policy.pad, micro=2 * settings.micro).view(-1, 2).mean(0)
        return {
            f"delta_{side}": float(found[place]) - row[f"logp_{side}"] for place, side in enumerate(("win", "lose"))
        }

    def sides(self, policy: PolicyModel, run_side: Callable[[int, Values], Tensor], slope: Tensor) -> dict[str, float]:
        """‖g_w‖, ‖g_l‖, their cosine, and how far g_w + g_l is from g, the gradient that is to be stepped with.

        run_side  the forward again, of a side, which gives ``values`` that side's log π (1, n) alone.
        slope     (B, 2): what each log π is multiplied by. g comes back as it was.
        """
        whole, parts, tokens = policy.gradient(), [], policy.tokens
        for side in (0, 1):
            policy.clear()
            run_side(side, lambda logps, at, by=slope[:, side]: logps[0] * by[at].to(logps))
            parts.append(policy.gradient())
        policy.put(whole)
        policy.tokens = tokens  # these were looked at, and not trained on
        win, lose = (math.sqrt(dot(part, part, policy.group)) for part in parts)
        rest = [g - a - b for g, a, b in zip(whole, *parts, strict=True)]
        size = math.sqrt(dot(whole, whole, policy.group))
        row = {
            "grad_norm_win": win, "grad_norm_lose": lose,
            "grad_split_error": math.sqrt(dot(rest, rest, policy.group)) / size if size else 0.0,
        }  # fmt: skip
        return row | ({"grad_cosine": dot(parts[0], parts[1], policy.group) / (win * lose)} if win * lose else {})

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """What the log says of the held-out pairs."""
        if not self.held_out:
            return {}
        with frozen(policy):
            found = score(
                policy, side_rows(self.held_out), policy.group, pad=policy.pad, micro=2 * policy.settings.micro
            )
        row = batch_row(self.loss, self.logps(self.held_out, found.view(-1, 2), self.held_out_ref))
        return {f"validation_{name}": row[name] for name in VALIDATED if name in row}


@dataclass(frozen=True)
class SupervisedTask:
    """Responses to learn: the mean over tokens of −log π, of the chosen responses.

    texts  the pairs that those to train on are from.
    """

    train: Sequence[Row]
    held_out: Sequence[Row]
    texts: Sequence[Pair] = ()

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Some of the responses to train on, as text and as tokens."""
        rows = [self.train[one] for one in index]
        return described(index, self.texts, [{"prompt": prompt, "win": response} for prompt, response in rows])

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's loss into the policy; what the log says of it."""
        settings = policy.settings
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        rows = [self.train[one] for one in index]
        tokens = sum(len(response) for _, response in rows)
        found = policy.accumulate(
            dealt(np.array([len(a) + len(b) for a, b in rows]), settings.micro, policy.group.rank, policy.group.size),
            lambda places: [rows[one] for one in places],
            lambda logps, at: self._loss(policy, logps, rows, at) / tokens,
            number=1, seed=(settings.seed, step), items=len(rows),
        )  # fmt: skip
        check_finite("log π", found, step, index)
        norm = policy.norm()
        check_finite("the gradient", torch.tensor(norm), step, index)
        return {
            "loss": float(self._loss(policy, found.T, rows, np.arange(len(rows))).sum()) / tokens,
            "grad_norm": norm,
        }

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """Nothing: there is one side."""
        return {}

    @staticmethod
    def _loss(policy: PolicyModel, logps: Tensor, rows: Sequence[Row], at: np.ndarray) -> Tensor:
        """−log π of whole responses, also where the policy gives means."""
        if policy.settings.reduction == "mean":
            logps = logps * torch.tensor([len(rows[one][1]) for one in at]).to(logps)
        return -logps[0]

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """The loss of the held-out responses."""
        if not self.held_out:
            return {}
        with frozen(policy):
            found = score(policy, self.held_out, policy.group, pad=policy.pad, micro=2 * policy.settings.micro)
        tokens = sum(len(response) for _, response in self.held_out)
        every = np.arange(len(self.held_out))
        return {"validation_loss": float(self._loss(policy, found[None], self.held_out, every).sum()) / tokens}


def run_steps(
    policy: PolicyModel, task: Task, folder: Path, key: str, header: dict[str, Any], title: str
) -> dict[str, Any]:
    """Train for the policy's steps, from the newest checkpoint on; log, look at held-out pairs, save.

    folder  of the stage: log.jsonl and checkpoints/ are there.
    Returns what is to be said of the training: seconds and tokens of this process's part of it.
    """
    group, settings = policy.group, policy.settings
    done = policy.resume(folder / "checkpoints", key)
    log = Log(folder, header, done, settings, active=group.is_main)
    started, every = time.perf_counter(), settings.validate_every
    row: dict[str, float] = {}
    if done == policy.steps and group.is_main:  # stopped at the very end: its last row is in the log alone
        row = {
            name: float(value)
            for name, value in read_log(log.file).iloc[-1].items()
            if name in ENDED and value == value
        }
    with (
        tqdm(total=policy.steps, initial=done, desc=title, unit="step", disable=not group.is_main) as bar,
        log,
        stop_asked(group) as asked,
    ):
        for step in range(done + 1, policy.steps + 1):
            seen = task.validate(policy) if every and (step - 1) % every == 0 else {}
            row = _gradient(policy, task, step, folder)
            rate = policy.step(step, row["grad_norm"])
            moved = task.realised(policy, step, row)
            log.write(step, {**row, **seen, **moved, "learning_rate": rate})
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "accuracy") if name in row}, refresh=False)
            bar.update()
            last = step == policy.steps
            stop = (last or step % settings.ppo_epochs == 0) and asked()
            if stop or (not last and settings.save_every and step % settings.save_every == 0):
                log.sync()
                policy.save(folder / "checkpoints", step, key)
            if stop:
                raise KeyboardInterrupt
        seen = task.validate(policy) if every else {}
        log.write(policy.steps + 1, seen)  # of the finished model
        if asked():  # while it was looked at
            policy.save(folder / "checkpoints", policy.steps, key)
            raise KeyboardInterrupt
    seconds = time.perf_counter() - started
    tokens = float(group.total(torch.tensor(policy.tokens, dtype=torch.float64)))
    ended = {name: value for name, value in {**row, **seen}.items() if name in ENDED}
    return {"steps": policy.steps, "resumed_at": done, "seconds": seconds, "tokens": tokens, **ended}


def _gradient(policy: PolicyModel, task: Task, step: int, folder: Path) -> dict[str, float]:
    """The task's; where a number is not finite its batch is written down, and training stops."""
    try:
        return task.gradient(policy, step)
    except NotFinite as error:
        words, batch, index = f"{error}", error.batch, error.batch["training_pairs"]

    def stop() -> None:
        file = folder / f"stopped-at-step-{step}.json"
        page = {**batch, "pairs": task.described(index)}
        write_whole({file: json.dumps(page, indent=1, ensure_ascii=False) + "\n"})
        raise FloatingPointError(f"{words}; the batch is in {file}, and the last checkpoint is kept")

    policy.group.on_main(stop)
    raise AssertionError


class Log:
    """The stage's log.jsonl, and what TensorBoard and Weights & Biases are told."""

    def __init__(self, folder: Path, header: dict[str, Any], done: int, settings: Any, *, active: bool) -> None:
        self.file, self._active = folder / "log.jsonl", active
        self._board = self._run = None
        if not active:
            return
        if self.file.exists() and not done:
            self.file.unlink()
        if self.file.exists():
            keep_steps(self.file, done)
        else:
            start_log(self.file, header)
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        if settings.wandb:
            import wandb  # type: ignore[import-not-found]

            self._run = wandb.init(project="gradlab", name=folder.name, config=header, dir=str(folder))

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append what is known of a step."""
        if not self._active or not row:
            return
        append_step(self.file, step, **row)
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name.replace("validation_", "validation/"), value, step)
        if self._run is not None:
            self._run.log(row, step=step)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        if self._active:
            sync(self.file)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()


class NotFinite(Exception):
    """A step whose numbers are not finite, with the batch that made them so."""

    def __init__(self, words: str, batch: dict[str, Any]) -> None:
        super().__init__(words)
        self.batch = batch


def check_finite(what: str, values: Tensor, step: int, index: np.ndarray) -> None:
    """Raise ``NotFinite`` where a value is not; every process sees the same values and stops alike."""
    if not bool(torch.isfinite(values).all()):
        raise NotFinite(f"step {step}: {what} is not finite", {
            "step": step, "what": what, "training_pairs": index.tolist(),
            "values": [str(one) for one in values.flatten().tolist()],
        })  # fmt: skip


def described(index: Sequence[int], texts: Sequence[Pair], tokens: Sequence[Any]) -> list[dict[str, Any]]:
    """What a person needs to look at some pairs."""
    ids = zip(index, tokens, strict=True)
    return [{"text": asdict(texts[one]) if texts else None, "tokens": its} for one, its in ids]


def rows_of(pairs: Sequence[Encoded]) -> list[Row]:
    """All winners, then all losers."""
    return [*((pair.prompt, pair.win) for pair in pairs), *((pair.prompt, pair.lose) for pair in pairs)]


def side_rows(pairs: Sequence[Encoded]) -> list[Row]:
    """Winner and loser of each pair in turn."""
    return [(pair.prompt, side) for pair in pairs for side in (pair.win, pair.lose)]


def lengths(pairs: Sequence[Encoded]) -> np.ndarray:
    """Tokens of the longer side of each pair, its prompt included."""
    return np.array([len(pair.prompt) + max(len(pair.win), len(pair.lose)) for pair in pairs])


def len_of(pairs: Sequence[Encoded], side: str) -> Tensor:
    """Tokens of one side's responses."""
    return torch.tensor([len(getattr(pair, side)) for pair in pairs])
