"""The registry of losses by name: gradlab's, and those that a user adds."""

from __future__ import annotations

import math
import numbers
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, get_type_hints

import torch
from torch import Tensor

from gradlab.checks import one_of
from gradlab.losses import (
    anchored,
    averaged,
    batch,
    curves,
    density,
    links,
    margin,
    pointwise,
    reference_free,
    reweighted,
)
from gradlab.losses.facts import PLAIN, Facts, Look, SliderRange
from gradlab.losses.pair import (
    BatchLoss,
    DealtLoss,
    KnownLoss,
    LogisticLoss,
    PairLogps,
    PairLoss,
    differentiated,
    slopes,
)

# Files whose ``LOSSES`` are registered. In menus and lists they stand in this order.
FAMILIES = (margin, curves, reweighted, pointwise, averaged, reference_free, anchored, links, density)
_LOSSES: dict[str, Callable[..., KnownLoss]] = {make().name: make for family in FAMILIES for make in family.LOSSES}
PAIR_LOSSES: Mapping[str, Callable[..., KnownLoss]] = _LOSSES
_BATCH_FAMILIES: tuple[Any, ...] = (batch,)  # files whose ``LOSSES`` are losses of batches
BATCH_LOSSES: Mapping[str, Callable[..., BatchLoss]] = {
    make().name: make for family in _BATCH_FAMILIES for make in family.LOSSES
}
PAPER_LOSSES = ("dpo", "bdpo", "nbdpo", "nbdpo-symmetric")  # those that the paper is about: tables begin with them
YOURS = "your losses"  # the family of losses that a user adds
_OURS = frozenset({*_LOSSES, *BATCH_LOSSES})
_Loss = TypeVar("_Loss")


class Watcher(Protocol):
    """A thing that is told when the registry has changed; it must not raise."""

    def losses_changed(self) -> None: ...  # noqa: D102


WATCHERS: weakref.WeakSet[Watcher] = weakref.WeakSet()  # menus that are open; they are not kept alive by this


def pair_loss(name: str, **hyper: Any) -> KnownLoss:
    """Return the registered loss of that name with these hyper-parameters; ValueError for a name or field it lacks."""
    make = PAIR_LOSSES[one_of("loss", name, PAIR_LOSSES)]
    known = [field.name for field in fields(make())]  # type: ignore[arg-type]
    for key in hyper:
        one_of(f"hyper-parameter of {name}", key, known)
    return make(**hyper)


def named_loss(name: str, **hyper: Any) -> KnownLoss | BatchLoss:
    """Return the registered loss of that name, of pairs or of a batch; ValueError as ``pair_loss``."""
    if name in PAIR_LOSSES or name not in BATCH_LOSSES:
        one_of("loss", name, (*PAIR_LOSSES, *BATCH_LOSSES))
        return pair_loss(name, **hyper)
    make = BATCH_LOSSES[name]
    for key in hyper:
        one_of(f"hyper-parameter of {name}", key, [field.name for field in fields(make())])  # type: ignore[arg-type]
    return make(**hyper)


def family_of(loss: PairLoss | BatchLoss) -> str:
    """Return the family of a loss: ``FAMILY`` of the file that defines it, or ``YOURS``."""
    names = {family.__name__: family.FAMILY for family in (*FAMILIES, *_BATCH_FAMILIES)}
    return names.get(type(loss).__module__, YOURS)


class HyperParameter(NamedTuple):
    """A hyper-parameter, over the whole registry."""

    kind: type
    """The type of its values."""
    defaults: dict[str, Any]
    """Defaults by name of loss, for the losses that have the hyper-parameter."""
    sliders: dict[str, SliderRange | None]
    """The stops of its slider, by name of loss; None where that loss has no slider of it."""


_KINDS: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def _kinds(kind: type) -> dict[str, Any]:
    """Return the types of a class's fields by name, read once; {} for annotations that cannot be read."""
    if kind not in _KINDS:
        try:
            _KINDS[kind] = get_type_hints(kind)
        except Exception:  # an annotation may be any code
            return {}
    return _KINDS[kind]


def numbers_of(loss: PairLoss) -> dict[str, Any]:
    """Return a loss's hyper-parameters that are numbers, by name; a number in a field of floats is a float, 1 too.

    {} for a loss that is no dataclass. Annotations that cannot be read leave the numbers as they are.
    """
    if not is_dataclass(loss):
        return {}
    kinds = _kinds(type(loss))
    values = {field.name: getattr(loss, field.name) for field in fields(loss)}
    return {
        name: float(value) if kinds.get(name) is float else value
        for name, value in values.items()
        if isinstance(value, numbers.Real)
    }


def hyper_parameters(taken: Collection[str] = (), *, batches: bool = False) -> dict[str, HyperParameter]:
    """Return every hyper-parameter in ``PAIR_LOSSES`` that a user sets, by name; menus are made of them.

    A hyper-parameter that a registered name settles, as nbdpo-symmetric settles ``symmetric``, is not among them.

    taken    the other names in the menu. ValueError where a user's loss has a hyper-parameter of such a name.
    batches  take those of ``BATCH_LOSSES``, too.
    """
    settled = {key for make in PAIR_LOSSES.values() if isinstance(make, partial) for key in make.keywords}
    parameters: dict[str, HyperParameter] = {}
    for name, make in {**PAIR_LOSSES, **(BATCH_LOSSES if batches else {})}.items():
        loss = make()
        kinds = _kinds(type(loss))
        for field in fields(loss):  # type: ignore[arg-type]
            if field.name in taken:
                raise ValueError(
                    f"{field.name} of {name} must have another name, since a setting is called {field.name}"
                )
            if field.name not in settled:
                of = parameters.setdefault(field.name, HyperParameter(kinds[field.name], {}, {}))
                of.defaults[name], of.sliders[name] = getattr(loss, field.name), field.metadata.get("slider")
    return parameters


def register_loss(loss: _Loss) -> _Loss:
    """Add a user's loss to ``PAIR_LOSSES``, and so to menus, command line, sweeps and doctor; return the loss.

    loss  a frozen dataclass as ``PairLoss`` describes it (``@register_loss`` works as its decorator), or an instance,
          whose values are then the defaults. Facts of ``KnownLoss`` that the class does not state are added to it: the
          label is the name, the start, signs, bounds and what the loss reads are measured by calling it, λ_w may lie
          anywhere in [0, 1]. What ``LogisticLoss`` and ``BatchLoss`` have by default is not stated.

    A class that is registered again, as by a notebook's cell that is run twice, replaces the former one.

    ValueError or TypeError, in one line: for a class that lacks a member, a name that is taken or is no file's name, a
    hyper-parameter that is no number, a loss that fails on pairs, returns another shape, is not finite at π = π_ref or
    has no slopes, and a stated fact that is not true.
    """
    kind, ready = loss if isinstance(loss, type) else type(loss), checked(loss)
    former = _LOSSES.get(ready.name)
    if ready.name in _OURS or (former is not None and _home(type(former())) != _home(kind)):
        raise ValueError(f"name of {kind.__name__} must be one that no registered loss has, got {ready.name!r}")
    make: Any = kind if isinstance(loss, type) else partial(replace, ready)
    _LOSSES[ready.name] = make
    _tell_watchers()
    return loss


def checked(loss: Any) -> Any:
    """Return a user's loss as an instance with all facts, after the checks of ``register_loss``; nothing is registered.

    Errors as there, but for a name that is taken.
    """
    kind = loss if isinstance(loss, type) else type(loss)
    _check_class(kind)
    try:
        ready: Any = kind() if isinstance(loss, type) else loss
    except TypeError as error:
        raise TypeError(f"{kind.__name__} must have a default for every hyper-parameter ({error})") from None
    _check_words(kind.__name__, ready)
    _check_numbers(kind.__name__, ready)
    _check_values(kind.__name__, ready)
    measure_facts(kind)
    _check_facts(kind.__name__, ready)
    return ready


def measured_facts() -> dict[str, property]:
    """Return the facts of ``KnownLoss`` as properties that measure them, for a class that does not state them."""
    return {fact: property(default) for fact, default in _DEFAULTS.items()}


def measure_facts(kind: type) -> None:
    """Add to a user's class the facts that neither it nor a base of its own states, measured."""
    if kind.__module__.startswith("gradlab."):
        return
    stated = {name for base in kind.__mro__ if base not in _USUAL for name in vars(base)}
    for fact, measured in measured_facts().items():
        if fact not in stated:
            setattr(kind, fact, measured)


def unregister_loss(name: str) -> None:
    """Take a loss that ``register_loss`` has added out of the registry; ValueError for any other name."""
    added = [known for known in _LOSSES if known not in _OURS]
    if not added:
        raise ValueError(f"loss to take out must be one that register_loss has added, and there is none, got {name!r}")
    one_of("loss to take out", name, added)
    del _LOSSES[name]
    _tell_watchers()


def _tell_watchers() -> None:
    for watcher in list(WATCHERS):
        watcher.losses_changed()


def users_losses(names: Iterable[str]) -> list[KnownLoss]:
    """Return those of the named losses that a user has registered, with their default numbers: for other processes."""
    return [PAIR_LOSSES[name]() for name in sorted({*names} - _OURS) if name in PAIR_LOSSES]


def restore_losses(losses: Iterable[KnownLoss]) -> None:
    """Register what ``users_losses`` gave in another process, unless it is registered here with the same numbers."""
    for loss in losses:
        if loss.name not in _LOSSES or _LOSSES[loss.name]() != loss:
            register_loss(loss)


def measured_start(loss: PairLoss) -> float | None:
    """Return the loss at π = π_ref, by calling it on made-up pairs; None where it differs from pair to pair."""
    values = loss(_at_reference(_examples()))
    first = float(values.flatten()[0])
    return first if torch.allclose(values, values.flatten()[0], rtol=1e-12, atol=1e-12) else None


def facts_of(loss: PairLoss) -> dict[str, Any]:
    """Return the facts of a loss, registered or not, for the header of a training log, as JSON-able data."""
    names = ("logistic", "start_value", "start_equation", "weight_range", "constant_weight")
    stated = {name: getattr(loss, name) for name in names if hasattr(loss, name)}
    ends = stated.get("weight_range", (0.0, 1.0))
    defaults = {
        "constant_weight": ends[0] == ends[1],
        **{name: _DEFAULTS[name](loss) for name in names[:3] if name not in stated},
    }
    return {**defaults, **stated, "weight_range": list(ends), "never_negative": never_negative(loss)}


# The facts of a registered class that it does not state, as functions of the loss.
_DEFAULTS: dict[str, Callable[[Any], Any]] = {
    "label": lambda loss: loss.name,
    "start_value": measured_start,
    "start_equation": lambda loss: "ln 2" if getattr(loss, "start_value", None) == math.log(2) else "",
    "weight_range": lambda loss: (0.0, 1.0),
    "constant_weight": lambda loss: loss.weight_range[0] == loss.weight_range[1],
    "logistic": lambda loss: isinstance(loss, LogisticLoss),
    "bounded_below": lambda loss: _is_bounded(loss, below=True),
    "bounded_above": lambda loss: _is_bounded(loss, below=False),
    "needs_lengths": lambda loss: _fails(loss, _without_lengths(_examples())),
    "needs_reference": lambda loss: not torch.equal(loss(_examples()), loss(_at_reference(_examples()))),
    "winner_down": lambda loss: any(bool((slopes(loss, pairs)[0] > _ROUNDING).any()) for pairs in _many_sizes()),
    "loser_up": lambda loss: any(bool((slopes(loss, pairs)[1] < -_ROUNDING).any()) for pairs in _many_sizes()),
    "optimum": lambda loss: "",
    "rho": lambda loss: "",
    "convention": lambda loss: "",
    "published": lambda loss: {},
    "shipped": lambda loss: (),
    "notes": lambda loss: (),
    "look": lambda loss: PLAIN,
}
_OWED = ("name", "equation", "source", "antisymmetric")
_SIGNS = ("needs_lengths", "needs_reference", "winner_down", "loser_up")
_BOUNDS = ("bounded_below", "bounded_above")
_USUAL = (Facts, LogisticLoss, BatchLoss, DealtLoss)  # bases whose facts are the usual ones, not those of a loss
_ROUNDING = 1e-12  # slopes of the made-up pairs that are smaller have no sign


def _check_class(kind: type) -> None:
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"{kind.__name__} must be a frozen dataclass, whose fields are its hyper-parameters")
    missing = [name for name in _OWED if not hasattr(kind, name)] + ["__call__"] * ("__call__" not in dir(kind))
    if missing:
        raise TypeError(f"{kind.__name__} lacks {', '.join(missing)}, which every loss has (see PairLoss)")
    if issubclass(kind, DealtLoss):
        raise TypeError(f"{kind.__name__} must not be a DealtLoss to be registered: only gradlab.fit deals numbers out")


def _check_words(title: str, loss: Any) -> None:
    for name in ("name", "equation", "source"):
        text = getattr(loss, name)
        if not isinstance(text, str) or not text.strip() or len(text.splitlines()) != 1:
            raise ValueError(f"{name} of {title} must be one line of text, got {text!r}")
    if not re.fullmatch(r"\w[\w.+-]*", loss.name):  # an option's value, and a folder's name
        raise ValueError(
            f"name of {title} must be one word of letters, digits, _, -, + and ., that begins with a letter or digit, "
            f"got {loss.name!r}"
        )
    if not isinstance(loss.antisymmetric, bool):
        raise ValueError(f"antisymmetric of {title} must be True or False, got {loss.antisymmetric!r}")


def _check_numbers(title: str, loss: Any) -> None:
    """Raise TypeError or ValueError unless every hyper-parameter is a finite number, and its slider a range."""
    try:
        kinds = get_type_hints(type(loss))
    except Exception as error:  # an annotation may be any code
        raise TypeError(f"annotations of {title} must be types, but {_one_line(error)}") from None
    for field in fields(loss):
        value = getattr(loss, field.name)
        if kinds[field.name] not in (float, int, bool):
            raise TypeError(f"{field.name} of {title} must be a float, int or bool, got {kinds[field.name]!r}")
        if not isinstance(value, (float, int)) or not math.isfinite(value):
            raise ValueError(f"{field.name} of {title} must have a finite number as its default, got {value!r}")
        slider = field.metadata.get("slider")
        if slider is not None and not isinstance(slider, SliderRange):
            raise TypeError(f"slider of {field.name} of {title} must be a SliderRange(low, high, step), got {slider!r}")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check_values(title: str, loss: Any) -> None:
    """Raise ValueError unless made-up pairs get one loss each, finite at the reference, antisymmetric if it says so."""
    pairs = _examples()
    try:
        value = loss(pairs)
        start = loss(_at_reference(pairs))
    except Exception as error:  # whatever a user's own code may raise
        raise ValueError(f"{title} must take a PairLogps, but raises {_one_line(error)}") from error
    if not isinstance(value, Tensor) or value.shape != pairs.win.shape:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{title} must return a loss per pair, here of shape {tuple(pairs.win.shape)}, got {got}")
    if not start.isfinite().all():
        raise ValueError(f"{title} must be finite at π = π_ref, got {start[~start.isfinite()][0].item()}")
    _check_slopes(title, loss)
    if not loss.antisymmetric:
        return
    if not isinstance(loss, LogisticLoss):
        raise ValueError(f"antisymmetric of {title} must be False: only a LogisticLoss can keep that promise")
    if not torch.equal(loss.margin(pairs.swapped()), -loss.margin(pairs)):
        raise ValueError(f"antisymmetric of {title} must be False: its margin does not change sign with the sides")


def _check_slopes(title: str, loss: Any) -> None:
    """Raise ValueError for a loss whose slopes at the reference, where training starts, are no numbers."""
    try:
        sides = slopes(loss, _at_reference(_examples()))
    except Exception as error:  # whatever a user's own code may raise
        raise ValueError(f"{title} must have slopes in log π, but autograd raises {_one_line(error)}") from error
    for side, name in zip(sides, ("w", "l"), strict=True):
        if not side.isfinite().all():
            got = side[~side.isfinite()][0].item()
            raise ValueError(f"{title} must have finite slopes at π = π_ref, got {got} in log π_{name}")


def _check_facts(title: str, loss: KnownLoss) -> None:
    """Raise ValueError or TypeError where a stated fact does not hold for made-up pairs."""
    if not isinstance(loss.label, str) or len(loss.label.splitlines()) != 1:
        raise ValueError(f"label of {title} must be one line of text, got {loss.label!r}")
    if not isinstance(loss.start_equation, str) or len(loss.start_equation.splitlines()) > 1:
        raise ValueError(f"start_equation of {title} must be a line of text, or empty, got {loss.start_equation!r}")
    if not isinstance(loss.look, Look):
        raise TypeError(f"look of {title} must be a Look(color, linestyle, marker), got {loss.look!r}")
    start = measured_start(loss)
    stated = loss.start_value
    if stated is not None and not _is_near(stated, start):
        raise ValueError(f"start_value of {title} must be its loss at π = π_ref, {start}, got {stated!r}")
    ends = loss.weight_range
    if not _is_share_range(ends):
        raise ValueError(f"weight_range of {title} must be two numbers in [0, 1], the least first, got {ends!r}")
    for fact in ("constant_weight", "logistic", *_SIGNS, *_BOUNDS):
        if not isinstance(getattr(loss, fact), bool):
            raise ValueError(f"{fact} of {title} must be True or False, got {getattr(loss, fact)!r}")
    for facts, wrong in ((_SIGNS, False), (_BOUNDS, True)):  # made-up pairs can refute these, and not the opposite
        for fact in facts:
            if getattr(loss, fact) is wrong and _DEFAULTS[fact](loss) is not wrong:
                raise ValueError(f"{fact} of {title} must be {not wrong}, as made-up pairs show, got {wrong}")
    weight = _win_weights(loss)
    outside = weight[(weight < ends[0] - 1e-9) | (weight > ends[1] + 1e-9)]
    if len(outside):
        raise ValueError(f"weight_range of {title} must hold λ_w of every pair, {ends!r} lacks {float(outside[0]):.4g}")
    if loss.constant_weight and len(weight) and float(weight.max() - weight.min()) > 1e-9:
        low, high = float(weight.min()), float(weight.max())
        raise ValueError(f"constant_weight of {title} must be False: λ_w varies, from {low:.4g} to {high:.4g}")


def _win_weights(loss: KnownLoss) -> Tensor:
    """Return λ_w of the made-up pairs that have slopes."""
    win, lose = (side.abs() for side in slopes(differentiated(loss), _examples()))
    return (win / (win + lose))[win + lose > 0]


def _is_near(stated: Any, start: float | None) -> bool:
    if start is None or not isinstance(stated, (float, int)):
        return False
    return math.isclose(stated, start, rel_tol=1e-6, abs_tol=1e-9)


def _is_share_range(ends: Any) -> bool:
    pair = isinstance(ends, (tuple, list)) and len(ends) == 2 and all(isinstance(end, (float, int)) for end in ends)
    return pair and 0 <= ends[0] <= ends[1] <= 1


def _examples() -> PairLogps:
    """Return made-up pairs, (8, 25), with lengths."""
    generator = torch.Generator().manual_seed(0)
    sides = (-8 * torch.rand(8, 25, generator=generator, dtype=torch.float64) - 0.01 for _ in range(4))
    lengths = (torch.randint(1, 50, (8, 25), generator=generator) for _ in range(2))
    return PairLogps(*sides, *lengths)


def never_negative(loss: PairLoss | BatchLoss) -> bool:
    """Return whether a loss is at least 0 at made-up pairs of many sizes, whichever side wins, and at the reference."""
    values = (loss(pairs) for pairs in _many_sizes())
    return all(bool((value[~value.isnan()] >= -1e-9).all()) for value in values)


def _many_sizes() -> Iterator[PairLogps]:
    """Yield made-up pairs of many sizes, whichever side wins, and at the reference."""
    for factor in (1e-3, 0.03, 0.3, 1.0, 10.0, 1e3):
        pairs = _scaled(_examples(), factor)
        yield from (pairs, pairs.swapped(), _at_reference(pairs))


def _is_bounded(loss: PairLoss, *, below: bool) -> bool:
    """Return whether a loss stays, at log-probabilities a thousand times as far out, within a nat of what it was."""
    far = [loss(_scaled(_examples(), factor)).flatten() * (1 if below else -1) for factor in (1e3, 1e6)]
    least = [float(values[~values.isnan()].amin()) if not values.isnan().all() else 0.0 for values in far]
    return least[1] > least[0] - 1


def _scaled(pairs: PairLogps, factor: float) -> PairLogps:
    sides = ("win", "lose", "ref_win", "ref_lose")
    return replace(pairs, **{side: factor * getattr(pairs, side) for side in sides})


def _without_lengths(pairs: PairLogps) -> PairLogps:
    return replace(pairs, win_len=None, lose_len=None)


def _fails(loss: PairLoss, pairs: PairLogps) -> bool:
    try:
        loss(pairs)
    except Exception:  # whatever a user's own code may raise
        return True
    return False


def _at_reference(pairs: PairLogps) -> PairLogps:
    return replace(pairs, ref_win=pairs.win, ref_lose=pairs.lose)


def _home(kind: type) -> tuple[str, str]:
    """Return where a class is defined; it is equal for two classes that a cell has defined in turn."""
    return kind.__module__, kind.__qualname__
