"""The agenda: what one node is to do, now and later. The kernel and its parts write to it, the driver reads it."""

from collections.abc import Hashable

from kinfolk import effects as fx
from kinfolk.core.timers import Timers


class Agenda:
    """The effects of the step under way, in their order, and the deadlines to come."""

    def __init__(self) -> None:
        self.now = fx.Now(0.0, 0)
        """The time of the input of this step."""
        self.timers = Timers()
        self._effects: list[fx.Effect] = []

    def do(self, effect: fx.Effect) -> None:
        """Add an effect to this step."""
        self._effects.append(effect)

    def log(self, level: int, text: str, **about: object) -> None:
        """Add a log line to this step; `level` as in the logging module, `about` as `kinfolk.logs.fields` takes it."""
        self._effects.append(fx.Log(level, text, about))

    def later(self, key: Hashable, seconds: float) -> None:
        """Let the key come due so many seconds from now; one that is set already moves."""
        self.timers.set(key, self.now.mono + seconds)

    def take(self) -> list[fx.Effect]:
        """The effects of this step, which is over."""
        effects, self._effects = self._effects, []
        return effects
