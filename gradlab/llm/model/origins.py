"""The quantised weights that a model began as: found through merging, adapters and the trainings between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradlab.llm.model.finished import page_beside

CONFIG = "gradlab_model_weights"  # in the config of a merged model; transformers keeps what it does not know


def origin(source: str | Path) -> str | None:
    """Say from which quantised weights a model was made whole, in a phrase; None for any other model.

    Followed back are a merged model's config, a finished training's record and the model that it started from, and a
    LoRA adapter's base. ValueError where a training's record is damaged.
    """
    waiting, seen = [str(source)], set()
    while waiting:
        model = waiting.pop(0)
        if model in seen or not Path(model).is_dir():
            continue
        seen.add(model)
        page = page_beside(model)
        for said in (
            page.get("gguf", {}).get("weights"),
            page.get("model_weights"),
            _read(model, "config.json", CONFIG),
        ):
            if said:
                return str(said)
        before = (page.get("start"), page.get("base"), _read(model, "adapter_config.json", "base_model_name_or_path"))
        waiting += [name for name in before if isinstance(name, str)]
    return None


def origin_note(source: str | Path) -> str | None:
    """Say in a sentence which quantised weights a model began as, and what was checked; None for any other model."""
    said = origin(source)
    page = page_beside(source).get("gguf")
    if page is None:
        return said and f"the model began as {said}"
    return (
        f"the model is {page['file']}: {page['parameters']:,} parameters, {page['weights']}, kept in {Path(source)}; "
        f"tokens of a text, special tokens and template are those of the file, a sentence has perplexity "
        f"{page['perplexity']:.1f}"
    )


def _read(folder: str, name: str, key: str) -> Any:
    """Return what a JSON file of a model says; None where it says nothing, or cannot be read, which loading tells."""
    try:
        page = json.loads((Path(folder) / name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return page.get(key) if isinstance(page, dict) else None
