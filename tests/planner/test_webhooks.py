"""Webhooks against a real server: signed, tried again, put aside, and never in anybody's way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.config import parse
from planner.config_faults import ConfigError
from planner.config_remediation import Webhook
from planner.secret import SecretError
from planner.snapshot import NotThere
from planner.webhook_channel import LONGEST_PAUSE_S, key_of, pause_s, signature
from planner.webhooks import Webhooks
from tests.planner.receiver import Receiver, receiving, wait_for

NOW = 1_000_000.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    file.chmod(0o600)
    return file


class Started:
    """Webhooks that are stopped at the end of the test."""

    def __init__(self) -> None:
        self.all: list[Webhooks] = []

    def __call__(self, *hooks: Webhook, start: bool = True) -> Webhooks:
        made = Webhooks(hooks, pause=lambda attempts: 0.001)
        self.all.append(made)
        if start:
            made.start()
        return made


@pytest.fixture
def started() -> Iterator[Started]:
    made = Started()
    yield made
    for one in made.all:
        one.stop()


def test_messages_are_signed_as_receivers_check_them(receiver: Receiver, secret: Path, started: Started):
    """Id, timestamp and HMAC-SHA256 over both and the body; the secret itself is nowhere."""
    started(Webhook(url=receiver.url, secret_file=secret)).send("alarm", {"id": 7}, NOW)
    wait_for(lambda: len(receiver.got) == 1, "the message")
    (got,) = receiver.got
    assert got.message == {"type": "tidegate.alarm", "timestamp": NOW, "data": {"id": 7}}
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.{got.body}".encode()
    digest = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert secret.read_text() not in str(got)


def test_signature_is_that_of_the_specification():
    """The example of the Standard Webhooks libraries."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (
        signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )
    assert key_of("whsec_not base64") == b"whsec_not base64"


def test_failures_are_tried_again_until_it_is_taken(receiver: Receiver, secret: Path, started: Started):
    """The same id and body each time, so that a receiver can tell that it is one message."""
    receiver.statuses = [500, 503, 429]
    hooks = started(Webhook(url=receiver.url, secret_file=secret))
    hooks.send("scaling", {"place": "global/west"}, NOW)
    wait_for(lambda: hooks.view()[0].delivered == 1, "the fourth try")
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1
    (view,) = hooks.view()
    assert (len(receiver.got), view.failed, view.waiting, view.dead, view.error) == (4, 3, 0, 0, "")
    assert view.last_success is not None


def test_after_the_last_try_it_is_put_aside_and_can_be_tried_again(
    receiver: Receiver, secret: Path, started: Started
):
    """A dead letter says what went wrong; by order it is sent once more, under its old id."""
    receiver.statuses = [500, 500]
    hooks = started(Webhook(url=receiver.url, secret_file=secret, attempts=2))
    hooks.send("alarm", {}, NOW)
    wait_for(lambda: len(hooks.dead_letters()) == 1, "the dead letter")
    (letter,) = hooks.dead_letters()
    assert (letter.event, letter.time, letter.attempts) == ("alarm", NOW, 2)
    assert letter.error == "must answer 2xx, got 500"
    assert "secret-path" not in str(letter)
    hooks.retry(letter.id)
    wait_for(lambda: hooks.view()[0].delivered == 1, "the retry")
    assert receiver.got[-1].headers["webhook-id"] == letter.id
    assert hooks.dead_letters() == ()
    with pytest.raises(NotThere, match="letterID must be the id of a dead letter"):
        hooks.retry(letter.id)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 410])
def test_what_is_final_is_not_tried_again(receiver: Receiver, secret: Path, started: Started, status: int):
    """A redirect is not followed either: a signature is for the server that was configured."""
    receiver.statuses, receiver.location = [status], f"http://127.0.0.1:{receiver.port}/elsewhere"
    hooks = started(Webhook(url=receiver.url, secret_file=secret))
    hooks.send("alarm", {}, NOW)
    wait_for(lambda: len(hooks.dead_letters()) == 1, "the dead letter")
    assert [got.path for got in receiver.got] == ["/hook/secret-path"]
    assert hooks.dead_letters()[0].error == f"must answer 2xx, got {status}"


def test_a_server_that_hangs_delays_nobody(receiver: Receiver, secret: Path, started: Started):
    """Sending only queues; the other webhook has its message while the first still hangs, and it times out."""
    receiver.hanging.set()
    with receiving() as other:
        hooks = started(
            Webhook(url=receiver.url, secret_file=secret, timeout_s=0.2, attempts=1),
            Webhook(url=other.url, secret_file=secret),
        )
        hooks.send("alarm", {}, NOW)
        wait_for(lambda: hooks.view()[1].delivered == 1, "the other's message")
        wait_for(lambda: len(hooks.dead_letters()) == 1, "the time-out")
    assert hooks.dead_letters()[0].error == "ReadTimeout"


def test_nobody_there_is_a_dead_letter_without_the_url(secret: Path, started: Started):
    """A refused connection names the kind of error and not the path."""
    with receiving() as gone:
        url = gone.url
    hooks = started(Webhook(url=url, secret_file=secret, attempts=2))
    hooks.send("alarm", {}, NOW)
    wait_for(lambda: len(hooks.dead_letters()) == 1, "the dead letter")
    (letter,) = hooks.dead_letters()
    assert (letter.error, letter.attempts) == ("ConnectError", 2)
    assert letter.address.endswith("/...")


def test_each_is_told_what_it_asked_for(receiver: Receiver, secret: Path, started: Started):
    """And nothing else."""
    hooks = started(Webhook(url=receiver.url, secret_file=secret, events=("scaling",)))
    hooks.send("alarm", {}, NOW)
    hooks.send("scaling", {}, NOW)
    wait_for(lambda: hooks.view()[0].delivered == 1, "the message")
    assert [got.message["type"] for got in receiver.got] == ["tidegate.scaling"]


def test_a_full_queue_puts_the_oldest_aside(receiver: Receiver, secret: Path, started: Started):
    """The newest say most; what had no room is kept where somebody can see it."""
    hooks = started(Webhook(url=receiver.url, secret_file=secret, queue=3), start=False)
    for at in range(5):
        hooks.send("alarm", {"at": at}, NOW + at)
    assert hooks.view()[0].waiting == 3
    assert [(one.time - NOW, one.error) for one in hooks.dead_letters()] == [
        (0, "the queue was full"), (1, "the queue was full"),
    ]  # fmt: skip
    hooks.start()
    wait_for(lambda: hooks.view()[0].delivered == 3, "the others")
    assert [one["at"] for one in receiver.messages("alarm")] == [2, 3, 4]


def test_what_waits_and_what_is_dead_outlives_a_restart(receiver: Receiver, secret: Path, started: Started):
    """For the URLs that are still configured; the state has neither secrets nor URLs."""
    hook = Webhook(url=receiver.url, secret_file=secret, queue=1)
    first = started(hook, start=False)
    first.send("alarm", {"at": 0}, NOW)
    first.send("alarm", {"at": 1}, NOW + 1)
    state = first.state()
    assert b"secret-path" not in state
    assert b"whsec" not in state
    other = started(Webhook(url=receiver.url + "/other", secret_file=secret), start=False)
    other.restore(state)
    assert (other.view()[0].waiting, other.dead_letters()) == (0, ())
    second = started(hook, start=False)
    second.restore(state)
    assert second.dead_letters() == first.dead_letters()
    second.start()
    wait_for(lambda: second.view()[0].delivered == 1, "the message of before")
    assert receiver.messages("alarm") == [{"at": 1}]
    with pytest.raises(ValueError, match="bytes are no webhooks' state"):
        second.restore(b'{"a": 1}')


def test_sending_from_many_threads_loses_nothing(receiver: Receiver, secret: Path, started: Started):
    """Each message once."""
    hooks = started(Webhook(url=receiver.url, secret_file=secret))

    def send(first: int) -> None:
        for at in range(first, first + 10):
            hooks.send("alarm", {"at": at}, NOW)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    wait_for(lambda: hooks.view()[0].delivered == 40, "forty messages")
    assert sorted(one["at"] for one in receiver.messages("alarm")) == list(range(40))


def test_pauses_grow_and_are_never_in_step():
    """Doubled each time up to a limit, and drawn between half and the whole."""
    whole = [pause_s(attempts, lambda: 1.0) for attempts in range(1, 40)]
    assert whole[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(whole) == whole[-1] == LONGEST_PAUSE_S
    assert [pause_s(attempts, lambda: 0.0) for attempts in (1, 39)] == [1.0, LONGEST_PAUSE_S / 2]


def test_a_secret_that_others_can_read_is_refused(secret: Path):
    """And one that is not there is made."""
    secret.chmod(0o644)
    with pytest.raises(SecretError, match="readable by its owner alone"):
        Webhooks([Webhook(url="https://a.example/x", secret_file=secret)])
    made = secret.with_name("new")
    Webhooks([Webhook(url="https://a.example/x", secret_file=made)])
    assert made.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://a.example/x", "webhooks.0.url must be https unless it is on loopback, got scheme 'http'"),
        ("ftp://a.example/x", "webhooks.0.url must be like https://host/path, got scheme 'ftp'"),
        ("https:///x", "webhooks.0.url must be like https://host/path, got scheme 'https'"),
        ("https://me:word@a.example/x", "webhooks.0.url must not hold a user or password"),
        ("https://a.example:port/x", "webhooks.0.url must be a URL"),
    ],
)
def test_urls_that_would_leak_are_refused(url: str, fault: str):
    """Without showing them."""
    raw = {
        "capacity_mbps": 1,
        "regions": {"r": {"dpids": [1], "capacity_mbps": 1}},
        "webhooks": [{"url": url, "secret_file": "x"}],
    }
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    assert caught.value.faults == [fault]
