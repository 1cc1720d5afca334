"""The definition of a user's loss changes with all that the loss computes with, and with nothing else."""

import pytest

from gradlab.losses import DPO
from gradlab.losses.definition import definition

SOURCE = '''
from dataclasses import dataclass
from functools import cache, cached_property, partial, wraps
import torch

MODE = "soft"
FLOOR = None
ON = True
STEPS = [1, 2]
ENDS = {"low": (0.0, "a"), "high": -1}
GRID = torch.tensor([1.0, 2.0])
ALLOWED = {0, 8}
NEVER_NAMED = 5

def scaled(x, factor=2.0, *, shift=0.5):
    return x * factor + shift

def halved(x):
    return x / 2

def traced(function):
    bound = 3
    @wraps(function)
    def inner(*args):
        return min(function(*args), bound)
    return inner

@traced
def wrapped(x):
    return x + 1

@cache
def slow(x):
    return x + 11

class Helper:
    power = 2

    def raised(self, x):
        return x ** self.power

TABLE = {"a": halved, "b": [scaled]}
part = partial(scaled, factor=7.0)

class Base:
    kind = "margin"

    def base(self):
        return super().__repr__()

@dataclass(frozen=True)
class Mine(Base):
    beta: float = 1.0
    name = "mine"
    label = "Mine"
    source = "a test"
    weights = (1, "x")
    modes = ["one"]

    def __post_init__(self):
        object.__setattr__(self, "half", 0.5)

    @cached_property
    def kept(self):
        return 13

    @property
    def told(self):
        return 17

    def turned(self, x, times=19):
        inner = lambda y: y.exp() if y in {0, 8} else times
        return inner(x)

    def __call__(self, logps):
        """Return the loss."""
        return (MODE, FLOOR, ON, STEPS, ENDS, GRID, ALLOWED, scaled, wrapped, slow, Helper, TABLE, part)
'''
EDITS = {
    "a default": ("factor=2.0", "factor=3.0"),
    "a default by keyword": ("shift=0.5", "shift=0.6"),
    "a default of a method": ("times=19", "times=20"),
    "a text of the class": ('kind = "margin"', 'kind = "mean"'),
    "a tuple of the class": ('(1, "x")', '(1, "y")'),
    "a list of the class": ('["one"]', '["two"]'),
    "a text of the module": ('MODE = "soft"', 'MODE = "hard"'),
    "None of the module": ("FLOOR = None", "FLOOR = 0"),
    "a bool of the module": ("ON = True", "ON = False"),
    "a list of the module": ("[1, 2]", "[1, 3]"),
    "a dictionary of the module": ('(0.0, "a")', '(0.0, "b")'),
    "a tensor of the module": ("[1.0, 2.0]", "[1.0, 2.5]"),
    "a set of the module": ("ALLOWED = {0, 8}", "ALLOWED = {0, 9}"),
    "a cached property": ("return 13", "return 14"),
    "a property": ("return 17", "return 18"),
    "a function that is decorated": ("return x + 1\n", "return x + 2\n"),
    "a number that a decorator holds": ("bound = 3", "bound = 4"),
    "a function with a cache": ("return x + 11", "return x + 12"),
    "a function in a dictionary": ("return x / 2", "return x / 3"),
    "a number of a partial": ("factor=7.0", "factor=8.0"),
    "a class of the module": ("power = 2", "power = 3"),
    "a base": ("__repr__()", "__str__()"),
    "what is set after the fields": ('"half", 0.5', '"half", 0.6'),
    "a name in a function inside": ("y.exp()", "y.log()"),
}
SAME = {
    "a remark": ("NEVER_NAMED = 5", "NEVER_NAMED = 5  # a remark"),
    "a value that no code names": ("NEVER_NAMED = 5", "NEVER_NAMED = 6"),
    "words about the loss": ('label = "Mine"', 'label = "My own"'),
    "the order of a set": ("ALLOWED = {0, 8}", "ALLOWED = {8, 0}"),
    "the order of a set in code": ("y in {0, 8}", "y in {8, 0}"),
}


def defined(source):
    scope = {"__name__": "a_users_module"}
    exec(source, scope)
    return definition(scope["Mine"]())


def edited(old, new):
    assert SOURCE.count(old) == 1
    return SOURCE.replace(old, new)


@pytest.mark.parametrize("what", EDITS)
def test_the_definition_of_a_loss_sees(what):
    assert defined(edited(*EDITS[what])) != defined(SOURCE)


@pytest.mark.parametrize("what", SAME)
def test_the_definition_of_a_loss_does_not_see(what):
    assert defined(edited(*SAME[what])) == defined(SOURCE)


def test_a_loss_of_gradlabs_is_defined_by_its_numbers():
    assert definition(DPO(0.1)) == definition(DPO(0.1)) != definition(DPO(0.2))
