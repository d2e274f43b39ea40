"""The batch that crosses the seam: what goes in comes out, anything else is a ValueError."""

from __future__ import annotations

import contextlib
import math
from dataclasses import fields
from datetime import UTC
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.samples import (
    CENSORED,
    GAP,
    EdgeSamples,
    MeterSamples,
    PortSamples,
    SampleBatch,
    decode_batch,
    encode_batch,
)

PARTS = ("meters", "edges", "ports")


def a_batch() -> SampleBatch:
    return SampleBatch(
        dpid=2**64 - 1,
        time=1.7e9 + 0.25,
        meters=MeterSamples(
            np.array([1, 2], np.uint32),
            np.array([5.0, 5.1]),
            np.array([1e6, math.nan]),
            np.array([0.0, math.nan]),
            np.array([CENSORED, GAP], np.uint8),
        ),
        edges=EdgeSamples(
            np.array([0], np.uint32),
            np.array([1], np.uint32),
            np.array([0], np.uint32),
            np.array([5.0]),
            np.array([8e3]),
        ),
        ports=PortSamples(np.array([7], np.uint32), *(np.array([x]) for x in (5.0, 1.0, 2.0, 0.0))),
        endpoints=("00:00:00:00:00:01", "00:00:00:00:00:02"),
        lost_polls=3,
    )


def assert_equal(one: SampleBatch, other: SampleBatch) -> None:
    for name in ("dpid", "time", "endpoints", "lost_polls"):
        assert getattr(one, name) == getattr(other, name)
    for part in PARTS:
        for column in fields(getattr(one, part)):
            mine, theirs = (getattr(getattr(batch, part), column.name) for batch in (one, other))
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


def packed(**changes: Any) -> bytes:
    """A good batch's map with some entries replaced; None takes an entry away."""
    raw = msgpack.unpackb(encode_batch(a_batch()))
    raw.update(changes)
    body: bytes = msgpack.packb({name: value for name, value in raw.items() if value is not None})
    return body


@pytest.mark.parametrize("batch", [a_batch(), SampleBatch(dpid=1, time=0.0)], ids=["full", "empty"])
def test_what_is_encoded_comes_back(batch: SampleBatch) -> None:
    """Values, gaps and types survive; empty columns too."""
    assert_equal(decode_batch(encode_batch(batch)), batch)


def test_what_a_later_version_adds_is_ignored() -> None:
    """An older planner still reads a newer sensor."""
    assert_equal(decode_batch(packed(serial="x")), a_batch())


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, "1", True, [], None])
def test_a_time_that_is_none_is_refused(time: Any) -> None:
    """NaN would poison every comparison behind the seam."""
    with pytest.raises(ValueError, match="time must be a finite number"):
        decode_batch(packed(time=time))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dpid": -1}, "dpid must be a whole number"),
        ({"dpid": "1"}, "dpid must be a whole number"),
        ({"dpid": 1.5}, "dpid must be a whole number"),
        ({"dpid": None}, "dpid must be a whole number"),
        ({"lost_polls": -1}, "lost_polls must be"),
        ({"lost_polls": True}, "lost_polls must be"),
        ({"endpoints": "00:00"}, "endpoints must be a list of strings"),
        ({"endpoints": [1, 2]}, "endpoints must be a list of strings"),
        ({"endpoints": ["00:00:00:00:00:01"]}, "edges must index the 1 endpoints"),
        ({"meters": None}, "meters must be a map of columns, got NoneType"),
        ({"meters": []}, "meters must be a map of columns, got list"),
        ({"meters": {}}, "meters.meter_id must be bytes, got NoneType"),
        ({"ports": 5}, "ports must be a map of columns, got int"),
    ],
)
def test_a_malformed_part_is_named(changes: dict[str, Any], says: str) -> None:
    """The error says which part broke which rule."""
    with pytest.raises(ValueError, match=says):
        decode_batch(packed(**changes))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"123", "meters.interval_s must hold whole values of 8 bytes, got 3 bytes"),
        (b"", "meters must have columns of one length"),
        ("12345678", "meters.interval_s must be bytes, got str"),
        (8, "meters.interval_s must be bytes, got int"),
        ([1.0], "meters.interval_s must be bytes, got list"),
    ],
)
def test_a_malformed_column_is_named(value: Any, says: str) -> None:
    """A column is whole values, as many as its neighbours have."""
    meters = {**msgpack.unpackb(encode_batch(a_batch()))["meters"], "interval_s": value}
    with pytest.raises(ValueError, match=says):
        decode_batch(packed(meters=meters))


@settings(max_examples=300)
@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_are_a_value_error(body: bytes) -> None:
    """Nothing else ever comes out of the decoder, whatever is posted."""
    with pytest.raises(ValueError, match=r"must be|not MessagePack"):
        decode_batch(body)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=24)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500)
@given(
    name=st.sampled_from(["dpid", "time", "lost_polls", "endpoints", *PARTS]),
    value=ANYTHING,
    column=st.booleans(),
)
def test_any_value_in_any_place_decodes_or_is_a_value_error(name: str, value: Any, column: bool) -> None:
    """Well-formed MessagePack of the wrong meaning cannot raise anything else."""
    raw = msgpack.unpackb(encode_batch(a_batch()))
    if name in PARTS and column:
        raw[name][next(iter(raw[name]))] = value
    else:
        raw[name] = value
    with contextlib.suppress(ValueError):
        decode_batch(msgpack.packb(raw, datetime=True))


@settings(max_examples=500)
@given(data=st.data())
def test_a_damaged_batch_decodes_or_is_a_value_error(data: st.DataObject) -> None:
    """Cut short or with bytes changed, it is refused or still a batch."""
    body = bytearray(encode_batch(a_batch()))
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    try:
        batch = decode_batch(bytes(body[:cut]))
    except ValueError:
        return
    assert math.isfinite(batch.time)
    assert batch.lost_polls >= 0


def test_deep_nesting_is_a_value_error() -> None:
    """A body made to exhaust the stack does not."""
    with pytest.raises(ValueError, match="sample batch"):
        decode_batch(b"\x91" * 100_000)
