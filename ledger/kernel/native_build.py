"""Compiles native.c with the machine's own C compiler. Needs nothing but the standard library: builds run it by its path.

The library's name carries the digest of its source, so one that was built from another is never loaded. Without a compiler, or a folder
that may be written, there is none, and the reference does the work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared")


def library() -> Path:
    """Where the library of this source is, or would be."""
    return SOURCE.with_name(f"_native-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so")


def build() -> Path | None:
    """The library, compiled if it is not there; None where that cannot be done."""
    target = library()
    if target.exists():
        return target
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        return None
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".native-") as folder:
            made = Path(folder) / target.name
            subprocess.run([compiler, *FLAGS, "-o", str(made), str(SOURCE)], check=True, capture_output=True)
            made.replace(target)
    except (OSError, subprocess.CalledProcessError):
        return None
    for stale in target.parent.glob("_native-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    found = build()
    print("no C compiler here: the reference hashes, more slowly" if found is None else found.name)
