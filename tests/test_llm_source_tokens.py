"""Pairs of a source as tokens: streamed, made in processes, kept under a hash, and limited."""

import gc
import json

import numpy as np
import pytest

pytest.importorskip("transformers")

from test_llm_pair_texts import CHAT, said, tokenizer_of
from test_llm_tokens import LETTERS

from gradlab.llm.data import source_tokens
from gradlab.llm.data.pairs import Pair, PairStream, read_pairs
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.source_tokens import Encoding, Source, tokens_of
from gradlab.llm.data.template_dates import TemplateDate, fix_date
from gradlab.llm.data.token_pairs import Encoded, TokenPairs, TokenStore, data_fingerprint, joined
from gradlab.llm.data.tokens import encode_pairs
from gradlab.llm.model.token_cache import TokenCache
from gradlab.store import provenance

CLOCK = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
PAIRS = [Encoded((1, 2), (3,), (4, 5)), Encoded((6,), (7, 8), (9,)), Encoded((1,), (2,), (70_000,))]


def record(number, **more):
    return {"prompt": "ab" * (number % 5 + 1), "chosen": "cd" * (number % 3 + 1), "rejected": "ef"} | more


def store_of(pairs):
    store = TokenStore()
    for pair in pairs:
        store.add(pair)
    return store.pairs()


@pytest.fixture
def file(tmp_path):
    """A file of twelve usable pairs, and four that are left out while it is read or made tokens."""
    path = tmp_path / "pairs.jsonl"
    records = [record(number) for number in range(12)]
    records[2:2] = [record(0, chosen="")]
    records[5:5] = [record(0, rejected="cd", chosen="cd"), record(0, chosen="X", rejected="Y")]
    records += [record(0, chosen="ef" * 6 + "cd", rejected="ef" * 6 + "cf")]
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


HOW = Encoding(max_length=14)


def settings(file, **changed):
    return {
        "data": str(file), "choice": None, "split": "train", "template": "plain", "max_length": 14, "max_prompt": None,
        "validation": None, "held_out": 3, "hold_out": "pairs", "seed": 0, "limit": None,
    } | changed  # fmt: skip


# Arrays of ids


def test_flat_arrays_are_a_sequence_of_pairs():
    pairs = store_of(PAIRS)
    assert list(pairs) == PAIRS == pairs
    assert (len(pairs), pairs[-1], pairs[np.int64(1)]) == (3, PAIRS[2], PAIRS[1])
    assert pairs[1:] == PAIRS[1:]
    some = pairs[np.array([2, 0])]
    assert some == [PAIRS[2], PAIRS[0]]
    assert some.ids is pairs.ids  # no copy
    assert some[np.array([1])] == [PAIRS[0]]
    assert pairs.lengths.tolist() == [4, 3, 2]
    assert joined(some, pairs[:0], pairs) == [PAIRS[2], PAIRS[0], *PAIRS]
    assert pairs != PAIRS[:2]
    with pytest.raises(IndexError):
        pairs[3]


def test_no_pairs_are_a_sequence_too():
    none = store_of([])
    assert (len(none), none, list(none.lengths)) == (0, [], [])
    assert data_fingerprint(none) == data_fingerprint([])


def test_a_fingerprint_is_that_of_the_list():
    pairs = store_of(PAIRS)
    assert data_fingerprint(pairs) == data_fingerprint(PAIRS)
    assert data_fingerprint(pairs[np.array([2, 1])]) == data_fingerprint([PAIRS[2], PAIRS[1]])


# Streams


@pytest.mark.parametrize("limit", [None, 1, 5, 100])
def test_a_stream_gives_what_reading_gives(file, limit):
    stream = PairStream(str(file), limit=limit)
    pairs, report = read_pairs(str(file), limit=limit)
    assert list(stream) == list(stream) == pairs
    assert stream.report == report


def test_a_stream_corrects_its_pairs_by_what_the_whole_source_shows(tmp_path):
    path, prompt = tmp_path / "a.jsonl", "What is two and two, please?"
    records = [{"prompt": prompt, "chosen": f"{prompt} {n}", "rejected": f"{prompt} {n + 1}"} for n in range(9)]
    path.write_text("".join(map(json.dumps, records)).replace("}{", "}\n{"), encoding="utf-8")
    pairs, report = read_pairs(str(path))
    assert list(stream := PairStream(str(path))) == pairs
    assert pairs[0].chosen == " 0"
    assert stream.report == report
    with pytest.raises(ValueError, match="report must be asked for after all pairs"):
        _ = PairStream(str(path)).report


def test_a_limit_reads_no_further(file):
    with file.open("a", encoding="utf-8") as more:
        more.write("no JSON\n")
    pairs, report = read_pairs(str(file), limit=4)
    assert [pair.place.rpartition(" ")[2] for pair in pairs] == ["1", "2", "4", "5"]
    assert (report.read, report.kept) == (5, 4)
    with pytest.raises(ValueError, match="limit must be a whole number ≥ 1, got 0"):
        read_pairs(str(file), limit=0)


def _texts():
    """The number of pairs' texts in memory; by their type, as isinstance asks other libraries' objects for a class."""
    return sum(type(one) is Pair for one in gc.get_objects())


def test_texts_are_not_kept_in_memory(tmp_path, monkeypatch):
    path, alive = tmp_path / "long.jsonl", []
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(60)), encoding="utf-8")
    own = source_tokens._chunk

    def counted(encoder, pairs):
        alive.append(_texts())
        return own(encoder, pairs)

    monkeypatch.setattr(source_tokens, "AT_ONCE", 10)
    monkeypatch.setattr(source_tokens, "_chunk", counted)
    before = _texts()
    assert len(tokens_of(Source(str(path)), LETTERS, Encoding(max_length=99)).encoded) == 60
    assert len(alive) == 6
    assert max(alive) <= before + 20


# Tokens of a source


def test_the_tokens_of_a_source_are_those_of_its_pairs(file):
    pairs, read = read_pairs(str(file))
    encoded, kept, cut = encode_pairs(pairs, LETTERS, max_length=14)
    made = tokens_of(Source(str(file)), LETTERS, HOW)
    assert made.encoded == encoded
    assert made.kept.tolist() == kept
    assert made.report == read.merged(cut)
    assert made.report.left_out.keys() >= {"identical responses", "identical as tokens", "identical after cutting"}
    assert made.texts() == [pairs[index] for index in kept]
    assert made.places() == [pairs[index].place for index in kept]


def test_chunks_make_the_same(file, monkeypatch):
    alone = tokens_of(Source(str(file)), LETTERS, HOW)
    monkeypatch.setattr(source_tokens, "AT_ONCE", 4)
    small = tokens_of(Source(str(file)), LETTERS, HOW)
    assert (small.encoded, small.kept.tolist(), small.numbers.tolist()) == (
        alone.encoded, alone.kept.tolist(), alone.numbers.tolist()
    )  # fmt: skip
    assert (small.keys, small.report, small.word) == (alone.keys, alone.report, alone.word)


@pytest.mark.slow
def test_processes_get_the_date_of_the_template(tmp_path, monkeypatch):
    monkeypatch.setattr(source_tokens, "_processes", lambda pairs: 2)
    monkeypatch.setattr(source_tokens, "AT_ONCE", 2)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(7)), encoding="utf-8")
    tokenizer = tokenizer_of(CLOCK)
    fix_date(tokenizer, TemplateDate(None, "2024-07-26"))
    made = tokens_of(Source(str(path)), tokenizer, Encoding("chat", 99))
    assert tokenizer.decode(made.encoded[0].prompt) == "26 Jul 2024ab"
    assert made.encoded == encode_pairs(read_pairs(str(path))[0], tokenizer, template="chat", max_length=99)[0]


@pytest.mark.parametrize(("pairs", "number"), [(0, 1), (19_999, 1), (20_000, 2), (10**9, 64)])
def test_few_pairs_are_worth_no_process(pairs, number, monkeypatch):
    monkeypatch.setattr(source_tokens.os, "cpu_count", lambda: 64)
    assert source_tokens._processes(pairs) == number


# A cache of tokens


def same(one, other):
    names = ("encoded", "keys", "report", "word", "key", "places", "texts")
    for name in names:
        first, second = getattr(one, name), getattr(other, name)
        assert (first() if callable(first) else first) == (second() if callable(second) else second), name
    return one.kept.tolist() == other.kept.tolist()


def test_a_cache_gives_the_same_tokens_without_the_tokenizer(file, tmp_path, monkeypatch):
    cache = TokenCache(tmp_path / "cache")
    made = tokens_of(Source(str(file)), LETTERS, HOW, cache)
    assert not list(tmp_path.glob("cache/*"))  # the folder may not be ours yet
    source_tokens.keep(made, cache)
    [kept] = (tmp_path / "cache").iterdir()
    assert kept.name == f"tokens-{made.key}.safetensors"
    monkeypatch.setattr(source_tokens, "_made", None)
    again = tokens_of(Source(str(file)), LETTERS, HOW, cache)
    assert again.is_kept
    assert same(made, again)
    kept.unlink()
    source_tokens.keep(again, cache)
    assert not kept.exists()


@pytest.mark.parametrize(
    ("source", "tokenizer", "encoding"),
    [
        ({"limit": 5}, LETTERS, HOW), ({}, CHAT, HOW), ({}, LETTERS, Encoding(max_length=13)),
        ({}, LETTERS, Encoding(max_length=14, max_prompt=5)), ({}, CHAT, Encoding("chat", 14)),
    ],
)  # fmt: skip
def test_what_tokens_depend_on_is_in_their_key(file, source, tokenizer, encoding):
    keys = {
        source_tokens._key(Source(str(file)), LETTERS, HOW),
        source_tokens._key(Source(str(file), **source), tokenizer, encoding),
    }
    assert len(keys - {None}) == 2


@pytest.mark.parametrize("module", ["tokens", "pairs", "hold_out", "source_tokens"])
def test_the_code_that_makes_tokens_and_keys_of_prompts_is_in_their_key(file, monkeypatch, module):
    before, source = source_tokens._key(Source(str(file)), LETTERS, HOW), provenance._source
    edited = f"gradlab.llm.data.{module}"
    monkeypatch.setattr(provenance, "_source", lambda name: source(name) + "\n# x" * (name == edited))
    assert source_tokens._key(Source(str(file)), LETTERS, HOW) != before


def test_the_date_of_a_template_and_the_bytes_of_a_file_are_in_their_key(file):
    keys = set()
    for day in ("2024-07-26", "2024-07-27"):
        tokenizer = tokenizer_of(CLOCK)
        fix_date(tokenizer, TemplateDate(None, day))
        keys.add(source_tokens._key(Source(str(file)), tokenizer, Encoding("chat")))
    assert len(keys) == 2
    before = source_tokens._key(Source(str(file)), LETTERS, HOW)
    moved = file.rename(file.with_name("moved.jsonl"))
    assert source_tokens._key(Source(str(moved)), LETTERS, HOW) == before
    moved.write_text(moved.read_text("utf-8") + "\n", encoding="utf-8")
    assert source_tokens._key(Source(str(moved)), LETTERS, HOW) != before


def test_a_damaged_file_is_made_again(file, tmp_path, capsys):
    cache = TokenCache(tmp_path)
    made = tokens_of(Source(str(file)), LETTERS, HOW, cache)
    source_tokens.keep(made, cache)
    kept = tmp_path / f"tokens-{made.key}.safetensors"
    whole = bytearray(kept.read_bytes())
    whole[-1] ^= 1
    kept.write_bytes(whole)
    again = tokens_of(Source(str(file)), LETTERS, HOW, cache)
    assert not again.is_kept
    assert f"gradlab: {kept} is damaged, and is made again" in capsys.readouterr().err
    source_tokens.keep(again, cache)
    assert tokens_of(Source(str(file)), LETTERS, HOW, cache).is_kept


def test_texts_of_a_file_that_has_changed_since_are_refused(file):
    made = tokens_of(Source(str(file)), LETTERS, HOW)
    file.write_text("".join(file.read_text("utf-8").splitlines(True)[1:]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"pairs\.jsonl has changed since it was read; start again"):
        made.texts()


# A run's pairs


def test_a_run_has_the_same_pairs_with_a_cache(file, tmp_path):
    cache = TokenCache(tmp_path / "cache")
    made = prepare(settings(file), LETTERS, cache)
    made.keep(cache)
    again = prepare(settings(file), LETTERS, cache)
    assert made.fingerprint == again.fingerprint
    assert made.report == again.report
    assert list(made.train_texts) == list(again.train_texts) == [made.pairs[index] for index in made.train]
    assert [pair.place for pair in made.pairs] == made.places
    assert made.train_texts[1:3][0] == made.train_texts[1]


def test_a_limit_is_of_the_data_and_not_of_the_validation_file(file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(file.read_text("utf-8"), encoding="utf-8")
    made = prepare(settings(file, limit=6, validation=str(other)), LETTERS)
    whole = prepare(settings(other, validation=str(file)), LETTERS)
    assert len(made.train) == 5  # one of six is identical as tokens
    assert len(made.held_out) == len(whole.held_out) == len(whole.train)
    assert made.places[0].startswith(f"{file}, line ")
    assert made.places[-1].startswith(f"{other}, line ")


def test_pairs_that_are_seen_are_counted_by_their_tokens(file, tmp_path):
    other = tmp_path / "other.jsonl"
    own = [record(0), record(0), record(0, chosen="j")]
    other.write_text("".join(json.dumps(one) + "\n" for one in own), encoding="utf-8")
    assert prepare(settings(file, validation=str(other)), LETTERS).seen == 2


def test_texts_that_nobody_asks_for_are_not_read_again(file, monkeypatch):
    made = prepare(settings(file), LETTERS)
    monkeypatch.setattr(source_tokens, "read_pairs", None)
    assert len(made.train_texts) == len(made.train)
    assert isinstance(made.part(made.held_out), TokenPairs)


def test_messages_have_keys_too(tmp_path):
    path = tmp_path / "a.jsonl"
    one = {"prompt": [said("user", "Hi")], "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]}
    path.write_text(json.dumps(one) + "\n", encoding="utf-8")
    made = tokens_of(Source(str(path)), CHAT, Encoding("chat", 99))
    assert len(made.keys[0]) == 32
