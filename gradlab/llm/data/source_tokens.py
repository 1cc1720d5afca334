"""The pairs of a source as tokens: streamed, made in processes where there are many, and kept under a hash."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from joblib import delayed
from tqdm import tqdm

from gradlab.llm.data.hold_out import prompt_key
from gradlab.llm.data.pair_files import source_key
from gradlab.llm.data.pairs import Pair, PairStream, Report, read_pairs
from gradlab.llm.data.templates import Refused, Template, chat_text
from gradlab.llm.data.token_pairs import TokenPairs, TokenStore
from gradlab.llm.data.tokens import AT_ONCE, Counts, PairEncoder, hidden_bar
from gradlab.store.pool import calm, pool_of
from gradlab.store.provenance import fingerprint, module_hash, versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PER_PROCESS = 10_000  # pairs that are worth another process, which takes seconds to start


@dataclass(frozen=True)
class Source:
    """A source of pairs, and how it is read; fields as the arguments of ``read_pairs``."""

    source: str
    choice: str | None = None
    split: str = "train"
    limit: int | None = None

    def texts(self) -> list[Pair]:
        """Return all usable pairs as text."""
        return read_pairs(self.source, choice=self.choice, split=self.split, limit=self.limit)[0]

    def stream(self) -> PairStream:
        """Return all usable pairs, one at a time."""
        return PairStream(self.source, choice=self.choice, split=self.split, limit=self.limit)


@dataclass(frozen=True)
class Encoding:
    """The settings by which pairs become tokens; fields as the arguments of ``encode_pairs``."""

    template: Template = "plain"
    max_length: int = 512
    max_prompt: int | None = None


@dataclass(frozen=True)
class SourceTokens:
    """The pairs of a source as tokens.

    encoded  N pairs.
    kept     (N,) places of these among the usable pairs of the source.
    numbers  (N,) their lines, or rows, in the source, from 1.
    keys     the ``prompt_key`` of each.
    report   on reading them and on making them tokens.
    word     "line" or "row".
    key      names all that the tokens depend on; None where the source or the tokenizer has no hash.
    is_kept  whether they come from a cache.
    """

    source: Source
    encoded: TokenPairs
    kept: np.ndarray
    numbers: np.ndarray
    keys: Sequence[str]
    report: Report
    word: str
    key: str | None = None
    is_kept: bool = False

    def places(self) -> list[str]:
        """Return where each pair was read: "file.jsonl, line 3"."""
        return [f"{self.source.source}, {self.word} {number}" for number in self.numbers.tolist()]

    def texts(self) -> list[Pair]:
        """Read the source again and return the pairs as text; ValueError where it is no longer what it was."""
        pairs = self.source.texts()
        chosen = [pairs[place] for place in self.kept.tolist() if place < len(pairs)]
        if [_number(pair) for pair in chosen] != self.numbers.tolist():
            raise ValueError(f"{self.source.source} has changed since it was read; start again")
        return chosen


class Cache(Protocol):
    """A keeper of pairs as tokens: arrays and texts under a key."""

    def read(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Return what was written under the key; None where that is nothing."""
        ...

    def write(self, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
        """Write arrays and texts under the key."""
        ...


def tokens_of(
    source: Source, tokenizer: PreTrainedTokenizerBase, encoding: Encoding, cache: Cache | None = None
) -> SourceTokens:
    """Return the pairs of a source as tokens, from a cache where that has them.

    The source is streamed: no more than a few thousand texts are in memory. ``PER_PROCESS`` pairs or more per core are
    made into tokens in several processes; their number changes nothing. Errors are those of ``read_pairs`` and
    ``encode_pairs``.
    """
    encoder = PairEncoder.of(tokenizer, encoding.template, encoding.max_length, encoding.max_prompt)
    key = _key(source, tokenizer, encoding)
    known = cache.read(key) if cache and key else None
    if known is None:
        return replace(_made(source, encoder), key=key)
    arrays, about = known
    return SourceTokens(
        source, TokenPairs.of(arrays["ids"].view(np.uint32), arrays["sizes"]), arrays["kept"], arrays["numbers"],
        [row.tobytes().hex() for row in arrays["keys"]], Report(**json.loads(about["report"])), about["word"], key,
        is_kept=True,
    )  # fmt: skip


def keep(tokens: SourceTokens, cache: Cache) -> None:
    """Write tokens into a cache, where they do not come from one and have a key."""
    if tokens.key is None or tokens.is_kept:
        return
    keys = np.frombuffer(bytes.fromhex("".join(tokens.keys)), np.uint8)
    arrays = {
        "ids": tokens.encoded.ids.view(np.int32), "sizes": tokens.encoded.sizes.astype(np.int32), "kept": tokens.kept,
        "numbers": tokens.numbers, "keys": keys.reshape(len(tokens.keys), -1).copy(),
    }  # fmt: skip
    cache.write(tokens.key, arrays, {"report": json.dumps(asdict(tokens.report)), "word": tokens.word})


def _key(source: Source, tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> str | None:
    """Return a hash of all that the tokens depend on: data, settings, tokenizer, template with its date, and code."""
    data = source_key(source.source, source.split)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if data is None or backend is None:
        return None
    says = ""
    if encoding.template == "chat":
        with contextlib.suppress(Refused):
            says = chat_text([{"role": "user", "content": "a"}], tokenizer, ask=True)
    how = [source.choice, source.limit, asdict(encoding), str(tokenizer.chat_template), says]
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    code = [module_hash(__name__), versions(("transformers", "tokenizers", "jinja2"))]
    return fingerprint(data, how, hashlib.sha256(backend.to_str().encode()).hexdigest(), special, code)


# Making them


@dataclass
class _Chunk:
    """Some pairs as tokens: of how many, which of them are kept, and all that ``SourceTokens`` says of these."""

    read: int = 0
    tokens: TokenStore = field(default_factory=TokenStore)
    kept: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    word: str = "line"

    def extend(self, later: _Chunk) -> None:
        """Add the pairs of another chunk."""
        self.kept += [self.read + place for place in later.kept]
        self.read += later.read
        self.tokens.extend(later.tokens)
        self.numbers += later.numbers
        self.keys += later.keys
        self.counts.add(later.counts)
        self.word = later.word


def _made(source: Source, encoder: PairEncoder) -> SourceTokens:
    stream, whole = source.stream(), _Chunk()
    pairs = iter(stream)
    parts = iter(lambda: list(islice(pairs, AT_ONCE)), [])
    with tqdm(total=stream.number, desc="tokens", unit="pair", disable=hidden_bar(), leave=False) as bar:
        for chunk in _chunks(encoder, parts, _processes(stream.number)):
            whole.extend(chunk)
            bar.update(chunk.read)
    report = stream.report.merged(whole.counts.report(whole.read, len(whole.kept)))
    kept, numbers = np.array(whole.kept, np.int64), np.array(whole.numbers, np.int64)
    return SourceTokens(source, whole.tokens.pairs(), kept, numbers, whole.keys, report, whole.word)


def _processes(pairs: int) -> int:
    """Return the number of processes that make so many pairs tokens."""
    return max(min(os.cpu_count() or 1, pairs // PER_PROCESS), 1)


def _chunks(encoder: PairEncoder, parts: Iterable[list[Pair]], processes: int) -> Iterator[_Chunk]:
    """Yield the chunks of the parts, in their order, made by so many processes."""
    if processes == 1:
        yield from (_chunk(encoder, pairs) for pairs in parts)
        return
    with tempfile.TemporaryDirectory() as folder, calm():
        file = Path(folder) / "encoder"
        file.write_bytes(pickle.dumps(encoder))  # once per process and not once per part, as a tokenizer is large
        pool = pool_of(processes, "generator")
        yield from pool(delayed(_elsewhere)(str(file), pairs) for pairs in parts)  # type: ignore[misc]


def _elsewhere(file: str, pairs: Sequence[Pair]) -> _Chunk:
    return _chunk(_sent(file), pairs)


@functools.lru_cache(maxsize=1)
def _sent(file: str) -> PairEncoder:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores already
    return pickle.loads(Path(file).read_bytes())


def _chunk(encoder: PairEncoder, pairs: Sequence[Pair]) -> _Chunk:
    encoder = replace(encoder, counts=Counts())
    chunk = _Chunk(len(pairs), counts=encoder.counts)
    for place, pair in encoder.encoded(pairs):
        chunk.tokens.add(pair)
        chunk.kept.append(place)
        chunk.numbers.append(_number(pairs[place]))
        chunk.keys.append(prompt_key(pairs[place].prompt))
    if pairs:
        chunk.word = pairs[0].place.split()[-2]
    return chunk


def _number(pair: Pair) -> int:
    """Return the line or row of a pair."""
    return int(pair.place.rpartition(" ")[2])
