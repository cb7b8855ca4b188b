"""`/metrics`, `/health` and `/ready`, as the endpoint for metrics alone has them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from streamlib.metrics import Health, HealthStatus
from streamlib.monitoring.observed import Observed, as_json

try:
    from streamlib.monitoring.prometheus import Exposition
except ImportError:  # another extra
    Exposition = None  # type: ignore[assignment, misc]


def probe_routes(app: Observed) -> list[BaseRoute]:
    """They are asked in threads, for an application may take a moment to answer."""
    exposition = None if Exposition is None else Exposition(app)

    def metrics(request: Request) -> Response:
        if exposition is None:
            return PlainTextResponse('prometheus-client is not installed: pip install "streamlib[prometheus]"\n', 404)
        body, content_type = exposition.encode(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    def health(request: Request) -> Response:
        found = app.health()
        return _told(request, found, found.status is not HealthStatus.STUCK)

    def ready(request: Request) -> Response:
        found = app.health()
        return _told(request, found, found.ready)

    return [Route("/metrics", metrics), Route("/health", health), Route("/ready", ready)]


def _told(request: Request, health: Health, well: bool) -> Response:
    """The reasons name topics and functions: they are for those who are let in."""
    shown = health if request.scope["streamlib.authorized"] else msgspec.structs.replace(health, reasons=())
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(as_json(shown), status, media_type="application/json")
