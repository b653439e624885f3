"""Pages: `items` and `next`, the cursor of the page after; null on the last. A cursor names a place, so data may change meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from api.problems import ApiError

T = TypeVar("T", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=500, description="items a page")]
Cursor = Annotated[
    str | None, Query(max_length=400, pattern="^[A-Za-z0-9_-]+$", description="`next` of the page before")
]
Word = Annotated[str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A filter's value: control characters match nothing and some databases refuse them."""

DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

_BIGGEST = 1 << 62


class Page(BaseModel, Generic[T]):
    """One page."""

    items: list[T]
    next: str | None = Field(description="cursor of the next page; null on the last")


def page(items: list[T], limit: int, cursors: list[tuple[int | str, ...]]) -> Page[T]:
    """A page out of up to `limit` + 1 items; the one too many only tells that there is a next page."""
    more = len(items) > limit
    return Page[T](items=items[:limit], next=write(cursors[limit - 1]) if more else None)


def write(place: tuple[int | str, ...]) -> str:
    """A place as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def read(cursor: str, *kinds: type[int] | type[str]) -> tuple[int | str, ...]:
    """The place that `write` told; 422 `page.cursor` for anything else."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = json.loads(data)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _bad() from error
    if not isinstance(place, list) or len(place) != len(kinds):
        raise _bad()
    for value, kind in zip(place, kinds, strict=True):
        if type(value) is not kind:
            raise _bad()
        if isinstance(value, int) and not -_BIGGEST <= value <= _BIGGEST:
            raise _bad()
        if isinstance(value, str) and not value.isprintable():
            raise _bad()
    return tuple(place)


def _bad() -> ApiError:
    return ApiError(
        422,
        "page.cursor",
        "cursor 无效：请原样使用上一页的 next",
        "this cursor is none of ours: use `next` of the page before as it is",
        "cursor",
    )
