"""Training on a Dask cluster, and on this machine while the cluster cannot be reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from importlib import import_module
from typing import Any, Final

from planner.config import Forecasting

LOG = logging.getLogger("tidegate.planner")

_CONNECT_S: Final = 10.0
#: A cluster without workers takes work and never does it.
_TASK_S: Final = 900.0
_LOOK_S: Final = 0.5


class ClusterPool(Executor):
    """Work for a Dask cluster, one piece at a time; the planner's own workers do what it fails to.

    A thread of its own speaks to the cluster, so ``submit`` never waits. A connection that
    failed is dropped, and the next piece of work tries a new one.
    """

    def __init__(
        self, settings: Forecasting, local: Executor, task_s: float = _TASK_S, connect_s: float = _CONNECT_S
    ) -> None:
        self.settings = settings
        #: Why the last piece of work was not done by the cluster; None if it was.
        self.problem: str | None = None
        self._local = local
        self._task_s, self._connect_s = task_s, connect_s
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dask")
        self._client: Any = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand work over; its own exceptions come back, the cluster's do not."""
        return self._thread.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which gives up what is under way. The local workers are their owner's to end."""
        self._closed = True
        self._leave()
        self._thread.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            outcome, value = self._on_cluster(fn, args, kwargs)
        # Whatever a cluster of other people's machines does, training goes on here.
        except Exception as error:
            self._leave()
            if self._closed:
                raise
            address = self.settings.dask_address
            self.problem = f"cluster {address} failed, trained on this machine: {_short(error)}"
            LOG.warning("%s", self.problem)
            return self._local.submit(fn, *args, **kwargs).result()
        if self.problem is not None:
            LOG.info("cluster %s trains again", self.settings.dask_address)
            self.problem = None
        if outcome is not None:
            raise outcome
        return value

    def _on_cluster(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Exception | None, Any]:
        if self._client is None:
            self._client = connect(self.settings, self._connect_s)
        # Not pure: Dask would hash megabytes of history to look for work it has done before.
        future = self._client.get_executor(pure=False, retries=0).submit(_attempt, fn, args, kwargs)
        # In slices: a client that is closed leaves its futures undone.
        give_up = time.monotonic() + self._task_s
        while not future.done() and not self._closed and time.monotonic() < give_up:
            wait([future], _LOOK_S)
        if not future.done():
            # What was given up must not keep a worker of the cluster busy.
            future.cancel()
            raise TimeoutError(f"no answer within {self._task_s:g} s")
        answer: tuple[Exception | None, Any] = future.result()
        return answer

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close(timeout=self._connect_s)
            except Exception as error:  # noqa: BLE001 - it is gone either way
                LOG.info("cluster %s not left in order: %s", self.settings.dask_address, _short(error))


def connect(settings: Forecasting, timeout_s: float = _CONNECT_S) -> Any:
    """A client of the configured scheduler.

    Raises
    ------
    ImportError : if the extra ``dask`` is not installed.
    OSError : if nobody answers there.
    """
    # Here and not above: half a second, and only who has a cluster needs it.
    distributed: Any = import_module("distributed")
    security = None
    if settings.dask_ca_file is not None:
        security = distributed.Security(
            require_encryption=True,
            tls_ca_file=str(settings.dask_ca_file),
            tls_client_cert=str(settings.dask_cert_file),
            tls_client_key=str(settings.dask_key_file),
        )
    return distributed.Client(
        settings.dask_address, timeout=timeout_s, security=security, set_as_default=False, name="tidegate"
    )


def training_workers(settings: Forecasting, local: Executor) -> Executor:
    """Who trains: the cluster if one is configured, else the planner's own workers."""
    return local if settings.dask_address is None else ClusterPool(settings, local)


def _attempt(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Exception | None, Any]:
    """What the work gave or raised: so its exceptions are told from the cluster's."""
    try:
        return None, fn(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - it is raised again at home
        return error, None


def _short(error: BaseException) -> str:
    """One line of an error; some of the cluster's have many."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
