"""A TCP proxy between switches and controller that loses statistics when told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEADER_BYTES = 8
_MULTIPART_REPLY = 19


class Intermediary:
    """Passes OpenFlow on, message by message."""

    def __init__(self, listener: socket.socket, controller_port: int) -> None:
        self.n_lost = 0
        self._losing = threading.Event()
        self._listener = listener
        self._controller_port = controller_port
        self._sockets: list[socket.socket] = [listener]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where switches call."""
        return int(self._listener.getsockname()[1])

    @contextmanager
    def losing_statistics(self) -> Iterator[None]:
        """No answer to a poll comes through while the block runs; all else does."""
        self._losing.set()
        try:
            yield
        finally:
            self._losing.clear()

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                switch, _ = self._listener.accept()
                try:
                    controller = socket.create_connection(("127.0.0.1", self._controller_port), timeout=5)
                except OSError:
                    # The switch will try again.
                    switch.close()
                    continue
                controller.settimeout(None)
                self._sockets += [switch, controller]
                for source, sink, lossy in ((switch, controller, True), (controller, switch, False)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass, args=(source, sink, lossy), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, lossy: bool) -> None:
        with suppress(OSError), source.makefile("rb") as stream:
            while len(header := stream.read(_HEADER_BYTES)) == _HEADER_BYTES:
                body = stream.read(int.from_bytes(header[2:4], "big") - _HEADER_BYTES)
                if lossy and header[1] == _MULTIPART_REPLY and self._losing.is_set():
                    self.n_lost += 1
                    continue
                sink.sendall(header + body)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def standing_between(controller_port: int) -> Iterator[Intermediary]:
    """A proxy to the controller at this port, on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = Intermediary(listener, controller_port)
    try:
        yield proxy
    finally:
        proxy.close()
