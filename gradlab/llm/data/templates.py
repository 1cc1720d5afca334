"""Templates: the text that a model sees for a prompt and its responses, plain, by a chat template or safe-rlhf's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

from gradlab.checks import one_of
from gradlab.console import one_line
from gradlab.llm.data.common_start import common_start
from gradlab.llm.data.pair_forms import TOOLS, Message, Prompt, as_messages, messages_of, parted
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.turn_markers import TurnMarkers, turn_markers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Template = Literal["plain", "chat", "beaver"]
TEMPLATES = get_args(Template)
REWORDED = "response put after the chat template's prompt"  # a note, under which a pair is counted
LOST = "text that the chat template does not write"  # likewise
BEAVER_START = "BEGINNING OF CONVERSATION:"  # of each text of safe-rlhf's


class Refused(ValueError):
    """An error: a template has no place for these turns."""

    reason = "turns that the template refuses"  # under which a pair is counted


class Answered(Refused):
    """An error: a prompt ends with an answer, which no template goes on with."""

    reason = "prompt that ends with an answer"


class Templated(Refused):
    """An error: a text that a template would be put around, or a response, is templated already."""

    reason = "templated already"


def prompt_text(prompt: Prompt, template: Template, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that the model sees for a prompt, up to where the response begins.

    "plain" is the prompt itself. "chat" is the tokenizer's chat template. "beaver" is safe-rlhf's: "BEGINNING OF
    CONVERSATION: USER: … ASSISTANT:", in which earlier answers end with the tokenizer's EOS. For the latter two, a
    dialogue of HH-RLHF's form is taken apart, and any other text is one message of the user. The tokenizer's template
    also gets the tools, and all that a message holds; safe-rlhf's has no place for them.

    ValueError for an unknown template, and for turns that the template refuses; a chat template's prompt must not end
    with an answer, after which it would begin another.
    """
    check_tokenizer(template, tokenizer)
    if template == "plain":
        if not isinstance(prompt, str):
            raise ValueError(
                "template must be chat or beaver for a prompt of messages, got 'plain'; a text is one too where a "
                "system text, former turns or tools stand beside it"
            )
        return prompt
    messages = as_messages(prompt)
    if template == "beaver":
        return _beaver(messages, str(tokenizer.eos_token))
    if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        raise Answered("template 'chat' takes prompts that end before an answer, got one whose last turn is an answer")
    return chat_text(messages, tokenizer, ask=True)


def responses_of(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return winner and loser as the model sees them after its prompt.

    The responses of a dialogue of HH-RLHF's form lose the white space around them in a template, as its other turns do.
    A response that holds more than a text is what the chat template writes for it. The end of turn, which the template
    writes, is no part of a response, and neither are words with which the prompt ends, such as "<think>".
    """
    chosen, rejected = _answers(pair, template, tokenizer)
    markers = markers_of(tokenizer) if template == "chat" else TurnMarkers()
    if not markers.opening:
        return chosen, rejected
    prompt = prompt_text(pair.prompt, template, tokenizer)
    return markers.unopened(chosen, prompt), markers.unopened(rejected, prompt)


def _answers(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return winner and loser as a template is given them."""
    if template == "plain":
        return pair.chosen, pair.rejected
    if template == "chat" and pair.messages is not None:
        pair, _ = as_written(pair, template, tokenizer)
    chosen, rejected = pair.chosen, pair.rejected
    if template == "chat" and pair.messages is not None:
        (prompt, *wholes), _ = texts_of(pair, template, tokenizer)
        chosen, rejected = (whole[len(prompt) :] for whole in wholes)
    markers = markers_of(tokenizer)
    chosen, rejected = markers.without_end(chosen), markers.without_end(rejected)
    if isinstance(pair.prompt, str) and messages_of(pair.prompt):
        return chosen.strip(), rejected.strip()
    return chosen, rejected


def about(turns: tuple[Message, ...], pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """Return a pair with these turns as its prompt, and its responses as its own prompt's form has them."""
    if pair.messages is not None:
        return replace(pair, prompt=turns)
    chosen, rejected = _answers(pair, template, tokenizer)
    return replace(pair, prompt=turns, chosen=chosen, rejected=rejected)


def texts_of(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[str]]:
    """Return the texts of the prompt and of prompt with each response; and notes on what a chat template made of them.

    White space that the template writes after an answer is in none of them where nothing else follows it.
    """
    prompt = prompt_text(pair.prompt, template, tokenizer)
    if template != "chat":
        return [prompt, *(prompt + response for response in _answers(pair, template, tokenizer))], []
    answers = pair.messages or [
        {"role": "assistant", "content": response} for response in _answers(pair, template, tokenizer)
    ]
    turns, markers = as_messages(pair.prompt), markers_of(tokenizer)
    written = [chat_text([*turns, answer], tokenizer).removesuffix(markers.space) for answer in answers]
    begun = all(whole.startswith(prompt) for whole in written)
    if begun or pair.messages:
        start = prompt if begun else _shared(pair.prompt, [prompt, *written], tokenizer)
        lost = [not _holds(whole, *turns, answer) for whole, answer in zip(written, answers, strict=True)]
        return [start, *written], [LOST] * any(lost)
    responses = [markers.unopened(answer["content"], prompt) for answer in answers]
    return [prompt, *(prompt + response for response in responses)], [REWORDED] + [LOST] * (not _holds(prompt, *turns))


def marker_notes(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return notes on the markers of turns in a pair's texts that a template is put around.

    Raises Templated where a text holds the question for an answer as the tokenizer's chat template writes it: a
    prompt that a template would be put around, or a response, which would hold its prompt once more.
    """
    markers = markers_of(tokenizer)
    responses = {"chosen": pair.chosen, "rejected": pair.rejected}
    prompts = {} if template == "plain" else {"prompt": "\n".join(_contents(pair.prompt))}
    for name, text in {**prompts, **responses}.items():
        asked = markers.asked(text)
        if asked is not None:
            remedy = "template must be plain for such prompts" if name == "prompt" else "keep the response alone"
            raise Templated(f"{name} holds {asked!r}, turn markers of the tokenizer: it is templated already; {remedy}")
    if template == "plain" or pair.messages is not None:
        return []
    bare = [markers.without_end(text) for text in responses.values()]
    notes = ["end of turn in a response, taken once"] if bare != [*responses.values()] else []
    if markers.inside(*prompts.values()) or markers.inside(*bare, ends=False):
        notes.append("the tokenizer's turn markers in a text")
    return notes


def unwritten(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the names of the fields of a pair's messages without which the template writes the same texts."""
    turns = [*(() if isinstance(pair.prompt, str) else pair.prompt), *(pair.messages or ())]
    held = {key for turn in turns for key, value in turn.items() if isinstance(value, str | list | dict)}
    names = sorted(held - {"role", "content"}) + [TOOLS] * any(turn["role"] == TOOLS for turn in turns)
    if not names:
        return []
    texts = texts_of(pair, template, tokenizer)
    return [name for name in names if texts == _texts_or_none(_without(pair, name), template, tokenizer)]


def as_written(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[Pair, list[str]]:
    """Return a pair whose responses lack the fields that the template does not write, and the names of ``unwritten``.

    Responses that hold no other field are texts then, as they are without it.
    """
    names = unwritten(pair, template, tokenizer)
    less = pair
    for name in names:
        less = _without(less, name)
    if pair.messages is None or not names or any(set(turn) - {"role", "content"} for turn in less.messages or ()):
        return pair, names
    if texts_of(less, template, tokenizer) != texts_of(pair, template, tokenizer):  # one of them is needed after all
        return pair, names
    return replace(pair, messages=None), names


@lru_cache(maxsize=4)
def _markers(tokenizer: PreTrainedTokenizerBase, template: str) -> TurnMarkers:
    return turn_markers(tokenizer, lambda messages, **how: chat_text(messages, tokenizer, **how))


def markers_of(tokenizer: PreTrainedTokenizerBase) -> TurnMarkers:
    """Return the turn markers of the tokenizer's chat template; none without one."""
    template = tokenizer.chat_template
    return _markers(tokenizer, str(template)) if template else TurnMarkers()


def check_tokenizer(template: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError for an unknown template, and where the tokenizer lacks what it needs."""
    one_of("template", template, TEMPLATES)
    if template == "chat" and not tokenizer.chat_template:
        raise ValueError(
            "template must be plain or beaver for a tokenizer without a chat template, got 'chat'; "
            "or set tokenizer.chat_template"
        )
    if template == "beaver" and tokenizer.eos_token is None:
        raise ValueError("tokenizer must have an eos token for template 'beaver'; set tokenizer.eos_token")


def chat_text(messages: Iterable[Message], tokenizer: PreTrainedTokenizerBase, *, ask: bool = False) -> str:
    """Return the text of the tokenizer's chat template for messages, tools among them; Refused where it fails."""
    from jinja2.exceptions import TemplateError

    tools, turns = parted(messages)
    how: dict[str, Any] = {"tools": tools} if tools else {}
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask, **how))
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:  # of the template's own code
        raise Refused(f"template 'chat' says: {one_line(error)}") from None


def _beaver(messages: Sequence[Message], eos: str) -> str:
    turns = parted(messages)[1]
    roles = [turn["role"] for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise Refused(f"template 'beaver' takes turns of user and assistant, from user to user, got {', '.join(roles)}")
    texts = [
        f"USER: {turn['content']} ASSISTANT:" if turn["role"] == "user" else f"{turn['content']}{eos}" for turn in turns
    ]
    return f"{BEAVER_START} {''.join(texts)}"


def _shared(prompt: Prompt, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what texts of a prompt begin with alike, as TRL does; Refused where a turn of the prompt is not in it."""
    shared = texts[0][: common_start(*texts)]
    if not shared.startswith(chat_text(as_messages(prompt), tokenizer).rstrip()):
        raise Refused("template 'chat' rewords the prompt before a response that is more than a text")
    return shared


def _holds(text: str, *turns: Message) -> bool:
    """Say whether a text holds what each of the turns says, white space around it aside."""
    return all(turn["content"].strip() in text for turn in turns if turn["role"] != TOOLS)


def _contents(prompt: Prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt if turn["role"] != TOOLS]


def _without(pair: Pair, name: str) -> Pair:
    """Return a pair whose messages lack a field; for ``TOOLS``, whose prompt lacks the tools."""

    def bare(turns: Iterable[Message]) -> list[Message]:
        return [
            {key: value for key, value in turn.items() if key != name}
            for turn in turns if turn["role"] != name
        ]  # fmt: skip

    prompt = pair.prompt if isinstance(pair.prompt, str) else tuple(bare(pair.prompt))
    if pair.messages is None:
        return replace(pair, prompt=prompt)
    chosen, rejected = bare(pair.messages)
    return replace(pair, prompt=prompt, messages=(chosen, rejected))


def _texts_or_none(
    pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[str], list[str]] | None:
    try:
        return texts_of(pair, template, tokenizer)
    except Refused:
        return None
