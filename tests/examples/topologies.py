"""What worker processes run: the examples, on topics of a test's own."""

from __future__ import annotations

from examples import charges_over_http, order_enrichment, payments_to_postgres
from streamlib.topology.topology import Topology


def charges(source: str, sink: str) -> Topology:
    return charges_over_http.topology(source, sink).build()


def payments(source: str, sink: str) -> Topology:
    return payments_to_postgres.topology(source).build()


def enriched(source: str, sink: str) -> Topology:
    return order_enrichment.topology(source, sink, f"{sink.removesuffix('-out')}-dead").build()
