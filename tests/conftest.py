"""What every test runs under: its marks, one thread, kernels of the session; and what several files look at."""

import os
import shutil

import pytest
import torch
from filelock import FileLock

# Tests' tensors are tiny: a second thread gains nothing, and where another process holds its core it waits for long.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Mark tests that look at whole runs as slow, and those of files that compute as comparing numbers."""
    for item in items:
        if "whole_runs" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if {"np", "torch"} & set(vars(getattr(item, "module", None) or object)):
            item.add_marker(pytest.mark.numbers)


def pytest_addoption(parser):
    parser.addoption("--with-hinge", action="store_true", help="register README's hinge before tests are collected")


def pytest_configure(config):
    if config.getoption("--with-hinge"):
        from own_losses import Hinge

        from gradlab.losses import register_loss

        register_loss(Hinge)


@pytest.fixture
def registered():
    """``register_loss``, whose losses leave the registry with the test."""
    from gradlab.losses import PAIR_LOSSES, register_loss, unregister_loss

    before = set(PAIR_LOSSES)
    yield register_loss
    for name in set(PAIR_LOSSES) - before:
        unregister_loss(name)


@pytest.fixture(scope="session", autouse=True)
def kernels_of_our_own(tmp_path_factory):
    """Kernels are compiled for the session, and neither taken from the user's cache nor left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def whole_runs():
    """What fixtures that are whole training runs ask for: whatever looks at them is slow."""


@pytest.fixture(scope="session")
def quick(whole_runs, tmp_path_factory):
    """The folder of `make figures QUICK=1`, which all workers share: the first that needs it fills it."""
    from gradlab.experiments.make import make_figures

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "all-experiments"
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
