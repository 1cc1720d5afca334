"""Every benchmark relies on these: turns, ratios within a round, fresh processes, and nothing left behind."""

import contextlib
import os
import platform

import pandas as pd
import pytest
import torch

from scripts.benchmarks import page_parts, timing

pytestmark = pytest.mark.slow


def recorded(names, done):
    return {name: lambda name=name: done.append(name) for name in names}


def test_all_ways_take_turns_and_the_order_turns_around():
    done = []
    measured = list(timing.in_turn(recorded("ab", done), 3, "", warm=1))
    assert done == [*"ba", *"ab", *"ba", *"ab"]
    assert [(one.round, one.way) for one in measured] == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]
    assert all(one.seconds > 0 and one.cpu_seconds >= 0 for one in measured)


def test_a_round_may_repeat_ways_and_begin_with_a_step_that_is_not_timed():
    done = []
    steps = recorded("abx", done)
    measured = list(timing.in_turn({name: steps[name] for name in "ab"}, 1, "", order="aab", warm=1, before=steps["x"]))
    assert done == [*"xba", *"xaab"]
    assert [one.way for one in measured] == [*"aab"]


def test_no_round_begins_after_the_limit_but_the_first_three():
    assert [one.round for one in timing.in_turn(recorded("a", []), 9, "", limit=0)] == [0, 1, 2]


def test_ratios_pair_the_rounds():
    seconds = {("a", 0): [1.0, 1.0, 9.0], ("b", 0): [2.0], ("a", 1): [10.0], ("b", 1): [30.0]}
    rows = [
        {"size": "s", "way": way, "round": turn, "seconds": one}
        for (way, turn), times in seconds.items()
        for one in times
    ]
    found = {name: (len(own), (rounds[name] / rounds["a"]).tolist())
             for name, own, rounds in timing.compared(pd.DataFrame(rows), ["size"], "way")}  # fmt: skip
    assert found == {"a": (4, [1, 1]), "b": (2, [2, 3])}


def use_memory(megabytes):
    return lambda: bytes(b"x" * (megabytes << 20))


def test_a_peak_is_a_fresh_process_s_own():
    held = torch.ones(60, 2**20)  # 240 MB of this process, which count for nothing there
    small, large = timing.peak_of(use_memory, 1), timing.peak_of(use_memory, 200, steps=2)
    assert 50 < small.imports <= small.ready <= small.end < small.imports + 100
    assert large.end - large.ready > 150
    assert held.sum() > 0


def failing():
    raise ZeroDivisionError("as asked")


def test_work_alone_has_one_thread_and_tells_its_error():
    assert timing.alone(torch.get_num_threads) == 1
    assert timing.alone(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError, match="as asked"):
        timing.alone(failing)


def counting():
    count = 0

    def step():
        nonlocal count
        count += 1
        if count == 3:
            raise SystemExit

    return step


def test_a_worker_runs_its_step_when_asked_and_its_end_is_heard():
    with timing.worker(counting) as counter:
        for _ in range(2):
            counter.begin()
            counter.wait()
        counter.begin()
        with pytest.raises(EOFError):
            counter.wait()


def test_threads_and_environment_are_restored(monkeypatch):
    monkeypatch.setenv("GRADLAB_A", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inside = timing.environment(GRADLAB_A="2", GRADLAB_B="3")
        with contextlib.suppress(ZeroDivisionError), timing.one_thread(), inside:
            assert (torch.get_num_threads(), os.environ["GRADLAB_A"], os.environ["GRADLAB_B"]) == (1, "2", "3")
            failing()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert os.environ["GRADLAB_A"] == "1"
    assert "GRADLAB_B" not in os.environ


def test_random_numbers_are_equal_in_every_call_and_leave_the_generator():
    state = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with timing.drawing():
            drawn.append(torch.rand(3))
    assert drawn[0].equal(drawn[1])
    assert torch.get_rng_state().equal(state)


def test_the_machine_is_described_without_its_name():
    said = timing.machine(("torch", "no-such-library"))
    assert f"{os.cpu_count()} cores" in said
    assert platform.python_version() in said
    assert "no-such-library missing" in said
    assert platform.node() not in said


def test_results_are_written_together(tmp_path):
    timing.write_results(tmp_path, "a", pd.DataFrame({"x": [1 / 3]}), "# A\n", b"png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.csv": b"x\n0.333333\n", "a.md": b"# A\n", "a.png": b"png",
    }  # fmt: skip


def test_a_table_sets_numbers_to_the_right():
    rows = [("1M", "1.5", "1,234 ms", "1e-05"), ("2M", "–", "", "0.1%")]
    assert page_parts.table("abcd", rows).splitlines()[1] == "| --- | ---: | ---: | ---: |"
    assert page_parts.number(float("nan")) == "–"
    assert page_parts.number(123.4) == "123"
    assert page_parts.number(0.01234) == "0.0123"
    assert page_parts.number(0.01234, ".1%") == "1.2%"
