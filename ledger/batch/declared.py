"""Catalogs that batches were anchored under: the workspace's, else the declaration that was kept when a batch was recorded.

A declaration decides every byte of a record (formats F1), so batches outlive the catalog file that made them. What it does not hold is
how to show and keep values; that is taken from the present file, and where that is silent a value is masked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.catalog import Catalog, Field, from_declaration
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError, StoreError
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace


def keep_declaration(session: Session, catalog: Catalog) -> None:
    """Keep what `catalog` declares, once."""
    digest = catalog.digest.hex()
    if session.get(models.Declaration, digest) is None:
        moment = models.utc_text(datetime.now(UTC))
        session.add(models.Declaration(digest=digest, text=catalog.declaration.decode(), created_at=moment))
        session.flush()


def keep_declarations(workspace: Workspace, store: Store) -> None:
    """Keep the declarations of the workspace's catalogs that batches on record were anchored under: an older version did not. Needs the lock."""
    with store.read() as session:
        kept = set(session.scalars(select(models.Declaration.digest)))
        used = set(session.scalars(select(models.Batch.catalog_id).distinct()))
        try:
            present = [it.catalog for name, it in workspace.catalogs.items() if name in used]
        except InputError:
            # A broken catalog file is told by whichever command needs one.
            return
        missing = [it for it in present if it.digest.hex() not in kept]
        if not missing:
            return
        rows = session.scalars(select(models.Batch).where(models.Batch.catalog_id.in_([it.id for it in missing])))
        anchored = {parse_descriptor(row.descriptor.encode()).catalog_digest for row in rows}
    fresh = [it for it in missing if it.digest.hex() in anchored]
    if fresh:
        with store.write() as session:
            for catalog in fresh:
                keep_declaration(session, catalog)


def catalog_of(workspace: Workspace, session: Session, told: Descriptor) -> Catalog:
    """The catalog that a batch was anchored under; its digest is the descriptor's.

    InputError `catalog.changed` if neither the workspace's catalog nor a kept declaration is it; StoreError `store.declaration` for a
    row that is not what its digest says.
    """
    known = workspace.catalogs.get(told.catalog_id)
    present = None if known is None else known.catalog
    if present is not None and present.digest.hex() == told.catalog_digest:
        return present
    row = session.get(models.Declaration, told.catalog_digest)
    if row is not None:
        kept = from_declaration(row.text.encode(), told.catalog)
        if kept.digest.hex() != told.catalog_digest or kept.name != told.catalog:
            raise StoreError(
                "store.declaration",
                f"台账库中目录 {told.catalog} 的声明与其摘要 {told.catalog_digest} 不符；请运行 fsck",
                f"the declaration of {told.catalog} in the store is not what its digest {told.catalog_digest} says; run fsck",
                told.catalog,
            )
        return _dressed(kept, present)
    here = "-" if present is None else f"{present.name}（摘要 {present.digest.hex()}）"
    here_en = "-" if present is None else f"{present.name} (digest {present.digest.hex()})"
    raise InputError(
        "catalog.changed",
        f"批次按目录 {told.catalog}（摘要 {told.catalog_digest}）上链，现有目录为 {here}，台账也没有保存该声明：无从读取其记录；"
        "请把该版本的目录文件放进 catalogs/",
        f"the batch was anchored under {told.catalog} (digest {told.catalog_digest}); the catalog here is {here_en} and that declaration "
        "was not kept: its records cannot be read; put the catalog file of that version into catalogs/",
        told.catalog_id if known is None else str(known.path),
    )


def _dressed(kept: Catalog, present: Catalog | None) -> Catalog:
    """A declaration with titles, rules and masking of the present catalog; a field it does not know is taken for personal."""
    if present is None:
        return replace(kept, fields=tuple(replace(it, personal=True) for it in kept.fields))
    fields: list[Field] = []
    for it in kept.fields:
        same = present.by_name.get(it.name)
        fields.append(
            replace(it, personal=True)
            if same is None
            else replace(it, title=same.title, personal=same.personal, rules=same.rules)
        )
    return replace(kept, fields=tuple(fields), title=present.title, archive=present.archive, extra=present.extra)
