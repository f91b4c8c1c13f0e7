"""Who may talk to a page that is served to this machine alone."""

from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from sep.commands.serve import LOCAL


class LocalOnly:
    """Answers 403 to requests under another name than this machine's, or from another site.

    A site open in the browser could otherwise post here, or be given this machine's address.

    Args:
        app: the application behind, by ASGI.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on or refuse it."""
        app = self.app
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            named = [f"//{headers.get('host', '')}", *headers.getlist("origin")]
            if not all(_name(address) in LOCAL for address in named):
                app = PlainTextResponse("only for pages of this machine", 403)
        await app(scope, receive, send)


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
