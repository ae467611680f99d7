"""Supervisors: processes that start others, stop them in good order, and start them again when they end.

Which child is started or stopped when is decided by `kinfolk.core.restarts`; here that is carried out. A start may take
its time (a name is registered, a server's `init` runs, another node is asked), and so does a stop; meanwhile the
supervisor goes on. What happens then comes into its mailbox like everything else, so nothing is ever decided half-way.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVarTuple, get_args

from msgspec import Struct

from kinfolk.core import restarts as core
from kinfolk.core.restarts import End, Restart, Restarts, State, Strategy
from kinfolk.effects import NameAdded
from kinfolk.errors import (
    CallTimeout,
    ChildFailed,
    KinfolkError,
    NameLost,
    NameTaken,
    NameUnknown,
    NodeDraining,
    NodeLost,
    NoProcess,
    NotConfirmed,
)
from kinfolk.handover import LOADING_TIMEOUT, Inheritance, Proceed, TakeOver, hand_over, standby_name
from kinfolk.ids import Pid, check_name, check_node_name
from kinfolk.logs import fields
from kinfolk.messages import Call, Exit, PeerDown, PeerUp
from kinfolk.process import Body, Process, Runnable, is_call
from kinfolk.reasons import NOCONNECTION, NORMAL, SHUTDOWN, Crash, Reason, Stop, text_of
from kinfolk.seconds import check_seconds
from kinfolk.server import Started, has_state, is_server, takes_state
from kinfolk.shell.alarms import Alarm

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.registry import Names, NameWatch

_log = logging.getLogger("kinfolk")

Ts = TypeVarTuple("Ts")

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that a child may take to end in good order, by default."""
_AS_USUAL = float("nan")  # known by being this very one, and not math.nan: no number that somebody gives
_PATIENCE = 10.0
"""Seconds that the last word of an old holder may take once it has ended."""

_TROUBLE = (NameTaken, NotConfirmed, NameLost, NameUnknown, NodeLost, NodeDraining, CallTimeout)
"""What keeps a child from running through no fault of its own."""


class Child:
    """What a supervisor is to run: a function or a `Server`, and when to run it again.

    Args:
        body: a coroutine function, a `Server` class, or a `Supervisor`.
        args: its arguments, as for `spawn`.
        name: a name of the cluster, registered before the code of the child starts.
        id: what its supervisor calls it. Default: its name, else that of its function, with a number if needed.
        restart: "permanent": it always runs again; "transient": unless it ended with "normal" or "shutdown";
            "temporary": never.
        singleton: of all nodes whose supervisors have a child of this name, one runs it and the others stand by: as
            soon as the name falls free, one of them starts it.
        shutdown: seconds that it may take to end when it is told to; then it is killed. 0 kills it at once, None
            waits for ever. Default: 5, and None for a supervisor.
        on: the node to run it on, which must allow the function. It runs again on the same node; once that is lost, on
            the next of a list that is connected, or else as soon as one of them is back. (A child elsewhere that ends
            with "shutdown" although nobody told it to has lost its node, which closes.)
        max_mailbox: as for `spawn`.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    def __init__(
        self,
        body: Runnable[*Ts],
        /,
        *args: *Ts,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - what it is called everywhere
        restart: Restart = "permanent",
        singleton: bool = False,
        shutdown: float | None = _AS_USUAL,
        on: str | Sequence[str] | None = None,
        max_mailbox: int | None = None,
    ) -> None:
        if not callable(body):
            raise TypeError(f"Child({body!r}): give an async function, a Server class or a Supervisor")
        self.body: Body = body
        self.args: tuple[object, ...] = args
        self.name = None if name is None else check_name(name)
        self.id = id
        if restart not in get_args(Restart):
            raise ValueError(f"restart={restart!r}: it is one of {', '.join(get_args(Restart))}")
        self.restart: Restart = restart
        if singleton and (name is None or on is not None):
            raise ValueError("a singleton needs a name=, and runs on the node of its supervisor: it takes no on=")
        self.singleton = singleton
        if shutdown is _AS_USUAL:
            shutdown = None if isinstance(body, Supervisor) else SHUTDOWN_TIMEOUT
        self.shutdown = None if shutdown in (None, math.inf) else check_seconds(shutdown, "shutdown")
        self.on = tuple(check_node_name(node) for node in ([on] if isinstance(on, str) else on or ()))
        if self.on and isinstance(body, Supervisor):
            raise ValueError("a Supervisor stays on its node: for on=, give an async function that awaits one")
        self.max_mailbox = max_mailbox

    def __repr__(self) -> str:
        return f"<child {self.id or self.name or self.runs}>"

    @property
    def runs(self) -> str:
        """The name of what it runs."""
        return str(getattr(self.body, "__qualname__", type(self.body).__qualname__))

    @property
    def has_state(self) -> bool:
        """Whether it has a state that it hands over when its node drains."""
        return self.singleton and is_server(self.body) and has_state(self.body)

    @property
    def takes_state(self) -> bool:
        """Whether it can take such a state over."""
        return self.singleton and is_server(self.body) and takes_state(self.body)

    @property
    def tells_when_started(self) -> bool:
        """Whether it can say that its start is complete."""
        return isinstance(self.body, Supervisor) or is_server(self.body)


class Supervisor:
    """A process that runs children: ``node.spawn(Supervisor([...]))``, or ``Child(Supervisor([...]))`` in another.

    Args:
        children: in the order in which they start. They stop in the opposite order.
        strategy: when a child ends and is to run again: "one_for_one": it alone; "one_for_all": all are stopped and
            started again; "rest_for_one": those after it are.
        intensity, period: with more than so many restarts in so many seconds the supervisor stops its children and ends
            itself with the reason `ChildFailed`. Restarts because of names and lost nodes do not count.

    Raises:
        ValueError, TypeError: an argument is wrong, or two children have one id or name.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 3,
        period: float = 5.0,
    ) -> None:
        if strategy not in get_args(Strategy):
            raise ValueError(f"strategy={strategy!r}: it is one of {', '.join(get_args(Strategy))}")
        if intensity < 0 or not period > 0:
            raise ValueError("intensity must be 0 or more restarts, and period a positive number of seconds")
        self.children: dict[str, Child] = {}
        for child in children:
            if not isinstance(child, Child):
                raise TypeError(f"{child!r} is no Child: write Child({getattr(child, '__name__', 'function')}, ...)")
            self.children[new_id(child, self.children)] = child
        self.strategy: Strategy = strategy
        self.intensity = intensity
        self.period = period

    async def __call__(self, me: Process) -> None:
        """The life of the supervisor; a process runs it."""
        await Supervising(me, self).run()


def new_id(child: Child, others: dict[str, Child]) -> str:
    """What a supervisor calls this child.

    Raises:
        ValueError: another has its id or its name.
    """
    given = child.id or child.name
    if given is not None:
        if given in others:
            raise ValueError(f"two children called {given!r}: give one of them another id=")
        return given
    number, found = 1, child.runs
    while found in others:
        number += 1
        found = f"{child.runs}-{number}"
    return found


class ChildInfo(Struct, frozen=True):
    """A child as it is at this moment.

    Attributes:
        id: what its supervisor calls it.
        name: the name it is registered under.
        pid: None if it does not run.
        runs: the name of its function or class.
        state: "running", "standby" (a singleton that runs elsewhere), "starting", "stopping", "waiting" (for its name
            or its node), "absent", or "done".
        restarts: how often it has been started again.
        on: the node where it runs, or is to.
    """

    id: str
    name: str | None
    pid: Pid | None
    runs: str
    state: str
    restarts: int
    on: str


class Supervision:
    """A running supervisor, as `Node.supervise` returns it.

    Attributes:
        pid: its process; link it, monitor it, send it an exit signal like any other.
    """

    def __init__(self, node: "Node", supervising: "Supervising") -> None:
        self._node = node
        self._supervising = supervising
        self.pid = supervising.me.pid

    def __repr__(self) -> str:
        return f"<supervision by {self.pid}, {len(self._supervising.slots)} children>"

    def children(self) -> list[ChildInfo]:
        """The children, in the order in which they start."""
        return self._supervising.infos()

    async def start_child(self, child: Child) -> Pid | None:
        """Start another child, after all that are there.

        Returns:
            Its pid, once it has started; None for a singleton that stands by.

        Raises:
            NameTaken, NotConfirmed: it did not get its name; it is no child.
            ChildFailed: it ended before it had started; it is no child.
            ValueError: there is a child with its id or name.
            NoProcess: the supervisor is dead.
        """
        self._check()
        return await self._supervising.start_child(child)

    async def stop_child(self, child_id: str) -> None:
        """Stop a child, for good; return when it has ended.

        Raises:
            KeyError: there is no such child.
            NoProcess: the supervisor is dead.
        """
        self._check()
        await self._supervising.stop_child(child_id)

    async def stop(self) -> None:
        """Stop all children, the last first, and then the supervisor; return when it has ended."""
        if self._supervising.me.exit_reason is None:
            self._supervising.order_stop(SHUTDOWN)
            await self._node.wait_exit(self.pid)

    def _check(self) -> None:
        if self._supervising.me.exit_reason is not None:
            raise NoProcess(f"the supervisor {self.pid} is dead")


class _Event(Struct, frozen=True):
    """Something that a supervisor tells itself, to be done when its turn comes."""

    do: Callable[..., None]
    args: tuple[Any, ...]


class _Slot:
    """A child and its process, over all its starts."""

    def __init__(self, name: str, child: Child) -> None:
        self.id = name
        self.child = child
        self.pid: Pid | None = None
        self.process: Process | None = None  # if it runs on this node
        self.gate: asyncio.Future[None] | None = None
        self.inheritance: Inheritance | None = None  # until it has begun with what another node has handed over
        self.task: asyncio.Task[None] | None = None  # what starts it, or follows its name
        self.alarm: Alarm | None = None
        self.error: BaseException | None = None  # why it could not be started
        self.reason: Reason = NORMAL  # of its last end
        self.stopping = False
        self.heard: asyncio.Future[Pid | None] | None = None  # who waits for its first start
        self.dropped: list[asyncio.Future[None]] = []  # who waits until it is no child any more
        self.turn = 0  # which of its nodes it is to run on

    def inherits_no_more(self) -> None:
        """It has begun, or is to end."""
        inheritance, self.inheritance = self.inheritance, None
        if inheritance is not None and not inheritance.over.done():
            inheritance.over.set_result(None)

    @property
    def has_begun(self) -> bool:
        """Whether its code runs, and may have handled messages."""
        return self.gate is None and self.inheritance is None

    @property
    def on(self) -> str | None:
        return self.child.on[self.turn % len(self.child.on)] if self.child.on else None


class Supervising:
    """A supervisor at work."""

    def __init__(self, me: Process, plan: Supervisor) -> None:
        self.me = me
        self.strategy = plan.strategy
        self.slots = {name: _Slot(name, child) for name, child in plan.children.items()}
        self._limit = f"{plan.intensity} in {plan.period:g} s"
        self._restarts = Restarts(
            [(name, child.restart) for name, child in plan.children.items()],
            plan.strategy,
            plan.intensity,
            plan.period,
        )
        self._by_pid: dict[Pid, _Slot] = {}
        self._over: core.Over | None = None
        self._reason: Reason = SHUTDOWN
        self._asked: list[Call[Any]] = []  # who wants to know when the start is complete
        self._watches_nodes = False
        self._random = me.node.machine.random()
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def run(self) -> None:
        """The life of the process."""
        me = self.me
        me.trap_exit = True
        for request in (Started, TakeOver, Proceed):
            me.node.codec.learn(request)
        supervisors = me.node.supervisors
        supervisors[me.pid.local] = self
        try:
            self._do(self._restarts.begin())
            while self._over is None:
                self._take(await me.receive())
        finally:
            del supervisors[me.pid.local]
            for task in self._tasks:
                task.cancel()
            for slot in self.slots.values():
                self._release(slot, NoProcess(f"the supervisor {me.pid} has ended"))
        raise Stop(self._reason)

    # --- what comes in ---

    def _take(self, message: Any) -> None:
        match message:
            case _Event():
                message.do(*message.args)
            case Exit(pid, reason) if pid in self._by_pid:
                self._exited(self._by_pid[pid], reason)
            case Exit(pid, reason):
                if reason != NORMAL or pid == self.me.parent:
                    self._stop(reason)
            case _ if is_call(message):
                self._called(message)
            case Proceed():
                self._proceed(message)
            case PeerUp():
                for slot in list(self.slots.values()):
                    if slot.child.on:
                        self._do(self._restarts.due(slot.id))
            case PeerDown():
                pass
            case _:
                self.me.node.counters["unhandled_messages"] += 1
                _log.warning(
                    "the supervisor %s dropped a message: it takes none",
                    self.me.pid,
                    extra=fields(self.me.node.name, pid=self.me.pid),
                )

    def _called(self, call: Call[Any]) -> None:
        match call.body:
            case Started():
                self._asked.append(call)
                self._tell_started()
            case TakeOver():
                self._take_over(call)
            case Proceed():
                self._proceed(call.body)
                call.reply()
            case _:
                call.fail("a supervisor answers no calls: node.supervise() returns what its children are managed by")

    # --- what one node hands over to another ---

    async def hand_over(self, child_id: str) -> bool:
        """Let a standby of another node go on with a singleton, and stop it here. Returns whether one does."""
        slot = self.slots.get(child_id)
        if slot is not None and slot.inheritance is not None:  # it is just coming from another node
            await slot.inheritance.over
        if slot is None or slot.process is None or not slot.has_begun or not slot.child.has_state:
            return False
        process, name = slot.process, slot.child.name
        assert name is not None, "a singleton has one"
        return await hand_over(process, name, lambda: self.stop_child(child_id))

    def _take_over(self, call: Call[TakeOver]) -> None:
        """Another node hands over a name that we stand by for."""
        for slot in self.slots.values():
            known = self._restarts.children.get(slot.id)
            stands_by = known is not None and known.state is State.STANDBY and slot.pid is None
            if not (slot.child.name == call.body.name and slot.child.takes_state and stands_by and slot.task):
                continue
            if self.me.node.draining is None:
                slot.task.cancel()
                self._in_task(slot, self._inherit, slot, call)
                return
        call.fail(f"{self.me.node.name} does not stand by for {call.body.name!r}")

    def _proceed(self, order: Proceed) -> None:
        """The old holder has ended, or goes on."""
        for slot in self.slots.values():
            inheritance = slot.inheritance
            if inheritance is None or slot.child.name != order.name or inheritance.holder != order.holder:
                continue
            inheritance.messages += order.messages
            if order.begin is not None and not inheritance.decided.done():
                inheritance.decided.set_result(order.begin)

    async def _inherit(self, slot: _Slot, call: Call[TakeOver]) -> None:
        """Start a singleton with the state of another node's. It begins when that one has ended."""
        name, names = call.body.name, self.me.node.names
        watch = names.watch(name)
        try:
            inheritance = slot.inheritance = Inheritance(call.body.state, call.body.holder)
            pid = self._spawn(slot, inheritance)
            loaded = await _loads(inheritance)
            if loaded:
                call.reply(pid)
            if loaded and await self._is_to_begin(slot, pid, inheritance, watch):
                assert slot.process is not None, "it is a process of this node"
                slot.process.mailbox.put_first(inheritance.messages)
                inheritance.begin.set_result(None)
                slot.inherits_no_more()
                await self._begin(slot, pid)
                await self._follow(slot, name, pid, watch)
            else:
                self._discard(slot, pid)
        finally:
            watch.close()
            if not call.answered:
                call.fail(f"{self.me.node.name} could not take {name!r} over")
        await self._compete(slot)

    async def _is_to_begin(self, slot: _Slot, pid: Pid, inheritance: Inheritance, watch: "NameWatch") -> bool:
        """Wait for the old holder's word; or, if that may never come, until the name is here."""
        assert slot.child.name is not None, "a singleton has one"
        arrival = asyncio.create_task(self._arrives(slot.child.name, pid, inheritance.holder, watch))
        try:
            await asyncio.wait({arrival, inheritance.decided}, return_when=asyncio.FIRST_COMPLETED)
            if not inheritance.decided.done() and arrival.result():
                await self._wait_for_end(inheritance)
            return inheritance.decided.result() if inheritance.decided.done() else arrival.result()
        finally:
            arrival.cancel()

    async def _wait_for_end(self, inheritance: Inheritance) -> None:
        """The name is here, and the old holder ends: wait for its word, but not if its node is lost."""
        end = asyncio.create_task(self.me.node.wait_exit(inheritance.holder))
        try:
            either: set[asyncio.Future[Any]] = {end, inheritance.decided}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not inheritance.decided.done() and end.result() != NOCONNECTION:
                await asyncio.wait({inheritance.decided}, timeout=_PATIENCE)
        finally:
            end.cancel()

    async def _arrives(self, name: str, pid: Pid, holder: Pid, watch: "NameWatch") -> bool:
        """Wait until the name is ours; should it fall free before that, take it. False if another has it."""
        names = self.me.node.names
        async for _ in watch:
            found = names.whereis(name)
            if found is None:
                try:
                    await names.register(name, pid)
                except (NameTaken, NotConfirmed, NameUnknown):
                    return False
                return True
            if found != holder:
                return found == pid
        return False

    def _post(self, do: Callable[..., None], *args: object) -> None:
        """Do this when its turn comes; from any task."""
        self.me.mailbox.put_always(_Event(do, args))

    def order_stop(self, reason: Reason) -> None:
        """Stop everything, and end with this reason."""
        self._post(self._stop, reason)

    def _stop(self, reason: Reason) -> None:
        self._reason = reason
        self._do(self._restarts.stop())

    async def start_child(self, child: Child) -> Pid | None:
        """See `Supervision.start_child`."""
        slot = _Slot(new_id(child, {name: slot.child for name, slot in self.slots.items()}), child)
        slot.heard = asyncio.get_running_loop().create_future()
        self.slots[slot.id] = slot
        self._post(lambda: self._do(self._restarts.add(slot.id, child.restart)))
        return await slot.heard

    async def stop_child(self, child_id: str) -> None:
        """See `Supervision.stop_child`."""
        slot = self.slots[child_id]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        slot.dropped.append(future)
        self._post(self._remove, slot)
        await future

    def _remove(self, slot: _Slot) -> None:
        if slot.id in self._restarts.children:
            self._do(self._restarts.remove(slot.id))

    def singletons(self) -> dict[str, Process | None]:
        """The ids of its singletons, each with its process if its code runs here."""
        return {
            slot.id: slot.process if slot.has_begun else None for slot in self.slots.values() if slot.child.singleton
        }

    def infos(self, start: int = 0, end: int | None = None) -> list[ChildInfo]:
        """See `Supervision.children`; only those from one place in their order to another, if these are given."""
        children = self._restarts.children
        found: list[ChildInfo] = []
        for slot in itertools.islice(self.slots.values(), start, end):
            known = children.get(slot.id)
            on = slot.pid.node if slot.pid else slot.on or self.me.node.name
            state = State.ABSENT if known is None else known.state
            again = 0 if known is None else max(0, known.starts - 1)
            running = slot.pid if state is not State.STANDBY else None
            found.append(ChildInfo(slot.id, slot.child.name, running, slot.child.runs, state.value, again, on))
        return found

    # --- what is to be done ---

    def _do(self, actions: Sequence[core.Action]) -> None:
        for action in actions:
            self._ACTIONS[type(action)](self, action)
        self._tell_started()

    def _start(self, action: core.Start) -> None:
        slot = self.slots[action.child]
        slot.error, slot.stopping = None, False
        if self._restarts.children[slot.id].starts > 1:
            self.me.node.counters["children_restarted"] += 1
        child = slot.child
        if child.on:
            if not self._watches_nodes:
                self._watches_nodes = True
                self.me.monitor_node()
            self._in_task(slot, self._start_there, slot)
        elif child.singleton:
            self._in_task(slot, self._compete, slot)
        else:
            self._start_here(slot)

    def _start_here(self, slot: _Slot) -> None:
        try:
            pid = self._spawn(slot)
        except Exception as error:  # noqa: BLE001 - its arguments are wrong, say
            self._post(self._failed, slot, None, error)
            return
        if slot.child.name is not None or slot.child.tells_when_started:
            self._in_task(slot, self._complete, slot, pid)
        else:
            self._post(self._has_started, slot, pid)

    def _in_task(self, slot: _Slot, starting: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        """Go on with a start in a task. It makes the coroutine itself: it may be cancelled before its first step."""
        task = slot.task = asyncio.create_task(self._watched(slot, starting, *args))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.__delitem__)

    async def _watched(self, slot: _Slot, starting: Callable[[*Ts], Awaitable[None]], *args: *Ts) -> None:
        try:
            await starting(*args)
        except Exception as error:  # noqa: BLE001 - whatever keeps a child from starting
            self._post(self._failed, slot, asyncio.current_task(), error)

    def _spawn(self, slot: _Slot, inheritance: Inheritance | None = None) -> Pid:
        """Start its process; with a name, its code waits until that is registered, unless it takes a state over."""
        child = slot.child
        slot.gate = (
            None if child.name is None or inheritance is not None else asyncio.get_running_loop().create_future()
        )
        slot.process = self.me.start_linked(child.body, child.args, child.max_mailbox, slot.gate)
        slot.process.inheritance = inheritance
        return self._runs_as(slot, slot.process.pid)

    def _runs_as(self, slot: _Slot, pid: Pid) -> Pid:
        slot.pid = pid
        self._by_pid[pid] = slot
        return pid

    async def _complete(self, slot: _Slot, pid: Pid) -> None:
        """Give a child that has a process its name, and wait until it says that it has started."""
        if slot.child.name is not None:
            await self.me.node.names.register(slot.child.name, pid)
        await self._begin(slot, pid)

    async def _begin(self, slot: _Slot, pid: Pid) -> None:
        if slot.gate is not None:
            slot.gate.set_result(None)
            slot.gate = None
        if slot.child.tells_when_started:
            try:
                await self.me.call(pid, Started(), timeout=None)
            except KinfolkError:
                return  # it has ended, and its exit says why
        self._post(self._has_started, slot, pid)

    async def _start_there(self, slot: _Slot) -> None:
        node, child = self.me.node, slot.child
        here = [node.name, *node.peers()]
        for _ in child.on:
            if slot.on in here:
                break
            slot.turn += 1
        on = slot.on
        assert on is not None, "the caller has looked"
        if on == node.name:
            pid = self._spawn(slot)
        elif on in here:
            spawn = self.me.spawn_on(on, child.body, *child.args, link=True, max_mailbox=child.max_mailbox)
            pid = self._runs_as(slot, await spawn)
        else:
            raise NodeLost(f"cannot run {slot.id} on {', '.join(child.on)}: not connected")
        if slot.stopping:  # told while this task waited for its turn, or for the node
            self._end_process(slot)
        else:
            await self._complete(slot, pid)

    async def _compete(self, slot: _Slot) -> None:
        """Run a singleton as soon as its name is ours, and see to it that it ends should the name be lost."""
        name, names = slot.child.name, self.me.node.names
        assert name is not None, "a singleton has one"
        self._offer_to_take_over(slot, name)
        watch = names.watch(name)
        try:
            pid = await self._win(slot, name, watch)
            await self._begin(slot, pid)
            await self._follow(slot, name, pid, watch)
        finally:
            watch.close()

    def _offer_to_take_over(self, slot: _Slot, name: str) -> None:
        """Let other nodes find us should they hand the name over."""
        address = standby_name(name)
        if address is not None and slot.child.takes_state:
            try:
                self.me.node.names.local.register(address, self.me.pid)
            except NameTaken:
                _log.info(
                    "another supervisor of %s stands by for %r as well",
                    self.me.node.name,
                    name,
                    extra=fields(self.me.node.name, pid=self.me.pid, registered=name),
                )

    async def _follow(self, slot: _Slot, name: str, pid: Pid, watch: "NameWatch") -> None:
        async for _ in watch:
            if _is_lost(self.me.node.names, name, pid):
                self._post(self._has_lost_name, slot, pid)

    async def _win(self, slot: _Slot, name: str, watch: "NameWatch") -> Pid:
        names, attempt = self.me.node.names, 0
        while True:
            if names.whereis(name) is None and not self.me.node.draining:
                pid = self._spawn(slot)
                try:
                    await names.register(name, pid)
                except (NameTaken, NotConfirmed, NameUnknown):
                    self._discard(slot, pid)
                else:
                    return pid
            self._post(self._stands_by, slot, asyncio.current_task())
            attempt += 1
            if await _changed(watch, core.pause(attempt, self._random.random())):
                attempt = 0

    def _discard(self, slot: _Slot, pid: Pid) -> None:
        """End a process that has not got its name. Who has called it meanwhile, for it was claimed, is told so."""
        if self._by_pid.pop(pid, None) is slot:
            slot.pid = slot.process = slot.gate = None
            slot.inherits_no_more()
            self.me.unlink(pid)
            self.me.mailbox.discard(lambda message: type(message) is Exit and message.pid == pid)
            self.me.node.kill(pid)

    def _has_lost_name(self, slot: _Slot, pid: Pid) -> None:
        """Its process has been told, and ends; a server once it has handled what came before. But not much later."""
        if slot.child.shutdown is not None:
            self.me.send_after(slot.child.shutdown, _Event(self._must_be_gone, (slot, pid)))

    def _must_be_gone(self, slot: _Slot, pid: Pid) -> None:
        name = slot.child.name
        if name is not None and _is_lost(self.me.node.names, name, pid):
            self._too_late(slot, pid)

    def _stop_child(self, action: core.Stop) -> None:
        slot = self.slots[action.child]
        slot.stopping = True
        begun = slot.has_begun
        if slot.task is not None and (slot.pid is not None or not slot.child.on):
            slot.task.cancel()  # else another node is about to answer, and then its process is ended
            slot.task = None
        if slot.pid is not None:
            if begun:
                self._end_process(slot)
            else:
                self.me.node.kill(slot.pid)  # not a line of it has run
        elif not slot.child.on or slot.task is None:
            self._ended(slot, SHUTDOWN)

    def _end_process(self, slot: _Slot) -> None:
        assert slot.pid is not None, "the caller has looked"
        if slot.child.shutdown == 0:
            self.me.node.kill(slot.pid)
        else:
            self.me.exit(slot.pid, SHUTDOWN)
            self._give_time(slot)

    def _give_time(self, slot: _Slot) -> None:
        """Kill its process unless it ends in time."""
        if slot.pid is not None and slot.child.shutdown is not None and slot.alarm is None:
            slot.alarm = self.me.send_after(slot.child.shutdown, _Event(self._too_late, (slot, slot.pid)))

    def _too_late(self, slot: _Slot, pid: Pid) -> None:
        if slot.pid == pid and pid in self._by_pid:
            _log.warning(
                "%s (%s) has not ended within %g s: it is killed",
                pid,
                slot.id,
                slot.child.shutdown,
                extra=fields(self.me.node.name, pid=pid, runs=slot.id, seconds=slot.child.shutdown),
            )
            self.me.node.kill(pid)

    def _pause(self, action: core.Pause) -> None:
        seconds = core.pause(action.attempt, self._random.random())
        self.me.send_after(seconds, _Event(self._pause_is_over, (action.child,)))

    def _pause_is_over(self, child_id: str) -> None:
        self._do(self._restarts.due(child_id))

    def _drop(self, action: core.Dropped) -> None:
        slot = self.slots.pop(action.child)
        self._release(slot, self._why(slot, f"the child {slot.id!r} did not start"))

    def _release(self, slot: _Slot, error: BaseException) -> None:
        """Whoever waits for something of this child waits no longer."""
        if slot.heard is not None and not slot.heard.done():
            slot.heard.set_exception(error)
        for future in slot.dropped:
            if not future.done():
                future.set_result(None)

    def _end(self, action: core.Over) -> None:
        self._over = action
        if action.failed is None:
            return
        slot = self.slots[action.failed]
        if action.opening:
            self._reason = Crash.of(self._why(slot, f"the child {slot.id!r} did not start"))
        else:
            error = self._why(slot, f"the child {slot.id!r} ended again after more restarts than {self._limit}")
            self._reason = Crash.of(error)
            _log.error(
                "the supervisor %s gives up: %s",
                self.me.pid,
                error,
                extra=fields(self.me.node.name, pid=self.me.pid, reason=error),
            )

    _ACTIONS: ClassVar[dict[type, Callable[..., None]]] = {
        core.Start: _start,
        core.Stop: _stop_child,
        core.Pause: _pause,
        core.Dropped: _drop,
        core.Over: _end,
    }

    def _why(self, slot: _Slot, what: str) -> BaseException:
        if isinstance(slot.error, NameTaken | NotConfirmed):
            return slot.error
        error = ChildFailed(slot.id, what, text_of(slot.error) if slot.error is not None else str(slot.reason))
        error.__cause__ = slot.error or (slot.reason.error if isinstance(slot.reason, Crash) else None)
        return error

    # --- what has happened ---

    def _has_started(self, slot: _Slot, pid: Pid | None) -> None:
        if slot.pid != pid or slot.stopping or pid not in self._by_pid:
            return  # it has ended since
        if slot.heard is not None and not slot.heard.done():
            slot.heard.set_result(pid)
        self._do(self._restarts.started(slot.id))

    def _stands_by(self, slot: _Slot, task: asyncio.Task[None]) -> None:
        if slot.task is not task or slot.stopping:
            return
        if slot.heard is not None and not slot.heard.done():
            slot.heard.set_result(None)
        self._do(self._restarts.stands_by(slot.id))

    def _failed(self, slot: _Slot, task: asyncio.Task[None] | None, error: BaseException) -> None:
        """It could not be started. If it has a process, that has to go first."""
        if slot.task is not task:
            return
        slot.error = error
        if slot.pid is not None:
            self.me.node.kill(slot.pid)
        else:
            self._ended(slot, Crash.of(error))

    def _exited(self, slot: _Slot, reason: Reason) -> None:
        """Its process is dead. Its code may still be cleaning up: what comes next waits for that, within bounds."""
        pid, process = slot.pid, slot.process
        assert pid is not None, "it was found by it"
        del self._by_pid[pid]
        if slot.alarm is not None:
            slot.alarm.cancel()
            slot.alarm = None
        if slot.task is not None:
            slot.task.cancel()
            slot.task = None
        if process is None or process.task is None or process.task.done():
            self._gone(slot, pid, reason)
            return
        process.task.add_done_callback(lambda _: self._post(self._gone, slot, pid, reason))
        patience = SHUTDOWN_TIMEOUT if slot.child.shutdown is None else slot.child.shutdown
        self.me.send_after(patience, _Event(self._gone, (slot, pid, reason)))

    def _gone(self, slot: _Slot, pid: Pid, reason: Reason) -> None:
        if slot.pid == pid and pid not in self._by_pid:
            self._ended(slot, reason)

    def _ended(self, slot: _Slot, reason: Reason) -> None:
        slot.pid = slot.process = slot.gate = slot.task = None
        slot.inherits_no_more()
        slot.reason = reason
        if _node_is_gone(slot):
            slot.turn += 1
        self._do(self._restarts.ended(slot.id, _kind_of_end(slot), asyncio.get_running_loop().time()))

    def _tell_started(self) -> None:
        if self._asked and self._restarts.complete:
            for call in self._asked:
                call.reply()
            self._asked.clear()


async def _loads(inheritance: Inheritance) -> bool:
    """Wait until it has taken the state over; false if that takes longer than whoever gave it waits."""
    either: set[asyncio.Future[Any]] = {inheritance.loaded, inheritance.decided}
    await asyncio.wait(either, timeout=LOADING_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
    return inheritance.loaded.done()


def _is_lost(names: "Names", name: str, pid: Pid) -> bool:
    """Whether another node may run what has this name. One that lost its lease does not see who has the name now."""
    holder = names.whereis(name)
    return holder != pid and (holder is not None or names.leased)


async def _changed(watch: "NameWatch", seconds: float) -> bool:
    """Wait until the name falls free, or for so long. Returns whether it did."""
    try:
        async with asyncio.timeout(seconds):
            async for event in watch:
                if not isinstance(event, NameAdded):
                    return True
    except TimeoutError:
        pass
    return False


def _node_is_gone(slot: _Slot) -> bool:
    """Whether the node of a child elsewhere is lost, or closes: then its processes end with "shutdown", unasked."""
    if slot.on is None or slot.stopping:
        return False
    if slot.error is not None:
        return isinstance(slot.error, NodeLost | NodeDraining)
    return slot.reason in (NOCONNECTION, SHUTDOWN)


def _kind_of_end(slot: _Slot) -> End:
    if slot.error is not None:
        return End.TROUBLE if isinstance(slot.error, _TROUBLE) else End.CRASH
    if isinstance(slot.reason, NameLost) or _node_is_gone(slot):
        return End.TROUBLE
    return End.NORMAL if slot.reason in (NORMAL, SHUTDOWN) else End.CRASH
