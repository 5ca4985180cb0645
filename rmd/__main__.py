"""`python -m rmd`."""

import sys

from rmd.cli import main

sys.exit(main())
