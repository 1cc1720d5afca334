"""Run the command line as ``python -m gradlab.cli``."""

import sys

from gradlab.cli import main

sys.exit(main())
