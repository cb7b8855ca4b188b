import pytest
from shop.pricing import settled, total
from shop.records import Item, Order, Payment, Settled

ORDER = Order("ann", "DE", (Item("tea", 2, 690), Item("pot", 1, 3490)))


def test_total_is_that_of_all_items() -> None:
    assert total(ORDER) == 4870
    assert total(Order("ann", "DE", ())) == 0


@pytest.mark.parametrize("item", [Item("tea", 0, 690), Item("tea", 1, -1)])
def test_items_that_make_no_sense_are_refused(item: Item) -> None:
    with pytest.raises(ValueError, match="tea"):
        total(Order("ann", "DE", (item,)))


def test_order_without_a_payment_is_settled_with_nothing() -> None:
    assert settled(ORDER, None) == Settled("ann", "DE", 4870, 0)
    assert settled(ORDER, Payment(500)) == Settled("ann", "DE", 4870, 500)
