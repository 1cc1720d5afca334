"""Label Studio's pairwise form, of version 1: JSON of tasks with a labelling config, and the JSON export.

Each goal has its own pair of texts, since a ``Pairwise`` tag takes the clicks on its two texts for itself; and
``Choices`` for ties and skips, which ``Pairwise`` lacks. An export is the format called JSON (not JSON-MIN or CSV): per
task its ``data`` as imported and ``annotations`` with ``completed_by``, ``was_cancelled``, ``lead_time`` and a
``result`` per tag: ``{"selected": "left"}`` of type ``pairwise``, ``{"choices": [alias]}``, ``{"text": [words]}``.
Sources: Label Studio's pages on the tags Pairwise and Choices and on the task format (labelstud.io/tags/pairwise,
labelstud.io/guide/task_format), and its editor's source, ``tags/control/Pairwise.js``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from gradlab.checks import of_kind, one_of, shown
from gradlab.study.frozen import Study
from gradlab.study.rated import REASON, Rated, aside, carried_tasks, checked_about, numbered_goals

SUFFIX = "label-studio.json"
CONFIG = "label-studio.xml"
EXPORTS = "an export of Label Studio is its format JSON, a list of tasks with data and annotations"
_CARRIED = "gradlab"  # key of a task's data
_GRID = "display: grid; grid-template-columns: 1fr 1fr; gap: 1em"


def tasks(study: Study, rater: str) -> str:
    """Return a rater's tasks as JSON that Label Studio imports."""
    page = [{"data": {**texts, _CARRIED: about}} for texts, about in carried_tasks(study, rater)]
    return json.dumps(page, ensure_ascii=False, indent=1) + "\n"


def setup(study: Study) -> dict[str, str]:
    """Return the labelling config, by the name of its file."""
    plan = study.plan
    heads = [f"  <Header value={quoteattr(text)}/>" for text in (plan.title, plan.content_warning) if text.strip()]
    lines = ["<View>", *heads, '  <Text name="prompt" value="$prompt"/>']
    for number, goal in zip(numbered_goals(study), plan.goals, strict=True):
        lines += [
            "  <View>",
            f"    <Header value={quoteattr(goal.question)}/>",
            f'    <Pairwise name="{number}" toName="{number}_left,{number}_right"/>',
            f'    <View style="{_GRID}">',
            *(f'      <Text name="{number}_{side}" value="${side}"/>' for side in ("left", "right")),
            "    </View>",
            f'    <Choices name="{number}_aside" toName="prompt" choice="single-radio" showInline="true">',
            *(f'      <Choice alias="{word}" value={quoteattr(said)}/>' for word, said in aside(study).items()),
            "    </Choices>",
            f'    <TextArea name="{number}_reason" toName="prompt" maxSubmissions="1" placeholder="{REASON}"/>',
            "  </View>",
        ]  # fmt: skip
    return {CONFIG: "\n".join([*lines, "</View>", ""])}


def rated(study: Study, page: Iterable[Mapping[str, Any]], file: str) -> Iterator[Rated]:
    """Return the rated tasks of an export; a skipped task skips all goals."""
    for number, task in enumerate(page, 1):
        where = f"{file}, task {number}"
        if not isinstance(task.get("annotations"), list) or not isinstance(task.get("data"), Mapping):
            raise ValueError(f"{where} has no data and annotations; {EXPORTS}")
        about = checked_about(study, task["data"].get(_CARRIED), where)
        for annotation in task["annotations"]:
            done = of_kind(f"{where}: annotation", annotation, Mapping, "a table")
            yield Rated(
                where, about, _annotator(done.get("completed_by")), _given(study, done, where),
                done.get("lead_time"), str(done.get("updated_at") or done.get("created_at") or ""),
            )  # fmt: skip


def _annotator(given: Any) -> tuple[str, ...]:
    """Return the names of a person: Label Studio exports a number, or a table with id and email."""
    if isinstance(given, Mapping):
        return tuple(str(given[name]) for name in ("id", "username", "email") if given.get(name) is not None)
    return () if given is None else (str(given),)


def _given(study: Study, annotation: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Return the choice and the reason for each goal that was answered."""
    goals = numbered_goals(study)
    if annotation.get("was_cancelled"):
        return dict.fromkeys(goals.values(), ("skip", ""))
    sides, asides, reasons = dict[str, str](), dict[str, str](), dict[str, str]()
    for result in of_kind(f"{where}: result", annotation.get("result"), list, "a list"):
        name = of_kind(f"{where}: result", result, Mapping, "a table").get("from_name")
        number, _, part = str(name).partition("_")
        if number not in goals or part not in ("", "aside", "reason"):
            raise ValueError(f"{where}: from_name must be a tag of {CONFIG}, got {shown(name)}")
        kept, value = {"": sides, "aside": asides, "reason": reasons}[part], _value(result, part, where)
        if value and kept.setdefault(goals[number], value) != value:
            raise ValueError(f"{where} has two answers of {name}: {shown(kept[goals[number]])} and {shown(value)}")
    for goal in goals.values():
        if goal in sides and goal in asides:
            raise ValueError(
                f"{where} says two things for {goal!r}, {sides[goal]} and {asides[goal]}; take one back in Label Studio"
            )
    chosen = {**sides, **asides}
    return {goal: (chosen[goal], reasons.get(goal, "")) for goal in goals.values() if goal in chosen}


def _value(result: Mapping[str, Any], part: str, where: str) -> str:
    """Return what a tag's result says: a side, tie or skip, or a reason."""
    value = of_kind(f"{where}: value", result.get("value"), Mapping, "a table")
    if not part:
        return one_of(f"{where}: selected", value.get("selected"), ("left", "right"))
    texts = of_kind(f"{where}: value", value.get("choices" if part == "aside" else "text"), (list, str), "a list")
    texts = [texts] if isinstance(texts, str) else texts
    if part == "reason":
        return " ".join(str(text) for text in texts)
    if len(texts) != 1:
        raise ValueError(f"{where}: choices must be one, got {shown(texts)}")
    return one_of(f"{where}: choices", texts[0], ("tie", "skip"))
