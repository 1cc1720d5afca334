"""What a result depends on is told by sources, settings and versions, never by dates."""

from gradlab.store import provenance


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
