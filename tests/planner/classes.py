"""A running planner whose users speak several applications."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.plan import Plan
from telemetry.samples import EdgeSamples
from tests.planner.networks import AtOnce, Running, mac_of, samples, small

#: By the index that accounts carry.
APPLICATIONS = {
    "web": [{"protocol": "tcp", "ports": ["443"]}],
    "backup": [{"protocol": "tcp", "ports": ["873"]}],
}
OTHER, WEB, BACKUP = range(3)


class Speaking(Running):
    """Users that send to one another; what they offer is what they send."""

    def __init__(self, executor: Any = None, **blocks: Any) -> None:
        super().__init__(small(applications=APPLICATIONS, **blocks), executor or AtOnce())
        #: (sender, receiver, class): bit/s.
        self.sent: dict[tuple[str, str, int], float] = {}
        self.deaf = False
        self.connect()
        self.tick()

    def rate(self, path: str, direction: int) -> float:
        """What a user sends, or is sent."""
        user = path.rpartition("/")[2]
        return sum(rate for pair, rate in self.sent.items() if pair[direction] == user)

    def tick(self, seconds: float = 5.0, count: int = 1) -> Plan:
        """As ``Running.tick``, with an account of who sent to whom; none of it while deaf."""
        macs = tuple(mac_of(self.config, user) for user in self.config.users)
        number = {user: at for at, user in enumerate(self.config.users)}
        for _ in range(count):
            self.now += seconds
            rows = [(number[one], number[two], app, rate) for (one, two, app), rate in self.sent.items()]
            columns = np.array([] if self.deaf else rows, np.float64).reshape(-1, 4)
            src, dst, app = columns[:, :3].T.astype(np.uint32)
            edges = EdgeSamples(src, dst, app, np.full(len(columns), 5.0), columns[:, 3])
            plan = self.planner.snapshot.plan
            for at, dpid in enumerate(plan.layouts):
                # Which switch counts is nobody's concern here: one tells all.
                told, ends = (edges, macs) if at == 0 else (None, ())
                self.planner.ingest(
                    samples(
                        plan, dpid, self.now, self.rate, censored=self.censored, edges=told, endpoints=ends
                    )
                )
            plan = self.planner.tick(self.now)
        return plan
