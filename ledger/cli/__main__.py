"""`python -m ledger.cli`: the same as the command `duizhang`."""

import sys

from ledger.cli import command

sys.exit(command())
