"""Messages that processes send to themselves later, or again and again. They end with the process."""

import asyncio
import math
from collections import Counter

from kinfolk.errors import MailboxFull
from kinfolk.seconds import check_seconds
from kinfolk.shell.tasks import Processes


class Alarm:
    """A message on its way through time: what `send_after` and `send_interval` return."""

    __slots__ = ("_alarms", "_due", "_interval", "_message", "_own", "_timer")

    def __init__(self, alarms: "Alarms", own: int, message: object, due: float, interval: float | None) -> None:
        self._alarms = alarms
        self._own = own
        self._message = message
        self._interval = interval
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._ring)

    def __repr__(self) -> str:
        return f"<alarm {self._message!r}{'' if self.active else ', over'}>"

    @property
    def active(self) -> bool:
        """Whether it will still send something."""
        return self._alarms.holds(self._own, self)

    def cancel(self) -> bool:
        """Send nothing any more. What it has sent stays in the mailbox.

        Returns:
            Whether it would have sent something.
        """
        self._timer.cancel()
        return self._alarms.forget(self._own, self)

    def _ring(self) -> None:
        if self._interval is None:
            self._alarms.forget(self._own, self)
        else:
            loop = asyncio.get_running_loop()
            # Of the moments that a busy loop has missed, only this one counts.
            self._due += self._interval * max(1, (loop.time() - self._due) // self._interval)
            self._timer = loop.call_at(self._due, self._ring)
        self._alarms.deliver(self._own, self._message)


class Alarms:
    """The alarms of one node's processes.

    Args:
        processes: those of the node.
        counters: counts what found a full mailbox.
    """

    def __init__(self, processes: Processes, counters: Counter[str]) -> None:
        self._processes = processes
        self._counters = counters
        self._of: dict[int, set[Alarm]] = {}

    def __len__(self) -> int:
        """Alarms that will still send something."""
        return sum(map(len, self._of.values()))

    def after(self, own: int, seconds: float, message: object) -> Alarm:
        """See `Process.send_after`."""
        if check_seconds(seconds, "seconds") == math.inf:
            raise ValueError("send_after: a message that comes after infinity never does; give the seconds to wait")
        return self._set(own, seconds, message, None)

    def every(self, own: int, seconds: float, message: object) -> Alarm:
        """See `Process.send_interval`."""
        if not 0 < check_seconds(seconds, "seconds") < math.inf:
            raise ValueError(f"send_interval({seconds!r}, ...): give the seconds between two messages, more than 0")
        return self._set(own, seconds, message, seconds)

    def exited(self, own: int) -> None:
        """A process is dead, and so are its alarms."""
        for alarm in self._of.pop(own, ()):
            alarm.cancel()

    def _set(self, own: int, seconds: float, message: object, interval: float | None) -> Alarm:
        alarm = Alarm(self, own, message, asyncio.get_running_loop().time() + seconds, interval)
        self._of.setdefault(own, set()).add(alarm)
        return alarm

    # --- for an alarm ---

    def holds(self, own: int, alarm: Alarm) -> bool:
        """Whether the alarm is still set."""
        return alarm in self._of.get(own, ())

    def forget(self, own: int, alarm: Alarm) -> bool:
        """The alarm is over. Returns whether it was still set."""
        alarms = self._of.get(own, set())
        if alarm not in alarms:
            return False
        alarms.remove(alarm)
        if not alarms:
            del self._of[own]
        return True

    def deliver(self, own: int, message: object) -> None:
        """Put the message into the mailbox of a living process."""
        process = self._processes.get(own)
        if process is None:
            return
        try:
            process.mailbox.put(message)
        except MailboxFull:
            self._counters["mailbox_overflows"] += 1
            self._processes.overflowed(process)
