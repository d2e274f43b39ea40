"""Work too long for the loop, done in worker processes: training, and clustering."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

LOG = logging.getLogger("tidegate.planner")

_WATCH_S: Final = 1.0


class WorkerPool(Executor):
    """Two worker processes, and new ones when one of them was killed.

    Started afresh, not forked: the planner has threads, and a fork would copy their locks.
    """

    def __init__(self) -> None:
        self._pool = _new_pool()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand work to a worker."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            # A pool that lost one worker (to the kernel's out-of-memory killer, say) takes no work again.
            LOG.warning("workers died, starting new ones")
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = _new_pool()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def worker_pool() -> Executor:
    """Worker processes that end with this one."""
    return WorkerPool()


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(2, mp_context=context, initializer=_follow, initargs=(os.getpid(),))


def _follow(parent: int) -> None:
    """End with the parent, also if it is killed: an orphan would wait for work for ever."""
    os.nice(10)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class Errand:
    """One kind of work, of which at most one is under way; its result is fetched by the loop."""

    def __init__(self, name: str, every_s: float) -> None:
        self.name = name
        self.every_s = every_s
        self.error: str | None = None
        self._future: Future[Any] | None = None
        self._started_at = float("-inf")

    def due(self, now: float) -> bool:
        """Whether it is time for the next one and none is under way."""
        # A clock set back must not stop the work for good.
        return self._future is None and not 0 <= now - self._started_at < self.every_s

    def start(self, executor: Executor, now: float, work: Callable[..., Any], *arguments: Any) -> bool:
        """Hand it to a worker. False if it could not be; ``error`` says why."""
        self._started_at = now
        try:
            self._future = executor.submit(work, *arguments)
        except (BrokenProcessPool, RuntimeError) as error:
            self.error = f"{self.name}: {error}"
            return False
        return True

    def put_off(self, now: float) -> None:
        """Not now; ask again when the next one is due."""
        self._started_at = now

    def hurry(self) -> None:
        """The next one is due as soon as none is under way."""
        self._started_at = float("-inf")

    def result(self, expected: tuple[type[Exception], ...] = ()) -> Any:
        """What the work gave, once; None while there is nothing. Errors are logged, unless expected."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        try:
            result = future.result()
        except expected as error:
            self.error = None
            LOG.info("%s: %s", self.name, error)
            return None
        except Exception as error:
            self.error = f"{self.name} failed: {error!r}"
            LOG.exception("%s failed", self.name)
            return None
        self.error = None
        return result
