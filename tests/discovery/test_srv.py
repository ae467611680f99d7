"""SRV records, asked for with dnspython of a name server that the test runs."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest

from kinfolk.discovery.sources import Srv

NAME = "_kinfolk._tcp.example."


class Server(asyncio.DatagramProtocol):
    """A name server that knows some SRV records of one name."""

    def __init__(self) -> None:
        self.records: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        if str(query.question[0].name) == NAME and self.records:
            answer.answer.append(dns.rrset.from_text_list(NAME, 1, "IN", "SRV", self.records))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    yield server
    transport.close()


@pytest.fixture
def resolver(server: Server) -> dns.asyncresolver.Resolver:
    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers = ["127.0.0.1"]
    made.port = server.transport.get_extra_info("sockname")[1]
    made.lifetime = 5.0
    return made


async def test_the_targets_of_srv_records_are_yielded_each_with_its_port(
    server: Server, resolver: dns.asyncresolver.Resolver
):
    source = Srv("dns+srv://_kinfolk._tcp.example", resolver)
    server.records = ["0 0 4370 ada.example.", "0 0 4371 bob.example."]
    assert await source.addresses() == {"ada.example:4370", "bob.example:4371"}
    server.records = ["0 0 4372 cyd.example."]
    assert await source.addresses() == {"cyd.example:4372"}


async def test_a_name_without_records_is_an_error(server: Server, resolver: dns.asyncresolver.Resolver):
    with pytest.raises(OSError, match=r"no SRV records: .*_kinfolk._tcp.example"):
        await Srv("dns+srv://_kinfolk._tcp.example", resolver).addresses()
