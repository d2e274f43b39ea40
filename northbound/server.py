"""The planner process: the loop, its REST API and its seam, in one asyncio loop until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import uvicorn
from starlette.types import ASGIApp

from northbound.api import create_app
from northbound.http_protocol import PromptProtocol, run_to_end
from northbound.security.desk import Security
from northbound.security.tls import Certificate, certificate_of
from planner.config import Config, load
from planner.secret import read_or_make
from planner.snapshot import Operations

log = logging.getLogger(__name__)

#: A request that is not done this long after the order to stop is cut: the seam's long poll, say.
GRACE_S: Final = 1
#: Above the seconds between two requests of the OpenFlow process: it keeps its connection.
KEEP_ALIVE_S: Final = 75
#: Open at a time, of all clients; more are answered 503.
MAX_CONNECTIONS: Final = 2000


class CannotListen(Exception):
    """An address is taken or not ours. One line: address, port and why."""


class Planner(Protocol):
    """What this process runs besides its two web servers."""

    @property
    def operations(self) -> Operations:
        """What REST shows and asks for."""

    @property
    def seam_app(self) -> ASGIApp:
        """What OpenFlow processes talk to."""

    def start(self) -> None:
        """Begin to plan."""

    def stop(self) -> None:
        """End it, with all that was written stored."""


def run(config_path: Path, parent_pid: int | None = None) -> None:
    """Plan, and serve both apps, until SIGTERM, SIGINT or the end of the parent process.

    Raises
    ------
    ConfigError, SecretError, AuditError, CertificateError, CannotListen, StoreKeyError, StoreError :
        before anything was started.
    """
    # Here and not above: the models it loads would make every `tidegate check` slow.
    from planner.process import PlannerProcess

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It logs each request that clients make of others; the errors we want are logged by us.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = load(config_path)
    # What is made without a mode of its own is the owner's alone: the store's log of changes, say.
    os.umask(0o077)
    token = read_or_make(config.northbound.token_file)
    rest = listen(config.northbound.host, config.northbound.port)
    seam = listen(config.planner.host, config.planner.port)
    # Until the servers take it over, an order to stop ends the start-up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    planner: PlannerProcess | None = None
    try:
        planner = PlannerProcess(config)
        security = Security.of_config(config, token, planner.audit)
        planner.start()
        run_to_end(serve(planner, config, token, rest, seam, parent_pid=parent_pid, security=security))
    except KeyboardInterrupt:
        log.info("stopped before everything was up")
    finally:
        # systemd and ryu-manager may both give the order: the second must not cut short what goes to the disk.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if planner is not None:
            planner.stop()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises CannotListen."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        # A name that does not resolve has a negative number and a text of its own.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}") from None
    # Accepted connections inherit it. asyncio sets it only on sockets made with an explicit
    # protocol, and without it each answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(
    planner: Planner,
    config: Config,
    token: str,
    rest: socket.socket,
    seam: socket.socket,
    *,
    parent_pid: int | None = None,
    announce: Callable[[str], None] | None = None,
    security: Security | None = None,
) -> None:
    """Serve the planner's two apps until told to stop.

    ``announce`` (standard output, if none is given) gets one line once both listen. Without
    ``security``, only ``token`` is known.

    Raises
    ------
    CertificateError : if the REST API is to speak TLS and cannot.
    """
    northbound = config.northbound
    stale_after_s = max(30.0, 4 * config.allocation.tick_s)
    app = create_app(planner.operations, token, stale_after_s=stale_after_s, security=security)
    certificate = certificate_of(northbound) if northbound.by_tls else None
    # Named now: uvicorn closes the sockets at the end.
    ready = f"tidegate planner ready rest={_url(rest, certificate is not None)} seam={_url(seam)}"
    pairs = [(_server(app, certificate), rest), (_server(planner.seam_app), seam)]
    servers = [server for server, _ in pairs]

    def stop() -> None:
        for server in servers:
            # Told twice, it does not wait for open requests.
            server.force_exit = server.should_exit
            server.should_exit = True

    with _cut_in_order(), _told_to_stop(stop), _bound_to(parent_pid, stop):
        tasks = [asyncio.create_task(server.serve([listener])) for server, listener in pairs]
        try:
            while not all(server.started for server in servers) and not any(task.done() for task in tasks):
                await asyncio.sleep(0.01)
            if all(server.started for server in servers):
                (announce or _print)(ready)
            # The first that ends, whyever, ends the other: half a planner helps nobody.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks)


#: How uvicorn begins to tell of requests that it cuts.
_CUT: Final = "Cancel %s running task(s)"


class _Server(uvicorn.Server):
    """A server that leaves signals to us: two of them would take them from one another."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, certificate: Certificate | None = None) -> uvicorn.Server:
    made = uvicorn.Config(
        app,
        http=PromptProtocol,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MAX_CONNECTIONS,
        ssl_certfile=certificate.cert_file if certificate else None,
        ssl_keyfile=certificate.key_file if certificate else None,
    )
    made.load()
    if made.ssl is not None:
        made.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return _Server(made)


class _CutInOrder(logging.Filter):
    """Tells of requests that the end cuts (long polls, streams) as the matter of course that it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is logged as it stands."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            # Nothing but the end cancels a request, and its traceback says no more than that.
            return False
        if str(record.msg).startswith(_CUT):
            log.info("stopping: %s requests were still open and are cut", *(record.args or ("some",)))
            return False
        return True


@contextmanager
def _cut_in_order() -> Iterator[None]:
    logger, told = logging.getLogger("uvicorn.error"), _CutInOrder()
    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)


@contextmanager
def _told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # Not the system's default, which would end the process before the store is closed.
            signal.signal(number, handler)


@contextmanager
def _bound_to(pid: int | None, stop: Callable[[], None]) -> Iterator[None]:
    """Stop when this process ends.

    A process file descriptor becomes readable at once, also when nobody reaps the
    process, and never means a later process of the same number.
    """
    if pid is None:
        yield
        return

    def gone() -> None:
        log.warning("parent process %d is gone: stopping", pid)
        loop.remove_reader(descriptor)
        stop()

    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        log.warning("parent process %d is gone: stopping", pid)
        stop()
        yield
        return
    loop.add_reader(descriptor, gone)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _url(listener: socket.socket, by_tls: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if by_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
