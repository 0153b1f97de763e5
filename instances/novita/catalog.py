"""What can be rented at Novita: products with their prices, and clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instances.errors import NovitaBadAnswer
from instances.novita.rows import read_price_units


@dataclass(frozen=True)
class Product:
    """A kind of instance. Prices are in 1e-5 USD per GPU and hour. None means unknown, never free."""

    id: str
    name: str
    regions: tuple[str, ...]
    is_available: bool
    price_units: int | None
    spot_price_units: int | None


@dataclass(frozen=True)
class Cluster:
    id: str
    name: str
    gpu_types: tuple[str, ...]


def parse_products(body: Any) -> list[Product]:
    """Read Novita's list of products. Raises NovitaBadAnswer."""
    return [
        Product(
            id=str(row.get("id") or ""),
            name=str(row.get("name") or ""),
            regions=_read_texts(row.get("regions")),
            is_available=row.get("availableDeploy") is True,
            price_units=read_price_units(row.get("price")),
            spot_price_units=read_price_units(row.get("spotPrice")),
        )
        for row in _read_rows(body, "products")
    ]


def parse_clusters(body: Any) -> list[Cluster]:
    """Read Novita's list of clusters. Raises NovitaBadAnswer."""
    return [
        Cluster(
            id=str(row.get("id") or ""),
            name=str(row.get("name") or ""),
            gpu_types=_read_texts(row.get("availableGpuType")),
        )
        for row in _read_rows(body, "clusters")
    ]


def _read_rows(body: Any, what: str) -> Sequence[dict[str, Any]]:
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NovitaBadAnswer(f"Novita's answer has no list of {what}.")
    return rows


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
