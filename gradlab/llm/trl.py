"""TRL's DPO trainer with any of gradlab's losses, and gradlab's training log of what TRL trains.

TRL calls its models, counts and averages as usual, and reports its use to Hugging Face unless
HF_HUB_DISABLE_TELEMETRY=1. Only the loss, and so the gradient, are gradlab's::

    from trl import DPOConfig
    from gradlab.llm.trl import GradlabDPOTrainer
    from gradlab.losses import BalancedDPO
    from gradlab.doctor.training_log import read_log

    args = DPOConfig(output_dir="out", beta=0.2)
    GradlabDPOTrainer(model, args=args, gradlab_loss=BalancedDPO(beta=0.2), train_dataset=pairs).train()
    print(read_log("out/gradlab-log.jsonl")[["step", "loss", "win_weight", "slope_win", "slope_lose"]])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time_ns
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import one_of
from gradlab.doctor.log_columns import COLUMNS, PPO_COLUMNS, gradlab_name
from gradlab.doctor.training_log import append_step, keep_steps, start_log
from gradlab.llm.train.measures import batch_row, beta_of_rewards, in_batches
from gradlab.llm.train.reductions import check_reduction
from gradlab.losses import DPO, BatchLoss, PairLogps, PairLoss, WeightedLosses, facts_of

try:
    import trl
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]
except ImportError as error:
    raise ImportError(f"gradlab.llm.trl needs TRL ({error}): pip install 'gradlab[trl]'") from None

Loss = PairLoss | BatchLoss | Sequence[tuple[PairLoss | BatchLoss, float]]
LOG = "gradlab-log.jsonl"  # in the trainer's output_dir
_LOGGED = COLUMNS.keys() - PPO_COLUMNS.keys()  # TRL's DPO has an entropy too: of the pairs' tokens, not of samples
# TRL's settings under which its loss is −log σ(β(h_w − h_l)). Gradlab's loss takes the place of that loss.
_PLAIN = {
    "loss_type": ["sigmoid"], "loss_weights": None, "f_divergence_type": "reverse_kl", "label_smoothing": 0.0,
    "ld_alpha": None, "use_weighting": False, "padding_free": False,
}  # fmt: skip


class ImbalanceLog(TrainerCallback):
    """A callback that writes gradlab's training log, in ``LOG``, for TRL's DPOTrainer, from that trainer's public logs.

    They hold loss, rewards, margin, accuracy, log-probabilities, norm of the gradient and learning rate, as means since
    TRL's last log (so give DPOConfig ``logging_steps=1``), and the same for the evaluation set, with validation_. Where
    TRL's loss is plain DPO, ``margin``, ``win_weight`` and ``log_prob_ratio`` follow from these. Slopes, and λ_w of
    other losses, do not follow from means: ``GradlabDPOTrainer`` logs them. Several evaluation sets are not logged,
    since TRL's names do not tell them apart; nothing is logged outside of ``train()``. A resumed run goes on with the
    log from its checkpoint's step. An older log of another run is renamed.
    """

    _path: Path | None = None  # on the main process, while it trains
    _loss: PairLoss | None = None
    _more: Mapping[str, str] = MappingProxyType({})  # more settings for the log's first line

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the log, or resume it."""
        self._path = Path(args.output_dir) / LOG if state.is_world_process_zero else None
        if self._path and self._path.exists() and state.global_step:
            keep_steps(self._path, state.global_step)
        elif self._path:
            if self._path.exists():
                self._path.rename(self._path.with_stem(f"{self._path.stem}-until-{time_ns()}"))
            start_log(self._path, {**_settings(args, self._loss), **self._more})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop logging."""
        self._path = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write TRL's numbers under gradlab's names."""
        row = {gradlab_name(name): value for name, value in logs.items()}
        side = "validation_" if "validation_loss" in row else ""
        if side + "logp_win" in row and not _faults(args):
            row |= {side + "margin": row[side + "reward_margin"], side + "win_weight": 0.5}
            row[side + "log_prob_ratio"] = row[side + "logp_lose"] - row[side + "logp_win"]
        if side + "loss" in row:
            self._write(state.global_step, row)

    def _write(self, step: int, row: dict[str, Any]) -> None:
        known = {
            key: value for key, value in row.items() if key.removeprefix("validation_") in _LOGGED and value is not None
        }
        if self._path is not None and known:
            append_step(self._path, step, **known)


class GradlabDPOTrainer(DPOTrainer):
    """TRL's DPOTrainer with a loss of gradlab's, and with gradlab's whole training log in ``LOG``.

    gradlab_loss  any ``PairLoss`` or ``BatchLoss``, or several with weights, as ``[(DPO(0.1), 1.0), (SimPO(), 0.5)]``.
                  The mean over a device's batch of pairs is trained on, accumulated as TRL does it. With
                  ``DPO(beta)``, losses, gradients and logged metrics are those of TRL's ``loss_type="sigmoid"``.
    gradlab_reduction  log π of a response as the loss and the log see it: the "sum" over its tokens, or their "mean".
                  It is ``--reduction`` of `gradlab train`. With "mean", ``DPO(beta)`` is TRL's ``sigmoid_norm``, and
                  ``IPO(beta)`` its ``ipo``; the rewards that TRL logs stay those of sums. A loss that divides by the
                  length itself, such as ``SimPO``, needs "sum".
    args          TRL's settings. ``beta`` must be that of the loss (1 where the loss has no beta): TRL scales the
                  rewards that it logs by it. Every other setting that changes TRL's loss must stay at its default.

    All else is TRL's, also the reference: a model, the adapter switched off or copied, or log-probabilities computed
    before. Log-probabilities are in float32. The log has one row per step, with means over all
    of the step's pairs before the update; at evaluation the same columns with validation_, after the update; and
    ``grad_norm`` where TRL logs it.

    Raises ValueError for a setting that would be ignored; RuntimeError where a version of TRL does not call its models
    as expected: on each batch, the log-probabilities that gradlab has read must give TRL's sigmoid loss.
    """

    args: Any

    def __init__(self, model: Any, ref_model: Any = None, args: Any = None, *rest, gradlab_loss: Loss,
                 gradlab_reduction: Literal["sum", "mean"] = "sum", **more):  # fmt: skip
        if isinstance(gradlab_loss, list | tuple):
            gradlab_loss = WeightedLosses(tuple(gradlab_loss))
        if not isinstance(gradlab_loss, PairLoss) or isinstance(gradlab_loss, type):
            raise ValueError(f"gradlab_loss must be a loss such as gradlab.losses.DPO(beta=0.1), got {gradlab_loss!r}")
        self.gradlab_reduction = one_of("gradlab_reduction", gradlab_reduction, ("sum", "mean"))
        check_reduction("gradlab_reduction", gradlab_reduction, gradlab_loss, gradlab_loss.name)
        if not isinstance(args, DPOConfig):
            raise ValueError(f"args must be a trl.DPOConfig, got {args!r}")
        for fault in _faults(args, beta=beta_of_rewards(gradlab_loss)):
            raise ValueError(f"args are TRL's, but the loss is gradlab_loss: {fault}")
        self.gradlab_loss = gradlab_loss
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}  # (pairs, 6) of each batch, by whether it trains
        super().__init__(model, ref_model, args, *rest, **more)
        self.add_callback(_PairLog(self))

    def compute_loss(self, model: Any, inputs: Any, return_outputs: Any = False, num_items_in_batch: Any = None) -> Any:
        """Return the mean loss of a batch's pairs, or (that, outputs)."""
        reference = self.model if self.ref_model is None else self.ref_model
        with _heard(model, inputs) as policy, _heard(reference, inputs) as frozen:
            returned = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        trl_loss, *outputs = returned if return_outputs else (returned,)
        if self.args.precompute_ref_log_probs:
            frozen = [(torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]), None)]
        elif self.ref_model is None:
            frozen = frozen[1:]  # the first call was the policy's, the same model's
        if not policy or not frozen:
            raise RuntimeError(f"TRL {trl.__version__} did not call its models for the loss; use its default settings")
        (sums, router), (ref_sums, _) = policy[0], frozen[0]
        lengths = inputs["completion_mask"][:, 1:].sum(1)
        logps = PairLogps(*(side for both in (sums, ref_sums.float(), lengths) for side in both.chunk(2)))
        extra = getattr(self, "router_aux_loss_coef", 0.0) * router if getattr(self, "aux_loss_enabled", False) else 0.0
        sigmoid = (DPO(self.args.beta)(logps).mean() + extra).detach()
        full = trl_loss.dtype == torch.float32
        if full and not torch.allclose(trl_loss, sigmoid, rtol=0.01, atol=0.01, equal_nan=True):
            raise RuntimeError(
                f"TRL {trl.__version__} gives the loss {trl_loss:.4f} where its log-probs give {sigmoid:.4f}"
            )
        gather: Any = self.accelerator.gather if model.training else self.accelerator.gather_for_metrics  # no fillers
        if self.gradlab_reduction == "mean":
            logps = _means(logps)
        rows = torch.stack([column.detach().float() for column in vars(logps).values()], 1)
        self.seen[model.training].append(gather(rows).cpu())
        loss = self.gradlab_loss(logps).mean() + extra
        return (loss, *outputs) if return_outputs else loss

    def take_row(self, *, training: bool) -> dict[str, float]:
        """Return the log's columns for the pairs since the last call, and forget the pairs; empty without pairs."""
        kept, self.seen[training] = self.seen[training], []
        if not kept:
            return {}
        values = None
        if isinstance(self.gradlab_loss, BatchLoss):  # every device has its own batch
            sizes = [len(rows) // self.accelerator.num_processes for rows in kept]
            batches = [size for size in sizes for _ in range(self.accelerator.num_processes)]
            places = np.split(np.arange(sum(batches)), np.cumsum(batches)[:-1])
            kept = [rows[: size * self.accelerator.num_processes] for rows, size in zip(kept, sizes, strict=True)]
            values = in_batches(self.gradlab_loss, places)
        return batch_row(self.gradlab_loss, PairLogps(*torch.cat(kept).unbind(1)), values)


def _means(logps: PairLogps) -> PairLogps:
    """Return the log-probabilities as means over tokens; a response without tokens keeps its sum, 0."""
    win_len, lose_len = (length.clamp(min=1) for length in logps.lengths("gradlab_reduction"))
    return PairLogps(
        logps.win / win_len, logps.lose / lose_len, logps.ref_win / win_len, logps.ref_lose / lose_len,
        logps.win_len, logps.lose_len,
    )  # fmt: skip


class _PairLog(ImbalanceLog):
    """The log of a GradlabDPOTrainer."""

    def __init__(self, trainer: GradlabDPOTrainer) -> None:
        self.trainer, self._loss = trainer, trainer.gradlab_loss
        self._more = {"reduction": trainer.gradlab_reduction}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.seen = {True: [], False: []}  # without a step that did not end, or what TRL does not log

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        row = self.trainer.take_row(training=True)
        self._write(state.global_step + 1, {**row, "learning_rate": optimizer.param_groups[0]["lr"]})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        row = {f"validation_{name}": value for name, value in self.trainer.take_row(training=False).items()}
        self._write(state.global_step, row if "eval_loss" in logs else {"grad_norm": logs.get("grad_norm")})


@contextmanager
def _heard(module: Any, inputs: Any) -> Iterator[list[tuple[Tensor, Any]]]:
    """Collect, for each call of a model inside, Σ log π of the batch's responses and the routers' loss, if any.

    Σ log π has shape (2B,), winners first.
    """
    calls: list[tuple[Tensor, Any]] = []
    mask = inputs["completion_mask"][:, 1:] != 0
    places = mask.shape[1]  # the last ones: virtual tokens of a soft prompt come before

    def note(_module: Any, _args: Any, output: Any) -> None:
        by_token = getattr(output, "log_probs", None)
        if by_token is None:  # TRL before its fused head
            logits = output.logits[:, -places - 1 : -1].float()
            by_token = logits.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0] - logits.logsumexp(-1)
        calls.append((by_token[:, -places:].float().where(mask, 0.0).sum(1), getattr(output, "aux_loss", None)))

    with module.register_forward_hook(note):
        yield calls


def _faults(args: Any, **more: Any) -> list[str]:
    """Return what is wrong with TRL's settings: those that make its loss other than DPO's, or differ from ``more``."""
    wanted = {**_PLAIN, **more}
    got = {name: getattr(args, name, value) for name, value in wanted.items()}
    return [f"{name} must be {value!r}, got {got[name]!r}" for name, value in wanted.items() if got[name] != value]


def _settings(args: Any, loss: PairLoss | None) -> dict[str, Any]:
    """Return the settings in the first line of the log."""
    hyper = getattr(loss, "__dict__", {})
    settings = {key: value for key, value in hyper.items() if isinstance(value, float | int | str)}
    settings["loss"] = loss.name if loss else "TRL's " + " + ".join(args.loss_type) if _faults(args) else "dpo"
    settings |= {"loss_facts": facts_of(loss)} if loss else {}
    settings["batch"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    settings |= {key: getattr(args, key) for key in ("beta", "learning_rate", "seed")}
    return settings | {"optimizer": str(args.optim.value), "trainer": f"trl {trl.__version__}"}
