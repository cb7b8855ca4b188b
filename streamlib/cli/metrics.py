"""`--metrics`: what a worker process shows of itself over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from streamlib.app import KafkaStreams
from streamlib.errors import ConfigError

log = logging.getLogger(__name__)


@contextmanager
def shown(app: KafkaStreams, address: str | None) -> Iterator[None]:
    """Show the application at this address for the time of the block; nowhere if there is none.

    Raises:
        ConfigError: the address is none or taken, or what is needed is not installed.
    """
    if address is None:
        yield
        return
    try:
        from streamlib.monitoring.endpoint import MetricsEndpoint
    except ImportError as error:
        raise ConfigError('--metrics needs prometheus-client: pip install "streamlib[prometheus]"') from error
    with MetricsEndpoint(app, address) as endpoint:
        log.info("/metrics, /health and /ready at http://%s", endpoint.address)
        yield
