"""Samples for a human study: one response per prompt from each system that is a model folder, kept beside the study."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradlab.checks import count, in_words, one_of, positive
from gradlab.llm.data.pair_forms import Prompt
from gradlab.llm.data.turn_ends import turn_ends
from gradlab.llm.judge.systems import Run, System, models_of, open_run, prompt_ids, prompts_of, response_length
from gradlab.llm.model.group import Precision, start_group
from gradlab.llm.model.loading import generation_of, load_model, weights_hash
from gradlab.llm.model.sampling import sample, texts
from gradlab.store.files import write_whole
from gradlab.store.json_lines import read_lines
from gradlab.store.provenance import fingerprint, versions
from gradlab.study.items import SAMPLES, check_number, samples_of, strata_of
from gradlab.study.plan import Plan
from gradlab.study.texts import check_spellings, json_lines

_MARK = "gradlab_study_samples"  # in the first line of a file of samples


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled, one per prompt."""

    temperature: float = 1.0
    seed: int = 0
    length: int | None = None
    """The most tokens in a response; None: as ``gradlab evaluate``, for the shortest of the runs."""
    batch: int = 16
    device: str = "auto"
    prompts: int | None = None
    """How many held-out prompts are answered, where neither the plan nor another system names prompts; None: all."""


@dataclass(frozen=True)
class Kept:
    """A system's file of samples: whether it was there already, and how many responses were empty and left out."""

    file: Path
    was_there: bool
    empty: int


def sample_systems(plan: Plan, folder: Path, study: Path, sampling: Sampling) -> dict[str, Kept]:
    """Return a file of samples for each of the plan's systems that is a model folder: OUT/NAME/model, or its run's OUT.

    folder  the folder to which the plan's paths are relative.
    study   the file of the study, beside which samples are kept.

    Prompts are those of the plan's file, or those that other systems' samples answer, or the held-out ones of the first
    run; faults in the plan's file, and fewer prompts than the plan needs, are refused before a model is loaded. A file
    of samples that is there is used where model, prompts and settings are the same; else ValueError says so, and
    nothing is replaced. OSError or ValueError in one line, as in ``open_run``.
    """
    positive("temperature", sampling.temperature)
    count("seed", sampling.seed)
    count("batch", sampling.batch, 1)
    places = {system: _place(system, folder / source) for system, source in plan.systems.items()
              if (folder / source).is_dir()}  # fmt: skip
    runs = {out: open_run(out, {name for other, name in places.values() if other == out})
            for out in dict.fromkeys(out for out, _ in places.values())}  # fmt: skip
    longest = min(response_length(run, sampling.length) for run in runs.values())
    prompts = _prompts(plan, folder, next(iter(runs.values())), longest, sampling.prompts)
    check_number(plan, len(prompts) * len(plan.compared), len(prompts))  # before any model is loaded
    kept = {}
    for system, (out, name) in places.items():
        run = runs[out]
        chosen = next(known for known in run.systems if known.name == name)
        kept[system] = _kept(_file(study, system, list(places)), run, chosen, prompts, longest, sampling)
    return kept


def _place(system: str, folder: Path) -> tuple[Path, str]:
    """Return the run's folder and the model's name there."""
    if (folder / "data.json").is_file():
        return folder, one_of(f"systems.{system}, by its name a model of {folder},", system, models_of(folder))
    inner = folder.parent if folder.name == "model" else folder
    out, name = inner.parent, inner.name
    if not (out / "data.json").is_file():
        raise ValueError(
            f"systems.{system} must be a file of samples, a run's folder of gradlab train or OUT/NAME/model in it, got "
            f"the folder {in_words(folder)}"
        )
    return out, one_of(f"systems.{system}", name, models_of(out))


def _prompts(plan: Plan, folder: Path, run: Run, longest: int, number: int | None) -> dict[str, Prompt]:
    """Return the prompts by the text that raters read."""
    if plan.prompts is not None:
        file = folder / plan.prompts
        strata = strata_of(file)
        check_spellings([(file, strata)])
        return {prompt: prompt for prompt in strata}
    answered = [
        samples_of(system, folder / source) for system, source in plan.systems.items()
        if not (folder / source).is_dir()
    ]  # fmt: skip
    if answered:
        return {prompt: prompt for prompt in answered[0] if all(prompt in others for others in answered)}
    pairs, _ = prompts_of(run, number, longest)
    return {_read(pair.prompt): pair.prompt for pair in pairs}


def _read(prompt: Prompt) -> str:
    """Return a prompt as raters read it: a single message as it is, several with their roles."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _file(study: Path, system: str, systems: Sequence[str]) -> Path:
    """Return the file of a system's samples beside the study, under a name that every file system takes."""
    plain = system if re.fullmatch(r"[\w.+-]+", system) else f"system-{systems.index(system) + 1}"
    return study.with_name(f"{study.name.removesuffix('.json')}-{plain}.samples.jsonl")


def _kept(
    file: Path, run: Run, system: System, prompts: Mapping[str, Prompt], longest: int, sampling: Sampling
) -> Kept:
    """Return a system's samples as a file, which is written unless it is there."""
    ids = [prompt_ids(run, prompt, longest) for prompt in prompts.values()]
    with start_group(sampling.device) as group:
        precision: Precision = system.precision if group.device.type == "cuda" else "fp32"
        key = fingerprint(
            weights_hash(system.model), turn_ends(run.tokenizer, generation_of(system.model)), ids, longest,
            sampling.temperature, sampling.seed, sampling.batch, precision, group.device.type,
            versions(("torch", "transformers")),
        )  # fmt: skip
        if os.path.lexists(file):
            return _there(file, key, len(ids))
        model: Any = load_model(system.model, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        drawn = sample(
            model.to(group.device).eval(), run.tokenizer, ids, each=1, longest=longest, seed=sampling.seed,
            temperature=sampling.temperature, batch=sampling.batch, precision=precision, group=group, title=system.name,
        )  # fmt: skip
        del model
        gc.collect()
    about = {
        _MARK: 1, "key": key, "model": system.model, "temperature": sampling.temperature, "seed": sampling.seed,
        "length": longest,
    }  # fmt: skip
    lines = [
        {"prompt": prompt, "response": text}
        for prompt, text in zip(prompts, texts(drawn, run.tokenizer), strict=True) if text.strip()
    ]  # fmt: skip
    write_whole({file: json_lines([about, *lines])})
    return Kept(file, False, len(ids) - len(lines))


def _there(file: Path, key: str, number: int) -> Kept:
    """Return the samples in a file that is there; ValueError where they are others, or where another tool wrote it."""
    lines, _ = read_lines(file, SAMPLES)
    about = lines[0][1] if lines else {}
    if about.get(_MARK) != 1:
        raise ValueError(f"{file} was not written by gradlab study; move it away, or name another file for the study")
    if about.get("key") != key:
        raise ValueError(
            f"{file} holds samples of another model, other prompts or settings; move it away, or name another file for "
            "the study"
        )
    return Kept(file, True, number - len(lines) + 1)
