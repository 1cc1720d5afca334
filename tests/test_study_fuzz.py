"""Any file gives a study, a plan or answers, or an error of one line: never another error; and no file is touched."""

import json
import string

import pytest
import small_study
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradlab.store.sealed import sealed
from gradlab.study.answers import read_answers
from gradlab.study.frozen import freeze, read_study
from gradlab.study.plan import Plan, as_page, plan_of

WORDS = st.one_of(st.sampled_from(["", " ", "ada", "dpo", "left", "\ud800", "a\0b", "nan"]), st.text(max_size=5))
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 1, 2**63]), WORDS
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)), max_leaves=4
)
QUIET = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"))


def _answer(call):
    """Return the error that a call raises, and None where it has a result."""
    try:
        call()
    except (ValueError, OSError) as error:
        return error
    return None


def _one_line(call):
    """Hold a call to a result, or to an error of one line that says more than an encoder would."""
    error = _answer(call)
    assert error is None or 0 < len(str(error)) < 2000
    assert "\n" not in str(error)
    assert not isinstance(error, UnicodeError)


def _untouched(file, content, call):
    file.write_bytes(content)
    _one_line(call)
    assert file.read_bytes() == content


@st.composite
def changed(draw, page):
    """Change one place of nested tables and lists."""
    page = json.loads(json.dumps(page))
    at = page
    while True:
        place = draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        if isinstance(at[place], (dict, list)) and at[place] and draw(st.booleans()):
            at = at[place]
            continue
        if isinstance(at, dict) and draw(st.booleans()) and draw(st.booleans()):
            del at[place]
        else:
            at[place] = draw(VALUES)
        return page


def _answers(study, folder, data):
    line = data.draw(changed(small_study.answers_of(study)[0]))
    file = folder / "answers.jsonl"
    _untouched(file, json.dumps(line).encode() + b"\n", lambda: read_answers(study, [file]))


def _bytes(study, folder, data):
    content = data.draw(st.one_of(st.binary(max_size=60), st.text(string.printable, max_size=60).map(str.encode)))
    file = folder / "file"
    _untouched(file, content, lambda: read_answers(study, [file]))
    _untouched(file, content, lambda: read_study(file))
    _untouched(file, content, lambda: Plan.read(file))
    _untouched(file, content, lambda: freeze(small_study.plan(systems={"dpo": "file", "bdpo": "file"}), folder))


def _study(study, folder, data):
    study.write(folder / "study.json")
    page = json.loads((folder / "study.json").read_text())
    page.pop("sealed")
    page = data.draw(changed(page))
    try:
        content = sealed(page).encode()
    except ValueError:  # a text that no file holds
        return
    _untouched(folder / "changed.json", content, lambda: read_study(folder / "changed.json"))


def _plan(study, folder, data):
    page = data.draw(changed(as_page(small_study.plan(pairs=(("dpo", "bdpo"),), judges=("model",)))))
    _one_line(lambda: plan_of(page, "PLAN"))


def _samples(study, folder, data):
    file = small_study.write_samples(folder)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    content = "".join(json.dumps(line) + "\n" for line in data.draw(changed(lines)) if isinstance(line, dict))
    _untouched(file, content.encode(), lambda: freeze(small_study.plan(), folder))


KINDS = {"answers": _answers, "bytes": _bytes, "study": _study, "plan": _plan, "samples": _samples}


def _tried(kind, number, study, folder):
    @settings(max_examples=number, **QUIET)
    @given(st.data())
    def run(data):
        KINDS[kind](study, folder, data)

    run()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_a_study_is_read_or_refused_in_one_line(kind, study, tmp_path):
    _tried(kind, 25, study, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_so_are_thousands(kind, study, tmp_path, faults):
    _tried(kind, 1500, study, tmp_path)
    faults("fuzz", f"files of a study: {kind}", tried=1500)
