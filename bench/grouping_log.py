"""A recorded log of who talked to whom through the product's pipeline, in the log's own time."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from bench.grouping_pipeline import DEFAULTS, Pipeline, agreement, labels_of
from topology.roles import find_roles
from topology.traffic import TrafficView

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_TIMES: Final = ("time", "hour", "t")
_ENDS: Final = (("client", "server"), ("src", "dst"), ("i", "j"))
_CLASSES: Final = ("ci", "cj")
#: A log that counts packets says nothing of their length.
_BITS_PER_PACKET: Final = 4000.0
#: What the traffic graph can tell apart; rarer ports share the last class.
_MAX_CLASSES: Final = 4096
_ONE_OF: Final = {"communities": "community", "roles": "role"}


@dataclass(frozen=True)
class Log:
    """Rows in order of time. ``src`` and ``dst`` index ``endpoints``; ``app`` is the port's number by use."""

    endpoints: tuple[str, ...]
    time: F64
    src: I64
    dst: I64
    app: I64
    rate_bps: F64
    interval_s: float
    has_ports: bool
    #: The group of each endpoint that the log itself names, -1 for none; None if it names none.
    truth: I64 | None


def read_log(path: Path) -> Log:
    """The log in a Parquet file.

    Raises
    ------
    ValueError : naming the file, if a column that is needed is missing or there are no rows.
    """
    table = pq.read_table(path)
    names = set(table.column_names)
    moment = next((name for name in _TIMES if name in names), None)
    ends = next((pair for pair in _ENDS if names.issuperset(pair)), None)
    if moment is None or ends is None or not len(table):
        raise ValueError(
            f"{path}: must have rows, a time column of {', '.join(_TIMES)}, and the two ends as one of "
            f"{', '.join('/'.join(pair) for pair in _ENDS)}; got {len(table)} rows of {', '.join(table.column_names)}"
        )
    columns = {name: table[name].to_numpy() for name in table.column_names}
    time = columns[moment]
    if np.issubdtype(time.dtype, np.datetime64):
        time = time.astype("datetime64[us]").astype(np.int64) / 1e6
    order = np.argsort(time, kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    time = np.asarray(time, np.float64)[order]
    both = np.concatenate([columns[ends[0]], columns[ends[1]]]).astype(str)
    endpoints, place = np.unique(both, return_inverse=True)
    n = len(time)
    gaps = np.diff(np.unique(time))
    interval_s = float(gaps.min()) if len(gaps) else 1.0
    packets = columns.get("packets")
    bits = _BITS_PER_PACKET * (np.ones(n) if packets is None else packets.astype(np.float64))
    if "bytes" in columns:
        bits = 8.0 * columns["bytes"].astype(np.float64)
    truth = None
    if names.issuperset(_CLASSES):
        classes = np.concatenate([columns[name] for name in _CLASSES]).astype(str)
        truth = np.empty(len(endpoints), np.int64)
        truth[place] = np.unique(classes, return_inverse=True)[1]
    return Log(
        tuple(endpoints.tolist()),
        time,
        place[:n],
        place[n:],
        _classes(columns, n),
        bits / interval_s,
        interval_s,
        "port" in columns,
        truth,
    )


def _classes(columns: dict[str, npt.NDArray[Any]], n: int) -> I64:
    """The application class of each row: protocols and ports numbered by how many rows they have."""
    if "port" not in columns:
        return np.zeros(n, np.int64)
    proto = columns.get("proto", np.zeros(n))
    service = proto.astype(np.int64) << 32 | columns["port"].astype(np.int64)
    _, place, count = np.unique(service, return_inverse=True, return_counts=True)
    rank = np.empty(len(count), np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
    return np.minimum(rank[place], _MAX_CLASSES - 1)


def read_truth(path: Path, endpoints: Sequence[str]) -> I64:
    """The group of each endpoint, shape (n,), from a file of one group a line; -1 for who is in none.

    Raises
    ------
    ValueError : naming file and line, if an endpoint is in two groups.
    """
    group_of: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            for member in (item.strip() for item in line.split(",")):
                if group_of.setdefault(member, number) != number:
                    raise ValueError(f"{path}:{number}: {member} is in the group of line {group_of[member]}")
    return np.array([group_of.get(name, -1) for name in endpoints], np.int64)


def replay(log: Log, pipeline: Pipeline) -> TrafficView:
    """Hand the log to the pipeline as it came, in its own time; the graph at the end."""
    every_s = max(DEFAULTS.every_s, log.interval_s)
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(log.time)) + 1, [len(log.time)]])
    due = float(log.time[0]) + every_s
    for first, last in itertools.pairwise(bounds.tolist()):
        now = float(log.time[first]) + log.interval_s
        while due < now and len(pipeline.graph):
            pipeline.cluster(due)
            due += every_s
        due = max(due, now)
        ids = pipeline.graph.intern(log.endpoints)
        rows = slice(first, last)
        pipeline.graph.observe(
            now, ids[log.src[rows]], ids[log.dst[rows]], log.app[rows], log.rate_bps[rows], log.interval_s
        )
    return pipeline.cluster(due)


def run_log(
    edges: Path, truth: Path | None = None, dump: Path | None = None, half_life_s: float | None = None
) -> dict[str, Any]:
    """Run the pipeline over the log; scores against the truth, if any, and what was found into ``dump``."""
    log = read_log(edges)
    known = log.truth if truth is None else read_truth(truth, log.endpoints)
    # The truth is about the whole log, so by default the graph remembers all of it.
    half_life_s = half_life_s or max(float(np.ptp(log.time)), DEFAULTS.half_life_s)
    # Bits are guessed from packets and averaged over the whole log: no rate is too low to count.
    pipeline = Pipeline(half_life_s, floor_bps=0.0)
    view = replay(log, pipeline)
    communities = (group.members for group in pipeline.tracker.groups())
    partitions = {"communities": _with_singles(communities, log.endpoints)}
    if log.has_ports:
        roles = find_roles(view.endpoints, view.src, view.dst, view.app, view.rate_bps)
        partitions["roles"] = _with_singles(roles.groups(), log.endpoints)
    figures: dict[str, Any] = {
        "edges": edges.name,
        "rows": len(log.time),
        "endpoints": len(log.endpoints),
        "half_life_s": half_life_s,
        "shared_services": sorted(pipeline.found.services()) if pipeline.found else [],
    }
    for kind, groups in partitions.items():
        sizes = [len(members) for members in groups]
        figures[kind] = {"groups": sum(size > 1 for size in sizes), "alone": sizes.count(1)}
        if known is not None:
            figures[kind]["ari"] = round(agreement(known, labels_of(groups, log.endpoints)), 4)
    if dump is not None:
        write_groups(dump, partitions)
    return figures


def write_groups(folder: Path, partitions: dict[str, list[list[str]]]) -> None:
    """One group a line, members parted by commas: a file for each kind, and ``groups.csv`` with all.

    There the first field of each line says the kind, ``community`` or ``role``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_all = []
    for kind, groups in partitions.items():
        lines = [",".join(members) for members in groups]
        (folder / f"{kind}.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        of_all += [f"{_ONE_OF[kind]},{line}\n" for line in lines]
    (folder / "groups.csv").write_text("".join(of_all), encoding="utf-8")


def _with_singles(groups: Iterable[Collection[str]], endpoints: Sequence[str]) -> list[list[str]]:
    """The groups, the largest first, and each endpoint that is in none as a group of its own."""
    listed = sorted((sorted(members) for members in groups), key=lambda members: (-len(members), members))
    grouped = {member for members in listed for member in members}
    return listed + [[name] for name in endpoints if name not in grouped]
