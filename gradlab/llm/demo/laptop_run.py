"""A real run that fits a laptop: small Llamas from scratch, every loss, on real pairs and on a task of known reward.

For each task, size and seed: a tokenizer and a Llama with random weights; supervised training on the chosen responses;
the reference, 300 steps of DPO; each loss for two epochs from there, and PPO on a reward model that is trained on the
same pairs; then an evaluation of all models. The frames feed the claims report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import input_file, one_of
from gradlab.doctor.training_log import LOG, read_log
from gradlab.llm.data.batches import len_of, pair_rows
from gradlab.llm.data.pairs import Pair, json_lines, read_pairs
from gradlab.llm.data.prepare import Data, prepare
from gradlab.llm.demo.token_task import task_tokenizer, token_task
from gradlab.llm.judge.evaluate import evaluate
from gradlab.llm.judge.evaluation_table import table
from gradlab.llm.model import loading
from gradlab.llm.model.finished import check_model, read_done, write_done
from gradlab.llm.model.group import Group
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.unit_process import in_single, one_thread, quietly
from gradlab.llm.train.checkpoints import remove
from gradlab.llm.train.reference import score
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.run_folder import refuse_others
from gradlab.llm.train.run_settings import PPO, Settings
from gradlab.llm.train.section_settings import LogSettings, PPOSettings, ReferenceSettings, SupervisedSettings
from gradlab.llm.train.stages import train
from gradlab.store.artifacts import load_frame, remove_frames, save_frame
from gradlab.store.files import file_hash, write_whole
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import fingerprint
from gradlab.streams import Purpose, stream

# Declared before the first run. Stated by the paper: β = 1, clip 0.3, two epochs, 300 steps of DPO for the reference.
# All else is ours, chosen so that one seed of a task takes at most half an hour on two cores, and not by any result.
SETTINGS: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "sizes": {
        "1M": {"width": 128, "layers": 4, "heads": 4},
        "2M": {"width": 160, "layers": 5, "heads": 5},
    },
    "losses": ["dpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"],  # the last, λ = ½, is DPO at β/2: a control
    "training": {"sft_learning_rate": 1e-3, "reference_steps": 300, "epochs": 2.0},
    "tasks": {
        "hh": {
            "learning_rate": 5e-5, "pairs": 1120, "held_out": 160, "vocabulary": 2048, "max_length": 112, "batch": 8,
            "sft_epochs": 4.0, "samples": 2, "sample_length": 48, "reward_epochs": 2.0,
            "reward_learning_rate": 1e-4, "prompts": 96,
        },
        "tokens": {
            "learning_rate": 3e-4, "pairs": 1360, "held_out": 160, "max_length": 40, "batch": 8, "sft_epochs": 4.0,
            "samples": 4, "sample_length": 28, "reward_epochs": 2.0, "reward_learning_rate": 3e-4, "prompts": 160,
        },
    },
    "sides_every": 20, "validate_every": 20, "each": 4,
}  # fmt: skip
# Settings for a test: the whole path in a minute, without a meaningful result.
SMOKE: dict[str, Any] = {
    **SETTINGS,
    "seeds": [0],
    "sizes": {"tiny": {"width": 32, "layers": 1, "heads": 2}},
    "losses": ["dpo", "bdpo"],
    "training": {"sft_learning_rate": 3e-3, "reference_steps": 4, "epochs": 0.5},
    "tasks": {"tokens": {**SETTINGS["tasks"]["tokens"], "pairs": 96, "held_out": 24, "sft_epochs": 0.5,
                         "reward_epochs": 0.5, "samples": 2, "prompts": 12}},
    "sides_every": 2, "validate_every": 2, "each": 2,
}  # fmt: skip
CHUNK = 256  # tokens whose logits exist at one time: rounding depends on it, so it is part of the run
NEEDS_DATA = ("hh",)  # tasks whose pairs must be given
JUDGES = {"hh": "reward model", "tokens": "true reward"}  # the reward behind a task's win-rates
FRAMES = ("evaluation", "logs", "pairs")


def run_demo(
    folder: Path,
    *,
    data: str | None = None,
    settings: dict[str, Any] = SETTINGS,
    tasks: Sequence[str] = (),
    sizes: Sequence[str] = (),
    seeds: Sequence[int] = (),
    workers: int | None = None,
) -> dict[str, pd.DataFrame]:
    """Do the runs of these tasks, sizes and seeds (left out: all) that are not done yet; return the frames of all runs.

    folder  gets a folder per run, and the frames: ``evaluation`` (one row per method), ``logs`` (one row per step) and
            ``pairs`` (one row per held-out pair and method), each with task, size, seed and method.
    data    HH-RLHF's pairs for the task ``hh``, as ``read_pairs`` takes them; with other pairs than before, that task's
            runs in the folder start again.
    workers processes, of one thread each; left out: one per core. The number changes no bit.
    """
    names = [one_of("task", task, settings["tasks"]) for task in tasks] or list(settings["tasks"])
    if set(NEEDS_DATA) & set(names) and data is None:
        raise ValueError("data must name HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf; got none")
    chosen = [
        (task, one_of("size", size, settings["sizes"]), seed)
        for task in names for seed in seeds or settings["seeds"] for size in sizes or settings["sizes"]
    ]  # fmt: skip
    units = [
        Part(
            {"task": task, "size": size, "seed": int(seed), "folder": str(folder / f"{task}-{size}-{seed}"),
             "data": data, "settings": settings},
            folder / f"{task}-{size}-{seed}" / "evaluation.parquet", _key(task, size, seed, settings, data),
        )
        for task, size, seed in chosen
    ]  # fmt: skip
    run_parts(run_unit, units, label="language models", unit="run", workers=workers)
    return {name: _joined([unit.file.with_name(f"{name}.parquet") for unit in units]) for name in FRAMES}


def demo_table(frame: pd.DataFrame) -> str:
    """Return the frame ``evaluation`` as text: for each task and size a table with one row per method, over seeds."""
    parts = []
    for (task, size), part in frame.groupby(["task", "size"], sort=False):
        rows = part.assign(run=part["method"], out=part["seed"], reward_model=part["judge"])
        parts.append(f"{task}, {size}\n{table(rows)}")
    return "\n\n".join(parts)


def save_demo(frames: dict[str, pd.DataFrame], folder: Path, settings: dict[str, Any], command: str) -> list[Path]:
    """Keep the frames where the claims report looks for them."""
    manifest = {"settings": settings, "command": command}
    return [
        save_frame(in_single(frame), folder / f"{name}.parquet", manifest, overwrite=True)
        for name, frame in frames.items()
    ]


def trained(out: Path, task: str, size: str, seed: int, settings: dict[str, Any], data: str | None = None) -> Settings:
    """Train the reference and each loss of one task, size and seed, from the tokenizer on; return the run's settings.

    What is finished in ``out`` is not trained again.
    """
    out.mkdir(parents=True, exist_ok=True)
    of_task = settings["tasks"][task]
    with quietly(out / "said.txt"):
        _start(task, settings["sizes"][size], seed, out, data, of_task)
        run = _run_settings(seed, out, of_task, settings)
        train(run)
    return run


@one_thread()
def run_unit(task: str, size: str, seed: int, folder: str, data: str | None, settings: dict[str, Any]) -> pd.DataFrame:
    """Run one task, size and seed, from the tokenizer on; return the evaluation, and keep the other frames."""
    out = Path(folder)
    of_task = settings["tasks"][task]
    labels = {"task": task, "size": size, "seed": seed}
    run = trained(out, task, size, seed, settings, data)
    with quietly(out / "said.txt"):
        prepared = prepare(run.flat(), loading.load_tokenizer(run.model))
        reward = train_reward(
            run.out / "sft/model", [prepared.pairs[index] for index in prepared.train], out / "reward",
            held_out=[prepared.pairs[index] for index in prepared.held_out], epochs=of_task["reward_epochs"],
            learning_rate=of_task["reward_learning_rate"], batch=of_task["batch"], max_length=of_task["max_length"],
            seed=seed,
        )  # fmt: skip
        train(dataclasses.replace(run, loss=(PPO,), ppo=dataclasses.replace(run.ppo, reward=reward)))
        methods = [*settings["losses"], PPO]
        judge = "gradlab.llm.demo.token_task:true_reward" if task == "tokens" else reward
        evaluation = evaluate(
            run.out, ["reference", *methods], reward=judge, samples=settings["each"], length=of_task["sample_length"],
            prompts=of_task["prompts"], seed=seed, batch=64, device="cpu",
        )  # fmt: skip
        evaluation = evaluation.rename(columns={"run": "method"}).drop(columns=["out", "reward_model"])  # paths
        logs = [read_log(run.out / name / LOG).assign(method=name) for name in methods]
        frames = {"logs": pd.concat(logs), "pairs": _pair_frame(run, prepared, ["reference", *methods])}
    for name, frame in frames.items():
        save_frame(frame.assign(**labels), out / f"{name}.parquet", labels, overwrite=True)
    return evaluation.assign(**labels, judge=JUDGES[task])


def _key(task: str, size: str, seed: int, settings: dict[str, Any], data: str | None) -> str:
    """Return a hash of all that a run's frames depend on; for data in a file the content counts, not the path."""
    if task not in NEEDS_DATA or data is None:
        return fingerprint(settings, task, size, seed)
    named = file_hash(data) if Path(data).is_file() else data
    return fingerprint(settings, task, size, seed, named)


def _start(task: str, size: dict[str, int], seed: int, out: Path, data: str | None, of_task: dict[str, Any]) -> None:
    """Write the pairs of this seed, the tokenizer, and the model with random weights, unless they are there.

    Models and frames from other pairs are removed, since a stage goes on only from its own data.
    """
    pairs, wanted = out / "pairs.jsonl", json_lines(_chosen(task, seed, data, of_task["pairs"]))
    if not pairs.exists() or input_file("pairs", pairs).read_bytes() != wanted.encode():
        parts = ("base", "run", "reward")
        refuse_others(out, parts, ours=pairs.exists())
        for name in parts:
            remove(out / name)
        for name in FRAMES:
            remove_frames(out, name)
        write_whole({pairs: wanted})
    if not _has_base(out):
        tokenizer = task_tokenizer() if task == "tokens" else _trained_tokenizer(pairs, of_task["vocabulary"])
        longest = of_task["max_length"] + of_task["sample_length"]
        model = loading.small_llama(len(tokenizer), **size, longest=longest, seed=seed)
        loading.save_folder(out / "base", model, tokenizer)
        write_done(out, {}, ("base",))


def _has_base(out: Path) -> bool:
    """Return whether the model that a run starts from is there, as it was made."""
    try:
        check_model(out / "base")
        return read_done(out) is not None and (out / "base").is_dir()
    except ValueError:  # equal settings make it again, bit for bit
        return False


def _chosen(task: str, seed: int, data: str | None, number: int) -> list[Pair]:
    if task == "tokens":
        return token_task(number, seed)
    assert data is not None
    pairs, _ = read_pairs(data)
    if len(pairs) < number:
        raise ValueError(f"data must hold {number} usable pairs or more, {data} has {len(pairs)}")
    order = stream(seed, Purpose.DEMO_PAIRS).permutation(len(pairs))[:number]
    return [pairs[index] for index in order]


def _trained_tokenizer(file: Path, vocabulary: int) -> Any:
    """Return a BPE of all pairs, also of those held out, whose texts are of the same kind."""
    pairs, _ = read_pairs(str(file))
    return loading.train_bpe(
        (f"{pair.prompt}{side}" for pair in pairs for side in (pair.chosen, pair.rejected)), vocabulary
    )


def _run_settings(seed: int, out: Path, task: dict[str, Any], settings: dict[str, Any]) -> Settings:
    training = settings["training"]
    return Settings(
        model=str(out / "base"), data=str(out / "pairs.jsonl"), out=out / "run", loss=tuple(settings["losses"]),
        recipe="paper", seed=seed, held_out=task["held_out"], hold_out="pairs",  # as in the frames that are committed
        max_length=task["max_length"], batch=task["batch"],
        micro=task["batch"], chunk=CHUNK, precision="fp32", device="cpu", epochs=training["epochs"],
        learning_rate=task["learning_rate"], reference=ReferenceSettings(steps=training["reference_steps"]),
        sft=SupervisedSettings(epochs=task["sft_epochs"], learning_rate=training["sft_learning_rate"]),
        ppo=PPOSettings(samples=task["samples"], length=task["sample_length"]),
        log=LogSettings(
            sides_every=settings["sides_every"], validate_every=settings["validate_every"], save_every=100
        ),
    )  # fmt: skip


def _pair_frame(run: Settings, data: Data, methods: Sequence[str]) -> pd.DataFrame:
    """Return log π of both sides of each held-out pair under each finished model and the reference, with lengths."""
    pairs = data.part(data.held_out)
    sides = {}
    tokenizer = loading.load_tokenizer(run.model)
    for name in methods:
        model = with_logps(loading.load_model(run.out / name / "model").eval(), chunk=run.chunk)
        sides[name] = score(
            model, pair_rows(pairs), Group(), pad=tokenizer.pad_token_id, micro=16, layout=model.layout
        ).view(-1, 2)
    common = {
        "pair": data.held_out, "win_len": len_of(pairs, "win").numpy(), "lose_len": len_of(pairs, "lose").numpy(),
        "ref_win": sides["reference"][:, 0].numpy(), "ref_lose": sides["reference"][:, 1].numpy(),
    }  # fmt: skip
    return pd.concat(
        pd.DataFrame({"method": name, **common, "win": logps[:, 0].numpy(), "lose": logps[:, 1].numpy()})
        for name, logps in sides.items()
    )


def _joined(files: Sequence[Path]) -> pd.DataFrame:
    return pd.concat([load_frame(file)[0] for file in files], ignore_index=True)
