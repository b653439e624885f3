"""`python -m ledger.cli`: the same as the command `duizhang`."""

import sys

from ledger.cli import main

sys.exit(main())
