"""A loss of one's own in one line: a formula of the log-probabilities, read by an allow-list and never evaluated."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, one_of, shown
from gradlab.losses.facts import BETA_RANGE, SliderRange, with_slider
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps
from gradlab.losses.registry import hyper_parameters, measured_facts, register_loss

MOST_LETTERS, MOST_PARTS, MOST_DEPTH = 2000, 400, 100

SIDES: Mapping[str, tuple[Callable[[PairLogps], Tensor], str]] = {  # name: the tensor, and its twin of the other side
    "h_w": (lambda logps: logps.win_logratio, "h_l"),
    "h_l": (lambda logps: logps.lose_logratio, "h_w"),
    "l_w": (lambda logps: logps.win, "l_l"),
    "l_l": (lambda logps: logps.lose, "l_w"),
    "r_w": (lambda logps: logps.ref_win, "r_l"),
    "r_l": (lambda logps: logps.ref_lose, "r_w"),
}
LENGTHS = {"L_w": "L_l", "L_l": "L_w"}
CONSTANTS = {"pi": math.pi}
_OF_POLICY = {"h_w", "h_l", "l_w", "l_l"}


class _Function(NamedTuple):
    """A function that formulas may call: for tensors, for numbers, its number of arguments, and its symmetry."""

    tensors: Callable[..., Tensor]
    numbers: Callable[..., float]
    least: int = 1
    most: int = 1
    odd: bool = False
    """Whether f(−x) = −f(x), exactly."""
    even: bool = False
    """Whether f(−x) = f(x), exactly."""


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *values: functools.reduce(function, values)


def _extreme(of_tensors: Callable[..., Tensor], of_numbers: Callable[..., float], *values: Any) -> Any:
    """Return the least or the greatest of two values, of which one or both may be numbers."""
    value, other = values
    if not isinstance(value, Tensor):
        value, other = other, value
    if not isinstance(value, Tensor):
        return of_numbers(value, other)
    if not isinstance(other, Tensor):
        return value.clamp(max=other) if of_tensors is torch.minimum else value.clamp(min=other)
    return of_tensors(value, other)


def _clamped(value: Any, least: Any, most: Any) -> Any:
    if isinstance(value, Tensor) and not isinstance(least, Tensor) and not isinstance(most, Tensor):
        return value.clamp(least, most)
    low = _extreme(torch.maximum, max, value, least)
    return _extreme(torch.minimum, min, low, most)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_minimum = _folded(functools.partial(_extreme, torch.minimum, min))
_maximum = _folded(functools.partial(_extreme, torch.maximum, max))
FUNCTIONS: Mapping[str, _Function] = {
    "logsigmoid": _Function(F.logsigmoid, lambda x: -_softplus(-x)),
    "sigmoid": _Function(torch.sigmoid, lambda x: math.exp(-_softplus(-x))),
    "softplus": _Function(lambda x: -F.logsigmoid(-x), _softplus),
    "exp": _Function(torch.exp, math.exp),
    "expm1": _Function(torch.expm1, math.expm1),
    "log": _Function(torch.log, math.log),
    "log1p": _Function(torch.log1p, math.log1p),
    "sqrt": _Function(torch.sqrt, math.sqrt),
    "square": _Function(torch.square, lambda x: x * x, even=True),
    "abs": _Function(torch.abs, math.fabs, even=True),
    "sign": _Function(torch.sign, lambda x: float((x > 0) - (x < 0)), odd=True),
    "tanh": _Function(torch.tanh, math.tanh, odd=True),
    "atan": _Function(torch.atan, math.atan, odd=True),
    "relu": _Function(torch.relu, lambda x: max(x, 0.0)),
    "min": _Function(_minimum, _minimum, 2, 8),
    "max": _Function(_maximum, _maximum, 2, 8),
    "clamp": _Function(_clamped, _clamped, 3, 3),
    "detach": _Function(torch.detach, lambda x: x, odd=True),
}
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
}
_SIGNS: Mapping[type, Callable[[Any], Any]] = {ast.UAdd: lambda a: a, ast.USub: lambda a: -a}


def formula_loss(name: str, expression: str, /, **hyper: float) -> KnownLoss:
    """Register a loss that one line states, and return it: it trains, and menus, sweeps and explorers have it at once.

    name        of the loss, as ``register_loss`` asks. A formula of this name that was registered before is replaced.
    expression  of h_w, h_l (log π − log π_ref of winner and loser), l_w, l_l (log π), r_w, r_l (log π_ref), L_w, L_l
                (lengths in tokens), the hyper-parameters, numbers and ``pi``, with + − * / **, and ``FUNCTIONS``. It
                gives the loss of one pair, which training lowers.
    hyper       hyper-parameters by name, with their default values. Each gets a slider.

    ``gl.formula_loss("mine", "-logsigmoid(beta * (h_w - h_l) + gamma * (L_w - L_l))", beta=1.0, gamma=0.1)``

    Nothing of the expression is evaluated as Python: its tree is translated part by part. Facts of ``KnownLoss`` are
    measured. A formula −logsigmoid(m) is a ``LogisticLoss``, and antisymmetric where its form proves that m changes
    sign with the sides.

    ValueError, in one line, and then nothing is registered: for a formula that uses another name, call or sign, that is
    too long or too deep, that does not depend on π, or whose value or slopes at π = π_ref are no finite numbers; for a
    hyper-parameter that is not used or not finite; and for a name that is taken.
    """
    return register_loss(unregistered(name, expression, **hyper))


def unregistered(name: str, expression: str, /, **hyper: float) -> KnownLoss:
    """Return the loss of a formula, and register nothing; arguments and errors as for ``formula_loss``."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name of a formula must be one word, got {shown(name)}")
    tree = _parsed(name, expression)
    numbers = {key: _finite(f"{key} of {name}", value) for key, value in hyper.items()}
    _check_names(name, tree, numbers)
    return _kind(name, " ".join(expression.split()), tuple(numbers.items()))()


def free_names(expression: str) -> tuple[str, ...]:
    """Return the names in a formula that need a number, in the order of their places; ValueError for no formula."""
    tree = _parsed("this loss", expression)
    names = (part for part in _parts(tree) if isinstance(part, ast.Name))
    free = [part for part in names if part.id not in {*SIDES, *LENGTHS, *CONSTANTS}]
    return tuple(dict.fromkeys(part.id for part in sorted(free, key=lambda part: part.col_offset)))


class _NotANumber(ArithmeticError):
    """The reason why a part of a formula that is made of numbers alone has no finite value."""


# --- reading ---


def _parsed(name: str, text: Any) -> ast.expr:
    """Return the tree of an expression; ValueError where a part of it is not on the allow-list."""
    title = f"formula of {name}"
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{title} must be an expression such as '-logsigmoid(beta * (h_w - h_l))', got {shown(text)}")
    if len(text) > MOST_LETTERS:
        raise ValueError(f"{title} must have at most {MOST_LETTERS} characters, got {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what looks odd, such as 1(2), and is refused below
            tree = ast.parse(" ".join(text.replace("−", "-").split()), mode="eval").body
    except SyntaxError as error:
        near = f" near character {error.offset}" if error.offset else ""
        raise ValueError(f"{title} must be an expression of Python, got {shown(text)}: {error.msg}{near}") from None
    except (RecursionError, MemoryError, ValueError):
        raise ValueError(f"{title} must be an expression that is not so deep, got {shown(text)}") from None
    depth, parts = _size(tree)
    if depth > MOST_DEPTH or parts > MOST_PARTS:
        raise ValueError(
            f"{title} must have at most {MOST_PARTS} parts, {MOST_DEPTH} within each other, got {parts} and {depth}"
        )
    for part in _parts(tree):
        _check_part(title, part)
    return _stable(tree)


def _size(tree: ast.AST) -> tuple[int, int]:
    """Return how deep a tree is, and how many parts it has, without recursion."""
    level, depth, parts = [tree], 0, 0
    while level and parts <= 10 * MOST_PARTS:
        depth, parts = depth + 1, parts + len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return depth, parts


def _parts(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield the parts of an expression; of a call, its arguments and not its name."""
    yield tree
    children = tree.args if isinstance(tree, ast.Call) else ast.iter_child_nodes(tree)
    for child in children:
        if isinstance(child, ast.expr):
            yield from _parts(child)


def _check_part(title: str, part: ast.expr) -> None:
    """Raise ValueError for a part that formulas may not have."""
    match part:
        case ast.Name():
            return
        case ast.Constant(value=value) if type(value) in (int, float):
            if not _is_finite(value):
                raise ValueError(f"{title} must have finite numbers, got {shown(ast.unparse(part))}")
        case ast.UnaryOp(op=op) if type(op) in _SIGNS:
            return
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            return
        case ast.Call(func=ast.Name(id=called), args=arguments, keywords=[]):
            one_of(f"function in {title}", called, FUNCTIONS)
            function = FUNCTIONS[called]
            if any(isinstance(argument, ast.Starred) for argument in arguments):
                raise ValueError(f"{title} must not unpack arguments, got {shown(ast.unparse(part))}")
            if not function.least <= len(arguments) <= function.most:
                many = (
                    f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
                )
                raise ValueError(
                    f"{called} in {title} takes {many} argument{'s' * (many != '1')}, got {len(arguments)}"
                )
        case ast.Call(func=ast.Name(id=called)):
            raise ValueError(f"{called} in {title} takes no arguments by name, got {shown(ast.unparse(part))}")
        case ast.Call():
            raise ValueError(f"{title} must call one of {', '.join(FUNCTIONS)}; got {shown(ast.unparse(part))}")
        case _:
            raise ValueError(
                f"{title} must be made of names, numbers, + - * / ** and functions, got {_kind_of(part)}: "
                f"{shown(ast.unparse(part))}"
            )


_KINDS_OF_PARTS: Mapping[type, str] = {
    ast.Attribute: "an attribute", ast.Subscript: "a subscript", ast.Lambda: "a lambda", ast.Compare: "a comparison",
    ast.BoolOp: "a truth", ast.IfExp: "an if", ast.Constant: "a value that is no number",
    ast.NamedExpr: "an assignment",
}  # fmt: skip


def _kind_of(part: ast.expr) -> str:
    if isinstance(part, (ast.BinOp, ast.UnaryOp)):
        return "another operator"
    return _KINDS_OF_PARTS.get(type(part), f"a {type(part).__name__}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _check_names(name: str, tree: ast.expr, hyper: Mapping[str, float]) -> None:
    """Raise ValueError for a name that nothing gives, a hyper-parameter that is not used, and a loss without π."""
    fixed = (*SIDES, *LENGTHS, *CONSTANTS)
    for key in hyper:
        if key in fixed or key in FUNCTIONS or key in _RESERVED or key.startswith("_"):
            raise ValueError(f"hyper-parameter of {name} must have a name with no other meaning, got {key!r}")
    used = {part.id for part in _parts(tree) if isinstance(part, ast.Name)}
    for key in sorted(used):
        if key not in fixed and key not in hyper:
            hint = f"; a hyper-parameter needs its number: {key}=1.0" if key.isidentifier() and len(key) < 40 else ""
            known = ", ".join((*fixed, *hyper))
            raise ValueError(f"name in formula of {name} must be one of {known}; got {key!r}{hint}")
    for key in hyper:
        if key not in used:
            raise ValueError(f"{key} of {name} must be used by its formula, got {shown(ast.unparse(tree))}")
    if not used & _OF_POLICY:
        raise ValueError(
            f"formula of {name} must depend on log π of a pair, by h_w, h_l, l_w or l_l, got {shown(ast.unparse(tree))}"
        )


class _Stable(ast.NodeTransformer):
    """A change of log(sigmoid(x)) to logsigmoid(x), which is the same number and does not underflow."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id="log"), args=[ast.Call(func=ast.Name(id="sigmoid"), args=arguments)]):
                return ast.Call(ast.Name("logsigmoid", ast.Load()), arguments, [])
        return node


def _stable(tree: ast.expr) -> ast.expr:
    return _Stable().visit(tree)


# --- computing ---


def _compute(tree: ast.expr, values: Mapping[str, Any]) -> Any:
    """Return the value of a tree, a tensor or a number, given the values of its names."""
    match tree:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _SIGNS[type(op)](_compute(operand, values))
        case ast.BinOp(left=left, op=op, right=right):
            return _of_parts(tree, _OPERATORS[type(op)], (_compute(left, values), _compute(right, values)))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            given = tuple(_compute(argument, values) for argument in arguments)
            some = any(isinstance(value, Tensor) for value in given)
            return _of_parts(tree, FUNCTIONS[name].tensors if some else FUNCTIONS[name].numbers, given)
    raise AssertionError(ast.unparse(tree))


def _of_parts(tree: ast.expr, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    """Return a function's value; _NotANumber where numbers give none that is real and finite."""
    try:
        value = function(*given)
    except (ArithmeticError, ValueError) as error:
        raise _NotANumber(f"{shown(ast.unparse(tree))} has no value ({error})") from None
    if isinstance(value, complex):
        raise _NotANumber(f"{shown(ast.unparse(tree))} is a complex number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotANumber(f"{shown(ast.unparse(tree))} is {value}")
    return value


def _power(base: Any, exponent: Any) -> Any:
    """Return base ** exponent, by operations that the engine knows where possible."""
    if isinstance(exponent, Tensor):
        return torch.exp(exponent * (torch.log(base) if isinstance(base, Tensor) else math.log(base)))
    if isinstance(base, Tensor) and exponent == 0.5:
        return base.sqrt()
    return base ** (int(exponent) if isinstance(base, Tensor) and float(exponent).is_integer() else exponent)


def _values_of(logps: PairLogps, name: str, used: frozenset[str], hyper: Mapping[str, float]) -> dict[str, Any]:
    """Return the value of each name that a formula uses."""
    values: dict[str, Any] = {**CONSTANTS, **hyper, **{key: SIDES[key][0](logps) for key in SIDES if key in used}}
    if used & LENGTHS.keys():
        values["L_w"], values["L_l"] = logps.lengths(name)
    return values


# --- exchanging the sides ---


def _swapped(tree: ast.expr) -> ast.expr:
    """Return the tree with winner and loser exchanged."""
    twins = {**{name: twin for name, (_, twin) in SIDES.items()}, **LENGTHS}

    class Swap(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            return ast.Name(twins.get(node.id, node.id), node.ctx)

    return Swap().visit(ast.parse(ast.unparse(tree), mode="eval").body)


def _parity(tree: ast.expr) -> int:
    """Return 1 where a value provably stays when the sides are exchanged, −1 where it changes sign, else 0.

    Both hold in floating point, too: only identities are used that rounding keeps.
    """
    match tree:
        case ast.Constant():
            return 1
        case ast.Name(id=name):
            return 0 if name in SIDES or name in LENGTHS else 1
        case ast.UnaryOp(operand=operand):
            return _parity(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _parity_of_two(left, op, right)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _parity_of_call(name, arguments)
    return 0


def _parity_of_two(left: ast.expr, op: ast.operator, right: ast.expr) -> int:
    first, second = _parity(left), _parity(right)
    match op:
        case ast.Sub() if _are_twins(left, right):
            return -1
        case ast.Add() | ast.Mult() if _are_twins(left, right):
            return 1
        case ast.Add() | ast.Sub():
            return first if first == second else 0
        case ast.Mult() | ast.Div():
            return first * second
    power = right.value if isinstance(right, ast.Constant) else None
    if first == -1 and isinstance(power, int):
        return -1 if power % 2 else 1
    return 1 if first == second == 1 else 0


def _parity_of_call(name: str, arguments: list[ast.expr]) -> int:
    function, inside = FUNCTIONS[name], [_parity(argument) for argument in arguments]
    if inside == [-1]:
        return -1 if function.odd else 1 if function.even else 0
    if name in ("min", "max") and len(arguments) == 2 and _are_twins(*arguments):
        return 1
    return 1 if all(side == 1 for side in inside) else 0


def _are_twins(part: ast.expr, other: ast.expr) -> bool:
    """Return whether one part becomes the other when the sides are exchanged."""
    return ast.unparse(_swapped(part)) == ast.unparse(other)


# --- the class ---


class _Formula:
    """The parts that all losses of formulas share; their classes are made by ``_kind``."""

    name: str
    expression: str
    tree: ast.expr
    used: frozenset[str]
    source = "a formula of one's own"
    antisymmetric = False

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            object.__setattr__(self, key, _finite(f"{key} of {self.name}", value))
        try:
            self(_at_start())
        except _NotANumber as error:
            raise ValueError(f"formula of {self.name} must be finite at π = π_ref: {error}") from None

    def __repr__(self) -> str:
        numbers = "".join(f", {key}={value!r}" for key, value in vars(self).items())
        return f"formula_loss({self.name!r}, {self.expression!r}{numbers})"

    def __reduce__(self) -> Any:
        return _restored, (self.name, self.expression, type(self).defaults, dict(vars(self)))  # type: ignore[attr-defined]

    def value(self, logps: PairLogps, tree: ast.expr) -> Tensor:
        """Return the value of the formula, or of a part of it, for each pair."""
        return _compute(tree, _values_of(logps, self.name, self.used, vars(self)))

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair."""
        return self.value(logps, self.tree)


class _Logistic(_Formula, LogisticLoss):
    """A formula −logsigmoid(m)."""

    inside: ast.expr

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m, the formula's part inside logsigmoid."""
        return self.value(logps, self.inside)

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return −log σ(m) of each pair, in nats."""
        return LogisticLoss.__call__(self, logps)


_OF_A_FORMULA = ("name", "expression", "tree", "used", "defaults", "equation", "inside")
_RESERVED = {*dir(_Logistic), *measured_facts(), *_OF_A_FORMULA}  # names that no hyper-parameter may take


@functools.lru_cache(maxsize=256)
def _kind(name: str, expression: str, defaults: tuple[tuple[str, float], ...]) -> Any:
    """Return the class of a formula; it is the same for equal formulas, in one process."""
    tree = _parsed(name, expression)
    used = frozenset(part.id for part in _parts(tree) if isinstance(part, ast.Name))
    stated: dict[str, Any] = {
        "__module__": __name__, "__qualname__": f"formula.{name}", "name": name, "expression": expression, "tree": tree,
        "used": used, "defaults": defaults, "equation": expression, "needs_lengths": bool(used & LENGTHS.keys()),
    }  # fmt: skip
    base: type = _Formula
    match tree:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Call(func=ast.Name(id="logsigmoid"), args=[inside])):
            base = _Logistic
            stated |= {"inside": inside, "antisymmetric": _parity(inside) == -1}
    menu = hyper_parameters()
    numbers = [(key, float, with_slider(value, _stops(menu, key, value))) for key, value in defaults]
    return dataclasses.make_dataclass(
        name, numbers, bases=(base,), namespace={**measured_facts(), **stated}, frozen=True, repr=False
    )


def _restored(name: str, expression: str, defaults: tuple[tuple[str, float], ...], values: dict[str, float]) -> Any:
    """Return a loss that was pickled or copied; it need not be registered."""
    loss = object.__new__(_kind(name, expression, defaults))
    for key, value in values.items():
        object.__setattr__(loss, key, value)
    return loss


def _stops(menu: Mapping[str, Any], key: str, value: float) -> SliderRange:
    """Return the stops of a hyper-parameter's slider: those of other losses' where they hold the value."""
    known = [BETA_RANGE] if key == "beta" else list(menu[key].sliders.values()) if key in menu else []
    for stops in known:
        if stops is not None and _holds(stops, value):
            return stops
    if value == 0:
        return SliderRange(-1.0, 1.0, 0.05)
    far = 4 * value
    return SliderRange(min(far, 0.0), max(far, 0.0), abs(value) / 25)


def _holds(stops: SliderRange, value: float) -> bool:
    if stops.log and value <= 0:
        return False
    return stops.low <= (math.log10(value) if stops.log else value) <= stops.high


def _finite(name: str, value: Any) -> float:
    """Return a number as a float; ValueError for anything but a finite number."""
    try:
        return between(name, value, -math.inf)
    except ValueError:
        raise ValueError(f"{name} must be a finite number, got {shown(value)}") from None


def _at_start() -> PairLogps:
    """Return a pair at π = π_ref, with lengths."""
    win, lose = torch.tensor([-2.0], dtype=torch.float64), torch.tensor([-3.0], dtype=torch.float64)
    return PairLogps(win, lose, win, lose, torch.tensor([7]), torch.tensor([5]))
