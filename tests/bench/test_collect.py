"""The decoding benchmark measures what it says it measures."""

import json

import numpy as np
import pytest

from bench import collect
from ryu_apps import framework


@pytest.mark.parametrize("mixed", [False, True])
def test_entries_are_of_one_length_or_of_many(mixed):
    """The uniform case has one match shape, the mixed one several in no regular order."""
    lengths = [len(tail) for tail in collect.entry_tails(50, mixed)]
    assert (len(set(lengths)) > 2) == mixed


def test_messages_are_split_as_a_switch_splits_them():
    """No message is longer than 64 KiB, all but the last say that more follow, and no entry is lost."""
    messages = collect.make_messages(collect.make_entries(1_500, mixed=True))
    assert len(messages) > 1
    assert all(len(raw) <= 65535 for raw in messages)
    stats = collect.decode_wired(framework.offline_datapath(), messages)
    assert (stats.cookie >> np.uint64(32) & np.uint64(0xFFFFFFF)).tolist() == list(range(1_500))


def test_a_difference_to_ryu_stops_the_benchmark():
    """A fast wrong answer must not become a figure."""
    datapath = framework.offline_datapath()
    messages = collect.make_messages(collect.make_entries(20, mixed=True))
    ryus = collect.decode_by_ryu(datapath, messages)
    stats = collect.decode_wired(datapath, messages)
    collect.check_equal(stats, ryus)
    ryus[3].byte_count += 1
    with pytest.raises(AssertionError, match="byte_count"):
        collect.check_equal(stats, ryus)


def test_the_result_has_the_keys_others_read(tmp_path, monkeypatch, capsys):
    """One JSON file, progress on standard error, nothing else on standard output."""
    monkeypatch.setattr(collect, "SIZES", (1_000,))
    out = tmp_path / "out.json"
    assert collect.main(["--json", str(out)]) == 0
    cases = json.loads(out.read_text())["cases"]
    assert [(case["entries"], case["mixed"]) for case in cases] == [(1_000, False), (1_000, True)]
    wanted = {"entries", "mixed", "ours_per_s", "ryu_per_s", "ratio", "wired_per_s", "wired_ratio"}
    assert all(wanted <= case.keys() for case in cases)
    assert all(case["ratio"] > 1 for case in cases)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1,000 uniform" in printed.err
    assert collect.main(["--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["entries"] == 1_000
