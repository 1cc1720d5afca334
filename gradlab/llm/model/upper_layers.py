"""A model in two parts: layers that stay as they are, and the layers above, which are fed what the lower ones gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.console import one_line, out_of_memory
from gradlab.llm.data.batches import Row, collate
from gradlab.llm.model.group import Group
from gradlab.llm.model.heads import at_rest, random_ids, rounding, unwrapped
from gradlab.llm.model.loading import layers_above

_TRIED: tuple[tuple[int, int], ...] = ((2, 4), (2, 2))  # tokens of prompt and response in the rows of the trial


@dataclass(frozen=True)
class _Facts:
    """The facts that a trial finds: what each layer returns beside hidden states, and the names of what is trained.

    others   of each layer: how many more values it returns in a tuple; None where it returns hidden states alone.
    trained  names of the parameters from the first upper layer on: upper layers, and what comes after them.
    """

    others: tuple[int | None, ...]
    trained: frozenset[str]


class UpperLayers:
    """The upper layers of a model with ``with_logps``, from layer ``first`` on (the lowest is 0), as a part of its own.

    The model stays as it is: within ``below`` and ``above`` its decoder has stand-ins in the place of some layers. So
    masks, positions and whatever else the family gives to each layer are the model's own. What is before the upper
    layers, and the embeddings of input and output, is no longer trained.

    The model is tried once, on six tokens, by the main process, before it is spread. ValueError in one line where its
    lower layers cannot be left out: log π or its gradient then need more of them than their last hidden states.
    """

    def __init__(self, model: Any, first: int, group: Group | None = None) -> None:
        self._base = unwrapped(model)
        name, layers = layers_above(self._base, first)
        self.first, self._name, self._layers = first, name, layers
        self._decoder = next(part for part in self._base.modules() if part._modules.get(name) is layers)
        facts = (group or Group()).on_main(lambda: self._tried(model))
        self._place(facts.others)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name in facts.trained)

    @contextmanager
    def below(self) -> Iterator[list[Tensor]]:
        """Let calls of the model inside compute the lower layers alone; their hidden states, (B, T, H), get listed.

        The values of such calls mean nothing. There is no gradient inside, and no dropout.
        """
        seen = self._stop.seen = []
        lower = list(self._layers)[: self.first]
        for layer in lower:
            layer.eval()
        try:
            with self._in_place([*lower, self._stop, *self._later]), torch.no_grad():
                yield seen
        finally:
            self._stop.seen = None

    @contextmanager
    def above(self, hidden: Tensor) -> Iterator[None]:
        """Let the call of the model inside take ``hidden`` (B, T, H) for what the lower layers give."""
        self._give.given = hidden
        try:
            with self._in_place([*self._early, self._give, *list(self._layers)[self.first :]]):
                yield
        finally:
            self._give.given = None

    def _place(self, others: Sequence[int | None]) -> None:
        """Make the stand-ins of layers that return hidden states and so many ``others``."""
        *self._early, self._give = (
            _StandIn(layer, more) for layer, more in zip(self._layers[: self.first], others, strict=False)
        )
        self._stop, *self._later = (
            _StandIn(layer, more)
            for layer, more in zip(self._layers[self.first :], others[self.first :], strict=True)
        )  # fmt: skip

    @contextmanager
    def _in_place(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        """Give the decoder other layers inside; its own names of parameters come back afterwards."""
        self._decoder._modules[self._name] = nn.ModuleList(layers)
        try:
            yield
        finally:
            self._decoder._modules[self._name] = self._layers

    def _tried(self, model: Any) -> _Facts:
        """Return the facts of a model, once both parts together have given its log π."""
        kind = type(self._base).__name__
        trained = [name for name, value in model.named_parameters() if value.requires_grad]
        ends = _parameters(self._base.get_input_embeddings(), self._base.get_output_embeddings())
        with at_rest(self._base):
            batch = self._text()
            try:
                others, whole = self._watched(model, batch)
                self._place(others)
                with self.below() as seen:
                    model(**batch)
                [hidden] = seen
                with torch.enable_grad(), self.above(hidden):
                    by_parts = model(**batch)
                    parameters = [model.get_parameter(name) for name in trained]
                    slopes = torch.autograd.grad(by_parts.sum(), parameters, allow_unused=True)
            except Exception as error:
                if out_of_memory(error):
                    raise
                said = one_line(f"{type(error).__name__}: {error}")[:200]
                raise ValueError(
                    f"train_from cannot be used with {kind}, whose layers cannot be parted: {said}"
                ) from None
            far = float((by_parts.detach() - whole).abs().max())
            tolerance = self._tolerance(batch)
        if not far <= tolerance:
            raise ValueError(
                f"train_from cannot be used with {kind}: from layer {self.first} on, log π of a text is {far:.2g} off "
                "when the layers below are left out"
            )
        above, below = (_parameters(*part) for part in (self._layers[self.first :], self._layers[: self.first]))
        reached = {name for name, slope in zip(trained, slopes, strict=True) if slope is not None}
        by_name = {name: id(model.get_parameter(name)) for name in trained}
        if any(by_name[name] in below for name in reached):
            raise ValueError(
                f"train_from cannot be used with {kind}, whose layers below {self.first} cannot be left out"
            )
        names = {name for name in trained if by_name[name] in above} | {
            name for name in reached if by_name[name] not in ends
        }
        if not names:
            raise ValueError(f"train_from must leave something to train; {kind} has nothing from layer {self.first} on")
        return _Facts(others, frozenset(names))

    def _watched(self, model: Any, batch: Mapping[str, Any]) -> tuple[tuple[int | None, ...], Tensor]:
        """Return how many values each layer returns beside its hidden states, and the whole model's log π."""
        outputs: dict[int, int | None] = {}

        def note(place: int, output: Any) -> None:
            outputs[place] = len(output) - 1 if isinstance(output, tuple) else None

        handles = [
            layer.register_forward_hook(lambda _, __, output, place=place: note(place, output))
            for place, layer in enumerate(self._layers)
        ]
        try:
            with torch.no_grad():
                whole = model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(outputs[place] for place in range(len(self._layers))), whole

    def _text(self) -> dict[str, Any]:
        """Return two rows of random tokens as a batch; the second is shorter."""
        ids = random_ids(self._base).tolist()
        rows: list[Row] = [
            (some[:prompt], some[prompt : prompt + response])
            for some, (prompt, response) in zip(ids, _TRIED, strict=True)
        ]
        return collate(rows, 0, self._base.get_input_embeddings().weight.device)

    def _tolerance(self, batch: Mapping[str, Any]) -> float:
        """Return how far rounding may move log π of a row."""
        with torch.no_grad():
            logits = self._base(input_ids=batch["input_ids"][:1]).logits
        return max(response for _, response in _TRIED) * rounding(self._base, logits)


class _StandIn(nn.Module):
    """A layer's stand-in, which gives its input as its output, or what it is ``given``.

    others  how many more values the layer returns in a tuple; None where it returns hidden states alone.

    The layer is a child, so that FSDP finds all layers at its first look; what a decoder reads of a layer, such as the
    kind of its attention, is the layer's own.
    """

    def __init__(self, layer: nn.Module, others: int | None) -> None:
        super().__init__()
        self.layer, self.others = layer, others
        self.given: Tensor | None = None
        self.seen: list[Tensor] | None = None

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return the first argument, or what is given in its place, in the form in which the layer returns it."""
        came = args[0] if args else named["hidden_states"]
        hidden = came if self.given is None else self.given
        if hidden.shape != came.shape:
            raise ValueError(f"hidden states must have the shape {tuple(came.shape)}, got {tuple(hidden.shape)}")
        if self.seen is not None:
            self.seen.append(hidden)
        return hidden if self.others is None else (hidden, *[None] * self.others)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def _parameters(*parts: nn.Module | None) -> set[int]:
    """Return the identities of all parameters of these parts."""
    return {id(value) for part in parts if part is not None for value in part.parameters()}
