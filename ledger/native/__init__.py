"""The compiled part: a few C files in this folder, one library, loaded with ctypes, which lets other threads run meanwhile.

`load` gives it or None; each module that uses a function of it checks it before use, and does the same work without it.
`DUIZHANG_KERNEL=reference` switches all of it off.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from ledger.native.build import library


@cache
def load() -> Any:
    """The library as a ctypes.CDLL; None where it was not built, cannot be loaded, or is switched off."""
    if os.environ.get("DUIZHANG_KERNEL") == "reference":
        return None
    try:
        path = library()
        return ctypes.CDLL(str(path)) if path.exists() else None
    except OSError:
        return None
