"""The task of openings: a pretrained model goes on with a short opening, and the true reward of a response is known.

The pairs of a seed are responses of the model itself, labelled by Bradley–Terry on the true reward. So the reference of
the training is the distribution that the pairs are drawn from.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from gradlab.console import say
from gradlab.llm.data.pair_forms import Message
from gradlab.llm.data.pairs import Pair, json_lines, read_pairs
from gradlab.llm.data.tokens import encode_prompt
from gradlab.llm.model import loading
from gradlab.llm.model.finished import read_done
from gradlab.llm.model.sampling import sample, texts
from gradlab.llm.real.looks import held_out_rows, sample_rows
from gradlab.llm.real.openings import HELD_OUT, TRAIN, openings
from gradlab.llm.real.task import REFERENCE, Looked, Place, RealTask
from gradlab.llm.real.text_reward import PER_WORD, SCALE, sentiment, utility, words
from gradlab.llm.train.reward_head import fit_reward_head
from gradlab.llm.train.run_settings import PPO, Settings
from gradlab.llm.train.section_settings import PPOSettings
from gradlab.store.files import write_whole
from gradlab.streams import Purpose, stream

PARTS = {"train": TRAIN, "held-out": HELD_OUT}
_UTILITY = "gradlab.llm.real.text_reward:utility"
_LONGEST = 128  # tokens of prompt and response, more than any pair has
_ROUNDS = 20  # of drawing, after which an opening without enough pairs is an error
_SPARE, _MORE = 1.4, 4  # responses drawn per response that is needed, at first; per opening in each later round


class KnownTask(RealTask):
    """The task of openings, see the module."""

    name = "known"
    version = 1
    settings: ClassVar[Mapping[str, Any]] = {
        "model": "SmolLM2-135M-Instruct, Q4_1 made whole",
        "seeds": [1000, 1001, 1002],
        "methods": {
            REFERENCE: None,
            "dpo-half": "dpo:beta=0.05", "dpo": "dpo:beta=0.1", "dpo-double": "dpo:beta=0.2",
            "bdpo": "bdpo:beta=0.1", "bdpo-double": "bdpo:beta=0.2",
            "length-dpo": "length-dpo:beta=0.1", "length-dpo-double": "length-dpo:beta=0.2",
        },
        "beyond": {"nbdpo": "nbdpo:beta=0.1,clip=0.3", "nbdpo-symmetric": "nbdpo-symmetric:beta=0.1,clip=0.3",
                   "ppo": "ppo", "ppo-fitted": "ppo"},
        # PPO on a reward that is fitted to the seed's pairs: cross-validation over openings chooses among these ridges.
        # ``reads`` sets nothing: it keeps frames apart from those of a head that did not read the end token.
        "per_method": {"ppo-fitted": {"ridges": [0.001, 0.01, 0.1, 1.0, 10.0], "folds": 5, "reads": "end token"}},
        # Pairs: how many per opening, and the true reward behind their labels.
        "openings": {"train": 200, "held-out": 64}, "pairs": {"train": 8, "held-out": 2}, "longest": 20,
        "per_word": PER_WORD, "scale": SCALE,
        # The rate follows from pilots of "dpo" alone on seed 900, for a KL between 2 and 6 nats at the end: at 3e-5 it
        # was 1.5, at 6e-5 5.8; between them lies the middle of the band.
        "learning_rate": 4.5e-5, "steps": 200, "batch": 8, "looks": [50, 100, 200], "each": 3, "sides_every": 20,
        "validate_every": 200, "train_from": 24,
        # PPO on the utility itself: prompts per step, and responses to each; its β is that of "dpo". Before its first
        # run that is judged, one pilot of each PPO on seed 900 decides its rate by the rule above: where KL at the end
        # is outside of the band, another one is declared in ``per_method``.
        "ppo": {"batch": 4, "samples": 4, "beta": 0.1},
    }  # fmt: skip
    smoke: ClassVar[Mapping[str, Any]] = {
        "methods": {REFERENCE: None, "dpo": "dpo:beta=0.1", "bdpo": "bdpo:beta=0.1"}, "beyond": {"ppo-fitted": "ppo"},
        "seeds": [1], "ppo": {"batch": 2, "samples": 2, "beta": 0.1},
        "openings": {"train": 8, "held-out": 4}, "pairs": {"train": 4, "held-out": 1}, "steps": 4,
        "looks": [2, 4], "each": 1, "sides_every": 2, "validate_every": 2,
    }  # fmt: skip

    def inputs(self, place: Place, seed: int) -> list[Path]:
        """Return the files of a seed's pairs to train on and held out; sample them where one is missing."""
        files = self._files(place, seed)
        missing = {part: file for part, file in files.items() if not file.exists()}
        if missing:
            say(f"{self.name}: sampling the pairs of seed {seed}")
            model = loading.load_model(place.model).eval()
            tokenizer = loading.load_tokenizer(place.model)
            for part, file in missing.items():
                pairs = draw_pairs(model, tokenizer, self.of(place), part, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole({file: gzip.compress(json_lines(pairs).encode(), mtime=0)})
        return list(files.values())

    def inputs_are_quick(self, place: Place, seed: int) -> bool:
        """Say whether a seed's pairs have been sampled."""
        return all(file.exists() for file in self._files(place, seed).values())

    def _files(self, place: Place, seed: int) -> dict[str, Path]:
        folder = place.out if place.smoke else place.kept
        return {part: folder / f"{self.name}-pairs-{seed}-{part}.jsonl.gz" for part in PARTS}

    def training(self, place: Place, method: str, seed: int) -> Settings:
        """Return the settings by which a method is trained."""
        settings = self.of(place)
        ppo = settings["ppo"] if self.methods(place)[method] == PPO else None
        return self.common_training(
            place, method, seed, recipe="gentle", max_length=_LONGEST,
            batch=ppo["batch"] if ppo else settings["batch"], beta=ppo["beta"] if ppo else None,
            ppo=self._ppo(place, method, seed) if ppo else PPOSettings(),
        )  # fmt: skip

    def _ppo(self, place: Place, method: str, seed: int) -> PPOSettings:
        """Return PPO's settings, with the utility as the reward or as the judge of a fitted one."""
        settings = self.of(place)
        how = PPOSettings(reward=_UTILITY, samples=settings["ppo"]["samples"], length=settings["longest"])
        fitted = settings["per_method"].get(method, {})
        if "ridges" not in fitted:
            return how
        (train, _), (held_out, _) = (read_pairs(str(file)) for file in self.inputs(place, seed))
        reward = fit_reward_head(
            place.model, train, self._reward(place, method, seed), held_out=held_out, template="chat",
            max_length=_LONGEST, ridges=fitted["ridges"], folds=fitted["folds"],
        )  # fmt: skip
        return dataclasses.replace(how, reward=reward, judge=_UTILITY)

    def _reward(self, place: Place, method: str, seed: int) -> Path:
        return place.out / self.name / str(seed) / method / "reward"

    def about(self, place: Place, method: str, seed: int) -> list[dict[str, Any]]:
        """Return a row of ``kind`` "reward" about the fitted reward model, where the method has one.

        Columns: ``ridge``, ``validation_loss`` (nats, on training pairs that were left out of a fit), and those of
        ``reward_accuracy.Accuracy`` on the held-out pairs.
        """
        page = read_done(self._reward(place, method, seed))
        if page is None:
            return []
        return [{"kind": "reward", **{name: page[name] for name in ("ridge", "validation_loss")}, **page["held_out"]}]

    def look(self, place: Place, seed: int, step: int, model: Looked) -> pd.DataFrame:
        """Return a row per held-out pair and a row per sampled response.

        - ``pair``: ``win``, ``lose``, ``ref_win``, ``ref_lose`` (log π in nats), ``win_len``, ``lose_len`` (tokens);
        - ``sample``: ``index`` of the opening, ``logp``, ``ref_logp``, ``tokens``, ``finished``, ``text``, ``words``,
          ``sentiment``.
        """
        pairs = held_out_rows(model, self.held_out(place, seed, model))
        return pd.concat([pairs, self._samples(place, seed, model)], ignore_index=True)

    def _samples(self, place: Place, seed: int, model: Looked) -> pd.DataFrame:
        settings = self.of(place)
        prompts = prompt_ids(model.tokenizer, settings, "held-out")
        drawn = sample(
            model.policy, model.tokenizer, prompts, each=settings["each"], longest=settings["longest"], seed=seed,
            batch=64,
        )  # fmt: skip
        said = texts(drawn, model.tokenizer)
        return sample_rows(model, prompts, drawn).assign(
            text=said, words=[words(text) for text in said], sentiment=[sentiment(text) for text in said]
        )


def prompt_of(opening: str) -> tuple[Message, ...]:
    """Return the messages that ask the model to go on with an opening: one example, then the opening."""
    return (
        {"role": "system", "content": "Finish the sentence."},
        {"role": "user", "content": "Her coat was"},
        {"role": "assistant", "content": "warm, and she loved it."},
        {"role": "user", "content": opening},
    )


def openings_of(settings: Mapping[str, Any], part: str) -> list[str]:
    """Return the openings of a part, as many as the settings say."""
    return openings(PARTS[part])[: settings["openings"][part]]


def prompt_ids(tokenizer: Any, settings: Mapping[str, Any], part: str) -> list[list[int]]:
    """Return the token ids of the prompts of a part."""
    return [encode_prompt(prompt_of(opening), tokenizer, "chat") for opening in openings_of(settings, part)]


def draw_pairs(model: Any, tokenizer: Any, settings: Mapping[str, Any], part: str, seed: int) -> list[Pair]:
    """Return a seed's pairs: for each opening as many as the settings say, of two responses of the model itself.

    Only responses that the model ended within ``longest`` tokens are kept, in the order in which they are drawn. Each
    makes a pair with the next, so that it stands in two pairs at most; two equal texts make no pair, and more are
    drawn. The winner is drawn by Bradley–Terry on the utility.
    ValueError where the model hardly ever ends a response.
    """
    wanted, names = settings["pairs"][part], openings_of(settings, part)
    prompts = prompt_ids(tokenizer, settings, part)
    said: list[list[str]] = [[] for _ in names]
    for turn in range(_ROUNDS):
        short = [index for index, ended in enumerate(said) if len(_paired(ended)) < wanted]
        if not short:
            break
        drawn = sample(
            model, tokenizer, [prompts[index] for index in short],
            each=_MORE if turn else math.ceil(_SPARE * (wanted + 1)), longest=settings["longest"],
            seed=int(stream(seed, Purpose.TEXT_PAIRS, list(PARTS).index(part), turn).integers(2**62)), batch=64,
            title=f"pairs, {part}, round {turn + 1}",
        )  # fmt: skip
        for index, text, ended in zip(drawn.prompts, texts(drawn, tokenizer), drawn.finished, strict=True):
            if ended and text.strip():
                said[short[index]].append(text)
    else:
        raise ValueError(f"model must end its responses within {settings['longest']} tokens, which it hardly ever does")
    rng = stream(seed, Purpose.TEXT_LABELS, list(PARTS).index(part))
    return [
        _labelled(name, pair, rng.random(), f"{part} of seed {seed}")
        for name, ended in zip(names, said, strict=True) for pair in _paired(ended)[:wanted]
    ]  # fmt: skip


def _paired(said: Sequence[str]) -> list[tuple[str, str]]:
    """Return each response with the next, without pairs of equal texts."""
    return [(first, second) for first, second in itertools.pairwise(said) if first.strip() != second.strip()]


def _labelled(opening: str, pair: Sequence[str], draw: float, source: str) -> Pair:
    """Return the pair with its winner: the first response where ``draw``, from 0 to 1, is below its chance to win."""
    first, second = utility([opening, opening], pair)
    chosen, rejected = pair if draw < 1 / (1 + math.exp(second - first)) else reversed(pair)
    return Pair(prompt_of(opening), chosen, rejected, source)
