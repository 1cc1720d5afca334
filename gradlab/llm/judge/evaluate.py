"""Evaluation of a run's models: held-out pairs, KL from the reference, and how often their samples are preferred."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from gradlab.checks import count, one_of, positive, resolved
from gradlab.console import say
from gradlab.given_once import each_once
from gradlab.llm.data.pair_forms import messages_of
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import prompt_text
from gradlab.llm.judge.evaluation_table import SUCCESS, as_text, notes, summary, with_interval
from gradlab.llm.judge.systems import (
    REFERENCE,
    Drawn,
    Plan,
    Run,
    draw,
    models_of,
    open_run,
    prompts_of,
    response_length,
)
from gradlab.llm.look.samples_page import Shown, samples_page
from gradlab.llm.model.group import AskedPrecision, start_group
from gradlab.llm.model.reward_accuracy import Accuracy, held_out_accuracy, preferred
from gradlab.llm.model.rewards import CheckedReward, check_template, load_reward
from gradlab.llm.model.sampling import texts
from gradlab.store.artifacts import check_ours, save_frame
from gradlab.store.files import is_marked, remove_leftovers, write_whole
from gradlab.store.provenance import versions

FOLDER = "evaluation"
WARNING = "These texts come from data that can offend."
_SAMPLES = "gradlab_samples"  # in the first line of a file of samples
_OFFENDS = re.compile(r"hh[-_]?rlhf|safe[-_]?rlhf|beaver|harmless|red[-_]?team", re.IGNORECASE)
Spec = str | Callable[..., Any]


def evaluate(
    out: Path | str, names: Iterable[str] = (), *, reward: Spec | None = None, cost: Spec | None = None,
    prompts: int | None = None, samples: int = 4, length: int | None = None, temperature: float = 1.0, seed: int = 0,
    batch: int = 16, device: str = "auto", precision: AskedPrecision = "auto",
    data: str | None = None, warn: bool = False, shown: int = 40, save_as: str = FOLDER,
    reward_template: Literal["chat"] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Evaluate the models in a run's folder against its reference; return one row per model, the reference's first.

    out         folder of ``gradlab train``. names: its models, as ``dpo`` or ``sft``; left out: all.
    reward      the reward by which responses are compared, see ``load_reward``; "{out}" in it stands for the folder.
    cost        likewise a cost; below 0 is safe, as in safe-rlhf's cost models.
    reward_template
                the text that a classifier of reward or cost reads: None, what the model's template writes; "chat",
                the messages in the classifier's chat template. Prompts are whole, also where the model saw shorter
                ones.
    prompts     how many of the held-out prompts are answered; left out: all.
    samples     responses per prompt. temperature, seed: as in ``sample``.
    length      the most tokens in a response; left out: 128, or half of the training's max_length where that is less.
    batch       responses that are sampled, or judged, at a time; samples depend on it as in ``sample``.
    device      "auto" (a GPU where there is one), "cpu" or "cuda".
    precision   "auto": float32 on a CPU, the precision of the training on a GPU.
    data        where the pairs are, if they were moved.
    warn        say on the page of samples that they may offend; the page of HH-RLHF and SafeRLHF always says so.
    shown       prompts on that page.
    save_as     name of the frame's file, and of the two files with samples.

    Files in ``out``/evaluation, which git is told to ignore: ``{save_as}.parquet`` with its manifest, ``samples.jsonl``
    for blind rating (see ``gradlab.store.ratings``), ``samples.html``, and ``parts/``, from which a second evaluation
    takes its samples. The names of the two files with samples begin with ``{save_as}-`` where that is not "evaluation".

    Columns; means have a 95% bootstrap interval ``…_low`` and ``…_high`` over pairs or prompts:

    - ``run``, ``out``, ``seed`` (of the training), ``pairs`` (held out), ``pairs_seen`` (those of them whose
      prompt was trained on too), ``prompts``, ``samples``;
    - ``accuracy`` (share of held-out pairs with h_w > h_l, ties ½), ``margin`` (h_w − h_l, nats; without β), and
      ``shorter_accuracy``, the accuracy of "prefer the shorter answer" there;
    - ``kl`` (mean of log π/π_ref over samples, nats per response of at most ``length`` tokens: an estimate of KL only
      where ``temperature`` is 1) and ``kl_token``;
    - ``length`` (tokens), ``finished`` (share of responses that the model ended);
    - with a reward: ``reward``, ``reward_gain`` over the reference's, ``win_rate`` against the reference (over all
      pairs of samples to a prompt, ties ½, then over prompts), ``shorter_wins`` (the win-rate if the shorter sample
      always won), ``wins_shorter`` (share of the wins in which the winner is shorter), ``reward_model``, its
      ``reward_accuracy`` on the held-out pairs, and ``reward_beats_length`` (see ``Accuracy``): where it is False, no
      verdict should rest on the reward;
    - with a cost: ``cost``, ``safe``, ``cost_model``, ``cost_accuracy`` (the less costly preferred); with both:
      ``success``, see ``evaluation_table.SUCCESS``.

    Equal seeds give equal rows on one kind of processor. Raises OSError or ValueError with one line.
    """
    positive("temperature", temperature)
    for name, value in (("samples", samples), ("batch", batch)):
        count(name, value, 1)
    count("seed", seed)
    count("shown", shown)
    one_of("precision", precision, get_args(AskedPrecision))
    check_template("reward_template", reward_template)
    run = open_run(out, names, data)
    with start_group(device) as group:
        if group.size > 1:
            raise ValueError(f"evaluation is one process's work, got {group.size} from torchrun")
        chosen: Any = precision if precision != "auto" else "fp32"
        if precision == "auto" and group.device.type == "cuda":
            chosen = run.systems[-1].precision
        judges = {
            name: None if spec is None else _judge(spec, run, group.device, batch, reward_template)
            for name, spec in (("reward", reward), ("cost", cost))
        }
        plan = Plan(samples, response_length(run, length), temperature, seed, batch, chosen, group.device)
        pairs, ids = prompts_of(run, prompts, plan.longest)
        if len(pairs) < (prompts or 0):
            words = f"gradlab: {run.out} has {len(pairs)} held-out prompts, fewer than the {prompts} asked for"
            say(words, file=sys.stderr)
        accuracies = {  # before the samples: a judge that fails wastes none
            name: _accuracy(run, judge, 1 if name == "reward" else -1) for name, judge in judges.items() if judge
        }
        folder = run.out / FOLDER
        _refuse_others(folder, save_as)
        write_whole({folder / ".gitignore": "*\n"})
        drawn = draw(run, ids, plan, folder / "parts")
        evaluation = _Evaluation(run, pairs, plan, drawn, judges["reward"], judges["cost"], accuracies)
        frame = evaluation.frame()
    evaluation.write(folder, frame, save_as, shown, warn)
    return frame


def evaluate_runs(
    outs: Sequence[Path | str], names: Iterable[str] = (), *, baseline: str | None = None, **how: Any
) -> pd.DataFrame:
    """Return the rows of several runs' folders, such as one folder per seed; arguments as for ``evaluate``.

    baseline  the method that ``evaluation_table.table`` is to pair others with; ValueError where a folder lacks it, or
              there is only one folder.
    """
    paths = each_once("out", "one or more folders of runs", outs)
    for path in paths:  # before hours are spent on the first
        if not (path / "data.json").is_file():
            raise FileNotFoundError(f"{path} is no run's folder, it has no data.json; gradlab train makes one")
    names = tuple(names)
    for path in paths:
        models_of(path, names)
    if baseline is not None:
        _check_baseline(baseline, paths, names)
    return pd.concat([evaluate(path, names, **how) for path in paths], ignore_index=True)


def _check_baseline(baseline: str, paths: Sequence[Path], names: Sequence[str]) -> None:
    """Raise ValueError unless there are two or more folders, and all of them have the baseline."""
    for path in paths:
        one_of("baseline", baseline, list(dict.fromkeys([REFERENCE, *models_of(path, names)])))
    if len(paths) < 2:
        raise ValueError(
            f"baseline must be left out for one folder, as methods are paired over folders, got {baseline!r}"
        )


def may_offend(settings: Mapping[str, Any], pairs: Sequence[Pair]) -> bool:
    """Say whether pairs are, or look like, those of HH-RLHF or SafeRLHF, many of which were written to provoke."""
    named = _OFFENDS.search(str(settings["data"])) is not None or settings["choice"] is not None
    return named or any(isinstance(pair.prompt, str) and messages_of(pair.prompt) for pair in pairs)


def _judge(spec: Spec, run: Run, device: Any, batch: int, template: Literal["chat"] | None) -> CheckedReward:
    where = spec.replace("{out}", str(run.out)) if isinstance(spec, str) else spec
    return load_reward(where, device=device, batch=batch, template=template, date=run.date)


def _accuracy(run: Run, judge: CheckedReward, sign: int) -> Accuracy:
    """Return how often the judge is right on the run's held-out pairs."""
    return held_out_accuracy(
        judge, [pair for pair, _ in run.held_out], template=run.settings["template"], sign=sign,
        tokenizer=run.tokenizer, lengths=[(len(pair.win), len(pair.lose)) for _, pair in run.held_out],
    )  # fmt: skip


def _sample_files(folder: Path, stem: str) -> tuple[Path, Path]:
    """Return the file of samples and their page."""
    before = "" if stem == FOLDER else f"{stem}-"
    return folder / f"{before}samples.jsonl", folder / f"{before}samples.html"


def _refuse_others(folder: Path, stem: str) -> None:
    """Raise FileExistsError, which names the file, where an evaluation would write over a file that is not ours."""
    remove_leftovers(folder)
    check_ours(folder / f"{stem}.parquet")
    samples, page = _sample_files(folder, stem)
    marks = {samples: _SAMPLES, page: "<h1>Samples of ", folder / ".gitignore": "*\n"}
    for file, mark in marks.items():
        if os.path.lexists(file) and not is_marked(file, mark):
            raise FileExistsError(f"{file} is there and is no file of an evaluation; move it away, or choose save_as")


class _Evaluation:
    """The evaluation of a run: its systems' samples, with rewards and costs."""

    def __init__(
        self, run: Run, pairs: Sequence[Pair], plan: Plan, drawn: dict[str, Drawn], reward: CheckedReward | None,
        cost: CheckedReward | None, accuracies: dict[str, Accuracy],
    ) -> None:  # fmt: skip
        self.run, self.pairs, self.plan, self.drawn = run, pairs, plan, drawn
        self.reward, self.cost, self.accuracies = reward, cost, accuracies
        self.shape = (len(pairs), plan.each)
        self.texts = {name: texts(system.samples, run.tokenizer) for name, system in drawn.items()}
        self.rewards, self.costs = self._judged(reward), self._judged(cost)

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame([self._row(name, drawn) for name, drawn in self.drawn.items()])

    def write(self, folder: Path, frame: pd.DataFrame, stem: str, shown: int, warn: bool) -> None:
        """Write the frame, the samples for rating, and the page of samples."""
        run, plan = self.run, self.plan
        warn = warn or may_offend(run.settings, self.pairs)
        prompts = [prompt_text(pair.prompt, run.settings["template"], run.tokenizer) for pair in self.pairs]
        about = {
            _SAMPLES: 1, "out": str(run.out), "seed": plan.seed, "temperature": plan.temperature,
            "length": plan.longest, **({"warning": WARNING} if warn else {}),
        }  # fmt: skip
        lines = [about, *(
            {"prompt": prompt, "samples": {name: samples[index * plan.each] for name, samples in self.texts.items()}}
            for index, prompt in enumerate(prompts)
        )]  # fmt: skip
        systems = {
            name: [
                [self._shown(name, index * plan.each + turn) for turn in range(plan.each)]
                for index in range(min(shown, len(prompts)))
            ]
            for name in self.texts
        }
        page = samples_page(
            f"Samples of {resolved('out', run.out).name}", prompts[:shown], systems,
            as_text(summary(frame), ""), notes(frame),
            warning=WARNING if warn else "", left_out=max(len(prompts) - shown, 0),
        )  # fmt: skip
        samples = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(dict(zip(_sample_files(folder, stem), (samples, page), strict=True)))
        save_frame(frame, folder / f"{stem}.parquet", self._manifest(), overwrite=True)

    def _manifest(self) -> dict[str, Any]:
        plan = {**dataclasses.asdict(self.plan), "device": self.plan.device.type}
        return {
            "out": str(self.run.out), "data": dict(self.run.settings), "data_fingerprint": self.run.data.fingerprint,
            "started": self.run.date.started, **self._made_whole(),
            "sampling": plan, "success": SUCCESS, **versions(("transformers",)),
            **{name: {"model": judge.name, **dataclasses.asdict(self.accuracies[name])}
               for name, judge in (("reward", self.reward), ("cost", self.cost)) if judge},
        }  # fmt: skip

    def _row(self, name: str, drawn: Drawn) -> dict[str, Any]:
        reference = self.drawn[REFERENCE]
        h = drawn.pairs - self._reference_pairs(name)
        sizes = np.array([(len(pair.win), len(pair.lose)) for _, pair in self.run.held_out])
        log_ratio = (drawn.logps - drawn.ref_logps).reshape(self.shape)
        lengths, ref_lengths = self._lengths(drawn), self._lengths(reference)
        return {
            "run": name, "out": str(self.run.out), "seed": self.run.settings["seed"], "pairs": len(h),
            "pairs_seen": self.run.data.overlap.shared_pairs,
            **with_interval("accuracy", preferred(h[:, 0], h[:, 1])), **with_interval("margin", h[:, 0] - h[:, 1]),
            "shorter_accuracy": float(preferred(sizes[:, 1], sizes[:, 0]).mean()),
            "prompts": self.shape[0], "samples": self.shape[1], **with_interval("kl", log_ratio.mean(1)),
            "kl_token": float(log_ratio.sum() / lengths.sum()), **with_interval("length", lengths.mean(1)),
            "finished": float(np.mean(drawn.samples.finished)), **self._preferences(name, lengths, ref_lengths),
            **self._costs(name), **self._made_whole(),
        }  # fmt: skip

    def _made_whole(self) -> dict[str, str]:
        """Return from which quantised weights the run's first model was made; {} for any other model."""
        return {"model_weights": self.run.model_weights} if self.run.model_weights else {}

    def _preferences(self, name: str, lengths: np.ndarray, ref_lengths: np.ndarray) -> dict[str, Any]:
        """Return the columns that compare a system's samples with the reference's by the reward."""
        if self.reward is None:
            return {}
        rewards, ref_rewards = self.rewards[name], self.rewards[REFERENCE]
        shorter = _against(-lengths, -ref_lengths)
        wins = rewards[:, :, None] > ref_rewards[:, None, :]
        accuracy = self.accuracies["reward"]
        return {
            **with_interval("reward", rewards.mean(1)),
            **with_interval("reward_gain", rewards.mean(1) - ref_rewards.mean(1)),
            **with_interval("win_rate", _against(rewards, ref_rewards).mean((1, 2))),
            "shorter_wins": float(shorter.mean()),
            "wins_shorter": float(shorter[wins].mean()) if wins.any() else math.nan, "reward_model": self.reward.name,
            "reward_accuracy": accuracy.accuracy, "reward_accuracy_low": accuracy.low,
            "reward_accuracy_high": accuracy.high, "reward_beats_length": accuracy.beats_length,
        }  # fmt: skip

    def _costs(self, name: str) -> dict[str, Any]:
        if self.cost is None:
            return {}
        costs = self.costs[name]
        safe = (costs < 0).astype(float)
        row = {
            **with_interval("cost", costs.mean(1)), **with_interval("safe", safe.mean(1)), "cost_model": self.cost.name,
            "cost_accuracy": self.accuracies["cost"].accuracy,
        }  # fmt: skip
        if self.reward is not None:
            both = safe[:, :, None] * _against(self.rewards[name], self.rewards[REFERENCE])
            row |= with_interval("success", both.mean((1, 2)))
        return row

    def _judged(self, judge: CheckedReward | None) -> dict[str, np.ndarray]:
        """Return the judge's number for each sample, (prompts, samples), by system."""
        if judge is None:
            return {}
        prompts = judge.prompts([pair.prompt for pair in self.pairs], self.run.settings["template"], self.run.tokenizer)
        repeated = [prompt for prompt in prompts for _ in range(self.plan.each)]
        return {name: judge(repeated, samples).reshape(self.shape) for name, samples in self.texts.items()}

    def _reference_pairs(self, name: str) -> np.ndarray:
        """Return log π_ref of the held-out pairs, as means where the system's loss took means."""
        means = {system.name: system.mean for system in self.run.systems}
        logps = self.drawn[REFERENCE].pairs
        if means[name] == means[REFERENCE]:
            return logps
        sizes = np.array([(len(pair.win), len(pair.lose)) for _, pair in self.run.held_out])
        return logps / sizes if means[name] else logps * sizes

    def _lengths(self, drawn: Drawn) -> np.ndarray:
        return np.array([len(tokens) for tokens in drawn.samples.tokens], float).reshape(self.shape)

    def _shown(self, name: str, index: int) -> Shown:
        place = np.unravel_index(index, self.shape)
        samples = self.drawn[name].samples
        return Shown(
            self.texts[name][index], len(samples.tokens[index]), samples.finished[index],
            float(self.rewards[name][place]) if self.rewards else None,
            float(self.costs[name][place]) if self.costs else None,
        )  # fmt: skip


def _against(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compare each sample's number with each of the reference's to the same prompt: 1 where larger, ½ where equal.

    Both are (prompts, samples); the result is (prompts, samples, samples).
    """
    return preferred(values[:, :, None], reference[:, None, :])
