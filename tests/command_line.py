"""The command line as tests see it."""


def complaint(capsys) -> str:
    """Return the one line on stderr, after checking that it is one and ours."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradlab: ")
    assert err.count("\n") == 1
    return err
