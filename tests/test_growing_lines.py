"""A file of JSON lines that grows is read bit by bit, and read anew whenever it is not what it was."""

import json
import os
import random

import pytest

from gradlab.store.json_lines import GrowingLines, append_line, read_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


def objects(read):
    records, follows = read
    return [record for _, record in records], follows


def test_each_line_is_read_once(path):
    lines = GrowingLines(path, "lines")
    assert objects(lines.read()) == ([], True)  # there is no file yet
    append_line(path, {"n": 1})
    append_line(path, {"n": 2})
    assert objects(lines.read()) == ([{"n": 1}, {"n": 2}], True)
    assert objects(lines.read()) == ([], True)
    append_line(path, {"n": 3})
    assert lines.read() == ([(3, {"n": 3})], True)


def test_a_torn_line_is_read_when_it_is_whole(path):
    lines = GrowingLines(path, "lines")
    path.write_bytes(b'{"n": 1}\n{"n": 2')
    assert objects(lines.read()) == ([{"n": 1}], True)
    path.write_bytes(b'{"n": 1}\n{"n": 23}')  # whole, but for its line break
    assert lines.read() == ([(2, {"n": 23})], True)
    append_line(path, {"n": 4})
    assert lines.read() == ([(3, {"n": 4})], True)


def test_a_torn_line_that_its_next_writer_cuts_off_was_never_there(path):
    lines = GrowingLines(path, "lines")
    path.write_bytes(b'{"n": 1}\n{"n": 2')
    lines.read()
    append_line(path, {"n": 3})
    assert lines.read() == ([(2, {"n": 3})], True)


@pytest.mark.parametrize("changed", [b"", b'{"n": 1}\n', b'{"n": 9}\n{"n": 2}\n', b'{"n": 1}\n{"n": 9}\n{"n": 3}\n'])
def test_a_file_that_was_shortened_or_edited_is_read_anew(path, changed):
    lines = GrowingLines(path, "lines")
    path.write_bytes(b'{"n": 1}\n{"n": 2}\n')
    lines.read()
    path.write_bytes(changed)
    assert lines.read() == (read_lines(path, "lines")[0], False)
    path.unlink()
    assert objects(lines.read()) == ([], not changed)


def test_a_line_that_is_no_object_is_named_by_its_number_in_the_file(path):
    lines = GrowingLines(path, "lines")
    path.write_bytes(b'{"n": 1}\n\n{"n": 2}\n')
    lines.read()
    with path.open("ab") as more:
        more.write(b"[3]\n")
    for _ in range(2):  # it is found again, not skipped
        with pytest.raises(ValueError, match=r"answers\.jsonl, line 4, is no JSON object; lines"):
            lines.read()


def test_whatever_is_appended_in_whatever_pieces_is_read_as_from_the_whole_file(path):
    draw = random.Random(0)
    content = "".join(json.dumps({"n": n, "text": "é\u2028" * draw.randrange(4)}) + "\n" for n in range(60)).encode()
    lines, seen = GrowingLines(path, "lines"), []
    first = content.index(b"\n") + 1  # a file of one torn line is refused: its kind is not known yet
    cuts = sorted(draw.randrange(first, len(content)) for _ in range(200))
    for end in [*cuts, len(content)]:
        path.write_bytes(content[:end])
        os.utime(path, (0, 0))  # times need not tell
        records, follows = lines.read()
        seen = [*seen, *records] if follows else records
        assert seen == read_lines(path, "lines")[0]
    assert [record["n"] for _, record in seen] == list(range(60))
