"""Check that a release names one version everywhere: ``python scripts/release.py v1.2.3``.

``make dist TAG=v1.2.3`` calls it before it builds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?")


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what keeps the tag from being released, one line per reason; empty where nothing does."""
    try:
        version = version_of(tag)
    except ValueError as error:
        return [str(error)]
    wrong = [
        f"{file}: its version is {stated}, the tag's {version}"
        for file, stated in stated_versions(root).items()
        if stated != version
    ]
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE):
        wrong.append(f"CHANGELOG.md: no heading '## {version} (YYYY-MM-DD)'")
    return wrong


def version_of(tag: str) -> str:
    """Return the version that a tag names, "1.2.3" for "v1.2.3". ValueError in one line for another text."""
    if not TAG.fullmatch(tag):
        raise ValueError(f"tag: {tag!r} is not a version; accepted: v1.2.3, v1.2.3a1, v1.2.3b1, v1.2.3rc1")
    return tag[1:]


def stated_versions(root: Path) -> dict[str, str | None]:
    """Return the version that each file states, by the file's path; None where a file states no version."""
    patterns = {"gradlab/__init__.py": r'^__version__ = "(.+)"$', "CITATION.cff": r"^version: (\S+)$"}
    found = {
        file: re.search(pattern, (root / file).read_text("utf-8"), re.MULTILINE) for file, pattern in patterns.items()
    }
    return {file: match and match[1] for file, match in found.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/release.py v1.2.3")
    wrong = problems(sys.argv[1])
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    sys.exit(1 if wrong else 0)
