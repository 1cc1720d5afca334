"""What a result depends on is told by sources, settings and versions, never by dates."""

import importlib.util

import pytest

from gradlab.experiments import EXPERIMENTS, frames
from gradlab.store import provenance


@pytest.fixture
def module_of(monkeypatch):
    """Give the module ``gradlab.lab.fit`` another text; returns its name."""
    source = provenance._source

    def give(text):
        monkeypatch.setattr(provenance, "_source", lambda name: text if name == "gradlab.lab.fit" else source(name))
        return "gradlab.lab.fit"

    return give


def test_source_hash_follows_imports_but_not_the_module_itself(tmp_path, monkeypatch):
    before = provenance.source_hash("gradlab.lab.fit")
    original = provenance._source

    def with_change(changed):
        monkeypatch.setattr(provenance, "_source", lambda name: original(name) + "\n# x" * (name == changed))
        return provenance.source_hash("gradlab.lab.fit")

    assert with_change("gradlab.lab.world") != before  # imported
    assert with_change("gradlab.losses.reweighted") != before  # imported through the package
    assert with_change("gradlab.lab.fit") == before  # itself
    assert with_change("gradlab.plotting") == before  # never imported


def test_source_hash_can_leave_modules_out(monkeypatch):
    original = provenance._source
    before = provenance.source_hash("gradlab.lab.fit", without=["gradlab.lab.metrics"])
    monkeypatch.setattr(provenance, "_source", lambda name: original(name) + "\n# x" * (name == "gradlab.lab.metrics"))
    assert provenance.source_hash("gradlab.lab.fit", without=["gradlab.lab.metrics"]) == before
    assert provenance.source_hash("gradlab.lab.fit") != before


def test_fingerprint_ignores_the_order_of_keys_and_sees_values():
    assert provenance.fingerprint({"a": 1, "b": 2}) == provenance.fingerprint({"b": 2, "a": 1})
    assert provenance.fingerprint({"a": 1}) != provenance.fingerprint({"a": 2})


def test_a_library_that_is_not_there_has_no_version():
    assert provenance.versions(["numpy", "no-such-library"])["no-such-library"] == "missing"


def test_the_key_of_code_sees_the_functions_it_is_about(monkeypatch):
    source = provenance._source
    before = provenance.code_key("gradlab.sweeps.sweep", ["train_block", "_parts"])
    for old, new in (
        ("_BLOCK_WORK = 1000, 2**20", "_BLOCK_WORK = 1000, 2**19"),
        ("half = ", "half = 0 + "),
    ):
        edited = source("gradlab.sweeps.sweep").replace(old, new)
        assert edited != source("gradlab.sweeps.sweep")
        with monkeypatch.context() as patch:
            patch.setattr(
                provenance,
                "_source",
                lambda name, text=edited: text if name == "gradlab.sweeps.sweep" else source(name),
            )
            assert provenance.code_key("gradlab.sweeps.sweep", ["train_block", "_parts"]) != before


def test_a_copy_without_git_can_be_told_its_commit(monkeypatch):
    provenance.commit.cache_clear()
    monkeypatch.setenv("GRADLAB_COMMIT", "abc1234")
    try:
        assert provenance.commit() == "abc1234"
    finally:
        provenance.commit.cache_clear()


@pytest.mark.parametrize("root", ["train_blok", "value", ""])
def test_a_root_that_the_module_does_not_define_is_refused(module_of, root):
    name = module_of("def train():\n    value = 1\n    return value\n")
    assert provenance.definitions_hash(name, ["train"])
    with pytest.raises(ValueError, match=rf"^roots must be names that {name} defines at its top level, got '{root}'$"):
        provenance.definitions_hash(name, ["train", root])


BEFORE = """
from gradlab.lab.world import gaussian_world as build, exact_pairs
import numpy as np

SIZES = [1]
SIZES += [2]
if np:
    def helper():
        return build(*SIZES)
else:
    helper = None

class Kept:
    pass

DRAWN = [size for size in SIZES]

def train(size):
    return helper() * size
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("gaussian_world as build", "hidden as build", True),  # the same name for another function
        ("+= [2]", "+= [3]", True),  # a constant that is bound twice
        ("helper = None", "helper = 1", True),  # a definition under a condition
        ("return build", "return 2 * build", True),
        ("build, exact_pairs", "build", False),  # another name of the same import
        ("class Kept:\n    pass", "class Kept:\n    x = 1", False),
        ("DRAWN = [", "DRAWN = [0 * ", False),  # its variable is another one than that of the function
        ("def train", "# how\ndef train", False),
    ],
)
def test_what_a_root_leads_to_counts_and_nothing_else(module_of, old, new, counts):
    before = provenance.definitions_hash(module_of(BEFORE), ["train"])
    assert old in BEFORE
    after = provenance.definitions_hash(module_of(BEFORE.replace(old, new)), ["train"])
    assert (after != before) == counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import gradlab.lab.wold", "gradlab.lab.wold must be a module with a source that can be read, and is not"),
        ("from gradlab.lab.wold import World", "gradlab.lab.wold must be a module with a source that can be read"),
        ("from . import world", "gradlab.lab.fit must import by whole names, got a relative import in line 1"),
        ("from gradlab import DPO", "gradlab.lab.fit must import from modules, got a name of gradlab in line 1"),
    ],
)
def test_a_source_that_is_unknown_is_refused_and_not_left_out(module_of, text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        provenance.source_hash(module_of(text))


def test_imports_of_other_libraries_and_of_modules_that_are_there_are_followed(module_of):
    assert provenance.source_hash(module_of("import no_such_library\nfrom gradlab.lab import world\n"))


# The rule that adds seeds decides which runs a frame has.
ADDS_SEEDS = {"agreement", "equivalence", "population", "precision"}


def test_no_key_depends_on_storage_words_or_drawing(monkeypatch):
    read, source = [], provenance._source
    monkeypatch.setattr(provenance, "_source", lambda name: read.append(name) or source(name))
    for module in ("gradlab.sweeps.sweep", *(experiment.module for experiment in EXPERIMENTS.values())):
        read += [module]
        provenance.source_hash(module, without=(*provenance.PLUMBING, *frames._JUDGING))
    rooms = {name.split(".")[1] for name in read}
    assert {"lab", "losses", "streams", "theory"} <= rooms
    assert not rooms & {"cli", "console", "doctor", "llm", "plotting", "store", "web", "widgets"}
    assert {name.split(".")[2] for name in read if name.startswith("gradlab.stats.")} == ADDS_SEEDS


def test_every_module_that_cannot_change_a_number_exists():
    for name in provenance.PLUMBING:
        assert importlib.util.find_spec(name), name
