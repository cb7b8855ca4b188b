"""From a token to a cookie, for browsers: by a form, or by a link with `?token=` that is led on to one without.

The cookie holds a time and its signature by the token: it does not betray the token, ends after some hours, and is
good for all workers of the application, on whatever port and host name they share.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import time
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from streamlib.security import Secret

LOGIN_PATH = "/login"
LOGGED_IN_S = 12 * 3600
LARGEST_FORM = 4096


class Login:
    """Knows the token, and who has shown it.

    Args:
        application_id: whose it is: others on this host have cookies of their own.
        token: None lets everybody in.
    """

    def __init__(self, application_id: str, token: Secret | None) -> None:
        self.token = token
        self._application_id = application_id
        self._cookie = f"streamlib-{application_id}"

    def routes(self) -> list[BaseRoute]:
        """Where the form leads to."""
        return [Route(LOGIN_PATH, self._from_form, methods=["POST"]), Route(LOGIN_PATH, _home, methods=["GET"])]

    def is_logged_in(self, request: Request) -> bool:
        """Whether the cookie is one of ours, and not too old."""
        until, _, signature = request.cookies.get(self._cookie, "").partition(".")
        if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
            return False
        return hmac.compare_digest(signature.encode(), self._signature(until).encode())

    def asked_for(self, request: Request, *, refused: bool = False) -> Response:
        """The form for a browser, a sentence for programs."""
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(
                "a token is needed: Authorization: Bearer ...\n", 401, headers={"WWW-Authenticate": "Bearer"}
            )
        root = "../" * (request.url.path.count("/") - 1)
        return HTMLResponse(_form(self._application_id, root, refused), 401)

    def from_link(self, request: Request) -> Response:
        """A link that holds the token leads on to the same without it, so that it stays in no history."""
        others = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
        target = f"./{request.url.path.rpartition('/')[2]}"  # relative: a proxy may have put us under a path
        return self._checked(
            request, request.query_params["token"], "?".join(filter(None, (target, urlencode(others))))
        )

    async def _from_form(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_FORM:
                return PlainTextResponse("that is no token\n", 413)
        given = dict(parse_qsl(body.decode(errors="replace"))).get("token", "")
        return self._checked(request, given.strip(), ".")

    def _checked(self, request: Request, given: str, target: str) -> Response:
        if self.token is not None and not hmac.compare_digest(given.encode(), self.token.reveal().encode()):
            return self.asked_for(request, refused=True)
        response = RedirectResponse(target, 303)
        if self.token is not None:
            until = str(int(time.time()) + LOGGED_IN_S)
            response.set_cookie(
                self._cookie,
                f"{until}.{self._signature(until)}",
                max_age=LOGGED_IN_S,
                httponly=True,
                samesite="strict",
                secure=request.headers.get("x-forwarded-proto") == "https",
            )
        return response

    def _signature(self, until: str) -> str:
        assert self.token is not None
        said = f"streamlib console {self._application_id} {until}".encode()
        return hmac.new(self.token.reveal().encode(), said, hashlib.sha256).hexdigest()


def _home(request: Request) -> Response:
    return RedirectResponse(".", 303)


def _form(application_id: str, root: str, refused: bool) -> str:
    problem = '<p role="alert">This is not the token.</p>' if refused else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(application_id)} - streamlib</title>
<link rel="stylesheet" href="{root}static/login.css">
</head>
<body>
<main>
<h1>{html.escape(application_id)}</h1>
<form method="post" action="{root}login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
{problem}
<button>Log in</button>
<p>It is the setting <code>web_token</code> of the application.</p>
</form>
</main>
</body>
</html>
"""
