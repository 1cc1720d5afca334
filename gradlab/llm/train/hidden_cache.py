"""Hidden states of pairs before the layers that are trained: computed once, kept on disk, read from there as needed.

A cache is a folder of parts, each a file of up to ``PART`` pairs that carries its hash. So a run that is stopped loses
one part, several runs share a cache, and runs on other data add to it. A pair is computed by itself: its numbers depend
on no other pair. Files are mapped into memory, so that the system keeps what it has room for.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from gradlab.console import printable, say
from gradlab.llm.data.batches import Layout, Partly, Row, apart, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.store.files import remove_leftovers, write_whole
from gradlab.store.sealed import Damaged

PART = 64  # pairs in a file
_NAMES = "part-*.safetensors"


class _Place(NamedTuple):
    """The hidden states of a row: those of its prompt and of its response, (tokens, H) each, on disk."""

    prompt: Tensor
    response: Tensor


class HiddenCache:
    """The hidden states of pairs in ``folder``, which are those of one model before one layer, as ``key`` names."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._places: dict[bytes, _Place] = {}
        self._read: set[str] = set()
        self._bytes = 0

    def fill(
        self, pairs: Sequence[Encoded], below: Callable[[Sequence[Row]], Tensor], group: Group, *, title: str
    ) -> None:
        """Compute the hidden states of these pairs that are not in the cache yet, and write them as they come.

        below  gives hidden states of rows (B, T, H), once or apart; all processes call it equally often.
        title  the progress bar's, and the notice's.

        OSError in one line where the disk has no room for them.
        """
        with self._alone(group):
            group.on_all(self._look)
            wanted = [pair for pair in dict.fromkeys(pairs) if not self._places.keys() >= set(self._keys(pair))]
            if wanted:
                self._compute(wanted, below, group, title)
        if group.is_main:
            number = len(set(pairs))
            known = f"{number:,} pairs, {number - len(wanted):,} of them known before"
            say(f"{title}: {known}; {_size(self._bytes)} in {self.folder}")

    def hidden(self, rows: Sequence[Row], layout: Layout | None = None) -> Tensor | None:
        """Return the hidden states of rows, (B, T, H), padded on the right by 0; None where a row is not known.

        layout  as for ``collate``. A row that asks for earlier answers too has those of its pair.
        """
        rows = rows if (layout or Layout()).of(rows).once else apart(rows)
        found = []
        for prompt, *responses in map(_as_in_pair, rows):
            places = [self._places.get(_key(prompt, response)) for response in responses]
            known = [place for place in places if place is not None]
            if len(known) < len(places):
                return None
            found.append(torch.cat([known[0].prompt, *(place.response for place in known)]))
        return laid(found)

    def _compute(
        self, wanted: Sequence[Encoded], below: Callable[[Sequence[Row]], Tensor], group: Group, title: str
    ) -> None:
        parts = [wanted[start : start + PART] for start in range(0, len(wanted), PART)]
        with tqdm(total=len(wanted), desc=printable(title), unit="pair", disable=not group.is_main, leave=False) as bar:
            for turn in range(0, len(parts), group.size):
                now = parts[turn : turn + group.size]
                mine = now[group.rank] if group.rank < len(now) else []
                states: list[Tensor] = []
                for place in range(len(now[0])):
                    pair = mine[place] if place < len(mine) else wanted[0]  # FSDP needs every process in every forward
                    states.append(_of_pair(pair, below(pair_rows([pair]))))
                    if turn == place == 0:
                        group.on_main(lambda example=states[0]: self._check_room(wanted, example))
                    bar.update(sum(place < len(part) for part in now))
                group.on_all(lambda mine=mine, states=states: self._write(mine, states))
                group.on_all(self._look)

    def _write(self, pairs: Sequence[Encoded], states: Sequence[Tensor]) -> None:
        """Write a part with the hidden states of these pairs; states may have more of them, of no use."""
        if not pairs:
            return
        keys = [self._keys(pair) for pair in pairs]
        tensors = {
            "hidden": torch.cat(list(states[: len(pairs)])),
            "tokens": torch.tensor([_tokens(pair) for pair in pairs]),
            "rows": torch.tensor([[list(key) for key in both] for both in keys], dtype=torch.uint8),
        }
        name = hashlib.sha256(b"".join(key for both in keys for key in both)).hexdigest()[:16]
        file = self.folder / _NAMES.replace("*", name)
        write_whole({file: lambda to: write_tensors(to, tensors, key=self.key)})

    def _look(self) -> None:
        """Read the parts that are new; remove damaged ones, with a notice: they are made again.

        OSError for a part that cannot be read, which stays: other runs may share the cache.
        """
        for file in sorted(self.folder.glob(_NAMES)):
            if file.name in self._read:
                continue
            try:
                tensors, about = read_tensors(file)
                if about.get("key") != self.key:
                    raise Damaged(f"{file} is the cache of another model")
            except FileNotFoundError:  # another process has removed it, as it is damaged
                continue
            except Damaged as error:
                say(f"gradlab: {error}, and is made again", file=sys.stderr)
                file.unlink(missing_ok=True)
                continue
            self._read.add(file.name)
            self._bytes += tensors["hidden"].nbytes
            start = 0
            for counts, keys in zip(tensors["tokens"].tolist(), tensors["rows"].numpy(), strict=True):
                prompt, *sides = tensors["hidden"][start : start + sum(counts)].split(counts)
                start += sum(counts)
                for key, side in zip(keys, sides, strict=True):
                    self._places.setdefault(key.tobytes(), _Place(prompt, side))

    @contextlib.contextmanager
    def _alone(self, group: Group) -> Iterator[None]:
        """Keep other runs from filling the cache inside; wait where one is at it."""
        lock = FileLock(self.folder / ".lock")

        def take() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say(f"another run fills {self.folder}; this one waits for it")
                lock.acquire()
            remove_leftovers(self.folder)

        group.on_main(take)
        try:
            yield
        finally:
            lock.release()

    def _check_room(self, wanted: Sequence[Encoded], example: Tensor) -> None:
        needed = sum(map(sum, map(_tokens, wanted))) * example[0].nbytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            room = f"{self.folder} has {_size(free)}"
            raise OSError(f"cache must be on a disk with room for {_size(needed)} of hidden states, {room}")

    @staticmethod
    def _keys(pair: Encoded) -> tuple[bytes, bytes]:
        return _key(pair.prompt, pair.win), _key(pair.prompt, pair.lose)


def laid(rows: Sequence[Tensor]) -> Tensor:
    """Return rows (tokens, H) as one tensor (B, T, H), padded on the right by 0."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _as_in_pair(row: Row) -> Row:
    """Return a row's tokens as a pair has them: a response that is asked for in part is its last answer alone."""
    prompt, response = row[0], row[-1]
    if not isinstance(response, Partly):
        return row
    last = int(np.flatnonzero(~response.asked).max(initial=-1)) + 1
    return (*prompt, *response[:last]), response[last:]


def _of_pair(pair: Encoded, states: Tensor) -> Tensor:
    """Return hidden states of prompt, winner and loser, (tokens, H), on the CPU.

    states  (1, T, H) where they share a row; else of both rows, (2, T, H).
    """
    prompt, win, lose = _tokens(pair)
    if len(states) == 1:
        return states[0].cpu()
    return torch.cat([states[0, : prompt + win], states[1, prompt : prompt + lose]]).cpu()


def _key(prompt: Sequence[int], response: Sequence[int]) -> bytes:
    """Return a name of 16 bytes for a row."""
    ids = np.array([len(prompt), *prompt, *response], dtype="<i8")
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()


def _tokens(pair: Encoded) -> tuple[int, int, int]:
    """Return the tokens of prompt, winner and loser."""
    return len(pair.prompt), len(pair.win), len(pair.lose)


def _size(number: float) -> str:
    """Return a number of bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"
