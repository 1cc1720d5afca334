"""One explorer for a module of tests, brought back to its first state before each test."""

import pytest


def one_explorer(kind, **controls):
    """Return two fixtures, to be named ``shared`` and ``explorer``: an explorer per module, and the same one reset."""

    @pytest.fixture(scope="module")
    def shared():
        explorer = kind(**controls)
        yield explorer
        explorer.close()

    @pytest.fixture
    def explorer(shared):
        shared.reset()
        return shared

    return shared, explorer
