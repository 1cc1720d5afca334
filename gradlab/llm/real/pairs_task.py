"""The task of real pairs: short pairs of HH-RLHF in a chat template, on which an adapter of the last layers is trained.

No true reward is known here. What is measured is how often a model is right on held-out pairs, beside what length
alone can tell, and where the probability of both responses goes. Texts are kept nowhere: many of them offend.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gradlab.llm.data.hold_out import prompt_key, split
from gradlab.llm.data.pair_forms import as_messages
from gradlab.llm.data.pairs import Pair, json_lines, read_pairs
from gradlab.llm.data.tokens import encode_pairs
from gradlab.llm.model import loading
from gradlab.llm.model.finished import known_hash
from gradlab.llm.model.sampling import sample
from gradlab.llm.real.looks import held_out_rows, sample_rows
from gradlab.llm.real.task import REFERENCE, Looked, Place, RealTask
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.section_settings import LoraSettings
from gradlab.store.files import write_whole
from gradlab.streams import Purpose, stream

PARTS = ("train", "held-out")
_UNCUT = 4096  # tokens: longer than any pair that is kept


class PairsTask(RealTask):
    """The task of real pairs, see the module."""

    name = "hh"
    needs_data = True
    version = 2
    settings: ClassVar[Mapping[str, Any]] = {
        "model": "SmolLM2-135M-Instruct, Q4_1 made whole",
        "seeds": [1000, 1001, 1002],
        "methods": {  # β = 1 is the paper's
            REFERENCE: None,
            "dpo-half": "dpo:beta=0.5", "dpo": "dpo:beta=1", "dpo-double": "dpo:beta=2",
            "bdpo": "bdpo:beta=1", "bdpo-double": "bdpo:beta=2",
            "length-dpo": "length-dpo:beta=1", "length-dpo-double": "length-dpo:beta=2",
        },
        "beyond": {"nbdpo": "nbdpo:beta=1,clip=0.3", "nbdpo-symmetric": "nbdpo-symmetric:beta=1,clip=0.3"},
        # Pairs of at most ``longest`` tokens, prompt and longer response; 800 of them twice are 200 steps of 8. As many
        # are held out as the budget allows: more would show smaller differences between methods.
        "longest": 256, "pairs": 800, "held_out": 400,
        # The rate follows from pilots of "dpo" alone on seed 900, for a KL between 1 and 4 nats at the end. At 2e-3 it
        # was 0.7 after 50 steps, and on the openings KL grew by 2.9 to 3.8 from there to step 200.
        "learning_rate": 2e-3, "steps": 200, "batch": 8, "lora": 16, "train_from": 24,
        "looks": [50, 100, 200], "prompts": 96, "each": 2, "sampled": 48, "sides_every": 20, "validate_every": 33,
    }  # fmt: skip
    smoke: ClassVar[Mapping[str, Any]] = {
        "methods": {REFERENCE: None, "dpo": "dpo:beta=1", "bdpo": "bdpo:beta=1"}, "beyond": {}, "seeds": [1],
        "pairs": 16, "held_out": 6, "steps": 2, "looks": [1, 2], "prompts": 2, "sampled": 4,
        "sides_every": 2, "validate_every": 2,
    }  # fmt: skip

    def inputs(self, place: Place, seed: int) -> list[Path]:
        """Return the files of a seed's pairs to train on and held out; choose them where one is missing."""
        files = self._files(place, seed)
        if not all(file.exists() for file in files):
            files[0].parent.mkdir(parents=True, exist_ok=True)
            parts = chosen_pairs(str(place.data), loading.load_tokenizer(place.model), self.of(place), seed)
            write_whole({file: json_lines(pairs) for file, pairs in zip(files, parts, strict=True)})
        return files

    def inputs_are_quick(self, place: Place, seed: int) -> bool:
        """Return True: pairs are chosen in seconds, so that frames kept elsewhere are known on a new machine, too."""
        return True

    def _files(self, place: Place, seed: int) -> list[Path]:
        """Return where a seed's pairs are kept; the names have sizes, version, and the hash of the file given."""
        if place.data is None:
            raise ValueError("data must name HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf; got none")
        known = known_hash(Path(place.data))[:12] if Path(place.data).is_file() else "hub"
        sizes = "-".join(str(self.of(place)[name]) for name in ("longest", "pairs", "held_out"))
        return [
            place.out / self.name / str(seed) / f"pairs-{part}-{sizes}-v{self.version}-{known}.jsonl" for part in PARTS
        ]

    def training(self, place: Place, method: str, seed: int) -> Settings:
        """Return the settings by which a method is trained."""
        settings = self.of(place)
        return self.common_training(
            place, method, seed, recipe="paper", max_length=settings["longest"], batch=settings["batch"],
            lora=LoraSettings(rank=settings["lora"]),
        )  # fmt: skip

    def look(self, place: Place, seed: int, step: int, model: Looked) -> pd.DataFrame:
        """Return a row per held-out pair and a row per sampled response, see ``looks``."""
        settings = self.of(place)
        encoded = self.held_out(place, seed, model)
        prompts = list(dict.fromkeys(pair.prompt for pair in encoded))[: settings["prompts"]]
        ids = [list(prompt) for prompt in prompts]
        drawn = sample(
            model.policy, model.tokenizer, ids, each=settings["each"], longest=settings["sampled"], seed=seed, batch=32
        )
        return pd.concat([held_out_rows(model, encoded), sample_rows(model, ids, drawn)], ignore_index=True)


def chosen_pairs(data: str, tokenizer: Any, settings: Mapping[str, Any], seed: int) -> tuple[list[Pair], ...]:
    """Return a seed's pairs to train on, and those held out.

    Only pairs that fit into ``longest`` tokens whole. Whole dialogues are held out: those with the same first message,
    of which one may go on another; no prompt is on both sides. ValueError where there are too few.
    """
    pairs, _ = read_pairs(data)
    encoded, kept, _ = encode_pairs(pairs, tokenizer, template="chat", max_length=_UNCUT)
    short = [
        pairs[index] for index, pair in zip(kept, encoded, strict=True)
        if len(pair.prompt) + max(len(pair.win), len(pair.lose)) <= settings["longest"]
    ]  # fmt: skip
    wanted = settings["pairs"] + settings["held_out"]
    few = f"data must hold {wanted} pairs of at most {settings['longest']} tokens, of dialogues that can be parted"
    if len(short) < wanted:
        raise ValueError(f"{few}; got {len(short)}")
    dialogues = [prompt_key(as_messages(pair.prompt)[:1]) for pair in short]
    rest, held_out = split(dialogues, settings["held_out"], seed, "prompts")
    prompts = np.array([prompt_key(pair.prompt) for pair in short])
    rest = rest[~np.isin(prompts[rest], prompts[held_out])]
    if len(rest) < settings["pairs"]:
        raise ValueError(f"{few}; got {len(rest)} to train on beside {len(held_out)} held out")
    order = stream(seed, Purpose.DEMO_PAIRS).permutation(rest)[: settings["pairs"]]
    return [short[index] for index in order], [short[index] for index in held_out]
