"""What people see of the auction house: each node serves the same pages, and whoever bids need not know on which it is.

Everything here is FastAPI as ever. The node starts and leaves with the application (`lifespan`); a request asks the
processes of `examples.auction.house` by their names; and each browser that watches a lot has a process of its own here
(`viewer`), a member of the group that hears of it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from examples.auction.house import AUCTIONEER, BOOKS, GONE, Look, Open, Place, ask, auction, bidders, open_house
from examples.auction.lots import Lot
from kinfolk import KinfolkError, Node, Pid, Process, Refused, asgi
from kinfolk.dashboard import app as dashboard_of

PAGE = Path(__file__).with_name("page.html")


class Offer(BaseModel):
    """What a browser sends to bid."""

    id: str = Field(min_length=8, max_length=64)
    who: str = Field(min_length=1, max_length=40)
    amount: int = Field(gt=0, lt=10**9)


class Sale(BaseModel):
    """What a browser sends to sell something."""

    title: str = Field(min_length=1, max_length=80)
    seconds: float = Field(gt=0, le=86_400)


def create(node: Node, seconds: float = 300.0) -> FastAPI:
    """The application of one node. The house opens its first lots for so many seconds."""
    dashboard = dashboard_of(node)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with asgi.lifespan(node, dashboard.close):
            await open_house(node, seconds)
            yield

    web = FastAPI(title="Auction", lifespan=lifespan)
    web.state.node = node
    web.mount("/kinfolk", dashboard)
    web.get("/")(page)
    web.get("/readyz")(readyz)
    web.get("/api/lots")(lots)
    web.post("/api/lots")(sell)
    web.get("/api/lots/{number}")(all_bids)
    web.post("/api/lots/{number}/bids")(bid)
    web.get("/api/lots/{number}/events")(events)
    web.exception_handler(Refused)(refused)
    web.exception_handler(KinfolkError)(unavailable)
    web.exception_handler(TimeoutError)(unavailable)
    return web


def node_of(request: Request) -> Node:
    """The node of the application that is asked."""
    node: Node = request.app.state.node
    return node


Here = Annotated[Node, Depends(node_of)]


async def page() -> FileResponse:
    """The page, for all lots."""
    return FileResponse(PAGE)


async def readyz(node: Here) -> Response:
    """Whether a load balancer should send anybody here."""
    return Response(node.name, 200 if node.ready else 503)


async def known_here(node: Here) -> list[Lot]:
    """All lots that this node knows."""
    return sorted(await node.call((BOOKS, node.name), Look()), key=lambda lot: lot.number)


async def lot_here(number: int, known: Annotated[list[Lot], Depends(known_here)]) -> Lot:
    """The lot of this number; if there is none, the answer is 404."""
    for lot in known:
        if lot.number == number:
            return lot
    raise HTTPException(404, f"there is no lot {number}")


async def lots(node: Here, known: Annotated[list[Lot], Depends(known_here)]) -> Response:
    """All lots, as this node knows them."""
    return as_json([view(node, lot) for lot in known])


async def all_bids(lot: Annotated[Lot, Depends(lot_here)]) -> Response:
    """All bids for a lot, best first."""
    return as_json(lot.bids)


async def sell(node: Here, sale: Sale) -> Response:
    """Open a lot. Not by `ask`: done twice, it would be two."""
    return as_json(view(node, await node.call(AUCTIONEER, Open(sale.title, sale.seconds))))


async def bid(node: Here, lot: Annotated[Lot, Depends(lot_here)], offer: Offer) -> Response:
    """Bid for a lot. 200: accepted; 409: refused, and why; 503: nobody knows, so send it again."""
    return as_json(view(node, await ask(node, auction(lot.number), Place(offer.id, offer.who, offer.amount))))


async def events(node: Here, lot: Annotated[Lot, Depends(lot_here)]) -> StreamingResponse:
    """The lot, now and after each change, for as long as the browser is there or the node is."""
    seen: asyncio.Queue[Lot | None] = asyncio.Queue()
    pid = node.spawn(viewer, lot.number, seen)  # before the answer begins: a node that is closed can still say so
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(stream(node, pid, seen), media_type="text/event-stream", headers=headers)


async def stream(node: Node, pid: Pid, seen: asyncio.Queue[Lot | None]) -> AsyncIterator[bytes]:
    """What a viewer has seen, as server-sent events. When the browser has gone, the viewer goes."""
    try:
        while (lot := await seen.get()) is not None:
            yield b"data: " + msgspec.json.encode(view(node, lot)) + b"\n\n"
    finally:
        if node.is_alive(pid):
            node.kill(pid)


async def viewer(me: Process, number: int, seen: asyncio.Queue[Lot | None]) -> None:
    """Hears of a lot for one browser."""
    try:
        await me.groups.join(bidders(number))  # and then looks, so that nothing is missed
        for lot in await me.call((BOOKS, me.node.name), Look()):
            if lot.number == number:
                seen.put_nowait(lot)
        while True:
            seen.put_nowait(await me.receive(Lot))
    except GONE:
        pass  # the node is just leaving: the browser opens another stream
    finally:
        seen.put_nowait(None)


async def refused(_: Request, error: Exception) -> JSONResponse:
    """The answer is no."""
    return JSONResponse({"error": str(error)}, 409)


async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Nobody has answered: it may have been done or not."""
    return JSONResponse({"error": f"try again: {error}"}, 503, {"Retry-After": "1"})


def view(node: Node, lot: Lot) -> dict[str, object]:
    """A lot as the page shows it, with where all this happens."""
    holder = node.names.whereis(auction(lot.number))
    return {
        "number": lot.number,
        "title": lot.title,
        "closes_at": lot.closes_at,
        "closed": lot.closed,
        "receipt": lot.receipt,
        "bids": lot.bids[:10],
        "watching": len(node.groups.members(bidders(lot.number))),
        "runs_on": None if holder is None else holder.node,
        "served_by": node.name,
    }


def as_json(value: object) -> Response:
    """A response of messages and builtins."""
    return Response(msgspec.json.encode(value), media_type="application/json")
