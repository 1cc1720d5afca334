"""Preference pairs as token ids: templates, a prompt that both sides share, lengths that fit, changes counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from gradlab.checks import count
from gradlab.llm.data.common_start import common_start
from gradlab.llm.data.fewer_turns import Turns, with_fewer_turns
from gradlab.llm.data.pair_forms import Prompt
from gradlab.llm.data.pairs import Pair, Report
from gradlab.llm.data.templates import (
    Refused,
    Template,
    about,
    as_written,
    check_tokenizer,
    marker_notes,
    prompt_text,
    texts_of,
)
from gradlab.llm.data.token_pairs import Encoded, TokenPairs, TokenStore
from gradlab.llm.data.turn_ends import template_ends, turn_ends

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

AT_ONCE = 1_000  # pairs that are made into tokens in one call


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: Template = "plain",
    max_length: int = 512,
    max_prompt: int | None = None,
) -> tuple[TokenPairs, list[int], Report]:
    """Return the pairs as token ids, the index in ``pairs`` of each, and a report of those left out or changed.

    template    how prompt and response become one text, see ``prompt_text``. A chat template that asks for today's date
                reads the clock, unless ``template_dates.fix_date`` has fixed the tokenizer's date.
    max_length  tokens of prompt and response together, at most.
    max_prompt  tokens that a prompt keeps where the whole is too long; default: half of ``max_length``.

    A response's tokens are those of the whole text that follow the prompt's tokens. Where tokens merge over the
    prompt's end, the prompt is the tokens that both sides share before it. Where a pair is too long, its prompt becomes
    shorter, no more than is needed and never below ``max_prompt``: by whole turns in a template that has turns, see
    ``fewer_turns.with_fewer_turns``; a plain text has none, and loses its beginning, BOS aside. Then the responses lose
    their ends, with their last token.

    A response's last token is the one that ends it when it is sampled: the tokenizer's EOS, or in a chat template the
    token by which the template ends an answer, without what the template writes after it.

    A pair is left out where this makes its responses equal, where the template refuses its turns, where its prompt ends
    with an answer in a chat, where its texts are templated already, where a part of it has no tokens, or where its last
    turn leaves no room. Fields of messages that the template does not write are counted by name and change nothing;
    pairs with a text that it does not write are counted too. ValueError where no pair is left, and where the tokenizer
    lacks a token or template.
    """
    encoder = PairEncoder.of(tokenizer, template, max_length, max_prompt)
    store, kept = TokenStore(), []
    with tqdm(total=len(pairs), desc="tokens", unit="pair", disable=hidden_bar(), leave=False) as bar:
        for first in range(0, len(pairs), AT_ONCE):
            part = pairs[first : first + AT_ONCE]
            for index, pair in encoder.encoded(part):
                store.add(pair)
                kept.append(first + index)
            bar.update(len(part))
    return store.pairs(), kept, encoder.counts.report(len(pairs), len(kept))


def hidden_bar() -> bool | None:
    """Return ``disable`` of a progress bar: there is one bar, however many processes torchrun started."""
    return None if os.environ.get("RANK", "0") == "0" else True


def encode_prompt(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, template: Template, room: int | None = None
) -> list[int]:
    """Return a prompt's token ids, with the tokenizer's BOS where it sets one; responses are sampled after it.

    room  tokens that it may have, 2 or more: a longer prompt becomes shorter, as in ``encode_pairs``. ValueError where
          its last turn leaves no room. None: it stays whole.
    """
    ids = _prompt_ids(prompt, tokenizer, template)
    if room is None or len(ids) <= room:
        return ids
    if template == "plain":
        head = ids[:1] if ids[0] == tokenizer.bos_token_id else []
        return head + ids[len(ids) - room + len(head) :]
    fewer = with_fewer_turns(prompt, lambda turns: len(_prompt_ids(turns, tokenizer, template)) - room, tokenizer)
    if fewer is None:
        raise ValueError(f"a prompt's last turn must fit into {room} tokens, got {len(ids)} tokens with its header")
    return _prompt_ids(fewer[0], tokenizer, template)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model_config: PretrainedConfig) -> None:
    """Raise ValueError where the tokenizer can give an id that the model has no embedding for."""
    name, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    size = model_config.get_text_config().vocab_size
    if largest >= size:
        raise ValueError(
            f"tokenizer gives ids up to {largest} ({name!r}), but the model has embeddings for {size} tokens; "
            "use the model's own tokenizer"
        )


def check_positions(model_config: PretrainedConfig, longest: int) -> None:
    """Raise ValueError where a pair of ``longest`` tokens has no room among the model's positions."""
    positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < longest:
        raise ValueError(f"max_length must be at most {positions}, the model's positions; a pair has {longest} tokens")


# Tokens


def _prompt_ids(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    return _tokens([prompt_text(prompt, template, tokenizer)], tokenizer, _start(tokenizer, template))[0]


def _tokens(texts: list[str], tokenizer: PreTrainedTokenizerBase, start: list[int]) -> list[list[int]]:
    """Return the ids of texts, each beginning with ``start``, and of any length."""
    if not texts:
        return []
    plain: Any = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return [begun_once(start + ids, start) for ids in plain]


def begun_once(ids: list[int], start: list[int]) -> list[int]:
    """Return ids that begin with ``start`` without a second one after it, which a chat template has written."""
    return ids[len(start) :] if start and ids[: 2 * len(start)] == 2 * start else ids


def _start(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    """Return the ids that begin every text; a chat template writes them itself."""
    return [] if template == "chat" else start_of(tokenizer)


def start_of(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that the tokenizer puts before every text by itself."""
    probe: Any = tokenizer("a", return_special_tokens_mask=True)
    mask = probe["special_tokens_mask"]
    return probe["input_ids"][: mask.index(0) if 0 in mask else 0]


def _bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Limits:
    """The limits of a pair's length.

    head  ids that a prompt keeps at its front, if it has them.
    """

    length: int
    prompt: int
    head: list[int]

    @classmethod
    def of(cls, max_length: Any, max_prompt: Any, head: list[int]) -> _Limits:
        least = len(head) + 1
        length = count("max_length", max_length, least + 1)
        prompt = max(length // 2, least) if max_prompt is None else count("max_prompt", max_prompt, least)
        if prompt >= length:
            raise ValueError(f"max_prompt must be a whole number from {least} to {length - 1}, got {max_prompt!r}")
        return cls(length, prompt, head)

    def keep(self, parts: _Parts) -> int:
        """Return the tokens that a prompt may keep beside its responses."""
        return max(self.prompt, self.length - max(len(parts.win), len(parts.lose)))

    def shortened(self, prompt: list[int], keep: int) -> list[int]:
        """Return the prompt without its beginning, as far as it has more tokens than it may keep."""
        if len(prompt) <= keep:
            return prompt
        head = self.head if prompt[: len(self.head)] == self.head else []
        return head + prompt[len(prompt) - keep + len(head) :]


@dataclass(frozen=True)
class _Read:
    """A pair on its way to tokens.

    index  its place among the pairs.
    texts  its prompt, and the prompt with each response.
    notes, unused  names under which it is counted.
    """

    index: int
    pair: Pair
    texts: list[str]
    notes: list[str]
    unused: list[str]


class _Parts(NamedTuple):
    """The ids of a prompt and of its responses, each with its end; and whether tokens merged over the prompt's end."""

    prompt: list[int]
    win: list[int]
    lose: list[int]
    merged: bool

    @property
    def flaw(self) -> str:
        """Return why the pair is left out, whatever the limits; an empty text where it is not."""
        if not self.prompt:
            return "empty prompt"
        if len(self.win) == 1 or len(self.lose) == 1:
            return "empty response"
        return "identical as tokens" if self.win == self.lose else ""


@dataclass
class Counts:
    """Counts of the pairs that are left out and of those that are changed, as in ``Report``.

    refusal  the first refusal of a template; an empty text without one.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # of pairs that are kept
    unused: Counter[str] = field(default_factory=Counter)  # fields of their messages that the template does not write
    refusal: str = ""

    def add(self, later: Counts) -> None:
        """Add the counts of later pairs."""
        for mine, its in ((self.left_out, later.left_out), (self.notes, later.notes), (self.unused, later.unused)):
            mine.update(its)
        self.refusal = self.refusal or later.refusal

    def report(self, read: int, kept: int) -> Report:
        """Return the report on so many pairs; ValueError where none of them is kept."""
        report = Report(read, kept, dict(self.left_out), dict(self.notes), dict(self.unused))
        if read and not kept:
            raise ValueError(f"no pair is left: {report}{self.refusal}")
        return report


@dataclass
class PairEncoder:
    """An encoder of pairs as tokens, see ``encode_pairs``, which counts what it leaves out and changes.

    start  ids that begin every text.
    ends   ids that end a response; one without any gets the first.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    start: list[int]
    limits: _Limits
    ends: tuple[int, ...]
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, max_prompt: int | None
    ) -> PairEncoder:
        """Return an encoder; ValueError where the tokenizer lacks a token or template, or the limits leave nothing."""
        check_tokenizer(template, tokenizer)
        ends = turn_ends(tokenizer)[:1]
        if template == "chat":
            ends = (*template_ends(tokenizer), *ends)
        start = _start(tokenizer, template)
        return cls(tokenizer, template, start, _Limits.of(max_length, max_prompt, head=start or _bos(tokenizer)), ends)

    def encoded(self, pairs: Sequence[Pair]) -> list[tuple[int, Encoded]]:
        """Return the pairs that are kept, each with its index."""
        encoded = []
        for read, parts in self._fewer_turns(self._parted(self._read(pairs))):
            pair, notes = self._fitted(parts)
            self.counts.unused.update(read.unused)
            if isinstance(pair, str):
                self.counts.left_out[pair] += 1
            else:
                encoded.append((read.index, pair))
                self.counts.notes.update(read.notes + notes)
        return encoded

    def _read(self, pairs: Sequence[Pair]) -> list[_Read]:
        """Return the pairs that the template takes."""
        read = []
        for index, given in enumerate(pairs):
            try:
                pair, unused = as_written(given, self.template, self.tokenizer)
                notes = marker_notes(pair, self.template, self.tokenizer)
                texts, more = texts_of(pair, self.template, self.tokenizer)
            except Refused as refusal:
                self._refuse(given, refusal)
                continue
            read.append(_Read(index, pair, texts, notes + more, unused))
        return read

    def _refuse(self, pair: Pair, refusal: Refused) -> None:
        self.counts.left_out[refusal.reason] += 1
        self.counts.refusal = self.counts.refusal or f"; the first: {pair.place}: {refusal}"

    def _parted(self, read: Sequence[_Read]) -> list[tuple[_Read, _Parts]]:
        """Return each pair with its ids: of the prompt that both whole texts begin with, and of the rest of each."""
        ids = _tokens([text for pair in read for text in pair.texts], self.tokenizer, self.start)
        parted = []
        for pair, prompt, whole, other in zip(read, ids[::3], ids[1::3], ids[2::3], strict=True):
            merged = whole[: len(prompt)] != prompt or other[: len(prompt)] != prompt
            common = common_start(prompt, whole, other) if merged else len(prompt)
            parted.append(
                (pair, _Parts(prompt[:common], self._ended(whole[common:]), self._ended(other[common:]), merged))
            )
        return parted

    def _fewer_turns(self, parted: list[tuple[_Read, _Parts]]) -> list[tuple[_Read, _Parts]]:
        """Return the pairs, those whose prompts are too long with fewer turns; a plain text has none."""
        if self.template == "plain":
            return parted
        fits: list[tuple[_Read, _Parts]] = []
        shorter: list[_Read] = []
        for read, parts in parted:
            keep = self.limits.keep(parts)
            if len(parts.prompt) <= keep or parts.flaw:
                fits.append((read, parts))
                continue
            try:
                fewer = self._with_fewer_turns(read, keep)
            except Refused as refusal:
                self._refuse(read.pair, refusal)
                continue
            if fewer is None:
                self.counts.left_out["last turn too long"] += 1
            else:
                shorter.append(fewer)
        return sorted([*fits, *self._parted(shorter)], key=lambda both: both[0].index) if shorter else fits

    def _with_fewer_turns(self, read: _Read, keep: int) -> _Read | None:
        """Return a pair whose prompt has at most ``keep`` tokens; None where its last turn alone has more."""

        def excess(turns: Turns) -> int:
            return (
                len(_tokens([prompt_text(turns, self.template, self.tokenizer)], self.tokenizer, self.start)[0]) - keep
            )

        fewer = with_fewer_turns(read.pair.prompt, excess, self.tokenizer)
        if fewer is None:
            return None
        turns, notes = fewer
        pair = about(turns, read.pair, self.template, self.tokenizer)
        texts, _ = texts_of(pair, self.template, self.tokenizer)
        return replace(read, pair=pair, texts=texts, notes=read.notes + notes)

    def _fitted(self, parts: _Parts) -> tuple[Encoded | str, list[str]]:
        """Return the pair, cut to its limits, or the reason why it is left out; and notes on it."""
        prompt, win, lose, merged = parts
        if parts.flaw:
            return parts.flaw, []
        notes = ["tokens merged over the prompt's end"] * merged
        if any(end in side[:-1] for end in self.ends for side in (win, lose)):
            notes.append("end token inside a response")
        shorter = self.limits.shortened(prompt, self.limits.keep(parts)) if self.template == "plain" else prompt
        room = self.limits.length - len(shorter)
        if win[:room] == lose[:room]:
            return "identical after cutting", []
        if len(shorter) < len(prompt):
            notes.append("prompt shortened")
        if max(len(win), len(lose)) > room:
            notes.append("response cut")
        return Encoded(tuple(shorter), tuple(win[:room]), tuple(lose[:room])), notes

    def _ended(self, ids: list[int]) -> list[int]:
        """Return a response with one end of turn; ends and white space after it, which templates write, are dropped."""
        tail = len(ids)
        while tail and (ids[tail - 1] in self.ends or not str(self.tokenizer.decode(ids[tail - 1 : tail])).strip()):
            tail -= 1
        last = next((place for place in range(tail, len(ids)) if ids[place] in self.ends), None)
        return [*ids[:last], self.ends[0]]  # also where the text brought another end along, such as EOS in a chat
