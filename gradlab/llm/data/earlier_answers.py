"""Answers of the assistant inside a prompt, which supervised training can learn beside the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradlab.llm.data.batches import Partly, Row
from gradlab.llm.data.templates import Template, prompt_text
from gradlab.llm.data.tokens import encode_prompt
from gradlab.llm.data.turn_ends import template_ends, turn_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = "gradlabquestion"  # of a probe


@dataclass(frozen=True)
class AnswerMarks:
    """The ids by which a template begins and ends an answer.

    header  what stands between a question and the answer to it.
    ends    one of these ends an answer, and is learned with it.
    """

    header: tuple[int, ...]
    ends: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: Template) -> AnswerMarks:
        """Return the marks of a template with turns; ValueError where its tokens do not show them."""
        probe = ({"role": "user", "content": _WORD},)
        after = prompt_text(probe, template, tokenizer).rpartition(_WORD)[2]
        header = tokenizer(after, add_special_tokens=False)["input_ids"]
        if not header or encode_prompt(probe, tokenizer, template)[-len(header) :] != header:
            raise ValueError(
                "sft.turns must be last for this tokenizer, whose tokens do not show where an answer of template "
                f"{template} begins, got 'all'"
            )
        ends = (*(template_ends(tokenizer) if template == "chat" else ()), *turn_ends(tokenizer)[:1])
        return cls(tuple(header), frozenset(ends))

    def spans(self, prompt: Sequence[int]) -> list[tuple[int, int]]:
        """Return where each earlier answer in a prompt begins and stops, its end included. An answer without an end is
        left out.

        A template that writes earlier answers otherwise than new ones, such as without their thoughts' marks, shows
        none.
        """
        prompt, size = tuple(prompt), len(self.header)
        starts = [
            place + size
            for place in range(len(prompt) - size)
            if prompt[place] == self.header[0] and prompt[place : place + size] == self.header
        ]
        spans = []
        for start, following in zip(starts, [*starts[1:], len(prompt)][: len(starts)], strict=True):
            stop = next((at + 1 for at in range(start, following) if prompt[at] in self.ends), None)
            if stop is not None:
                spans.append((start, stop))
        return spans

    def row(self, prompt: Sequence[int], response: Sequence[int]) -> Row:
        """Return prompt and response, with the earlier answers in the prompt asked for as well."""
        spans = self.spans(prompt)
        if not spans:
            return prompt, response
        first = spans[0][0]
        asked = np.zeros(len(prompt) - first + len(response), bool)
        for start, stop in [*spans, (len(prompt), len(prompt) + len(response))]:
            asked[start - first : stop - first] = True
        return prompt[:first], Partly.of([*prompt[first:], *response], asked)
