"""Evaluate runs of `gradlab train`: `gradlab evaluate`, by the path of a script."""

import sys

from gradlab.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
