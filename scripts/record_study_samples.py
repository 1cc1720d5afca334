"""Record samples of trained models whose true reward is known, on which ``make study`` validates the human study.

A small Llama is trained on the task of tokens as ``gradlab demo`` trains one, and then by DPO and by Balanced-DPO; each
model and their reference answer every prompt of the task. ``python scripts/record_study_samples.py`` takes some
minutes on one core and writes ``figures/study/tokens.parquet``.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from gradlab.cli.options import quiet_transformers
from gradlab.llm.data.tokens import encode_prompt
from gradlab.llm.demo import laptop_run
from gradlab.llm.demo.token_task import SEPARATOR, TOPICS, true_reward
from gradlab.llm.model import loading
from gradlab.llm.model.sampling import sample, texts
from gradlab.llm.model.unit_process import one_thread
from gradlab.store.artifacts import save_frame
from gradlab.store.provenance import fingerprint

SIZE, SEED, LOSSES = "1M", 0, ["dpo", "bdpo"]
SYSTEMS = ["reference", *LOSSES]
TASK = laptop_run.SETTINGS["tasks"]["tokens"]
SETTINGS: dict[str, Any] = {
    "task": "tokens", "size": SIZE, "seed": SEED, "losses": LOSSES, "training": laptop_run.SETTINGS["training"],
    "of_task": TASK, "prompts": "every row of three different topics", "longest": TASK["sample_length"],
    "seeds_of_samples": "the seed + the place of the system among reference, dpo, bdpo",
}  # fmt: skip


def prompts() -> list[str]:
    """Return every prompt of the task: three different topics in a row."""
    return [" ".join([*topics, SEPARATOR, ""]) for topics in permutations(TOPICS, 3)]


def record(out: Path = Path("runs/study-samples"), folder: Path = Path("figures/study"), smoke: bool = False) -> Path:
    """Train the models that are missing, sample, and write the frame again; return its path.

    Columns: ``system``, ``prompt``, ``text``, ``words``, ``reward`` (of the task, ``true_reward``).

    Args:
        out: The folder of the training.
        folder: Where the frame goes.
        smoke: Try the whole path in seconds; the numbers mean nothing.
    """
    whole = laptop_run.SMOKE if smoke else laptop_run.SETTINGS
    size = next(iter(whole["sizes"])) if smoke else SIZE
    settings = {**whole, "losses": LOSSES}
    with one_thread(), quiet_transformers():
        run = laptop_run.trained(out, "tokens", size, SEED, settings)
        tokenizer = loading.load_tokenizer(run.model)
        asked = prompts()[: 12 if smoke else None]
        ids = [encode_prompt(prompt, tokenizer, "plain") for prompt in asked]
        parts = []
        for place, system in enumerate(SYSTEMS):
            model = loading.load_model(run.out / system / "model").eval()
            # A seed of its own: equal draws from models so near to each other would give equal texts.
            drawn = sample(model, tokenizer, ids, each=1, longest=SETTINGS["longest"], seed=SEED + place, batch=64)
            said = texts(drawn, tokenizer)
            parts.append(pd.DataFrame({
                "system": system, "prompt": asked, "text": said, "words": [len(text.split()) for text in said],
                "reward": true_reward(asked, said),
            }))  # fmt: skip
    manifest = {"key": fingerprint(SETTINGS), "settings": SETTINGS, "command": "python scripts/record_study_samples.py"}
    return save_frame(pd.concat(parts, ignore_index=True), folder / "tokens.parquet", manifest, overwrite=True)


if __name__ == "__main__":
    tyro.cli(record)
