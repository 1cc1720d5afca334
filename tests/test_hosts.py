"""Explorers in other hosts than JupyterLab, in a real Chromium; skipped, with the reason, where a host is missing."""

import pytest

from scripts import hosts


@pytest.mark.browser
@pytest.mark.long
@pytest.mark.parametrize("host", hosts.HOSTS)
def test_a_key_on_a_slider_moves_the_explorer(chromium, host):
    if lacks := hosts.missing(host):
        pytest.skip(lacks)
    seen = hosts.tried(host, chromium)
    assert seen.moved, seen
    assert not [text for text in seen.problems if "ERR_NAME_NOT_RESOLVED" not in text]
