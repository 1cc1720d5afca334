"""The plan by which a folder of runs was begun: kept at the first command, and any other plan is refused there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gradlab.console import say
from gradlab.llm.data.pair_files import source_key
from gradlab.llm.model.loading import weights_hash
from gradlab.llm.model.rewards import reward_code, reward_hash
from gradlab.llm.protocol.cost import training_of
from gradlab.llm.protocol.plan import Plan
from gradlab.llm.protocol.steps import Step
from gradlab.losses import from_text
from gradlab.losses.definition import definition
from gradlab.losses.own_file import is_own
from gradlab.store.files import file_hash, write_whole
from gradlab.store.sealed import read_sealed, sealed

FROZEN = "plan.json"  # in the folder of a plan's runs


def decided(plan: Plan) -> dict[str, str | None]:
    """Return what decides a plan's numbers, each as a hash: its files, model, pairs, judges and losses of users.

    A model or judge of the hub counts by its name and commit, a data set of the hub as far as ``datasets`` tells its
    versions apart; a copy on the machine by its files. Errors are those of reading them.
    """
    settings = training_of(plan)
    found = _files(plan)
    found["model"] = weights_hash(plan.model)
    for arm in plan.arms:
        found[f"data of {arm.name}"] = source_key(arm.data, settings.split)
    if settings.validation is not None:
        found["validation"] = source_key(settings.validation, settings.split)
    for name, spec in (("reward", plan.beside(plan.reward)), ("cost", plan.beside(plan.cost))):
        found[name] = reward_code(spec) or reward_hash(spec)
    for text in sorted({text for group in plan.groups for text in group.loss if is_own(text)}):
        found[text] = hashlib.sha256(definition(from_text(text)).encode()).hexdigest()  # type: ignore[arg-type]
    return found


def freeze(plan: Plan, out: Path, todo: Sequence[Step]) -> dict[str, str | None]:
    """Keep what ``decided`` returns in ``out``/plan.json at the first command; later, check that nothing has changed.

    Return it. A folder in which every command is done needs neither model nor pairs nor judges any more: of it the
    plan's files alone are compared.

    ValueError with one line where the folder was begun with another plan, or holds finished commands and no record.
    """
    file, done = out / FROZEN, [step.made for step in todo if step.done]
    if not file.is_file():
        if done:
            raise ValueError(
                f"out must be a new folder or have {FROZEN}, got {out}, where {done[0]} is of an unknown plan; move it "
                "away, and the same command begins anew"
            )
        found = decided(plan)
        write_whole({file: sealed({"decided": found})})
        say(f"the plan is frozen: hashes of all that decides its numbers are in {file}")
        return found
    kept: dict[str, str | None] = read_sealed(file)["decided"]
    found = {**kept, **_files(plan)} if len(done) == len(todo) else decided(plan)
    other = [
        f"{name} ({FROZEN} has {_short(kept.get(name))}, got {_short(found.get(name))})"
        for name in {**kept, **found} if kept.get(name) != found.get(name)
    ]  # fmt: skip
    if other:
        raise ValueError(
            f"out must be the folder of one plan: {out} was begun with another {', '.join(other)}; restore what has "
            "changed, or name another folder"
        )
    return found


def _files(plan: Plan) -> dict[str, str | None]:
    """Return the hashes of the plan's files."""
    return {"plan": plan.digest, "training": file_hash(plan.beside(plan.training))}


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}…"
