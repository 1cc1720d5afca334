"""Checks let through what they promise, and answer the rest in one line with its name and value."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from gradlab import read_log
from gradlab.checks import between, count, one_of, positive, utf8
from gradlab.store.ratings import read_comparison
from gradlab.sweeps.settings_frame import read_settings

NOT_NUMBERS = [True, False, np.True_, torch.tensor(True), "1", None, [1], np.ones(1), math.nan]


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_count_gives_a_plain_int(value):
    assert type(count("steps", value, least=2)) is int
    assert count("steps", value, least=2) == 2


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -1, 1, 2.0, np.array([2, 3])])
def test_count_refuses_what_is_no_whole_number_or_too_small(value):
    with pytest.raises(ValueError, match=r"^steps must be a whole number ≥ 2, got ") as error:
        count("steps", value, least=2)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), 5e-324, 1e308])
def test_positive_gives_a_plain_float(value):
    assert type(positive("beta", value)) is float
    assert positive("beta", value) == value


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, 0.0, -1e-300, math.inf, -math.inf, 1j])
def test_positive_refuses_everything_else(value):
    with pytest.raises(ValueError, match=r"^beta must be finite and > 0, got ") as error:
        positive("beta", value)
    assert str(error.value).endswith(repr(value))


def test_the_ends_of_a_range_belong_to_it_unless_open():
    assert between("rate", 0, 0, 1) == 0.0
    assert between("rate", 1, 0, 1) == 1.0
    with pytest.raises(ValueError, match=r"^rate must be finite and lie in \(0, 1\], got 0$"):
        between("rate", 0, 0, 1, open_low=True)
    with pytest.raises(ValueError, match=r"^rate must be finite and lie in \[0, 1\), got 1$"):
        between("rate", 1, 0, 1, open_high=True)


def test_a_range_without_an_upper_end_is_finite_all_the_same():
    assert between("shift", 1e300, 0) == 1e300
    with pytest.raises(ValueError, match=r"^shift must be finite and lie in \[0, inf\), got inf$"):
        between("shift", math.inf, 0)


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -0.1, 1.1, math.inf])
def test_between_refuses_what_lies_outside(value):
    with pytest.raises(ValueError, match=r"^rate must be finite and lie in \[0, 1\], got "):
        between("rate", value, 0, 1)


def test_a_name_among_the_choices_passes():
    assert one_of("optimizer", "gd", ("adam", "gd")) == "gd"


def test_an_unknown_name_is_answered_with_all_choices_and_the_nearest():
    with pytest.raises(ValueError, match=r"^optimizer must be one of adam, gd; got 'adm'; did you mean 'adam'\?$"):
        one_of("optimizer", "adm", ("adam", "gd"))


@pytest.mark.parametrize("value", ["zzz", None, 3])
def test_nothing_near_means_no_suggestion(value):
    with pytest.raises(ValueError, match="must be one of adam, gd; got") as error:
        one_of("optimizer", value, ("adam", "gd"))
    assert "did you mean" not in str(error.value)


def test_an_integer_beyond_every_float_is_refused_in_words():
    for value in (10**400, 2**63):
        with pytest.raises(ValueError, match="beta must be finite and > 0"):
            positive("beta", value)
        with pytest.raises(ValueError, match="shift must be finite and lie in"):
            between("shift", value, 0)


@pytest.mark.parametrize(
    "head", [b"", b"a", b"{}", b'{"a"', "é{}".encode(), "\ufeffa,b".encode(), bytes(8), b"\xff\xfa12"]
)
def test_bytes_that_are_not_utf_16_pass(head):
    utf8("a.jsonl", head)


def _config(path):
    command_line = pytest.importorskip("gradlab.llm.train.command_line")
    return command_line._read_config(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("log.jsonl", read_log), ("log.csv", read_log), ("samples.jsonl", read_comparison),
        ("sweep.toml", read_settings), ("run.toml", _config),
    ],
)  # fmt: skip
def test_every_reader_of_texts_names_utf_16_and_its_remedy(tmp_path, name, read, encoding):
    (tmp_path / name).write_bytes('{"step": 1}\n'.encode(encoding))
    with pytest.raises(ValueError, match=rf"{name} must be UTF-8, and is {encoding.upper()}; .*iconv -f {encoding} -t"):
        read(tmp_path / name)


def test_numbers_beyond_64_bits_are_refused_in_one_line():
    assert count("steps", 2**63 - 1) == 2**63 - 1
    with pytest.raises(ValueError, match=r"^steps must be a whole number ≥ 0 and ≤ 9223372036854775807, got 92233"):
        count("steps", 2**63)
    with pytest.raises(ValueError, match=r"^seed must be a whole number ≥ 0, got an integer of 33220 bits$"):
        count("seed", 10**10_000)  # too long for Python to write out


class Rude:
    """An object whose words cannot be had."""

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(2.5), torch.tensor(1 + 2j), torch.zeros((), device="meta"), np.complex128(2),
        np.datetime64("2020"), np.timedelta64(3), np.ma.masked, np.ma.array(3.0, mask=True), Decimal("NaN"), Rude(),
        b"3", "x\ny",
    ],
)  # fmt: skip
@pytest.mark.parametrize("check", [count, positive, lambda *of: between(*of, 0), lambda *of: one_of(*of, ["a", "b"])])
def test_whatever_it_is_the_answer_is_one_line(check, value):
    said = answer(lambda: check("argument", value))
    if said is None:
        assert check is not count
        assert float(value) == 2.5
    else:
        assert said.startswith("argument must be ")
        assert len(said.splitlines()) == 1


def answer(call):
    """Return the words of a call's ValueError; None where it has none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None
