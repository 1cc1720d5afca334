"""Rewards of responses: sequence classifiers, safe-rlhf score models, or any Python callable; and how good they are."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import count, one_of
from gradlab.llm.data.batches import collate, dealt
from gradlab.llm.data.pair_forms import Prompt
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.tokens import BEAVER_START, Template, as_messages, prompt_text, responses_of
from gradlab.llm.model.loading import check_weights, load_tokenizer, reading, weights_hash
from gradlab.stats.intervals import bootstrap_interval

ACCEPTED = (
    "a folder or hub name of a sequence classifier or of a safe-rlhf score model, in safetensors; MODULE:FUNCTION; or "
    "FILE.py:FUNCTION"
)
OWN = "gradlab_reward"  # in the config of a reward model of ``reward_training``: how its texts are made


class Reward(Protocol):
    """Prompts, as text that the model saw, and as many responses, to as many rewards."""

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], /) -> Sequence[float]: ...  # noqa: D102


class CheckedReward:
    """A reward that is known to give one finite number a response, as (B,) float64.

    name      what messages and tables call it.
    template  "chat": it reads messages, through its own chat template; "beaver": safe-rlhf's text; None: the text that
              the model saw.
    """

    def __init__(self, function: Callable[..., Any], name: str, template: str | None = None) -> None:
        self.function, self.name, self.template = function, name, template

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Rewards (B,); ValueError in one line where they are not what they must be, or the function fails."""
        if not len(prompts):
            return np.zeros(0)
        try:
            found = self.function(list(prompts), list(responses))
        except (MemoryError, torch.OutOfMemoryError):  # of the machine, not of the function
            raise
        except Exception as error:  # of a function that anyone may have written
            raise ValueError(f"reward {self.name} failed: {type(error).__name__}: {error}") from error
        if isinstance(found, Tensor):
            found = found.detach().float().cpu()
        try:
            rewards = np.asarray(found, float)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"reward {self.name} must give a number a response ({error})") from None
        if rewards.shape != (len(responses),):
            raise ValueError(
                f"reward {self.name} must give one number a response, got shape {rewards.shape} for {len(responses)}"
            )
        strange = np.flatnonzero(~np.isfinite(rewards))
        if len(strange):
            raise ValueError(
                f"reward {self.name} must give finite numbers, got {rewards[strange[0]]} for response {strange[0] + 1} "
                f"of {len(rewards)}"
            )
        return rewards

    def prompts(self, prompts: Sequence[Prompt], template: Template, tokenizer: Any) -> list[Prompt]:
        """Prompts of pairs as this reward reads them; ``template`` and ``tokenizer`` are those of the model."""
        if self.template is None:
            return [prompt_text(prompt, template, tokenizer) for prompt in prompts]
        if self.template == "chat":
            return [as_messages(prompt) for prompt in prompts]
        return list(prompts)


def load_reward(
    spec: str | Callable[..., Any], *, device: torch.device | str = "cpu", batch: int = 16, label: str | None = None,
    template: Literal["chat"] | None = None, dtype: torch.dtype | None = None, max_length: int | None = None,
) -> CheckedReward:  # fmt: skip
    """The reward that ``spec`` names.

    spec   - a folder or hub name of a sequence classifier of transformers with one output. It reads prompt and response
             as one text. Of several outputs ``label`` names the one that counts, also as "SPEC#LABEL": the reward is
             then log p/(1 − p) of it;
           - one of a safe-rlhf score model, which reads "BEGINNING OF CONVERSATION: USER: … ASSISTANT:…" and its EOS;
           - "MODULE:FUNCTION" or "FILE.py:FUNCTION", which takes lists of prompts and responses; or such a callable.
    batch       texts at a time.
    template    "chat": a classifier's own chat template writes the text, from messages.
    dtype       default: bfloat16 on a GPU, else float32.
    max_length  tokens; longer texts lose their beginning. Default: what the model can take.

    Weights come from safetensors, and no code of a model's is run. OSError or ValueError with one line that says what
    is wrong with ``spec``.
    """
    count("batch", batch, 1)
    check_template("template", template)
    if callable(spec):
        return spec if isinstance(spec, CheckedReward) else CheckedReward(spec, _called(spec))
    if _is_function(spec):
        return CheckedReward(_function(spec), spec)
    spec, label = (spec, label) if label is not None else _labelled(spec)
    device = torch.device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    model, score_head = _model(spec, dtype)
    tokenizer = load_tokenizer(spec)
    own = getattr(model.config, OWN, {})
    limits = (
        max_length, own.get("max_length"), getattr(model.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
    )  # fmt: skip
    reads = "beaver" if score_head else template
    if reads == "chat" and not tokenizer.chat_template:
        raise ValueError(f"template must be None for reward {spec}, whose tokenizer has no chat template, got 'chat'")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"reward {spec} must have a tokenizer with a padding or an end token")
    scorer = Scorer(
        model.to(device).eval(), tokenizer, batch=batch, reads=reads, ends=score_head or own.get("ends", False),
        max_length=min(limit for limit in limits if limit),
        column=None if score_head else _column(model.config, spec, label),
    )  # fmt: skip
    return CheckedReward(scorer, spec if label is None else f"{spec}#{label}", reads)


def check_reward(spec: str) -> None:
    """Raise what ``load_reward`` would of ``spec``, as far as that can be told without a model's weights.

    A function is imported; of a model the config and the tokenizer are read, and the label is looked for.
    """
    if _is_function(spec):
        _function(spec)
        return
    name, label = _labelled(spec)
    config, score_head = _config(name)
    if not score_head:
        _column(config, name, label)
    load_tokenizer(name)


def reward_hash(spec: str) -> str:
    """What tells a reward from another: of a model its weights and the label; of a function its name alone."""
    if _is_function(spec):
        return spec
    name, label = _labelled(spec)
    return f"{weights_hash(name)}#{label or ''}"


def check_template(name: str, template: Any) -> None:
    """ValueError for a template of a reward's own that ``load_reward`` does not have."""
    if template not in (None, "chat"):
        raise ValueError(f"{name} must be chat or None, got {template!r}")


class Scorer:
    """Scores texts with a model.

    reads   how prompt and response become a text, see ``CheckedReward``.
    ends    whether the tokenizer's EOS follows each text.
    column  which of the model's outputs counts; None: the model gives scores.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch: int, reads: str | None, ends: bool, max_length: int,
        column: int | None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.batch, self.reads = model, tokenizer, batch, reads
        self.ends, self.max_length, self.column = ends, max_length, column
        self.cut = 0  # texts that were too long
        if column is not None:  # classifiers on decoders look for the last token that is no padding
            model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Rewards (B,); texts of a length go together."""
        ids = self.encoded([self._text(*both) for both in zip(prompts, responses, strict=True)])
        found = np.zeros(len(ids))
        for part in dealt(np.array([len(one) for one in ids]), self.batch):
            found[part] = self.scores([ids[index] for index in part]).double().cpu().numpy()
        return found

    def scores(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Scores (B,) of token ids, with their graph where gradients are on."""
        batch = collate([(one, ()) for one in ids], self.tokenizer.pad_token_id, self.model.device)
        found = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        if self.column is None:
            return found
        logits = found.logits.float()
        own = logits[:, self.column]
        if logits.shape[1] == 1 or self.model.config.problem_type == "multi_label_classification":
            return own
        others = [index for index in range(logits.shape[1]) if index != self.column]
        return own - logits[:, others].logsumexp(1)

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, at most ``max_length``: the beginning goes, the response stays."""
        how = {"add_special_tokens": self.reads != "chat", "verbose": False}
        ids: list[list[int]] = self.tokenizer(list(texts), **how)["input_ids"]
        end = [self.tokenizer.eos_token_id] if self.ends else []
        ids = [one if one[-1:] == end else one + end for one in ids]
        for index, one in enumerate(ids):
            if len(one) > self.max_length:
                self.cut += 1
                self.tokenizer.truncation_side = "left"
                room = self.max_length - len(end)
                ids[index] = self.tokenizer(texts[index], truncation=True, max_length=room, **how)["input_ids"] + end
        return ids

    def _text(self, prompt: Prompt, response: str) -> str:
        if self.reads == "beaver":
            if not isinstance(prompt, str) or not prompt.startswith(BEAVER_START):
                prompt = prompt_text(prompt, "beaver", self.tokenizer)
            return prompt + response.strip()
        if isinstance(prompt, str):
            return prompt + response
        messages = [*prompt, {"role": "assistant", "content": response}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)


@dataclass(frozen=True)
class Accuracy:
    """How often a reward prefers the preferred response, ties ½; intervals are 95% bootstraps over pairs."""

    pairs: int
    accuracy: float
    low: float
    high: float
    shorter: float
    """How often the preferred response is the shorter one: what "prefer the shorter answer" scores."""
    shorter_low: float
    shorter_high: float
    gain: float
    """The reward's accuracy less that of the shorter, or of the longer answer, whichever is better."""
    gain_low: float
    gain_high: float

    @property
    def beats_length(self) -> bool:
        """Whether the reward is above chance, and above what length alone scores, beyond their intervals."""
        return self.low > 0.5 and self.gain_low > 0

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.pairs} held-out pairs; "
            f"'prefer the shorter answer' scores {self.shorter:.3f} [{self.shorter_low:.3f}, {self.shorter_high:.3f}]"
        )


def held_out_accuracy(
    reward: str | Callable[..., Any], pairs: Sequence[Pair], *, template: Template = "plain", tokenizer: Any = None,
    lengths: Sequence[Sequence[int]] | None = None, sign: int = 1,
) -> Accuracy:  # fmt: skip
    """How well a reward tells the preferred response of pairs, and how well length alone does.

    template, tokenizer  of the model whose text the reward reads.
    lengths              of both responses; default: in characters.
    sign                 −1 for a cost, of which less is better.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    reward = load_reward(reward)
    prompts = reward.prompts([pair.prompt for pair in pairs], template, tokenizer)
    both = [responses_of(pair, template) for pair in pairs]
    responses = [chosen for chosen, _ in both] + [rejected for _, rejected in both]
    win, lose = np.split(sign * reward(prompts + prompts, responses), 2)
    right = preferred(win, lose)
    sizes = np.array(lengths if lengths is not None else [(len(chosen), len(rejected)) for chosen, rejected in both])
    shorter = preferred(sizes[:, 1], sizes[:, 0])
    gain = right - (shorter if shorter.mean() >= 0.5 else 1 - shorter)
    figures = [float(x) for values in (right, shorter, gain) for x in (values.mean(), *bootstrap_interval(values))]
    return Accuracy(len(pairs), *figures)


def preferred(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first is larger, ½ where both are equal, else 0."""
    return (first > second) + 0.5 * (first == second)


# Loading


def _is_function(spec: str) -> bool:
    return ":" in spec and not Path(spec).is_dir()


def _labelled(spec: str) -> tuple[str, str | None]:
    """The model and the label of "SPEC#LABEL"; None where it has none."""
    if "#" not in spec or Path(spec).is_dir():
        return spec, None
    name, _, label = spec.partition("#")
    return name, label


def _config(spec: str) -> tuple[Any, bool]:
    """The model's config, and whether it is one of safe-rlhf's."""
    from transformers import AutoConfig

    from gradlab.llm.model.score_head import ARCHITECTURES

    if (Path(spec) / "adapter_config.json").is_file():
        raise ValueError(f"reward must be {ACCEPTED}; {spec} is a LoRA adapter: merge it into its base first")
    with reading("reward", spec, ACCEPTED), quiet():
        config = AutoConfig.from_pretrained(spec, trust_remote_code=False)
        named = list(config.architectures or [])
        ours = any(name in ARCHITECTURES for name in named)
        if not ours and any(name.endswith("ForScore") for name in named):
            raise ValueError(f"of safe-rlhf's score models only Llamas are known, this is {named[0]}")
        if not ours and not any(name.endswith("ForSequenceClassification") for name in named):
            raise ValueError(f"{', '.join(named) or 'a model without a named architecture'} is no sequence classifier")
        if ours and config.model_type != "llama":
            raise ValueError(f"{named[0]} must be on a llama, got {config.model_type}")
    return config, ours


def _model(spec: str, dtype: torch.dtype) -> tuple[Any, bool]:
    """The model, and whether it is one of safe-rlhf's."""
    from transformers import AutoModelForSequenceClassification

    from gradlab.llm.model.score_head import LlamaForScore

    config, ours = _config(spec)
    with reading("reward", spec, ACCEPTED), quiet():
        kind: Any = LlamaForScore if ours else AutoModelForSequenceClassification
        model, found = kind.from_pretrained(
            spec, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        check_weights(found)
    return model, ours


def _column(config: Any, spec: str, label: str | None) -> int:
    """Which output is the reward."""
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if label is None:
        if config.num_labels == 1:
            return 0
        raise ValueError(
            f"reward {spec} must have one output, got {config.num_labels}; name one of "
            f"{', '.join(names.values())} as {spec}#LABEL"
        )
    one_of(f"label of reward {spec}", label, list(names.values()))
    return next(index for index, name in names.items() if name == label)


def _function(spec: str) -> Callable[..., Any]:
    """The callable of "MODULE:FUNCTION" or "FILE.py:FUNCTION"."""
    module, _, name = spec.rpartition(":")
    if not module or not name:
        raise ValueError(f"reward must be {ACCEPTED}; got {spec!r}")
    place: Any = _file_module(Path(module), spec) if module.endswith(".py") else _module(module, spec)
    try:
        found = functools.reduce(getattr, name.split("."), place)
    except AttributeError:
        near = [one for one in vars(place) if callable(getattr(place, one)) and not one.startswith("_")][:8]
        raise ValueError(
            f"reward {spec}: {module} has no {name!r}; it has {', '.join(near) or 'no function'}"
        ) from None
    if not callable(found):
        raise ValueError(f"reward {spec} must be a function of prompts and responses, got {type(found).__name__}")
    return found


def _module(name: str, spec: str) -> Any:
    """A module, which may lie in the working folder."""
    try:
        with _working_folder_on_path():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"reward {spec}: there is no module {error.name!r}; or give FILE.py:FUNCTION") from None
        raise ValueError(f"reward {spec}: {name} needs {error.name}, which is not installed") from None
    except Exception as error:
        raise ValueError(f"reward {spec}: {name} cannot be imported ({type(error).__name__}: {error})") from None


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    """Let modules inside also be imported from the working folder; last, so that it hides nothing."""
    if "" in sys.path:
        yield
        return
    sys.path.append("")
    try:
        yield
    finally:
        sys.path.remove("")


def _file_module(path: Path, spec: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"reward {spec}: {path} is no file")
    described = importlib.util.spec_from_file_location(f"gradlab_reward_{path.stem}", path)
    assert described is not None  # it ends in .py
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    try:
        described.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"reward {spec}: {path} cannot be imported ({type(error).__name__}: {error})") from None
    return module


def _called(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' report of a new head, which is what is wanted, or is said in one line."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
