"""The tokens of a text by a GGUF file's own vocabulary, merges and pre-tokenizer: a second route, to check a tokenizer.

Source of the rules: llama.cpp's ``src/llama-vocab.cpp``, which reads the same metadata.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS = (r"\p{N}", _GPT2)
# The patterns by which a text is split, one after the other, under the name that the file gives its pre-tokenizer.
SPLITS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "mpt", "olmo", "jais"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "smaug-bpe", "dbrx"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"), (_QWEN2,)),
    "tekken": (_TEKKEN,),
}
# Pre-tokenizers whose texts begin with BOS, unless their file says otherwise.
_BEGINS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken")
_USERS = 4  # the kind in tokenizer.ggml.token_type of tokens that are found in a text before it is split


def file_tokens(metadata: Mapping[str, Any], text: str) -> list[int]:
    """Return the ids of a text's tokens, without special tokens, as a GGUF file's metadata determine them.

    Byte-level BPE (``tokenizer.ggml.model`` gpt2), and SentencePiece's BPE by scores (llama). ValueError for another
    kind, and for a pre-tokenizer whose splits are not known.
    """
    import regex

    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type", ())
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in _KINDS:
        raise ValueError(f"tokenizer.ggml.model must be one of {', '.join(_KINDS)}; got {kind!r}")
    ids = {token: place for place, token in enumerate(tokens)}
    users = {token for token, of in zip(tokens, kinds, strict=False) if of == _USERS}
    longest_first = "|".join(map(regex.escape, sorted(users, key=len, reverse=True)))
    parts = [part for part in regex.split(f"({longest_first})", text) if part] if users else [text]
    found: list[int] = []
    for part in parts:
        found += [ids[part]] if part in users else _KINDS[kind](metadata, ids, part)
    return found


def begins_with_bos(metadata: Mapping[str, Any]) -> bool:
    """Return whether a text begins with BOS: as the file says, or where it does not say so, as llama.cpp decides.

    That is for SentencePiece, and for the byte-level pre-tokenizers for which llama.cpp's src/llama-vocab.cpp sets
    add_bos.
    """
    usual = metadata.get("tokenizer.ggml.model") == "llama" or metadata.get("tokenizer.ggml.pre") in _BEGINS
    return bool(metadata.get("tokenizer.ggml.add_bos_token", usual))


def splits_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the patterns by which a file's byte-level tokenizer splits a text; ValueError where they are not known."""
    name = metadata.get("tokenizer.ggml.pre")
    if name not in SPLITS:
        raise ValueError(f"tokenizer.ggml.pre is {name!r}, and how that splits a text is not known")
    return SPLITS[name]


def _byte_level(metadata: Mapping[str, Any], ids: Mapping[str, int], text: str) -> Iterator[int]:
    import regex

    ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(metadata["tokenizer.ggml.merges"])}
    letters = byte_letters()
    pieces = [text]
    for pattern in splits_of(metadata):
        # What lies between two matches is a piece too.
        pieces = [part for piece in pieces for part in regex.split(f"({pattern})", piece) if part]
    for piece in pieces:
        parts = _merged([letters[byte] for byte in piece.encode()], lambda left, right: ranks.get((left, right)))
        yield from (ids[part] for part in parts)


def _sentence_piece(metadata: Mapping[str, Any], ids: Mapping[str, int], text: str) -> Iterator[int]:
    scores = metadata["tokenizer.ggml.scores"]
    prefix = "▁" if metadata.get("tokenizer.ggml.add_space_prefix", True) else ""

    def rank(left: str, right: str) -> float | None:
        known = ids.get(left + right)
        return None if known is None else -scores[known]

    for part in _merged(list(prefix + text.replace(" ", "▁")), rank):
        if part in ids:
            yield ids[part]
        else:
            yield from (ids[f"<0x{byte:02X}>"] for byte in part.encode())


def _merged(parts: list[str], rank: Callable[[str, str], float | None]) -> list[str]:
    """Return the parts after all merges: the pair of the lowest rank first, among equals the first from the left."""
    after = [*range(1, len(parts)), -1]
    before = [-1, *range(len(parts) - 1)]
    alive = [True] * len(parts)
    waiting: list[tuple[float, int, str, str]] = []

    def note(place: int) -> None:
        if place >= 0 and after[place] >= 0:
            left, right = parts[place], parts[after[place]]
            found = rank(left, right)
            if found is not None:
                heapq.heappush(waiting, (found, place, left, right))

    for place in range(len(parts)):
        note(place)
    while waiting:
        _, place, left, right = heapq.heappop(waiting)
        other = after[place]
        if not alive[place] or other < 0 or (parts[place], parts[other]) != (left, right):
            continue  # one of the two has been merged since
        parts[place], alive[other] = left + right, False
        after[place] = after[other]
        if after[other] >= 0:
            before[after[other]] = place
        note(before[place])
        note(place)
    return [part for place, part in enumerate(parts) if alive[place]]


def byte_letters() -> list[str]:
    """Return the printable letter by which byte-level vocabularies spell each byte (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


_KINDS = {"gpt2": _byte_level, "llama": _sentence_piece}  # by tokenizer.ggml.model
