"""The files of the pages, as they are in the package: read once, sent with a tag, so that a browser keeps them."""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

PLACE = Path(__file__).parent / "static"
_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)


class Asset(NamedTuple):
    """A file: what is in it, its media type, and what tells this version of it from others."""

    content: bytes
    kind: str
    tag: str


class Assets:
    """All files, by their names below `PLACE`."""

    def __init__(self) -> None:
        self._files = {
            path.relative_to(PLACE).as_posix(): _read(path) for path in PLACE.rglob("*") if path.suffix in _TYPES
        }

    async def index(self, request: Request) -> Response:
        """The one page."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """What belongs to it."""
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        asset = self._files.get(name)
        if asset is None:
            return PlainTextResponse("there is no such file\n", 404)
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache"}
        if asset.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.kind)


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:20]}"')
