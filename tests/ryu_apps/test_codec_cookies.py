"""Cookies and the digest of an entry's content."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_apps.cookies import (
    KIND_MASK,
    SERIES_MASK,
    Kind,
    content_digest,
    pack_cookie,
    pack_cookies,
    unpack_cookie,
    unpack_cookies,
)

PARTS = st.tuples(st.integers(1, 15), st.integers(0, 2**28 - 1), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(st.lists(PARTS, max_size=20))
def test_a_cookie_gives_back_its_parts_one_by_one_and_in_columns(parts):
    """Packing and unpacking are inverse, and the vectorised forms equal the plain ones."""
    single = [pack_cookie(*part) for part in parts]
    columns = np.array(parts, np.int64).reshape(-1, 3).T
    packed = pack_cookies(*columns)
    assert packed.dtype == np.uint64
    assert packed.tolist() == single
    assert [unpack_cookie(cookie) for cookie in single] == parts
    apart = unpack_cookies(packed)
    assert list(zip(apart.kind.tolist(), apart.series.tolist(), apart.digest.tolist(), strict=True)) == parts


def test_the_layout_is_what_running_switches_hold():
    """The bits are an interface between one start of Tidegate and the next."""
    assert pack_cookie(Kind.ACCOUNTING, 0x1234567, 0x89ABCDEF) == 0x6123_4567_89AB_CDEF
    assert KIND_MASK == 0xF000_0000_0000_0000
    assert SERIES_MASK == 0xFFFF_FFFF_0000_0000
    assert [kind.value for kind in Kind] == list(range(1, len(Kind) + 1))


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ((0, 0, 0), "cookie kind must be in 1..15, got 0"),
        ((16, 0, 0), "cookie kind must be in"),
        ((1, 2**28, 0), "cookie series must be in 0..268435455, got 268435456"),
        ((1, 0, -1), "cookie digest must be in"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part, complaint):
    """A series that overflowed into the kind would bill one user's bytes to another."""
    with pytest.raises(ValueError, match=complaint):
        pack_cookie(*part)
    with pytest.raises(ValueError, match=complaint):
        pack_cookies(*([value] for value in part))


def test_each_part_of_an_entry_changes_its_digest():
    """Table, priority, match, instructions and the border between the latter two all count."""
    contents = [
        (0, 1, b"ab", b"c"), (1, 1, b"ab", b"c"), (0, 2, b"ab", b"c"), (0, 1, b"a", b"bc"), (0, 1, b"ab", b"d"),
    ]  # fmt: skip
    assert len({content_digest(*content) for content in contents}) == len(contents)


def test_the_digest_is_the_same_in_another_process():
    """What an earlier start wrote into the switches is compared with what this one wants."""
    code = (
        "from ryu_apps.cookies import content_digest; print(content_digest(3, 40, b'match', b'instructions'))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == content_digest(3, 40, b"match", b"instructions") == 332749047
