"""Writes inclusion.json: good inclusion proofs and what an attacker makes of them, judged by the text of RFC 9162.

A second implementation on purpose: section 2.1 written down as the recursion it is there, nothing shared with the product.
The shape of a case is that of transparency-dev/merkle (testdata/inclusion): leafIdx, treeSize, root, leafHash, proof (base64),
desc, wantErr. Run it to remake the file; a test compares.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("inclusion.json")


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def tree(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(tree(leaves[:k]), tree(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree(leaves[:k])]


def climb(leaf: bytes, m: int, size: int, proof: list[bytes]) -> bytes | None:
    """The root that a path leads to, from the top down; None if the path does not fit."""
    if not 0 <= m < size or any(len(part) != 32 for part in [leaf, *proof]):
        return None
    if size == 1:
        return None if proof else leaf
    if not proof:
        return None
    k = split(size)
    if m < k:
        below = climb(leaf, m, k, proof[:-1])
        return below and node(below, proof[-1])
    below = climb(leaf, m - k, size - k, proof[:-1])
    return below and node(proof[-1], below)


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for size, index in [(1, 0), (2, 0), (2, 1), (3, 2), (5, 3), (5, 4), (7, 6), (8, 0), (8, 5), (13, 9), (16, 15)]:
        leaves = [sha256(b"\x00" + bytes([number]) * 64).digest() for number in range(size)]
        good, root, leaf = path(index, leaves), tree(leaves), leaves[index]

        def add(desc: str, leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
            found.append(
                {
                    "leafIdx": index,
                    "treeSize": size,
                    "root": b64encode(root).decode(),
                    "leafHash": b64encode(leaf).decode(),
                    "proof": [b64encode(part).decode() for part in proof] or None,
                    "desc": desc,
                    "wantErr": climb(leaf, index, size, proof) != root,
                }
            )

        add("happy path", leaf, index, size, good, root)
        for other in (index - 1, index + 1, index ^ 2, size, size + index, 2**64 - 1):
            add(f"index {other}", leaf, other, size, good, root)
        # Some of these are good proofs of another tree with the same root: that is why the size comes from the anchor.
        for other in (0, index, size - 1, size + 1, size * 2, size // 2, 2**63):
            add(f"size {other}", leaf, index, other, good, root)
        add("other leaf", sha256(b"\x00other").digest(), index, size, good, root)
        add("inner node as leaf", root, index, size, good, root)
        add("leaf cut", leaf[:-1], index, size, good, root)
        add("other root", leaf, index, size, good, sha256(b"other").digest())
        add("empty root", leaf, index, size, good, sha256(b"").digest())
        add("no root", leaf, index, size, good, b"")
        add("path and root", leaf, index, size, [*good, root], root)
        add("root and path", leaf, index, size, [root, *good], root)
        add("path and an empty hash", leaf, index, size, [*good, b""], root)
        add("an empty hash and path", leaf, index, size, [b"", *good], root)
        if good:
            add("path without its end", leaf, index, size, good[:-1], root)
            add("path without its start", leaf, index, size, good[1:], root)
            add("no path", leaf, index, size, [], root)
            add("trailing byte", leaf, index, size, [*good[:-1], good[-1] + b"\x00"], root)
            add("last hash twice", leaf, index, size, [*good, good[-1]], root)
        if len(good) > 1:
            add("path turned round", leaf, index, size, good[::-1], root)
            add("first hash twice", leaf, index, size, [good[0], good[0], *good[2:]], root)
            add("two hashes as one", leaf, index, size, [good[0] + good[1], *good[2:]], root)
            add("one level up", node(*sorted([leaf, good[0]])), index >> 1, (size + 1) >> 1, good[1:], root)
        for level in range(len(good)):
            bent = [bytes([part[0] ^ (8 if at == level else 0)]) + part[1:] for at, part in enumerate(good)]
            add(f"bit 3 of hash {level} flipped", leaf, index, size, bent, root)
    return found


def made() -> str:
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(made(), encoding="utf-8")
