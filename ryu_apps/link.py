"""The seam to the planner, as the OpenFlow process sees it: reports go up, the plan comes down.

The planner may be away, slow or new at any moment; nothing here waits for it but the
green threads of this module. What cannot be delivered is dropped and counted: the
next sample is worth more than an old one, and the network is told again.
"""

from __future__ import annotations

import http.client
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from planner.config import Config
from planner.plan import Plan, decode_plan
from planner.seam_auth import ANSWER_HEADER, REQUEST_HEADER, SPEAKER_HEADER, NotAuthentic, check_seal, sign
from planner.secret import read_or_make
from ryu_apps.framework import hub

LOG = logging.getLogger("tidegate.link")

#: How long the planner may hold a request for the plan open.
_LONG_POLL_S: Final = 20.0
_UPLOAD_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 1.0
#: Where the network is told.
NETWORK_PATH: Final = "/v1/network"
#: Messages kept while the planner is away.
_BACKLOG: Final = 256


class PlannerAwayError(Exception):
    """The planner did not answer."""


@dataclass
class Connection:
    """One kept-alive HTTP connection to the planner, opened anew after any failure."""

    url: str
    secret: str
    timeout_s: float
    speaker: str = ""
    _http: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of the answer. Raises PlannerAwayError."""
        try:
            if self._http is None:
                parts = urlsplit(self.url)
                self._http = http.client.HTTPConnection(
                    parts.hostname or "127.0.0.1", parts.port or 80, timeout=self.timeout_s
                )
            signature, nonce = sign(self.secret, method, path, self.speaker, body or b"", time.time())
            headers = {
                REQUEST_HEADER: signature,
                "Content-Type": "application/msgpack",
                SPEAKER_HEADER: self.speaker,
            }
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise PlannerAwayError(f"{self.url}{path} must answer, got {error!r}") from None
        if response.status >= http.client.BAD_REQUEST and response.status != http.client.UNPROCESSABLE_ENTITY:
            self.close()
            raise PlannerAwayError(f"{self.url}{path} must answer 200, got {response.status}")
        try:
            # Also a refusal: who is no planner must not make us drop what the planner should have.
            check_seal(self.secret, nonce, response.status, answer, response.headers.get(ANSWER_HEADER))
        except NotAuthentic as error:
            self.close()
            raise PlannerAwayError(f"{self.url}{path}: {error}") from None
        if response.status == http.client.UNPROCESSABLE_ENTITY:
            # Sending it again would be refused again.
            LOG.error("planner refused %s: %s", path, answer[:200].decode(errors="replace"))
            return b""
        return answer

    def close(self) -> None:
        """Give the connection up."""
        if self._http is not None:
            self._http.close()
            self._http = None


@dataclass
class PlannerLink:
    """Both directions of the seam, and the planner itself where it is this process's child."""

    config: Config
    config_path: Path
    #: Names this process to the planner.
    speaker: str
    #: Called with each new plan.
    on_plan: Callable[[Plan], None]
    #: Called with the network version that the planner says it knows of this process.
    on_known_network: Callable[[int], None]
    dropped: int = 0
    _outbox: list[tuple[str, bytes]] = field(default_factory=list)
    _filled: Any = field(default_factory=hub.Event)
    _child: subprocess.Popen[bytes] | None = None
    _stopping: bool = False
    _plan: Plan | None = None
    _away_since: float | None = None

    def start(self) -> None:
        """Start the green threads, and the child where no planner is configured."""
        self._secret = read_or_make(self.config.planner.secret_file)
        self._url = self.config.planner.url or f"http://{self.config.planner.host}:{self.config.planner.port}"
        if self.config.planner.url is None:
            hub.spawn(self._forever, self._keep_child)
        hub.spawn(self._forever, self._upload)
        hub.spawn(self._forever, self._download)

    def stop(self) -> None:
        """End the child; called when this process ends."""
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def send(self, path: str, body: bytes) -> None:
        """Queue a report; the oldest is dropped when too many wait.

        A network that still waits is replaced: only the newest is worth sending.
        """
        if path == NETWORK_PATH:
            # Not the first: it may be under way.
            self._outbox[1:] = [message for message in self._outbox[1:] if message[0] != path]
        if len(self._outbox) >= _BACKLOG:
            del self._outbox[0]
            self.dropped += 1
        self._outbox.append((path, body))
        self._filled.set()

    def _forever(self, loop: Callable[[], None]) -> None:
        """A dead thread must not look like a quiet planner."""
        while not self._stopping:
            try:
                loop()
            except Exception:
                LOG.exception("%s failed, starting it again", loop.__name__)
                hub.sleep(_RETRY_S)

    def _upload(self) -> None:
        connection = Connection(self._url, self._secret, _UPLOAD_TIMEOUT_S, self.speaker)
        while True:
            while not self._outbox:
                self._filled.clear()
                self._filled.wait()
            path, body = self._outbox[0]
            try:
                answer = connection.request("POST", path, body)
            except PlannerAwayError as error:
                self._report_away(error)
                hub.sleep(_RETRY_S)
                continue
            if self._outbox and self._outbox[0][1] is body:
                del self._outbox[0]
            self._report_back()
            # A planner that has just started knows of none, and says -1.
            if answer.removeprefix(b"-").isdigit():
                self.on_known_network(int(answer))

    def _download(self) -> None:
        connection = Connection(self._url, self._secret, _LONG_POLL_S + _UPLOAD_TIMEOUT_S)
        while True:
            version, layout = (self._plan.version, self._plan.layout_version) if self._plan else (-1, -1)
            path = f"/v1/plan?after={version}&layout={layout}&wait_s={_LONG_POLL_S:g}"
            try:
                body = connection.request("GET", path)
                if body:
                    self._plan = decode_plan(body, self._plan)
                    self.on_plan(self._plan)
            except PlannerAwayError as error:
                self._report_away(error)
                hub.sleep(_RETRY_S)
            except ValueError:
                LOG.exception("plan not understood; asking for the whole of it")
                self._plan = None
                hub.sleep(_RETRY_S)

    def _report_away(self, error: PlannerAwayError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            LOG.warning("planner away, switches keep their meters: %s", error)

    def _report_back(self) -> None:
        if self._away_since is not None:
            LOG.info("planner back after %.1f s", time.monotonic() - self._away_since)
            self._away_since = None

    def _keep_child(self) -> None:
        """Start the planner, and start it again whenever it ends."""
        command = [
            sys.executable, "-m", "northbound", "run",
            "--config", str(self.config_path), "--parent-pid", str(os.getpid()),
        ]  # fmt: skip
        while not self._stopping:
            LOG.info("starting the planner: %s", " ".join(command))
            child = self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            while child.poll() is None:
                hub.sleep(0.2)
            LOG.log(
                logging.INFO if self._stopping else logging.ERROR,
                "planner (pid %d) ended with status %s",
                child.pid,
                child.returncode,
            )
            hub.sleep(_RETRY_S)
