"""Compiles the C files of this folder with the machine's own C compiler. Needs nothing but the standard library: builds run it by its path.

The library's name carries the digest of its sources, so one that was built from others is never loaded. Without a compiler, or a folder
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

FOLDER = Path(__file__).parent
_SHOWN = 2000
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden")


def sources() -> list[Path]:
    """The C files, headers too, in the order of their names."""
    return sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])


def library() -> Path:
    """Where the library of these sources is, or would be."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sources():
        text = path.read_bytes()
        digest.update(f"{path.name} {len(text)}\n".encode() + text)
    return FOLDER / f"_native-{digest.hexdigest()[:16]}.so"


def build() -> Path | None:
    """The library, compiled if it is not there; None where that cannot be done."""
    target = library()
    if target.exists():
        return target
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        return None
    files = [str(path) for path in sources() if path.suffix == ".c"]
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".native-") as folder:
            made = Path(folder) / target.name
            subprocess.run([compiler, *FLAGS, "-o", str(made), *files], check=True, capture_output=True)
            made.replace(target)
    except subprocess.CalledProcessError as error:
        print(error.stderr.decode(errors="replace")[-_SHOWN:], file=sys.stderr)
        return None
    except OSError as error:
        print(error, file=sys.stderr)
        return None
    for stale in target.parent.glob("_native-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    found = build()
    print("the compiled part was not built: the reference does the work, more slowly" if found is None else found.name)
