"""What every test runs under: its marks, one thread, kernels of the session; and what several files look at."""

import gc
import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from filelock import FileLock

# Tests' tensors are tiny: a second thread gains nothing, and where another process holds its core it waits for long.
torch.set_num_threads(1)

# What is loaded and collected stays until the end: looking for garbage in it again and again takes a tenth of the time.
gc.disable()


def pytest_collection_finish():
    """From now on the garbage collector looks at objects of the tests alone."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Mark tests that look at whole runs as slow, those that count faults, and those of files that compute."""
    for item in items:
        if "faults" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.faults)
        if "whole_runs" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if {"np", "torch"} & set(vars(getattr(item, "module", None) or object)):
            item.add_marker(pytest.mark.numbers)


def pytest_addoption(parser):
    parser.addoption("--with-lopsided", action="store_true", help="register README's loss before tests are collected")
    parser.addoption("--faults", metavar="FILE", help="write to FILE which faults were tried, and what was lost")


def pytest_configure(config):
    if config.getoption("--with-lopsided"):
        from own_losses import Lopsided

        from gradlab.losses import register_loss

        register_loss(Lopsided)


def pytest_runtest_logreport(report):
    """Keep what a test counted; with xdist this runs in the process that collects the reports."""
    if report.when == "call":
        _counted.extend(value for name, value in report.user_properties if name == "fault")


def pytest_sessionfinish(session):
    file = session.config.getoption("--faults")
    if file and not hasattr(session.config, "workerinput"):
        Path(file).write_text(faults_page([tuple(row) for row in _counted]), "utf-8")


_counted = []  # of each fault: its kind, what it struck, how often it was tried, how often something was lost


@pytest.fixture
def faults(record_property):
    """A function that counts the faults that a test tried, for figures/benchmarks/faults.md.

    kind   such as kill, flipped bit, full disk, fuzzed input.
    what   what the fault struck, and what had to hold.
    lost   how often it did not hold; the test itself asserts that this is 0.
    """

    def count(kind, what, *, tried, lost=0):
        record_property("fault", [kind, what, tried, lost])

    return count


def faults_page(rows):
    """Return the page of counted faults: a sum per kind, then a row per thing that was struck."""
    sums, things = defaultdict(lambda: [0, 0]), defaultdict(lambda: [0, 0])
    for kind, what, tried, lost in rows:
        for table, key in ((sums, kind), (things, (kind, what))):
            table[key] = [table[key][0] + tried, table[key][1] + lost]
    lines = [
        "# Faults that were tried, and what was lost",
        "",
        "`make test-long` writes this page. Tests strike the project many times; `lost` counts how often a file, a",
        "number or a message was not as it must be.",
        "",
        "| kind | tried | lost |",
        "|---|---|---|",
        *(f"| {kind} | {tried:,} | {lost:,} |" for kind, (tried, lost) in sorted(sums.items())),
        "",
        "| kind | what was struck, and what had to hold | tried | lost |",
        "|---|---|---|---|",
        *(f"| {kind} | {what} | {tried:,} | {lost:,} |" for (kind, what), (tried, lost) in sorted(things.items())),
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def chromium():
    """A running Chromium; without one the test is skipped, with the reason."""
    from scripts import browser

    if browser.why_not() is not None:
        pytest.skip(str(browser.why_not()))
    with browser.browser() as running:
        yield running


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory):
    """A folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def lab_file(common_folder):
    """The lab's page as a file, which all workers share: the first that needs it writes it, without Node."""
    from gradlab.widgets import page

    target = common_folder / "lab page" / "lab.html"
    target.parent.mkdir(exist_ok=True)
    path, os.environ["PATH"] = os.environ["PATH"], ""
    try:
        with FileLock(f"{target}.lock"):
            if not target.exists():
                page.write_page(target)
    finally:
        os.environ["PATH"] = path
    return target


@pytest.fixture
def opened(lab_file, chromium):
    """A function that opens the lab; at the end it must have met no error and asked for nothing from outside."""
    from lab_in_chromium import opener

    pages, problems = [], []
    yield opener(lab_file, chromium, pages, problems)
    for one in pages:
        one.context.close()
    assert problems == []


@pytest.fixture
def registered():
    """``register_loss``, whose losses leave the registry with the test."""
    from gradlab.losses import PAIR_LOSSES, register_loss, unregister_loss

    before = set(PAIR_LOSSES)
    yield register_loss
    for name in set(PAIR_LOSSES) - before:
        unregister_loss(name)


@pytest.fixture(scope="session", autouse=True)
def kernels_of_our_own(common_folder):
    """Kernels are compiled once for all workers, and neither taken from the user's cache nor left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADLAB_CACHE", str(common_folder / "cache"))
        yield


@pytest.fixture(scope="session")
def whole_runs():
    """What fixtures that are whole training runs ask for: whatever looks at them is slow."""


@pytest.fixture(scope="session")
def quick(whole_runs, common_folder):
    """The folder of `make figures QUICK=1`, which all workers share: the first that needs it fills it."""
    from gradlab.experiments.make import make_figures

    folder = common_folder / "all-experiments"
    done = folder / "done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make_figures(folder=folder, quick=True)
            done.touch()
    return folder / "quick"


@pytest.fixture
def copy(quick, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(quick, tmp_path / "quick")
    return tmp_path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The folder of a tiny language model and pairs for it, which a test leaves as they are."""
    from tiny_llm import write_inputs

    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder
