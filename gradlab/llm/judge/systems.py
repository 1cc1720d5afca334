"""The systems of a finished run to evaluate: models by name, held-out pairs, and samples, which are kept."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import count, one_of, resolved
from gradlab.console import say
from gradlab.llm.data.batches import Row, pair_rows
from gradlab.llm.data.pair_forms import Prompt
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.prepare import DECIDING, Data, prepare
from gradlab.llm.data.template_dates import TemplateDate, fix_date
from gradlab.llm.data.templates import prompt_text
from gradlab.llm.data.tokens import Encoded, encode_prompt
from gradlab.llm.data.turn_ends import turn_ends
from gradlab.llm.model.finished import DONE, check_same, read_done
from gradlab.llm.model.group import Group, Precision, computing
from gradlab.llm.model.loading import generation_of, load_model, load_tokenizer, model_hash, weights_hash
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.sampling import Samples, sample
from gradlab.llm.model.token_cache import TokenCache
from gradlab.llm.train.reference import score
from gradlab.llm.train.run_folder import CACHE, date_of
from gradlab.losses import PAIR_LOSSES
from gradlab.store.files import write_whole
from gradlab.store.provenance import fingerprint, versions
from gradlab.store.sealed import SEAL, Damaged, read_sealed, sealed

REFERENCE = "reference"
LENGTH = 128  # the most tokens in a response, where there is room and no other length is given


@dataclass(frozen=True)
class System:
    """One model of a run."""

    name: str
    model: str
    """The model's folder or hub name."""
    mean: bool
    """True where the loss took the mean over a response's tokens, not their sum."""
    precision: Precision
    """The precision of the training."""


@dataclass(frozen=True)
class Run:
    """A run's folder; the first system is the reference, which the others are compared with."""

    out: Path
    systems: list[System]
    tokenizer: Any
    data: Data
    settings: Mapping[str, Any]
    """The settings that decide what the data are."""
    date: TemplateDate
    """The date that chat templates write, that of the training."""
    model_weights: str | None = None
    """From which quantised weights the run's first model was made whole; None for any other model."""

    @property
    def held_out(self) -> list[tuple[Pair, Encoded]]:
        """Return the held-out pairs, as text and as tokens."""
        return [(self.data.pairs[index], self.data.encoded[index]) for index in self.data.held_out]

    @functools.cached_property
    def asked(self) -> dict[str, tuple[Pair, Encoded]]:
        """Return the first held-out pair of each prompt, as text and as tokens, by the prompt's text."""
        first: dict[str, tuple[Pair, Encoded]] = {}
        for pair, encoded in self.held_out:
            first.setdefault(prompt_text(pair.prompt, self.settings["template"], self.tokenizer), (pair, encoded))
        return first


@dataclass(frozen=True)
class Drawn:
    """A system's samples, ``Plan.each`` per prompt, and its log-probabilities of the held-out pairs."""

    samples: Samples
    logps: np.ndarray
    """log π of each sample under the system (nats)."""
    ref_logps: np.ndarray
    """log π_ref of each sample (nats)."""
    pairs: np.ndarray
    """log π of both responses of each held-out pair, (N, 2), as sums or means over tokens, as in training."""


@dataclass(frozen=True)
class Plan:
    """The settings by which responses are sampled."""

    each: int
    longest: int
    temperature: float
    seed: int
    batch: int
    precision: Precision
    device: torch.device


def open_run(out: Path | str, names: Iterable[str] = (), data: str | None = None) -> Run:
    """Open the run in the folder ``out`` of ``gradlab train``, with the systems of these names, or all.

    data  where the run's pairs are, if they have moved since the training.

    FileNotFoundError where ``out`` is no run's folder or has no finished model; ValueError for a name that it lacks,
    and where the pairs are no longer those of the training.
    """
    out, names = Path(out), tuple(names)
    page = _page(out)
    finished = _finished(out)
    reference = _reference(out, finished, page["model"], names)
    known = _known(out, finished, reference)
    chosen = [one_of(f"names for {out}", name, known) for name in names] or known
    systems = []
    order = {name: place for place, name in enumerate(_order())}
    for name in sorted({REFERENCE, *chosen}, key=lambda name: (order.get(name, len(order)), name)):
        said = finished.get(name, {})
        if name != REFERENCE and said.get("reference"):
            check_same(out / name / "model", "reference", model_hash(reference), reference)
        systems.append(System(
            name, reference if name == REFERENCE else str(out / name / "model"), said.get("reduction") == "mean",
            said.get("precision", "fp32"),
        ))  # fmt: skip
    tokenizer = load_tokenizer(reference)
    date = date_of(out)
    fix_date(tokenizer, date)
    settings = {**page["settings"], **({"data": data} if data else {})}
    prepared = prepare(settings, tokenizer, TokenCache(out / CACHE))
    if prepared.fingerprint != page["fingerprint"]:
        raise ValueError(f"{settings['data']} is not the data that {out} was trained on; name that file as data")
    if not len(prepared.held_out):
        raise ValueError(f"{out} has no held-out pairs to be evaluated on; train with held_out or validation")
    made = next((said["model_weights"] for said in finished.values() if "model_weights" in said), None)
    return Run(out, systems, tokenizer, prepared, settings, date, made)


def models_of(out: Path | str, names: Iterable[str] = ()) -> list[str]:
    """Return the names of the systems that ``open_run`` opens; raises the same errors, except those of the data."""
    out = Path(out)
    page, finished = _page(out), _finished(out)
    known = _known(out, finished, _reference(out, finished, page["model"], names))
    return [one_of(f"names for {out}", name, known) for name in names] or known


def response_length(run: Run, longest: int | None) -> int:
    """Return the most tokens in a response: ``longest``; or where that is None, 128 or half of max_length if less.

    The other half is the prompt's. ValueError where less than two tokens would be left for prompts.
    """
    whole = run.settings["max_length"]
    if longest is None:
        longest = min(LENGTH, whole // 2)
    if count("length", longest, 1) > whole - 2:
        raise ValueError(
            f"length must be at most {whole - 2} for {run.out}, as its max_length is {whole} and a prompt needs 2, "
            f"got {longest}"
        )
    return longest


def prompts_of(run: Run, number: int | None, longest: int) -> tuple[list[Pair], list[list[int]]]:
    """Return the first ``number`` held-out pairs with different prompts (None: all), and their prompts as tokens.

    ValueError where a prompt's last turn leaves no room for ``longest`` tokens; see ``prompt_ids``.
    """
    count("prompts", 1 if number is None else number, 1)
    longest = response_length(run, longest)
    chosen = [pair for pair, _ in list(run.asked.values())[:number]]
    tokens = []
    for pair in chosen:
        try:
            tokens.append(prompt_ids(run, pair.prompt, longest))
        except ValueError as error:
            raise ValueError(f"length must be less for {run.out}: {pair.place}: {error}") from None
    return chosen, tokens


def prompt_ids(run: Run, prompt: Prompt, longest: int) -> list[int]:
    """Return a prompt's tokens, with room for ``longest`` more: a held-out pair's are those that its responses follow.

    These may be fewer than the prompt's text has, where tokens merge over its end. A prompt that would leave no room,
    or that no held-out pair has, becomes tokens by itself, and shorter as in ``tokens.encode_pairs``; ValueError where
    its last turn leaves none.
    """
    template, room = run.settings["template"], run.settings["max_length"] - longest
    known = run.asked.get(prompt_text(prompt, template, run.tokenizer))
    if known is not None and len(known[1].prompt) <= room:
        return list(known[1].prompt)
    return encode_prompt(prompt, run.tokenizer, template, room)


def draw(run: Run, prompts: Sequence[Sequence[int]], plan: Plan, folder: Path) -> dict[str, Drawn]:
    """Return samples of every system, and their log-probabilities; those kept in ``folder`` are not drawn again.

    Each model is loaded once, the reference last. ValueError where a model's numbers are not finite.
    """
    pages: dict[str, dict[str, Any]] = {}
    reference = run.systems[0]
    for system in [*run.systems[1:], reference]:
        key = fingerprint(
            weights_hash(system.model), turn_ends(run.tokenizer, generation_of(system.model)),
            run.data.fingerprint, list(map(list, prompts)), system.mean,
            plan.each, plan.longest, plan.temperature, plan.seed, plan.batch, plan.precision, plan.device.type,
            versions(("torch", "transformers")),
        )  # fmt: skip
        loaded = _Loaded(system, run, plan)
        pages[system.name] = _kept(folder / f"{system.name}.json", key, lambda of=loaded: _sampled(of, prompts))
        if system is reference:
            for name, page in pages.items():
                same = page["logps"] if name == REFERENCE else None
                page["ref_logps"] = same or _kept(
                    folder / f"{name}-{REFERENCE}.json", fingerprint(key, page["key"]),
                    lambda page=page, of=loaded: {"logps": of.score(_rows(prompts, page, plan.each))},
                )["logps"]  # fmt: skip
        loaded.free()
    places = [index for index in range(len(prompts)) for _ in range(plan.each)]
    return {
        system.name: Drawn(
            Samples(places, [tuple(tokens) for tokens in page["tokens"]], page["finished"]),
            np.array(page["logps"]), np.array(page["ref_logps"]), np.array(page["pairs"]).reshape(-1, 2),
        )
        for system in run.systems for page in (pages[system.name],)
    }  # fmt: skip


def _page(out: Path) -> dict[str, Any]:
    file = out / "data.json"
    if not file.is_file():
        raise FileNotFoundError(f"{out} is no run's folder, it has no data.json; gradlab train makes one")
    try:
        page = read_sealed(file)
        return {"model": page["model"], "fingerprint": page["fingerprint"],
                "settings": {name: page["settings"][name] for name in DECIDING if name != "limit"}
                | {"limit": page["settings"].get("limit")}}  # fmt: skip
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file} is damaged, or of another version of gradlab; train the run again in another folder"
        ) from None


def _order() -> tuple[str, ...]:
    """Return the names of a run's systems in the order in which they are listed; losses of users' own files follow."""
    return (REFERENCE, "sft", *PAIR_LOSSES, "ppo")


def _finished(out: Path) -> dict[str, dict[str, Any]]:
    """Return the done.json of each stage that is finished, by name; not those of reward models that were made here."""
    pages = {}
    others = sorted(  # such as of a loss in a user's own file; another program's file of this name has no seal
        file.parent.name for file in out.glob(f"*/{DONE}") if SEAL.encode() in file.read_bytes()
    )
    for name in dict.fromkeys((*_order(), *others)):
        page = read_done(out / name)
        if page is not None and "start" in page:  # a stage says which model it started from
            if not (out / name / "model").is_dir():
                raise FileNotFoundError(f"{out / name} has no model/ though it was finished; remove it and train again")
            pages[name] = page
    if not pages:
        raise FileNotFoundError(f"{out} has no finished model; gradlab train goes on with a run that was stopped")
    return pages


def _known(out: Path, finished: Mapping[str, dict[str, Any]], reference: str) -> list[str]:
    """Return the names of a run's systems, the reference first; a stage whose model is the reference counts once."""
    return [REFERENCE, *(name for name in finished if str(out / name / "model") != reference and name != REFERENCE)]


def _reference(out: Path, finished: Mapping[str, dict[str, Any]], base: str, names: Iterable[str]) -> str:
    """Return the model that was the reference of these losses, or of all; it is in ``out`` also if that was moved."""
    losses = {name: page for name, page in finished.items() if name not in (REFERENCE, "sft")}
    chosen = {name: page for name, page in losses.items() if name in names} or losses
    said = {_found(out, page.get("reference") or base) for page in chosen.values()}
    if len(said) > 1:
        raise ValueError(f"{out} has runs with different references: {', '.join(sorted(said))}; evaluate each by names")
    if not said:
        stage = REFERENCE if REFERENCE in finished else "sft"
        return str(out / stage / "model")
    return said.pop()


def _found(out: Path, model: str) -> str:
    """Return where a model is now that a run's files name; equal paths are written in one way."""
    path = Path(model)
    inside = out / path.parent.name / "model"
    if path.parent.name in (REFERENCE, "sft") and inside.is_dir():
        return str(inside)
    return str(resolved("reference", path)) if path.exists() else model


class _Loaded:
    """A system's model, which is loaded when it is first needed."""

    def __init__(self, system: System, run: Run, plan: Plan) -> None:
        self.system, self.run, self.plan = system, run, plan
        self.group, self._model = Group(device=plan.device), None

    @property
    def model(self) -> Any:
        if self._model is None:
            half = self.plan.precision == "bf16" and self.plan.device.type == "cuda"
            model = load_model(self.system.model, dtype=torch.bfloat16 if half else torch.float32)
            self._model = with_logps(model.to(self.plan.device).eval())
        return self._model

    def score(self, rows: Sequence[Row], *, mean: bool = False) -> list[float]:
        """Return log π of each response, those of a row together."""

        def forward(**batch: Tensor) -> Tensor:
            with computing(self.plan.device, self.plan.precision):
                return self.model(**batch, mean=mean)

        micro = max(self.plan.batch // (len(rows[0]) - 1), 1)
        pad, layout = self.run.tokenizer.pad_token_id, self.model.layout
        logps = score(forward, rows, self.group, pad=pad, micro=micro, layout=layout)
        if not bool(torch.isfinite(logps).all()):
            raise ValueError(f"{self.system.model} must give finite log-probabilities; its training went wrong")
        return logps.tolist()

    def free(self) -> None:
        """Free the model, if it was loaded."""
        if self._model is None:
            return
        self._model = None
        gc.collect()
        if self.plan.device.type == "cuda":
            torch.cuda.empty_cache()


def _sampled(loaded: _Loaded, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    plan, run = loaded.plan, loaded.run
    pairs = loaded.score(
        pair_rows([encoded for _, encoded in run.held_out]), mean=loaded.system.mean
    )  # before the samples: a broken model fails here, without the wait
    drawn = sample(
        loaded.model, run.tokenizer, prompts, each=plan.each, longest=plan.longest, temperature=plan.temperature,
        seed=plan.seed, batch=plan.batch, precision=plan.precision, group=loaded.group, title=loaded.system.name,
    )  # fmt: skip
    page = {"tokens": [list(tokens) for tokens in drawn.tokens], "finished": list(drawn.finished), "pairs": pairs}
    return page | {"logps": loaded.score(_rows(prompts, page, plan.each))}


def _rows(prompts: Sequence[Sequence[int]], page: Mapping[str, Any], each: int) -> list[Row]:
    """Return each prompt with the responses that were drawn after it."""
    return [(prompt, *page["tokens"][each * index : each * (index + 1)]) for index, prompt in enumerate(prompts)]


def _kept(file: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the page in ``file`` if it has this key; otherwise make the page and keep it there."""
    try:
        page = read_sealed(file)
        if page["key"] == key:
            return page
    except FileNotFoundError:
        pass
    except Damaged as error:
        say(f"gradlab: {error}, and is made again", file=sys.stderr)
    page = {"key": key, **make()}
    write_whole({file: sealed(page)})
    return page
