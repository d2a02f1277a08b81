"""A model of the run folder's protocol: one task, two schedulers, and whoever may die at any step.

Its steps are those of docs/reference/run-folder.md; each is one operation on the disk, all or
nothing. :func:`explore` goes through every order of the steps of all processes, with a crash before
any of them, and says what rule of the result was broken first, if one was.

A scheduler begins an epoch, reads the folder, gives up what is dead, claims and starts. A second
one may begin at any moment: the first is dead, or only frozen, and goes on later. They may be on
two machines: then one cannot end the other's processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

ATTEMPTS = 9  # more than so few crashes can need
RULES = {
    "claims before heartbeats", "look for a heartbeat after the record",
    "look for a record after the heartbeat", "the epoch", "a commit carries its record",
    "records are never replaced",
}  # fmt: skip
SUCCEEDED, LOST, NOT_BEGUN = "SUCCEEDED", "LOST", "NOT_BEGUN"


class Worker(NamedTuple):
    """A worker: where it is in its steps, and who started it."""

    attempt: int
    machine: int
    at: str = "reserve"
    other: int = 1  # the earlier attempt that it looks at


class Scheduler(NamedTuple):
    """A scheduler: where it is, what it has read, and what it watches."""

    machine: int
    at: str = "idle"
    epoch: int = 0
    claims: frozenset[int] = frozenset()
    beats: frozenset[int] = frozenset()
    watched: int = 0


class State(NamedTuple):
    """The disk, and all processes."""

    schedulers: tuple[Scheduler, ...]
    workers: tuple[Worker, ...] = ()
    epoch: int = 0
    claims: frozenset[int] = frozenset()
    reserved: frozenset[int] = frozenset()
    beats: frozenset[int] = frozenset()
    records: tuple[tuple[int, str], ...] = ()
    result: int = 0  # the attempt whose outputs are committed
    crashes: int = 0
    takeovers: int = 0

    def record(self, attempt: int) -> str:
        """Return how an attempt ended, empty where it has no record."""
        return dict(self.records).get(attempt, "")

    def success(self) -> bool:
        """Return whether a record says so."""
        return SUCCEEDED in dict(self.records).values()

    def lives(self, attempt: int) -> bool:
        """Return whether an attempt's worker lives."""
        return any(worker.attempt == attempt for worker in self.workers)


class Broken(Exception):
    """A rule of the result was broken."""


@dataclass(frozen=True)
class Model:
    """The protocol.

    Attributes
    ----------
    without : frozenset of str
        Rules that are left out, to see that each of them is needed.
    crashes : int
        How many processes may die.
    machines : int
        1: both schedulers are on one. 2: the second is on another.
    takeovers : int
        How often one begins while the other lives. Where none lives, one always may.
    """

    without: frozenset[str] = frozenset()
    crashes: int = 1
    machines: int = 1
    takeovers: int = 1

    def __post_init__(self) -> None:
        if unknown := self.without - RULES:
            raise ValueError(f"no such rule: {unknown}")

    def start(self) -> State:
        """Return the state before anything: a submission, and two that may take it."""
        schedulers = (Scheduler(0), Scheduler(self.machines - 1))
        return State(schedulers, crashes=self.crashes, takeovers=self.takeovers)

    def next(self, state: State) -> Iterator[State]:
        """Return all states after one step, or one crash."""
        for number, scheduler in enumerate(state.schedulers):
            yield from self._schedule(state, number, scheduler)
            if state.crashes and scheduler.at != "idle":
                yield _over(state, number)._replace(crashes=state.crashes - 1)
        for worker in state.workers:
            yield self._work(state, worker)
            if state.crashes:
                yield _put(state, worker, None)._replace(crashes=state.crashes - 1)

    # --- a scheduler ------------------------------------------------------------------------------

    def _schedule(self, state: State, number: int, one: Scheduler) -> Iterator[State]:
        def to(state: State, at: str, **changes: object) -> State:
            return _with(state, number, one._replace(at=at, **changes))  # type: ignore[arg-type]

        match one.at:
            case "idle":
                another = any(other.at != "idle" for other in state.schedulers)
                left = state.takeovers - another
                if left >= 0 and not state.success():
                    epoch = state.epoch + 1
                    yield to(state._replace(epoch=epoch, takeovers=left), "claims", epoch=epoch)
            case "claims":
                if "claims before heartbeats" in self.without:
                    yield to(state, "beats", beats=state.beats)
                else:
                    yield to(state, "beats", claims=state.claims)
            case "beats":
                if "claims before heartbeats" in self.without:
                    yield to(state, "records", claims=state.claims)
                else:
                    yield to(state, "records", beats=state.beats)
            case "records":
                yield to(state, "give up", watched=0)
            case "give up":
                yield self._give_up(state, number, one)
            case "revoke":
                yield to(self._record(state, one.watched, NOT_BEGUN), "look again")
            case "look again":  # after the record was written
                attempt = one.watched
                alive = attempt in state.beats and state.lives(attempt)
                look = "look for a heartbeat after the record" not in self.without
                yield to(state, "watch" if alive and look else "give up",
                         watched=attempt if alive and look else 0)  # fmt: skip
            case "watch":
                if self._lost_turn(state, one):
                    yield self._surrender(state, number, one)
                elif not state.lives(one.watched):
                    yield to(self._bury(state, one.watched), "give up", watched=0)
            case "claim":
                yield self._claim(state, number, one)
            case "check":
                if self._lost_turn(state, one):
                    given_back = state._replace(claims=state.claims - {one.watched})
                    yield self._surrender(given_back, number, one)
                else:
                    yield to(state, "start")
            case "start":
                worker = Worker(one.watched, one.machine)
                yield to(state._replace(workers=tuple(sorted((*state.workers, worker)))), "watch")

    def _lost_turn(self, state: State, one: Scheduler) -> bool:
        return state.epoch > one.epoch and "the epoch" not in self.without

    def _surrender(self, state: State, number: int, one: Scheduler) -> State:
        """End the workers of this machine, and record how."""
        for worker in state.workers:
            if worker.attempt == one.watched and worker.machine == one.machine:
                state = self._bury(_kill(state, worker.attempt, one.machine), worker.attempt)
        return _over(state, number)

    def _give_up(self, state: State, number: int, one: Scheduler) -> State:
        """Look at the next attempt that was read and has no record; claim where none is left."""
        for attempt in sorted(one.claims | one.beats):
            if state.record(attempt) or attempt not in state.claims | state.beats:
                continue
            if attempt in state.beats:
                if state.lives(attempt):
                    return _with(state, number, one._replace(at="watch", watched=attempt))
                return self._bury(state, attempt)
            state = _kill(state, attempt, one.machine)
            return _with(state, number, one._replace(at="revoke", watched=attempt))
        if state.success():
            return _over(state, number)
        return _with(state, number, one._replace(at="claim"))

    def _bury(self, state: State, attempt: int) -> State:
        """Write the record of a dead one: the result's own, where it was committed."""
        if state.result == attempt and "a commit carries its record" not in self.without:
            state = self._record(state, attempt, SUCCEEDED)
        state = self._record(state, attempt, LOST)
        return state._replace(
            beats=state.beats - {attempt}, reserved=state.reserved - {attempt},
        )  # fmt: skip

    def _claim(self, state: State, number: int, one: Scheduler) -> State:
        if state.success():
            return _over(state, number)
        attempt = 1
        while state.record(attempt) or attempt in state.claims | state.beats:
            attempt += 1
        if attempt > ATTEMPTS:
            raise Broken("it is tried for ever")
        claimed = state._replace(claims=state.claims | {attempt})
        return _with(
            claimed, number,
            one._replace(at="check", watched=attempt, claims=one.claims | {attempt}),
        )  # fmt: skip

    # --- a worker ---------------------------------------------------------------------------------

    def _work(self, state: State, one: Worker) -> State:
        def to(state: State, at: str, other: int = one.other) -> State:
            after = None if at == "ended" else one._replace(at=at, other=other)
            return _put(state, one, after)

        mine = one.attempt
        match one.at:
            case "reserve":
                if mine in state.reserved:
                    return to(state, "ended")
                return to(state._replace(reserved=state.reserved | {mine}), "beat")
            case "beat":
                if mine in state.beats:
                    return to(state, "ended")
                return to(state._replace(beats=state.beats | {mine}), "look")
            case "look":
                if (
                    state.record(mine)
                    and "look for a record after the heartbeat" not in self.without
                ):
                    return to(state, "unbeat")
                return to(state, "turn")
            case "turn":
                return self._turn(state, one)
            case "revoke":
                return to(self._record(state, one.other, NOT_BEGUN), "late")
            case "late":  # after a record was written for an earlier attempt
                if one.other in state.beats and state.lives(one.other):
                    return to(self._record(state, mine, NOT_BEGUN), "unbeat")
                return to(state, "turn", other=one.other + 1)
            case "run":
                return to(state, "ask")
            case "ask":
                over = bool(state.record(mine)) or state.success()
                return to(state, "publish lost" if over else "commit")
            case "commit":
                if state.result and state.result != mine:
                    other = state.result
                    state = self._record(state, other, SUCCEEDED)
                    if state.record(other) == SUCCEEDED:
                        return to(state, "publish lost")
                claims = state.claims - {mine}  # its folder is the result's now
                return to(state._replace(result=mine, claims=claims), "publish")
            case "publish":
                return to(self._record(state, mine, SUCCEEDED), "unbeat")
            case "publish lost":
                return to(self._record(state, mine, LOST), "unbeat")
            case _:  # unbeat
                return to(
                    state._replace(beats=state.beats - {mine}, reserved=state.reserved - {mine}),
                    "ended",
                )

    def _turn(self, state: State, one: Worker) -> State:
        """See to it that no earlier attempt lives; then run."""
        other = one.other
        if other >= one.attempt:
            at = "publish lost" if state.success() else "run"
            return _put(state, one, one._replace(at=at))
        following = one._replace(other=other + 1)
        if state.record(other) or other not in state.claims | state.beats:
            return _put(state, one, following)
        if other in state.beats:
            if state.lives(other):
                ended = self._record(state, one.attempt, NOT_BEGUN)
                return _put(ended, one, one._replace(at="unbeat"))
            return _put(self._bury(state, other), one, following)
        return _put(_kill(state, other, one.machine), one, one._replace(at="revoke"))

    # --- the disk ---------------------------------------------------------------------------------

    def _record(self, state: State, attempt: int, how: str) -> State:
        """Give a record its name; never over another."""
        records = dict(state.records)
        if attempt in records and "records are never replaced" not in self.without:
            return state
        if records.get(attempt, how) != how:
            raise Broken(f"the record of attempt {attempt} was replaced")
        records[attempt] = how
        return state._replace(records=tuple(sorted(records.items())))


def _with(state: State, number: int, scheduler: Scheduler) -> State:
    some = list(state.schedulers)
    some[number] = scheduler
    return state._replace(schedulers=tuple(some))


def _over(state: State, number: int) -> State:
    """A scheduler ends, and knows nothing any more."""
    return _with(state, number, Scheduler(state.schedulers[number].machine))


def _put(state: State, one: Worker, after: Worker | None) -> State:
    some = [worker for worker in state.workers if worker != one]
    if after is not None:
        some.append(after)
    return state._replace(workers=tuple(sorted(some)))


def _kill(state: State, attempt: int, machine: int) -> State:
    """End an attempt's processes, which a machine can do with its own alone."""
    return state._replace(
        workers=tuple(w for w in state.workers if (w.attempt, w.machine) != (attempt, machine))
    )


def check(before: State, after: State) -> None:
    """Look whether what must not be is so after a step.

    Raises
    ------
    Broken
        It is.
    """
    runs = [worker for worker in after.workers if worker.at in ("run", "ask")]
    if len(runs) > 1:
        raise Broken(f"attempts {[worker.attempt for worker in runs]} run at once")
    began = {worker.attempt for worker in runs} - {w.attempt for w in before.workers if w in runs}
    began = {worker.attempt for worker in runs if worker.at == "run"} & began
    # One that was given up between its last look and its commit has run for nothing.
    committed = before.result and before.record(before.result) in ("", SUCCEEDED)
    if began and (before.success() or committed):
        raise Broken(f"attempt {began} runs after the success of {before.result}")
    records = dict(after.records)
    if list(records.values()).count(SUCCEEDED) > 1:
        raise Broken("it has succeeded twice")
    for attempt in records.keys() - dict(before.records).keys():
        if attempt == before.result and records[attempt] == LOST:
            raise Broken(f"attempt {attempt} is committed, and was taken for lost")
    for attempt, how in before.records:
        if records.get(attempt) != how:
            raise Broken(f"the record of attempt {attempt} has changed")
    if after.success() and records.get(after.result) != SUCCEEDED:
        raise Broken("the result is not that of the success")


def check_end(state: State) -> None:
    """Look whether the task is lost where no step is left.

    Raises
    ------
    Broken
        It is.
    """
    if not state.success():
        raise Broken(f"it is lost: {state}")


def explore(model: Model, most: int = 400_000) -> int:
    """Go through every order of steps and crashes.

    Returns
    -------
    int
        How many states there are.

    Raises
    ------
    Broken
        Something that must not be is so in one of them.
    """
    seen = {model.start()}
    todo = list(seen)
    while todo:
        state = todo.pop()
        steps = 0
        for after in model.next(state):
            if after == state:
                continue
            steps += 1
            check(state, after)
            if after not in seen:
                seen.add(after)
                todo.append(after)
        if not steps:
            check_end(state)
        assert len(seen) < most, "the model has grown beyond what is explored in a test"
    return len(seen)
