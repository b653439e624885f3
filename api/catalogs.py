"""`/v1/catalogs`: the kinds of record this workspace knows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Security
from pydantic import BaseModel, Field

from api.office import TheOffice
from api.problems import documented
from api.security import Caller, needs
from ledger.workspace import KnownCatalog, Workspace, pick_catalog

router = APIRouter(prefix="/v1/catalogs", tags=["catalogs"])

CatalogId = Annotated[str, Path(max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", examples=["registration"])]


class CatalogField(BaseModel):
    """One field."""

    name: str
    title: str | None
    type: str
    scale: int | None
    personal: bool = Field(description="its values are masked everywhere")


class Catalog(BaseModel):
    """One kind of record."""

    id: str
    version: int
    title: str | None
    key: list[str]
    digest: str = Field(description="SHA-256 of the declaration, what anchors refer to")
    fields: list[CatalogField]
    archive: bool
    built_in: bool
    origin: str | None = Field(description="`own` or `delivery`; null without a configured source")


class Catalogs(BaseModel):
    """All of them."""

    items: list[Catalog]


@router.get("", response_model=Catalogs, responses=documented(401, 403, 500, 503), summary="List")
def list_them(office: TheOffice, caller: Annotated[Caller, Security(needs("read"))]) -> Catalogs:
    """Built in and the workspace's own, as of the server's start."""
    workspace = office.desk.workspace
    return Catalogs(items=[_told(workspace, it) for it in workspace.catalogs.values()])


@router.get("/{id}", response_model=Catalog, responses=documented(401, 403, 404, 422, 500, 503), summary="One catalog")
def one(id: CatalogId, office: TheOffice, caller: Annotated[Caller, Security(needs("read"))]) -> Catalog:
    """Its fields, key and digest."""
    workspace = office.desk.workspace
    return _told(workspace, pick_catalog(workspace.catalogs, id))


def _told(workspace: Workspace, known: KnownCatalog) -> Catalog:
    it = known.catalog
    source = workspace.config.sources.get(it.id)
    return Catalog(
        id=it.id,
        version=it.version,
        title=it.title,
        key=list(it.key),
        digest=it.digest.hex(),
        fields=[
            CatalogField(name=f.name, title=f.title, type=f.type, scale=f.scale, personal=f.personal) for f in it.fields
        ],
        archive=it.archive,
        built_in=known.built_in,
        origin=None if source is None else source.origin,
    )
