"""Restraint: what a group did without need, counted by the truth, for scenarios that say how much is too much.

Safety says what must never happen and liveness what must come about in the end; a broken mechanism may break neither and
still start replicas that nobody needs, hand masterships round, or declare living computers dead. Nothing here is
forbidden as such (a partition justifies all of it), so nothing here raises by itself: a scenario that knows its own
faults calls `allow`.
"""

from __future__ import annotations

from colla.kernel.effects import Effect, LaunchReplica, Notify
from colla.kernel.events import Event
from colla.sim.computer import Computer
from colla.sim.group import SimGroup


class Restraint:
    """Counts from when it is made, or since the last `reset`."""

    def __init__(self, group: SimGroup) -> None:
        self.group = group
        self.reset()
        group.observers.append(self)

    def reset(self) -> None:
        """Begin to count anew."""
        self.launches: list[str] = []
        """Of replicas, the first time each."""
        self.takeovers: list[str] = []
        self.false_absences: list[str] = []
        """Of computers that were up and reachable from who said so."""

    def allow(self, *, launches: int = 0, takeovers: int = 0, false_absences: int = 0) -> None:
        """Raises `Failed` when more was done than this."""
        for what, done, most in (
            ("launches", self.launches, launches),
            ("takeovers", self.takeovers, takeovers),
            ("false absences", self.false_absences, false_absences),
        ):
            if len(done) > most:
                self.group.fail(f"no restraint: {len(done)} {what}, {most} at most: " + "; ".join(done))

    # -- computer.Observer ----------------------------------------------------------------------------------

    def will_step(self, computer: Computer, event: Event) -> None:
        pass

    def stepped(self, computer: Computer, event: Event, effects: list[Effect]) -> None:
        pass

    def performed(self, computer: Computer, effect: Effect) -> None:
        now_s = self.group.world.now_s
        match effect:
            case LaunchReplica(replica=replica, specification=specification):
                if replica not in computer.environment.replicas:
                    self.launches.append(f"{specification.name} on {computer.name} at {now_s:.1f}")
            case Notify(notice=notice) if notice.kind == "took_over":
                self.takeovers.append(f"{computer.name} at {now_s:.1f}")
            case Notify(notice=notice) if notice.kind == "node_absent":
                absent = self.group.of(notice.node)
                if absent.up and self.group.network.connected(absent, computer):
                    self.false_absences.append(f"{computer.name} of {absent.name} at {now_s:.1f}")
            case _:
                pass
