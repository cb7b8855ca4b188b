"""What is in the topics: JSON, under the id of the order unless something else is said. Amounts are in cents."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Item(msgspec.Struct, frozen=True):
    """A line of an order."""

    sku: str
    quantity: int
    price: int


class Order(msgspec.Struct, frozen=True):
    """An order as the shop takes it."""

    customer: str
    country: str
    items: tuple[Item, ...]


class Payment(msgspec.Struct, frozen=True):
    """Money that has come for an order; there may be several payments of one."""

    amount: int


class Customer(msgspec.Struct, frozen=True):
    """A customer, by id."""

    name: str
    email: str


class Settled(msgspec.Struct, frozen=True):
    """An order and a payment of it."""

    customer: str
    country: str
    total: int
    paid: int


class Reminder(msgspec.Struct, frozen=True):
    """For a customer who has not paid, by their id."""

    name: str
    email: str
    total: int


class Revenue(msgspec.Struct, frozen=True):
    """What a country has brought in within an hour, by country; final."""

    begin: datetime
    payments: int
    amount: int
