"""What can be rented at Novita: products with their prices, and clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instances.errors import NovitaBadAnswer
from instances.instance import read_integer


@dataclass(frozen=True)
class Product:
    """A kind of instance. `price_usd` is per GPU and hour. None means unknown, never free."""

    id: str
    name: str
    regions: tuple[str, ...]
    is_available: bool
    price_usd: float | None


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
            price_usd=read_price(row.get("price")),
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


def read_price(value: object) -> float | None:
    """Return a price in dollars per GPU and hour. Novita sends units of 1e-5 USD; 0 and null mean unknown."""
    units = read_integer(value)
    return units / 100_000 if units and units > 0 else None


def _read_rows(body: Any, what: str) -> Sequence[dict[str, Any]]:
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NovitaBadAnswer(f"Novita's answer has no list of {what}.")
    return rows


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
