"""Templates: the text that a model sees for a prompt and its responses, plain, by a chat template or safe-rlhf's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gradlab.checks import one_of
from gradlab.llm.data.pair_forms import Message, Prompt
from gradlab.llm.data.pairs import Pair, messages_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Template = Literal["plain", "chat", "beaver"]
TEMPLATES = ("plain", "chat", "beaver")
BEAVER_START = "BEGINNING OF CONVERSATION:"  # of each text of safe-rlhf's


class Refused(ValueError):
    """An error: a template has no place for these turns."""


def prompt_text(prompt: Prompt, template: Template, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that the model sees for a prompt, up to where the response begins.

    "plain" is the prompt itself. "chat" is the tokenizer's chat template. "beaver" is safe-rlhf's: "BEGINNING OF
    CONVERSATION: USER: … ASSISTANT:", in which earlier answers end with the tokenizer's EOS. For the latter two, a
    dialogue of HH-RLHF's form is taken apart, and any other text is one message of the user.

    ValueError for an unknown template, and for turns that the template refuses.
    """
    check_tokenizer(template, tokenizer)
    if template == "plain":
        if not isinstance(prompt, str):
            raise ValueError("template must be chat or beaver for a prompt of messages, got 'plain'")
        return prompt
    messages = as_messages(prompt)
    if template == "beaver":
        return _beaver(messages, str(tokenizer.eos_token))
    return _chat(messages, tokenizer, ask=True)


def as_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages: a dialogue of HH-RLHF's form is taken apart, other text is a message of the user."""
    if isinstance(prompt, str):
        return messages_of(prompt) or ({"role": "user", "content": prompt},)
    return prompt


def responses_of(pair: Pair, template: Template) -> tuple[str, str]:
    """Return winner and loser as the model sees them after its prompt.

    The responses of a dialogue of HH-RLHF's form lose the white space around them in a template, as its other turns do.
    """
    if template != "plain" and isinstance(pair.prompt, str) and messages_of(pair.prompt):
        return pair.chosen.strip(), pair.rejected.strip()
    return pair.chosen, pair.rejected


def texts_of(pair: Pair, template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], bool]:
    """Return the texts of the prompt and of prompt with each response; and whether these reword the prompt."""
    prompt = prompt_text(pair.prompt, template, tokenizer)
    responses = responses_of(pair, template)
    wholes = [prompt + response for response in responses]
    if template == "chat":
        messages = as_messages(pair.prompt)
        written = [_chat([*messages, {"role": "assistant", "content": response}], tokenizer) for response in responses]
        if not all(whole.startswith(prompt) for whole in written):
            return [prompt, *wholes], True
        wholes = written
    return [prompt, *wholes], False


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


def _beaver(messages: Sequence[Message], eos: str) -> str:
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise Refused(f"template 'beaver' takes turns of user and assistant, from user to user, got {', '.join(roles)}")
    turns = [
        f"USER: {message['content']} ASSISTANT:" if message["role"] == "user" else f"{message['content']}{eos}"
        for message in messages
    ]
    return f"{BEAVER_START} {''.join(turns)}"


def _chat(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, ask: bool = False) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask))
    except TemplateError as error:
        raise Refused(f"template 'chat' says: {' '.join(str(error).split())}") from None
