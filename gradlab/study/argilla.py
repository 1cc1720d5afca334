"""Argilla's ranking, of its SDK 2 (read by 2.8): JSON lines of records with settings; and two forms that come back.

Records are those of ``rg.Record.from_dict`` (fields prompt, left and right), settings those of
``rg.Settings.from_json``: per goal a RankingQuestion over left and right, and a LabelQuestion for ties and skips, which
goes before the ranking. The label is needed, since ``dataset.records.to_json`` of Argilla 2 gives a ranking as names in
order, without ranks, and without a status: filter it by ``response.status`` submitted. The other form, the server's
(``GET /api/v1/datasets/ID/records?include=responses``, also that of Argilla 1), has both: equal ranks are a tie, a
discarded record is a skip of all goals, and a draft counts as not answered.
Source: Argilla's SDK 2 (``records/_resource.py``, ``responses.py``, ``settings/_resource.py``) and its server's
validators of ranking responses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradlab.checks import of_kind, one_of, shown
from gradlab.study.frozen import Study
from gradlab.study.rated import REASON, Rated, aside, carried_tasks, checked_about, numbered_goals
from gradlab.study.texts import json_lines

SUFFIX = "argilla.jsonl"
SETTINGS = "argilla-settings.json"
EXPORTS = "an export of Argilla is the JSON of records.to_json, or that of the server's records with responses"
_RANKED = "ranking"  # the label of an answer that is neither tie nor skip
_SIDES = {"left": "Left", "right": "Right"}
_GUIDE = (
    "Rank the two responses by each question. If both are equally good, or if you cannot or do not want to say, rank "
    "them in any order and choose that answer below the ranking: it counts before the ranking. Discard a record to "
    "skip it as a whole."
)


def tasks(study: Study, rater: str) -> str:
    """Return a rater's tasks as JSON lines, one record per line, as ``rg.Record.from_dict`` reads them."""
    return json_lines(
        {"id": about["shown"], "fields": texts, "metadata": about, "suggestions": {}, "responses": {}, "vectors": {}}
        for texts, about in carried_tasks(study, rater)
    )


def setup(study: Study) -> dict[str, str]:
    """Return the settings of a data set as ``rg.Settings.from_json`` reads them, by the name of their file."""
    plan = study.plan
    page = {
        "guidelines": "\n\n".join(filter(str.strip, (plan.title, plan.content_warning, _GUIDE))),
        "allow_extra_metadata": True, "vectors": [], "metadata": [],
        "fields": [_part(name, title, {"type": "text", "use_markdown": False})
                   for name, title in {"prompt": "Prompt", **_SIDES}.items()],
        "questions": [
            question for number, goal in zip(numbered_goals(study), plan.goals, strict=True) for question in (
                _part(number, goal.question, {"type": "ranking", "options": _options(_SIDES)}),
                _part(f"{number}_aside", f"Neither: {goal.question}", {
                    "type": "label_selection", "options": _options(_asides(study)), "visible_options": None,
                }, required=False),
                _part(f"{number}_reason", REASON, {"type": "text", "use_markdown": False},
                      required=False),
            )
        ],
    }  # fmt: skip
    return {SETTINGS: json.dumps(page, ensure_ascii=False, indent=1) + "\n"}


def rated(study: Study, page: Iterable[Mapping[str, Any]], file: str) -> Iterator[Rated]:
    """Return the rated records of an export, one per person; a discarded record skips all goals."""
    for number, record in enumerate(page, 1):
        where = f"{file}, record {number}"
        responses = record.get("responses")
        if not isinstance(record.get("fields"), Mapping) or not isinstance(responses, (Mapping, list)):
            raise ValueError(f"{where} has no fields and responses; {EXPORTS}")
        about = checked_about(study, record.get("metadata"), where)
        for person, status, values, time in _by_person(responses, where):
            if status != "draft":
                yield Rated(where, about, (person,), _given(study, status, values, where), None, time)


def _by_person(responses: Any, where: str) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Return the identifier, status, values by question, and time of each person who responded."""
    if isinstance(responses, list):  # the server's form
        for response in responses:
            one = of_kind(f"{where}: response", response, Mapping, "a table")
            status = one_of(f"{where}: status", one.get("status"), ("submitted", "discarded", "draft"))
            values = of_kind(f"{where}: values", one.get("values") or {}, Mapping, "a table")
            found = {name: of_kind(f"{where}: {name}", value, Mapping, "a table with value").get("value")
                     for name, value in values.items()}  # fmt: skip
            yield str(one.get("user_id")), status, found, str(one.get("updated_at") or one.get("inserted_at") or "")
        return
    people = dict[str, dict[str, Any]]()
    for name, answers in responses.items():
        for answer in of_kind(f"{where}: {name}", answers, list, "a list"):
            one = of_kind(f"{where}: {name}", answer, Mapping, "a table with value and user_id")
            values = people.setdefault(str(one.get("user_id")), {})
            if values.setdefault(name, one.get("value")) != one.get("value"):
                raise ValueError(f"{where} has two answers of {one.get('user_id')} to {name}")
    yield from ((person, "submitted", values, "") for person, values in people.items())


def _given(study: Study, status: str, values: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Return the choice and the reason for each goal that was answered."""
    goals = numbered_goals(study)
    if status == "discarded":
        return dict.fromkeys(goals.values(), ("skip", ""))
    for name in values:
        number, _, part = name.partition("_")
        if number not in goals or part not in ("", "aside", "reason"):
            raise ValueError(f"{where}: a question must be one of {SETTINGS}, got {shown(name)}")
    given = dict[str, tuple[str, str]]()
    for number, goal in goals.items():
        beside, ranking = values.get(f"{number}_aside"), values.get(number)
        if beside is not None:
            one_of(f"{where}: {number}_aside", beside, (_RANKED, "tie", "skip"))
        choice = str(beside)
        if beside in (None, _RANKED):
            if not ranking:
                continue
            choice = _first(ranking, f"{where}: {number}")
        given[goal] = choice, str(values.get(f"{number}_reason") or "")
    return given


def _first(ranking: Any, place: str) -> str:
    """Return the side that a ranking puts first, or tie: names in order, or tables with value and rank."""
    entries = of_kind(place, ranking, list, "a list of left and right")
    ranks = {}
    for entry in entries:
        name, rank = (entry.get("value"), entry.get("rank")) if isinstance(entry, Mapping) else (entry, None)
        if not isinstance(name, str) or name not in _SIDES or name in ranks:
            raise ValueError(f"{place} must rank left and right, each once, got {shown(ranking)}")
        ranks[name] = rank
    if len(ranks) < 2:
        raise ValueError(f"{place} must rank left and right, each once, got {shown(ranking)}")
    if all(rank is None for rank in ranks.values()):
        return next(iter(ranks))
    if any(type(rank) is not int for rank in ranks.values()):
        raise ValueError(f"{place} must give a rank to left and to right, got {shown(ranking)}")
    return "tie" if ranks["left"] == ranks["right"] else min(ranks, key=lambda name: ranks[name])


def _asides(study: Study) -> dict[str, str]:
    """Return the labels beside a ranking; Argilla wants two labels or more per question."""
    return {_RANKED: "My ranking counts", **aside(study)}


def _part(name: str, title: str, settings: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "title": title, "description": None, "required": required, "settings": settings}


def _options(said: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"value": value, "text": text} for value, text in said.items()]
