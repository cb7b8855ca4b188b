"""When a slice of work is over. It is asked after every record, and a look at the clock costs as much as a small node.

So the clock is looked at after 1, 2, 4, 8, 16 records as long as they are quick, and after each once they are not.
"""

from __future__ import annotations

from collections.abc import Callable

QUICK_MS = 0.2
MOST_RECORDS = 16


def slice_end(clock_ms: Callable[[], float], ends_ms: float) -> Callable[[], bool]:
    """f() -> whether it is `ends_ms` by now, to be asked after each record.

    >>> records = iter(range(100))
    >>> expired = slice_end(lambda: 0.1 * next(records), ends_ms=1.0)
    >>> [number for number in range(200) if expired()][0]
    110
    """
    left = stride = 1
    looked_ms = clock_ms()

    def expired() -> bool:
        nonlocal left, stride, looked_ms
        left -= 1
        if left:
            return False
        now_ms = clock_ms()
        stride = min(2 * stride, MOST_RECORDS) if now_ms - looked_ms < QUICK_MS else 1
        looked_ms = now_ms
        left = 1 if now_ms >= ends_ms else stride
        return now_ms >= ends_ms

    return expired
