"""Chinese first, English where `Accept-Language` prefers it."""

from __future__ import annotations

from typing import Literal

Language = Literal["zh", "en"]


def language(header: str | None) -> Language:
    """`en` if the header weighs English above Chinese, else `zh`; what is malformed is passed over."""
    best: tuple[float, Language] = (0.0, "zh")
    for part in (header or "")[:1000].split(","):
        name, _, rest = part.strip().partition(";")
        tag = name.strip().lower().partition("-")[0]
        if tag not in ("zh", "en"):
            continue
        weight = 1.0
        if rest.strip().startswith("q="):
            try:
                weight = float(rest.strip()[2:])
            except ValueError:
                continue
        # Of equal weight the first named wins.
        if weight > best[0]:
            best = (weight, "zh" if tag == "zh" else "en")
    return best[1]


def pick(chosen: Language, zh: str, en: str) -> str:
    """The text in that language."""
    return en if chosen == "en" else zh
