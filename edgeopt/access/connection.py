"""A device, as the host reaches it: fresh agents, its facts, and its lock."""

from __future__ import annotations

import getpass
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from edgeopt.access import local
from edgeopt.access.client import Agent
from edgeopt.access.results import Facts
from edgeopt.agent import AgentError
from edgeopt.agent.exclusive import DeviceLock
from edgeopt.errors import StageError

_SECONDS_BETWEEN_TRIES = 0.5


def _nobody(note: str) -> None:
    """Hears notes that nobody wants."""


class Connection(ABC):
    """Context manager. Nothing is started before it is used, and nothing of it stays on the device after it.

    Attributes:
        name: How messages call the device.
    """

    name: str

    def __init__(self) -> None:
        self._facts: Facts | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(
        self, *, env: Mapping[str, str] | None = None, cpus: Sequence[int] | None = None, limit_s: float = 600.0
    ) -> Agent:
        """A fresh agent, in a process of its own.

        Args:
            env: Environment variables to add.
            cpus: Numbers of the CPUs that it may run on; None leaves that to the system.
            limit_s: Time limit of each of its calls.

        Raises:
            StageError: The device is not reached, or refuses.
        """

    def facts(self) -> Facts:
        """What an agent there says of the device; asked once.

        Raises:
            StageError: As for :meth:`start`.
        """
        if self._facts is None:
            with self.start() as agent:
                self._facts = agent.probe()
        return self._facts

    @contextmanager
    def exclusive(self, waiting: Callable[[str], None] = _nobody, *, limit_s: float = 1800.0) -> Iterator[None]:
        """Holds the device's lock, so that no other run times anything there meanwhile.

        The lock is for timing: what else runs on the device is not kept out.

        Args:
            waiting: Told once, in a sentence, that and on whom this run waits.
            limit_s: For how long to wait.

        Raises:
            StageError: Another run still holds it after ``limit_s``, the device is not reached, or the lock was lost
                before the body ended: what it timed does not count then.
        """
        self._take_lock(waiting, limit_s)
        try:
            yield
            if not self._holds():
                raise lock_lost(self.name)
        except Exception:
            self._unlock()
            raise
        except BaseException:  # Ctrl-C does not wait for a device's answer
            self._unlock(at_once=True)
            raise
        self._unlock()

    def _take_lock(self, waiting: Callable[[str], None], limit_s: float) -> None:
        began, told = time.monotonic(), False
        while (holder := self._lock(_who())) is not None:
            if time.monotonic() - began >= limit_s:
                what = f"another run has held the device for longer than {limit_s:g} s: {holder}"
                raise StageError(what, where=self.name, fix="wait until it ends, or end it")
            if not told:
                waiting(f"another run is measuring on this device ({holder}); waiting for its end")
                told = True
            time.sleep(_SECONDS_BETWEEN_TRIES)

    @abstractmethod
    def _lock(self, who: str) -> str | None:
        """Takes the lock if it is free; otherwise says who holds it."""

    @abstractmethod
    def _holds(self) -> bool:
        """Whether it is still held, and was all the time."""

    @abstractmethod
    def _unlock(self, *, at_once: bool = False) -> None:
        """Gives it back; never fails. ``at_once``: nothing is asked, though that may cost the connection."""

    @abstractmethod
    def close(self) -> None:
        """Removes everything from the device. Again is harmless."""


class Local(Connection):
    """This machine.

    Args:
        python: Another interpreter on it, with numpy and a runtime; None for the one that runs now.
    """

    def __init__(self, python: str | None = None) -> None:
        super().__init__()
        self.name = python or "this machine"
        self._python = python
        self._held = DeviceLock()

    def start(
        self, *, env: Mapping[str, str] | None = None, cpus: Sequence[int] | None = None, limit_s: float = 600.0
    ) -> Agent:
        """See the base class."""
        return local.start(python=self._python, env=env, cpus=cpus, limit_s=limit_s)

    def _lock(self, who: str) -> str | None:
        try:
            return self._held.take(who)
        except AgentError as error:
            raise StageError(str(error), where=self.name, fix=error.fix) from error

    def _holds(self) -> bool:
        return self._held.held()

    def _unlock(self, *, at_once: bool = False) -> None:
        self._held.release()

    def close(self) -> None:
        """See the base class."""
        self._unlock()


def lock_lost(name: str) -> StageError:
    """What is raised when nobody can say that a measurement had the device for itself."""
    what = "the device's lock was lost while it was measured: another run may have timed there at the same time"
    return StageError(what, where=name, fix="run again: finished steps are kept")


def _who() -> str:
    """This run, as another one is told of it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{platform.node()}, process {os.getpid()}"
