"""`python -m gankit` is `gankit`."""

import sys

from gankit.cli import main

sys.exit(main())
