"""Preference pairs as token ids: one pair, and many of them in flat arrays."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np


@dataclass(frozen=True)
class Encoded:
    """A pair as token ids.

    prompt     the ids that both responses follow, with the tokenizer's BOS where it sets one; never empty.
    win, lose  the responses, never empty; each ends as a turn does (see ``tokens.encode_pairs``) unless it was cut.
    """

    prompt: tuple[int, ...]
    win: tuple[int, ...]
    lose: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenPairs(Sequence[Encoded]):
    """Pairs as token ids in flat arrays, four bytes per id; each item is made when it is asked for.

    ids     (T,) uint32: prompt, winner and loser of one pair after another.
    starts  (N,) int64: where each pair begins in ``ids``.
    sizes   (N, 3) int64: the tokens of its prompt, winner and loser.
    """

    ids: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, sizes: np.ndarray) -> TokenPairs:
        """Return pairs whose ids follow one another without a gap."""
        sizes = sizes.astype(np.int64).reshape(-1, 3)
        whole = sizes.sum(1)
        return cls(ids.astype(np.uint32, copy=False), np.cumsum(whole) - whole, sizes)

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of the longer side of each pair, its prompt included, (N,)."""
        return self.sizes[:, 0] + self.sizes[:, 1:].max(1, initial=0)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> TokenPairs: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> Encoded | TokenPairs:
        """Return a pair; or several of them, by a slice or an array of indices, without a copy of their ids."""
        if isinstance(index, slice) or (isinstance(index, np.ndarray) and index.ndim):
            return TokenPairs(self.ids, self.starts[index], self.sizes[index])
        place: Any = index
        prompt, win, lose = map(int, self.sizes[place])
        ids = tuple(self.ids[self.starts[place] :][: prompt + win + lose].tolist())
        return Encoded(ids[:prompt], ids[prompt : prompt + win], ids[prompt + win :])

    def __iter__(self) -> Iterator[Encoded]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def marks(self) -> Iterator[bytes]:
        """Yield each pair's sizes and ids as bytes, the same on every machine."""
        for start, sizes in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield struct.pack("<3I", *sizes) + self.ids[start : start + sum(sizes)].astype("<u4").tobytes()

    def repeated(self) -> np.ndarray:
        """Return whether each pair is there twice or more, token for token, (N,)."""
        marks = [hashlib.sha256(mark).digest() for mark in self.marks()]  # 32 bytes per pair, however long it is
        often = Counter(marks)
        return np.array([often[mark] > 1 for mark in marks], bool)


@dataclass
class TokenStore:
    """A store of pairs that grows, and becomes ``TokenPairs``."""

    ids: array[int] = field(default_factory=lambda: array("I"))
    sizes: array[int] = field(default_factory=lambda: array("I"))

    def add(self, pair: Encoded) -> None:
        """Add a pair."""
        self.ids.extend(pair.prompt)
        self.ids.extend(pair.win)
        self.ids.extend(pair.lose)
        self.sizes.extend((len(pair.prompt), len(pair.win), len(pair.lose)))

    def extend(self, other: TokenStore) -> None:
        """Add the pairs of another store."""
        self.ids.extend(other.ids)
        self.sizes.extend(other.sizes)

    def pairs(self) -> TokenPairs:
        """Return the pairs; the store must not grow afterwards."""
        return TokenPairs.of(np.asarray(self.ids, np.uint32), np.asarray(self.sizes, np.uint32))


def data_fingerprint(encoded: Iterable[Encoded]) -> str:
    """Return the SHA-256, in hex, of the pairs' ids and lengths, in their order; the same on every machine."""
    digest = hashlib.sha256()
    for mark in encoded.marks() if isinstance(encoded, TokenPairs) else map(_mark, encoded):
        digest.update(mark)
    return digest.hexdigest()


def joined(*parts: TokenPairs) -> TokenPairs:
    """Return the pairs of all parts, one part after another; of a single part without a copy."""
    if len(parts) == 1:
        return parts[0]
    sizes = np.concatenate([part.sizes for part in parts])
    shifts = np.cumsum([0, *(len(part.ids) for part in parts[:-1])])
    starts = np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=True)])
    return TokenPairs(np.concatenate([part.ids for part in parts]), starts, sizes)


def _mark(pair: Encoded) -> bytes:
    ids = array("I", pair.prompt + pair.win + pair.lose)
    if sys.byteorder == "big":
        ids.byteswap()
    return struct.pack("<3I", len(pair.prompt), len(pair.win), len(pair.lose)) + ids.tobytes()
