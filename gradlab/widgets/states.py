"""The state of an explorer as a link and as a file: what its controls are set to, under the names that Python has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from gradlab.checks import input_file, shown
from gradlab.widgets.controls import Controls

VIEW = "view"  # the parameter of a link that names the explorer
LEFT_OUT = "left-out"  # the word in a page's link for a text that is too long for one


def as_link(page: str, name: str, state: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """Return a link to the page of the live lab that brings this state back: all that differs from the usual values.

    usual  the values of an explorer without start values, as the page has it.
    """
    changed = {key: _written(value) for key, value in state.items() if key not in usual or value != usual[key]}
    return f"{page}#{urlencode({VIEW: name, **changed}, quote_via=quote)}"


def as_json(name: str, state: Mapping[str, Any]) -> str:
    """Return the text of a file that brings this state back, in Python and in the page."""
    return json.dumps({"explorer": name, "state": dict(state)}, ensure_ascii=False, indent=1) + "\n"


def check_free(path: Path) -> None:
    """Raise FileExistsError, in one line, where ``path`` is there and is no state of an explorer."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {"state": {}}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("state"), dict):
        raise FileExistsError(f"{path} is there and is no state that an explorer saved; name another file")


def read_state(source: str | Path | Mapping[str, Any], name: str, controls: Controls) -> dict[str, Any]:
    """Return the values of controls that a link, its fragment, a JSON file or its content names; not yet checked.

    ValueError in one line where the source is of another explorer or no state at all; OSError for a file that is not
    there.
    """
    if isinstance(source, str) and ("#" in source or "=" in source):
        pairs = dict(parse_qsl(source.rpartition("#")[2], keep_blank_values=True))
        _check_explorer(pairs.pop(VIEW, name), name)
        return {key: _parsed(key, text, controls) for key, text in pairs.items()}
    if not isinstance(source, Mapping):
        content = input_file("state", source).read_bytes()
        try:
            source = json.loads(content)
        except (ValueError, RecursionError):
            raise ValueError("state must be a link of the lab, or JSON as the lab saves it") from None
    if not isinstance(source, Mapping) or not isinstance(source.get("state"), Mapping):
        raise ValueError('state must be JSON with "explorer" and "state", as the lab saves it')
    _check_explorer(source.get("explorer", name), name)
    return {str(key): value for key, value in source["state"].items()}


def _parsed(key: str, text: str, controls: Controls) -> Any:
    if text == LEFT_OUT:
        raise ValueError(f"{key} was too long for this link, which goes without it; load a saved file, which has all")
    return controls[key].parsed(text) if key in controls else text


def _check_explorer(found: Any, name: str) -> None:
    if found != name:
        raise ValueError(f'state must be of the explorer "{name}", got {shown(found)}')


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
