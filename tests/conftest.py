"""What every test runs under, and the quick run of all experiments that several files of tests look at."""

import shutil

import pytest
import torch

# Tests' tensors are tiny: a second thread gains nothing, and where another process holds its core it waits for long.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def kernels_of_our_own(tmp_path_factory):
    """Kernels are compiled for the session, and neither taken from the user's cache nor left there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """The folder of `make figures QUICK=1`."""
    from gradlab.experiments.make import make_figures

    folder = tmp_path_factory.mktemp("figures")
    make_figures(folder=folder, quick=True)
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
