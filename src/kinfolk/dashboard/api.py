"""What the pages ask for: JSON in, JSON out. Each answer is a page of something, or one thing.

The node does the looking (`kinfolk.service`), slice by slice; here a request is read and its answer passed on.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from msgspec import DecodeError, json
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import kinfolk
from kinfolk.counters import DROPPED, HAPPENED
from kinfolk.dashboard.feed import Feed, TooMany
from kinfolk.dashboard.source import Source
from kinfolk.errors import CallTimeout, KinfolkError, NodeClosed, NodeLost, NodeUnreachable, NoProcess, Refused
from kinfolk.finding import ORDERS
from kinfolk.ids import Pid, check_node_name
from kinfolk.looking import grown

MARK = "x-kinfolk"
"""The header of every request that changes something: no page from elsewhere can send it unasked."""
LIMIT = 50
"""Rows of a page, if nothing else is asked for."""
MAX_LIMIT = 200
CHILDREN = 200
"""Children of one supervisor in the tree."""
SUPERVISED = 1000
"""Supervisors and children in it."""
_LOOKING = 4  # questions that go through tables, at a time
_KILL = 5.0  # seconds
_DRAIN = 3600.0  # seconds; whoever drains is asked for nothing else in this session
_MAX_BODY = 8192
_BODY = 5.0  # seconds in which all of it must come: whoever sends half of one has shown no token yet

Answer = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """What the page asks for makes no sense."""


class Api:
    """Answers for one source.

    Args:
        source: whom to ask.
        acts: whether processes may be killed and nodes drained.
    """

    def __init__(self, source: Source, feed: Feed, *, acts: bool) -> None:
        self._source = source
        self._feed = feed
        self._acts = acts
        self._looking = asyncio.Semaphore(_LOOKING)
        self._draining: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        """The answers as an ASGI application."""
        asked = {
            "/about": self._about,
            "/feed": self._listen,
            "/names": self._names,
            "/why": self._why,
            "/groups": self._groups,
            "/members": self._members,
            "/processes": self._processes,
            "/tree": self._tree,
        }
        done = {"/kill": self._kill, "/drain": self._drain}
        return Starlette(
            routes=[
                *(Route(path, _answering(answer), methods=["GET"]) for path, answer in asked.items()),
                *(Route(path, _answering(self._acting(answer)), methods=["POST"]) for path, answer in done.items()),
            ]
        )

    async def close(self) -> None:
        """Wait for no node that drains."""
        for task in self._draining:
            task.cancel()
        if self._draining:
            await asyncio.wait(self._draining)

    # --- what is told ---

    async def _about(self, _: Request) -> Response:
        counters = {**{name: ["dropped", text] for name, text in DROPPED.items()}}
        counters |= {name: ["happened", text] for name, text in HAPPENED.items()}
        return _json(
            {"node": self._source.name, "version": kinfolk.__version__, "acts": self._acts, "counters": counters}
        )

    async def _listen(self, _: Request) -> Response:
        messages = self._feed.listen()
        try:
            first = await anext(messages)
        except TooMany:
            return _json({"error": "so many pages listen already: close some"}, 503)
        except StopAsyncIteration:
            return _json({"error": "the dashboard is closed"}, 503)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(first, messages), media_type="text/event-stream", headers=headers)

    async def _names(self, request: Request) -> Response:
        given = request.query_params
        return await self._look(
            ["find names", given.get("q", ""), given.get("node", ""), given.get("after", ""), _limit(request)]
        )

    async def _why(self, request: Request) -> Response:
        return await self._look(["why", _needed(request, "name")], self._node(request))

    async def _groups(self, request: Request) -> Response:
        given = request.query_params
        return await self._look(["find groups", given.get("q", ""), given.get("after", ""), _limit(request)])

    async def _members(self, request: Request) -> Response:
        after = request.query_params.get("after")
        last = None if not after else _pid(after)
        return await self._look(["find members", _needed(request, "group"), last, _limit(request)])

    async def _processes(self, request: Request) -> Response:
        given = request.query_params
        order = given.get("order", "start")
        if order not in ORDERS:
            raise BadRequest(f"processes are ordered by {', '.join(ORDERS)}, not {order!r}")
        skip = _number(given.get("skip", "0"))
        asked = ["find processes", given.get("q", ""), order, skip, _limit(request)]
        return await self._look(asked, self._node(request))

    async def _tree(self, request: Request) -> Response:
        told = await self._looked(["tree", 0, 0, CHILDREN, SUPERVISED], self._node(request))
        return _json({"roots": grown(told["supervisors"]), "more": told["next"] is not None})

    async def _look(self, request: Sequence[object], node: str | None = None) -> Response:
        return _json(await self._looked(request, node or self._source.name))

    async def _looked(self, request: Sequence[object], node: str) -> Any:
        """Ask for something that takes the node a moment; not too many at a time do."""
        async with self._looking:
            return await self._source.at(node, request)

    def _node(self, request: Request) -> str:
        return _node(request.query_params.get("node") or self._source.name)

    # --- what is done ---

    def _acting(self, answer: Callable[[dict[str, Any]], Awaitable[Response]]) -> Answer:
        async def act(request: Request) -> Response:
            if not self._acts:
                return _json({"error": "nothing can be done here: start the dashboard with a token"}, 403)
            if MARK not in request.headers:
                return _json({"error": f"only the pages of this dashboard may do this: {MARK} is missing"}, 403)
            return await answer(await body_of(request))

        return act

    async def _kill(self, given: dict[str, Any]) -> Response:
        pid = _pid(str(given.get("pid", "")))
        _, reason = await self._source.act(["kill", pid, _KILL], _KILL + 1.0)
        return _json({"pid": str(pid), "reason": reason})

    async def _drain(self, given: dict[str, Any]) -> Response:
        """Begin it: how far it has come is part of what the nodes tell."""
        node = _node(str(given.get("node", "")))
        draining = asyncio.create_task(self._drained(node), name=f"kinfolk: drain {node}")
        self._draining.add(draining)
        draining.add_done_callback(self._draining.discard)
        done, _ = await asyncio.wait([draining], timeout=0.2)
        for task in done:
            task.result()  # it could not even begin
        return _json({"node": node}, 202)

    async def _drained(self, node: str) -> None:
        try:
            await self._source.at(node, ["drain", None], _DRAIN)
        except (NodeLost, NodeClosed, NoProcess, CallTimeout):
            pass  # it has left


def _answering(answer: Answer) -> Answer:
    """The same, with errors as answers."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except (BadRequest, Refused) as error:
            return _json({"error": str(error)}, 400)
        except CallTimeout as error:
            return _json({"error": str(error)}, 504)
        except (NodeLost, NodeClosed, NodeUnreachable) as error:
            return _json({"error": str(error)}, 503)
        except KinfolkError as error:
            return _json({"error": str(error)}, 409)

    return answered


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries.

    Raises:
        BadRequest: it carries something else.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY):
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BODY:
                    raise BadRequest(f"the request is longer than {_MAX_BODY} bytes")
    except TimeoutError:
        raise BadRequest(f"the request has not come in {_BODY:g} s: send all of it") from None
    except ClientDisconnect:
        raise BadRequest("the request ends before its body does") from None
    try:
        return json.decode(bytes(body), type=dict[str, Any])
    except (DecodeError, RecursionError) as error:
        raise BadRequest(f"the request is no JSON object: {error}") from None


async def _stream(first: bytes, messages: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The messages of a feed, until the web server is told to end: it would wait for this to end first."""
    async with contextlib.aclosing(messages):
        yield first
        async for message in messages:
            if _server_ends():
                return
            yield message


def _server_ends() -> bool:
    """Whether the uvicorn that runs this program, if one does, has been told to end."""
    return getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "should_exit", False) is True


def _json(value: object, status: int = 200) -> Response:
    return Response(json.encode(value), status, {"Cache-Control": "no-store"}, "application/json")


def _limit(request: Request) -> int:
    return max(1, min(_number(request.query_params.get("limit", str(LIMIT))), MAX_LIMIT))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"{text!r} is no number")
    return int(text)


def _needed(request: Request, key: str) -> str:
    value = request.query_params.get(key, "")
    if not value:
        raise BadRequest(f"say which {key}")
    return value


def _pid(text: str) -> Pid:
    try:
        return Pid.parse(text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _node(name: str) -> str:
    try:
        return check_node_name(name)
    except ValueError as error:
        raise BadRequest(str(error)) from None
