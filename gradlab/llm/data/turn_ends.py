"""The token ids that end a turn: the tokenizer's EOS, its chat template's ends, the ids of generation settings."""

from __future__ import annotations

from typing import Any

from gradlab.llm.data.common_start import common_start
from gradlab.llm.data.templates import Refused, chat_text

_ANSWER = "gradlabanswer"
_TURN = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]


def turn_ends(tokenizer: Any, generation: Any = None, vocabulary: int | None = None) -> tuple[int, ...]:
    """Return all ids that end a turn, the tokenizer's EOS first.

    tokenizer   its ``eos_token_id``, and what its chat template writes after an answer (``template_ends``).
    generation  a model's ``generation_config``, whose ``eos_token_id`` is an id or several; None: there is none. Where
                transformers derived it from the model's config, whose class has defaults of its own, only the ids count
                that the tokenizer does not use for ordinary text.
    vocabulary  how many tokens the model knows; other ids beyond them are left out.

    ValueError where the tokenizer has no EOS.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("tokenizer must have an eos token, which ends a response; set tokenizer.eos_token")
    named = getattr(generation, "eos_token_id", None)
    ids = [] if named is None else [int(id_) for id_ in (named if isinstance(named, list | tuple) else [named])]
    if getattr(generation, "_from_model_config", False):
        ids = [id_ for id_ in ids if id_ in _marks(tokenizer)]
    others = [id_ for id_ in (*template_ends(tokenizer), *ids) if id_ >= 0 and (vocabulary is None or id_ < vocabulary)]
    return tuple(dict.fromkeys([eos, *others]))


def template_ends(tokenizer: Any) -> tuple[int, ...]:
    """Return the special or added tokens by which a chat template ends an answer; none without such a template.

    The first ends every answer, the last only the last answer: Phi-3 writes <|end|>, then <|endoftext|>. They are one
    where the template writes one. White space may follow; where any other text does, there is no end.
    """
    closing = _after_answer(tokenizer, _TURN)
    if not closing or closing[-1] not in (marks := _marks(tokenizer)):
        return ()
    going_on = _after_answer(tokenizer, [*_TURN, _TURN[0]])
    shared = closing[: common_start(closing, going_on)]
    return tuple(dict.fromkeys([*[id_ for id_ in shared if id_ in marks][-1:], closing[-1]]))


def _after_answer(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Return the ids of the text that the chat template writes after the answer; none without a template."""
    if not getattr(tokenizer, "chat_template", None):
        return []
    try:
        text = chat_text(messages, tokenizer)
    except Refused:
        return []
    _, answer, tail = text.rpartition(_ANSWER)
    return tokenizer(tail.strip(), add_special_tokens=False)["input_ids"] if answer else []


def _marks(tokenizer: Any) -> set[int]:
    """Return the ids that are no ordinary text: special and added tokens."""
    return {*getattr(tokenizer, "all_special_ids", ()), *getattr(tokenizer, "added_tokens_decoder", ())}
