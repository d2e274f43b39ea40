"""The enforcement benchmark measures what it says it measures."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import enforce, enforce_group, enforce_meters, enforce_seam, enforce_traffic
from bench.delay_line import Lane
from bench.wandering_source import sent_by
from mininet_scenarios import leftovers, requirements
from mininet_scenarios.leftovers import Run
from mininet_scenarios.network import build
from planner.config import Allocation, parse
from planner.plan import decode_plan
from planner.report import AppliedReport, NetworkReport, encode_applied, encode_network
from ryu_apps.codec.messages import MeterCommand, meter_mods
from tests.e2e.conftest import ovs

__all__ = ["ovs"]


@pytest.fixture
def run(ovs: None) -> Iterator[Run]:
    """A run of the test's own on real switches."""
    with leftovers.run() as made:
        yield made


def ask(port: int, path: str, body: bytes | None = None) -> bytes:
    """An answer of the stand-in for the planner."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=10) as reply:
        answer: bytes = reply.read()
        return answer


def test_each_plan_changes_every_meter():
    """Half of the rates rise and half fall, so that both orders of sending are measured."""
    one, two = (enforce_seam.flat_plan(version, (1, 2), 100) for version in (7, 8))
    before, after = (plan.meters[2].rate_kbps.astype(int) for plan in (one, two))
    assert (before != after).all()
    assert (after > before).sum() == (after < before).sum() == 50


def test_stand_in_times_until_the_last_switch_holds_the_plan():
    """A plan that one switch does not hold yet, or an old one, does not end the measurement."""
    plan = enforce_seam.flat_plan(2, (1, 2), 3)
    with enforce_seam.serving() as (stand_in, port):

        def speak() -> None:
            assert decode_plan(ask(port, "/v1/plan?after=-1&layout=-1&wait_s=10")).version == 2
            for dpid, version, in_step in ((1, 2, True), (2, 1, True), (2, 2, False)):
                ask(port, "/v1/applied", encode_applied(AppliedReport("s", dpid, version, in_step, 3, 0)))
            told.wait(10)
            ask(port, "/v1/applied", encode_applied(AppliedReport("s", 2, 2, True, 3, 0)))

        told = threading.Event()
        speaker = threading.Thread(target=speak)
        speaker.start()
        threading.Timer(0.3, told.set).start()
        assert stand_in.seconds_until_read_back(plan) >= 0.2
        speaker.join()
        assert ask(port, "/v1/network", encode_network(NetworkReport("s", 9))) == b"9"
        assert ask(port, "/v1/plan?after=2&layout=1&wait_s=0") == b""


def test_bursts_are_the_planners():
    """The meters of the measurement are set as the planner would set a user's, its group's and its region's."""
    assert enforce_traffic.bursts_kbit(10, Allocation()) == [2500, 5000, 10000]
    assert enforce_traffic.bursts_kbit(10, Allocation(rtt_ms=20)) == [1000, 2000, 4000]


class _End:
    """A socket's place."""

    def __init__(self, *frames: tuple[bytes, int]) -> None:
        self.frames, self.sent = list(frames), list[bytes]()

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[str, int, int]]:
        if not self.frames:
            raise BlockingIOError
        frame, kind = self.frames.pop(0)
        return frame, ("", 0, kind)

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)


def test_wire_delivers_in_order_and_not_before_the_time():
    """What the wire itself sent is not carried back."""
    source, sink = _End((b"first", 0), (b"own", 4), (b"second", 3)), _End()
    lane = Lane(source, sink, delay_s=5)  # type: ignore[arg-type]
    assert lane.next_due == float("inf")
    lane.take()
    lane.pass_on(lane.next_due - 1e-3)
    assert sink.sent == []
    lane.pass_on(lane.next_due + 1)
    assert sink.sent == [b"first", b"second"]


@pytest.mark.parametrize("phase", [0.0, 0.125, 0.5, 0.9])
def test_wandering_source_sends_its_mean_and_never_takes_back(phase: float):
    """Over a whole period the mean, in between from a tenth to nineteen tenths of it."""
    assert sent_by(60, 2e6, 60, phase) == pytest.approx(2e6 * 60)
    sent = np.array([sent_by(second, 2e6, 60, phase) for second in range(61)])
    rate = np.diff(sent)
    assert rate.min() == pytest.approx(0.1 * 2e6, rel=0.1)
    assert rate.max() == pytest.approx(1.9 * 2e6, rel=0.01)


def test_all_sources_together_offer_the_same_at_any_time():
    """Load wanders between the switches and does not come or go."""
    phases = [number / enforce_group.N_SWITCHES for number in range(enforce_group.N_SWITCHES)]
    sent = [sum(sent_by(second, 2e6, 60, phase) for phase in phases) for second in range(61)]
    assert np.diff(sent) == pytest.approx(8 * 2e6)


def test_group_of_the_measurement_is_one_that_the_planner_takes():
    """Its users are on eight switches, and the file is one that the controller would load."""
    spec = enforce_group.star()
    config = parse(enforce_group.configuration(spec, 8080, 8650))
    assert len({spec.hosts[user].switch for user in config.groups["crew"].members}) == 8


@pytest.mark.e2e
@pytest.mark.timeout(60)
def test_both_ways_of_writing_meters_end_in_the_same_meters(run: Run):
    """The comparison is fair only if both read back what they wrote; here on a real switch."""
    with (
        build(enforce_seam.switches_only(1), None, run) as net,
        enforce_meters.connected(net.bridge("n1")) as connection,
    ):
        assert enforce_meters.bulk(connection, 300)["equal"] is True
        assert enforce_meters.by_ryu(connection, 300)["equal"] is True
        # There is none of them any more to be modified.
        connection.send(meter_mods(MeterCommand.MODIFY, 7, 1000, 250, 1))
        with pytest.raises(RuntimeError, match="must take the messages"):
            connection.barrier()


@pytest.mark.e2e
@pytest.mark.timeout(60)
@pytest.mark.parametrize("limit", [enforce_traffic.metered, enforce_traffic.token_bucket])
def test_udp_is_held_to_its_grant_by_meter_and_by_token_bucket(run: Run, limit: enforce_traffic.Limit):
    """Both offered 1.2 times the grant; what arrives is the grant, and the first burst on top of it."""
    with enforce_traffic.pairs_of_hosts(run) as net:
        (flow,) = enforce_traffic.udp(net, [(10.0, 1400)], 2, limit)
    assert flow.offered_over_granted == pytest.approx(1.2, rel=0.1)
    assert flow.achieved_over_granted == pytest.approx(1, rel=0.05)
    assert flow.from_the_start is not None
    assert flow.from_the_start > flow.achieved_over_granted


def test_result_has_the_keys_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One JSON file with every part; the parts themselves are measured elsewhere."""
    monkeypatch.setattr(enforce, "run_all", lambda quick: {"quick": quick, "rate": np.float64(1)})
    monkeypatch.setattr(requirements, "missing", list)
    out = tmp_path / "out.json"
    assert enforce.main(["--json", str(out), "--quick"]) == 0
    assert json.loads(out.read_text()) == {"quick": True, "rate": 1}


def test_machine_without_switches_is_told_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No file is written and the status says that it failed."""
    monkeypatch.setattr(requirements, "missing", lambda: ["root (the user id is 7)"])
    assert enforce.main(["--json", str(tmp_path / "out.json")]) == 1
    assert "real switches need root (the user id is 7)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
