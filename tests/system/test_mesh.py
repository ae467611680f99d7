"""The mesh makes itself, with one session for each pair."""

import asyncio
import sys
import time
from pathlib import Path

import kinfolk
from tests.system.fleet import Fleet, Raised, Worker, agreed, connections, states, until

WORDS = ("ada", "bob", "carl", "dora", "eve")


async def test_four_that_join_one_are_connected_each_with_all_by_ten_connections(fleet: Fleet):
    ada = await fleet.start("ada")
    others = await asyncio.gather(*(fleet.start(word, join=["ada"]) for word in WORDS[1:]))
    # At once: start has returned.
    for state in await states(others):
        assert len(state.peers) >= 1 and ada.name in state.peers
    await agreed([ada, *others])
    await until(lambda: connections(fleet.ports.values()) == 10, "there are ten connections")
    assert all(state.counters.get("peers_lost", 0) == 0 for state in await states([ada, *others]))


async def test_five_that_start_at_once_and_know_all_others_have_exactly_one_session_for_each_pair(fleet: Fleet):
    workers = await asyncio.gather(*map(fleet.enter, WORDS))
    names = [fleet.name(word) for word in WORDS]
    for number in range(6):
        began = time.monotonic() + 0.05
        await asyncio.gather(
            *(
                worker.ask("start", at=began, name=worker.name, join=[name for name in names if name != worker.name])
                for worker in workers
            )
        )
        await agreed(workers, {})
        await until(lambda: connections(fleet.ports.values()) == 10, f"round {number} ends with ten connections")
        for state in await states(workers):
            assert state.counters.get("peers_lost", 0) == 0, "a session was opened and given up"
        leftovers = await asyncio.gather(*(worker.ask("close") for worker in workers))
        assert leftovers == [[]] * 5
        await until(lambda: connections(fleet.ports.values()) == 0, "no connection is left over")
    for worker in workers:
        for peer in workers:
            ups = [line for line in worker.log() if line == f"INFO {worker.name}: {peer.name} is up"]
            assert len(ups) == (0 if peer is worker else 6), f"{worker} has seen {peer} come {len(ups)} times"


async def test_who_joins_holds_all_names_when_the_start_returns(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob")
    tables = await asyncio.gather(
        *(worker.ask("register_many", names=[f"{worker}/{number}" for number in range(300)]) for worker in (ada, bob))
    )
    carl = await fleet.start("carl", join=["bob"])
    state = await carl.state()
    assert state.names == {**tables[0], **tables[1]}
    assert state.peers == [ada.name, bob.name]


async def test_a_node_may_listen_elsewhere_than_its_name_says(fleet: Fleet):
    # The name leads to a proxy, as it does with a port mapping of a container.
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", fleet.ports["inside"])
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    fleet.name("inside")
    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    name = f"ada@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with proxy:
        ada = await fleet.enter("ada")
        await ada.ask("start", name=name, listen=f"127.0.0.1:{fleet.ports['inside']}", join=[])
        bob = await fleet.enter("bob")
        await bob.ask("start", name=bob.name, join=[name])
        carl = await fleet.start("carl", join=["bob"])
        pid = await ada.ask("register", name="db")
        assert pid.startswith(name + "/")
        await agreed([ada, bob, carl], {"db": pid})
        await asyncio.gather(*(worker.end() for worker in (bob, carl)))


async def test_a_seed_that_is_down_is_no_error_and_is_found_once_it_is_up(fleet: Fleet):
    ada = await fleet.start("ada", join=["bob"], join_timeout=0.2)
    assert (await ada.state()).peers == []
    assert [line for line in ada.log() if "WARNING" in line and fleet.name("bob") in line]
    bob = await fleet.start("bob")
    await agreed([ada, bob], {})
    lonely = await fleet.enter("lonely")
    raised = await lonely.attempt("start", name=lonely.name, join=[fleet.name("nobody")], join_timeout=0.2, min_peers=1)
    assert isinstance(raised, Raised) and raised.error == "NodeUnreachable"


async def test_a_node_that_closes_is_gone_at_once_and_one_name_is_one_node(fleet: Fleet):
    ada, bob = await fleet.mesh("ada", "bob", heartbeat=5.0)
    await bob.ask("register", name="db")
    assert await bob.ask("close") == []
    await until(lambda: _alone(ada), "ada is alone", 2.0)
    # Two starts of one name at once: the second cannot even bind. Behind another port it would be refused.
    twin = await fleet.enter("twin")
    raised = await twin.attempt("start", name=ada.name, join=[])
    assert isinstance(raised, Raised) and raised.error == "OSError" and "is another node running there?" in raised.text
    raised = await twin.attempt("start", name=ada.name, listen=f"127.0.0.1:{fleet.ports['twin']}", join=[ada.name[4:]])
    assert isinstance(raised, Raised) and raised.error == "AuthenticationFailed" and "in use" in raised.text


async def _alone(worker: Worker) -> bool:
    state = await worker.state()
    return state.peers == [] and state.names == {}


ECHO = """
import asyncio
from kinfolk import Node, Process

async def echo(me: Process) -> None:
    async for call in me.calls():
        call.reply(call.body)

async def main() -> None:
    async with Node() as node:
        await node.names.register("echo", node.spawn(echo))
        await asyncio.Event().wait()

asyncio.run(main())
"""
ASK = """
import asyncio
from kinfolk import Node

async def main() -> None:
    async with Node() as node:
        await node.names.wait_for("echo", timeout=10)
        print(await node.call("echo", "hi"))

asyncio.run(main())
"""


async def test_two_programs_without_any_setting_find_each_others_names(tmp_path: Path):
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "ask.py").write_text(ASK)
    environment = {
        "HOME": str(tmp_path),
        "KINFOLK_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(kinfolk.__file__).parent.parent),
    }

    async def run(program: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, program),
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    # Both at once, in a home where nothing is yet, not even the cookie; then one more that finds them settled.
    programs = [await run("echo.py"), await run("ask.py")]
    try:
        out, _ = await asyncio.wait_for(programs[1].communicate(), 15)
        assert (out.decode(), programs[1].returncode) == ("hi\n", 0)
        programs.append(await run("ask.py"))
        out, _ = await asyncio.wait_for(programs[2].communicate(), 15)
        assert (out.decode(), programs[2].returncode) == ("hi\n", 0)
        assert (tmp_path / "home" / "cookie").stat().st_mode & 0o777 == 0o600
    finally:
        for program in programs:
            if program.returncode is None:
                program.kill()
        await programs[0].communicate()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
