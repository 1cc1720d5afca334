"""Build the site: ``python -m scripts.site``, which is ``make site``. It needs no network and runs no notebook."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from scripts.site import links, pages, sources, versions


def build(folder: Path) -> int:
    """Build the site below ``folder``, warnings as errors; return 0, or the status of what went wrong."""
    from sphinx.cmd.build import build_main

    folder = folder.resolve()
    try:
        shown = sources.lay_out(folder / "source", pages.generated())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    os.environ["GRADLAB_SITE_SHOWN"] = " ".join(sorted(shown))
    status = build_main(
        ["-q", "-W", "--keep-going", "-b", "html", "-c", str(sources.ROOT / "docs"), "-d", str(folder / "doctrees"),
         str(folder / "source"), str(folder / "html")]
    )  # fmt: skip
    if status != 0:
        return status
    wrong = links.problems(folder / "html")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    """Build the site and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m scripts.site", description=__doc__)
    parser.add_argument("--folder", type=Path, default=sources.ROOT / "build/site", help="where; default: build/site")
    parser.add_argument("--versions", type=Path, help="folder of versions to which the site is added; left out: none")
    parser.add_argument("--tag", default="", help="with --versions: the tag of its version; left out: latest")
    asked = parser.parse_args()
    folder = asked.folder
    start = time.perf_counter()
    status = build(folder)
    if status == 0 and asked.versions:
        try:
            versions.add(folder / "html", asked.versions, asked.tag)
        except ValueError as error:
            parser.error(str(error))
        print(f"{asked.versions}/index.html: {', '.join(versions.names(asked.versions))}")
    if status == 0:
        size = sum(path.stat().st_size for path in (folder / "html").rglob("*") if path.is_file())
        print(f"{folder}/html/index.html: {size / 1e6:.0f} MB in {time.perf_counter() - start:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
