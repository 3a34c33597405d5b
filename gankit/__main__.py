"""`python -m gankit` is `gankit`."""

import sys

from gankit.commands import main

sys.exit(main())
