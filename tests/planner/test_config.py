"""The configuration file: what is right parses, what is wrong is one line a fault."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from northbound.reference import BLOCKS, renewed
from planner.config import Capacity, Config, Rates, load, parse
from planner.config_faults import ConfigError

ROOT = Path(__file__).parents[2]
BASE = """\
capacity_mbps: 60
regions:
  west: {dpids: [0x11, 0x12], capacity_mbps: 36}
  east: {dpids: [0x21], capacity_mbps: 36}
users:
  anna: {macs: ["00:00:00:00:01:01"], guarantee_mbps: 1, ceiling_mbps: 20}
  ben: {addresses: [10.0.0.2, "fd00::2"]}
groups:
  studio: {members: [anna]}
"""

#: What is wrong, what replaces what in BASE (or stands below it), and the line that tells it.
BAD: list[tuple[str, str, str, str]] = [
    ("unknown block", "", "regoins: {}", "regoins is not a known key, got a mapping"),
    ("unknown key", "{members: [anna]}", "{members: [anna], wieght: 2}", "groups.studio.wieght is not a known key, got 2"),
    ("deep unknown key", "", "allocation: {buffer: {max: 0.1}}", "allocation.buffer.max is not a known key, got 0.1"),
    ("no capacity", "capacity_mbps: 60\n", "", "capacity_mbps must be given"),
    ("no regions", BASE[BASE.index("regions") : BASE.index("users")], "regions: {}\n", "regions must have at least 1 entries, got a mapping"),
    ("unit in the value", "capacity_mbps: 60", "capacity_mbps: 60M", "capacity_mbps must be a number, got '60M'"),
    ("bit/s for Mbit/s", "capacity_mbps: 60", "capacity_mbps: 60000000", "capacity_mbps must be <= 10000000, got 60000000"),
    ("negative rate", "capacity_mbps: 36}\n  east", "capacity_mbps: -5}\n  east", "regions.west.capacity_mbps must be > 0, got -5"),
    ("one direction", "capacity_mbps: 60", "capacity_mbps: {up: 60}", "capacity_mbps.down must be given"),
    ("negative in one direction", "guarantee_mbps: 1,", "guarantee_mbps: {up: 1, down: -1},", "users.anna.guarantee_mbps.down must be >= 0, got -1"),
    ("truth for a rate", "capacity_mbps: 60", "capacity_mbps: true", "capacity_mbps must be a number, got True"),
    ("no number", "capacity_mbps: 60", "capacity_mbps: .nan", "capacity_mbps must be <= 10000000, got nan"),
    ("endless", "ceiling_mbps: 20", "ceiling_mbps: .inf", "users.anna.ceiling_mbps must be <= 10000000, got inf"),
    ("weight of zero", "ceiling_mbps: 20", "weight: 0", "users.anna.weight must be >= 1e-06, got 0"),
    ("guarantee above ceiling", "ceiling_mbps: 20", "ceiling_mbps: 0.5", "users.anna.guarantee_mbps.up must be <= its ceiling 0.5, got 1"),
    ("guarantees above capacity", "guarantee_mbps: 1", "guarantee_mbps: 61, weight: 2", "users.anna.guarantee_mbps.up must be <= its ceiling 20, got 61"),
    ("capacity below guarantees", "capacity_mbps: 60\n", "capacity_mbps: 0.5\n", "capacity_mbps.up must be >= all guarantees, which sum to 1, got 0.5"),
    ("group's guarantee counts", "{members: [anna]}", "{members: [anna], guarantee_mbps: 70}", "capacity_mbps.up must be >= all guarantees, which sum to 70, got 60"),
    ("group below its members", "{members: [anna]}", "{members: [anna], ceiling_mbps: 0.5}", "groups.studio.ceiling_mbps.up must be >= its members' guarantees, which sum to 1, got 0.5"),
    ("region cannot keep", "capacity_mbps: 36}\n  east", "capacity_mbps: 36, guarantee_mbps: 40}\n  east", "regions.west.guarantee_mbps.up must be <= its capacity 36, got 40"),
    ("regions' guarantees", "capacity_mbps: 36}", "capacity_mbps: 36, guarantee_mbps: 35}", "capacity_mbps.up must be >= the regions' guarantees, which sum to 70, got 60"),
    ("dpid in two regions", "[0x21]", "[0x21, 0x11]", "regions.east.dpids must not overlap regions.west.dpids, got 0000000000000011 in both"),
    ("dpid twice in a region", "[0x21]", "[0x21, 0x21]", "regions.east.dpids must not overlap regions.east.dpids, got 0000000000000021 in both"),
    ("dpid too long", "[0x21]", '["11111111111111111"]', "regions.east.dpids.0 must be a datapath id of at most 16 hexadecimal digits, got '11111111111111111'"),
    ("dpid of nothing", "[0x21]", "[0]", "regions.east.dpids.0 must be a datapath id of 1 to 64 bits, got 0"),
    ("region without switches", "[0x21]", "[]", "regions.east.dpids must have at least 1 entries, got []"),
    ("overlapping addresses", '"fd00::2"]}', '"fd00::2"]}\n  x: {addresses: ["FD00:0::2"]}', "users.x.addresses must not overlap users.ben.addresses, got fd00::2 in both"),
    ("overlapping macs", '"fd00::2"]}', '"fd00::2"]}\n  x: {macs: [00-00-00-00-01-01]}', "users.x.macs must not overlap users.anna.macs, got 00:00:00:00:01:01 in both"),
    ("bad address", "10.0.0.2", "10.0.0.256", "users.ben.addresses.0 must be an IPv4 or IPv6 address, got '10.0.0.256'"),
    ("network for an address", "10.0.0.2", "10.0.0.0/24", "users.ben.addresses.0 must be an IPv4 or IPv6 address, got '10.0.0.0/24'"),
    ("address of many", "10.0.0.2", "224.0.0.1", "users.ben.addresses.0 must be the address of one host, without a zone, got '224.0.0.1'"),
    ("bad mac", "00:00:00:00:01:01", "00:00:00:00:01", "users.anna.macs.0 must be a MAC address such as 00:00:00:00:00:01, got '00:00:00:00:01'"),
    ("multicast mac", "00:00:00:00:01:01", "01:00:00:00:01:01", "users.anna.macs.0 must be a unicast MAC address, got '01:00:00:00:01:01'"),
    ("user without address", 'addresses: [10.0.0.2, "fd00::2"]', "weight: 1", "users.ben must have addresses or macs, got neither"),
    ("member that is none", "members: [anna]", "members: [anna, zoe]", "groups.studio.members must be users, got 'zoe'"),
    ("member of two groups", "{members: [anna]}", "{members: [anna]}\n  other: {members: [anna]}", "groups.other.members must not overlap groups.studio.members, got anna in both"),
    ("reserved group", "studio:", "ungrouped:", "groups.ungrouped must have another name, got the name of the pool of users without a group"),
    ("bad name", "ben:", "ben/home:", "users.ben/home must be a name of letters, digits and . _ @ - (63 at most), got 'ben/home'"),
    ("name that is a number", "ben:", "42:", "users.42.[key] must be text, got 42"),
    ("unknown protocol", "", "applications: {web: [{protocol: tpc}]}", "applications.web.0.protocol must be 'tcp', 'udp', 'sctp' or 'icmp', got 'tpc'"),
    ("ports the wrong way round", "", 'applications: {web: [{protocol: tcp, ports: ["90-80"]}]}', "applications.web.0.ports.0 must be ports from 1 to 65535, the first not above the last, got '90-80'"),
    ("ports of two applications", "", "applications: {a: [{protocol: tcp, ports: [80]}], b: [{protocol: tcp, ports: [70-90]}]}", "applications.b must not overlap applications.a, got tcp 80-80 in both"),
    ("unknown mode", "", "allocation: {mode: dry}", "allocation.mode must be 'live', 'canary' or 'shadow', got 'dry'"),
    ("share above one", "", "allocation: {dead_band: 5}", "allocation.dead_band must be <= 1, got 5"),
    ("buffer upside down", "", "allocation: {buffer: {min_fraction: 0.2}}", "allocation.buffer.min_fraction must be <= max_fraction 0.1, got 0.2"),
    ("seconds with a unit", "", "polling: {interval_s: 5s}", "polling.interval_s must be a number, got '5s'"),
    ("no poll ever", "", "polling: {interval_s: 0}", "polling.interval_s must be > 0, got 0"),
    ("half a step", "", "forecasting: {train_steps: 9.5}", "forecasting.train_steps must be a whole number, got 9.5"),
    ("quantiles that fall", "", "forecasting: {quantiles: [0.9, 0.5, 0.1]}", "forecasting.quantiles must rise, got [0.9, 0.5, 0.1]"),
    ("no median", "", "forecasting: {quantiles: [0.1, 0.4, 0.9]}", "forecasting.quantiles must hold 0.5 and 0.9, got [0.1, 0.4, 0.9]"),
    ("cluster that is no address", "", "forecasting: {dask_address: scheduler}", "forecasting.dask_address must be like tls://HOST:PORT, got 'scheduler'"),
    ("cluster far away in the clear", "", "forecasting: {dask_address: tcp://10.0.0.9:8786}", "forecasting.dask_address must be tls:// unless the scheduler is on loopback, got 'tcp://10.0.0.9:8786'"),
    ("cluster without a key", "", "forecasting: {dask_address: tls://dask.example:8786, dask_ca_file: ca.pem, dask_cert_file: c.pem}", "forecasting.dask_key_file must be given with tls://dask.example:8786, got none"),
    ("quantile of certainty", "", "forecasting: {quantiles: [0.5, 0.9, 1]}", "forecasting.quantiles.2 must be < 1, got 1"),
    ("open to the world", "", "planner: {host: 0.0.0.0}", "planner.host must be a loopback address, got '0.0.0.0'"),
    ("port too high", "", "northbound: {port: 65536}", "northbound.port must be <= 65535, got 65536"),
    ("one port for two", "", "planner: {port: 8080}", "planner.port must not be northbound.port, got 8080 in both"),
    ("one file for two", "", "planner: {secret_file: var/token}", "planner.secret_file must not overlap northbound.token_file, got var/token in both"),
    ("address for a URL", "", "planner: {url: 127.0.0.1}", "planner.url must be like http://127.0.0.1:8650, got '127.0.0.1'"),
    ("list for a block", "", "store: [1]", "store must be a mapping, got [1]"),
    ("nothing for a block", "", "store:", "store must be a mapping, got None"),
    ("key twice", "", "capacity_mbps: 70", "must be YAML, got key 'capacity_mbps' twice"),
    ("list for a key", "", "? [a]\n: b", "must be YAML, got a key that is no text"),
    ("tag", "", "store: !!python/object:os.system {}", "must be YAML, got could not determine a constructor"),
    ("wrong tag", "", "store: !!timestamp x", "must be YAML, got"),
    ("no YAML", "", "store: {", "must be YAML, got while parsing"),
]  # fmt: skip


def test_base_is_right(tmp_path: Path):
    """What the bad files are made of is itself good."""
    file = tmp_path / "good.yaml"
    file.write_text(BASE)
    assert load(file).regions["west"].dpids == (0x11, 0x12)


@pytest.mark.parametrize(("old", "new", "line"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_fault_is_told_with_path_rule_and_value(tmp_path: Path, old: str, new: str, line: str):
    """Each fault is a line of its own that an operator can act on."""
    assert old in BASE
    file = tmp_path / "bad.yaml"
    file.write_text(BASE.replace(old, new) if old else f"{BASE}{new}\n")
    with pytest.raises(ConfigError) as refusal:
        load(file)
    faults = refusal.value.faults
    assert any(fault.startswith(f"{file}: {line}") for fault in faults), faults
    assert not any("\n" in fault for fault in faults)
    assert len(set(faults)) == len(faults)


def test_all_faults_are_told_at_once(tmp_path: Path):
    """Nobody wants to start a file ten times to find ten faults."""
    raw = yaml.safe_load(BASE)
    raw["polling"] = {"jitter": 2, "often": True}
    raw["store"] = {"raw_hours": -1}
    with pytest.raises(ConfigError) as refusal:
        parse(raw)
    assert len(refusal.value.faults) == 3


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"", b"[]", b"just text", b"\x00", b"[" * 5000, b"&a [*a]"]
)
def test_file_that_is_no_configuration(tmp_path: Path, content: bytes):
    """No bytes get past as a configuration, or as a traceback."""
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load(file)


def test_missing_file_and_directory(tmp_path: Path):
    """A path that cannot be read says why."""
    with pytest.raises(ConfigError, match="must be readable, got No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="must be readable, got Is a directory"):
        load(tmp_path)


def test_check_exits_2_with_one_line_a_fault(tmp_path: Path):
    """The command tells each fault on standard error and starts nothing."""
    file = tmp_path / "bad.yaml"
    file.write_text(BASE.replace("capacity_mbps: 60", "capacity_mbps: -5") + "regoins: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "northbound", "check", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"{file}: capacity_mbps must be > 0, got -5",
        f"{file}: regoins is not a known key, got a mapping",
    ]


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["10.0.0.1", "00:00:00:00:00:01", "tcp", "80-90", "live"])
)
keys = st.sampled_from(
    [
        *Config.model_fields,
        *("up", "down", "dpids", "members", "guarantee_mbps", "ceiling_mbps", "addresses", "macs", "ports"),
    ]
) | st.text(max_size=5)
yaml_like = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(keys | st.integers() | st.none(), inner, max_size=6)
    ),
    max_leaves=25,
)


def faults_of(read: Callable[[], Config]) -> list[str]:
    """The faults that are told; none where the configuration is right."""
    try:
        read()
    except ConfigError as error:
        return error.faults or ["no fault was told"]
    return []


@given(raw=yaml_like, block=st.sampled_from([None, *Config.model_fields]))
@example(raw=None, block=None)
def test_nothing_but_config_error_is_raised(raw: Any, block: str | None):
    """Whatever a file holds, the answer is a configuration or a list of faults."""
    document = raw if block is None else {**yaml.safe_load(BASE), block: raw}
    assert "" not in faults_of(lambda: parse(document))


def test_number_of_very_many_digits():
    """Python refuses to print it; the fault is told all the same."""
    assert faults_of(lambda: parse({**yaml.safe_load(BASE), "capacity_mbps": 10**5000}))


@given(text=st.text(max_size=60), at=st.integers(0, len(BASE)))
def test_no_text_breaks_the_loader(tmp_path_factory: pytest.TempPathFactory, text: str, at: int):
    """An edit gone wrong anywhere in the file is a fault, not a traceback."""
    file = tmp_path_factory.getbasetemp() / "edited.yaml"
    file.write_text(BASE[:at] + text + BASE[at:], encoding="utf-8", errors="surrogatepass")
    assert "" not in faults_of(lambda: load(file))


@pytest.mark.parametrize(
    ("written", "dpid"),
    [
        ("0x11", 0x11),
        ("17", 0x11),
        ("0000000000000011", 0x11),
        ('"0000000000000011"', 0x11),
        ("00000000000000a1", 0xA1),
        ("00:00:00:00:00:00:00:11", 0x11),
        ('"11"', 0x11),
    ],
)
def test_dpid_as_switches_print_it(tmp_path: Path, written: str, dpid: int):
    """Sixteen digits are hexadecimal, with quotes or without; YAML's octal would be another switch."""
    file = tmp_path / "dpid.yaml"
    file.write_text(BASE.replace("0x21", written).replace("0x11, ", ""))
    assert load(file).regions["east"].dpids == (dpid,)


def test_names_and_macs_need_no_quotes(tmp_path: Path):
    """A user called ``no`` is not false, and a MAC of decimal digits not a number to the base 60."""
    file = tmp_path / "names.yaml"
    file.write_text(BASE + "applications: {no: []}\n")
    assert list(load(file).applications) == ["no"]
    file.write_text(BASE.replace('"00:00:00:00:01:01"', "10:20:30:40:50:51"))
    assert load(file).users["anna"].macs == ("10:20:30:40:50:51",)


def test_one_number_means_both_directions():
    """And a pair sets them apart."""
    raw = yaml.safe_load(BASE)
    raw["regions"]["west"]["capacity_mbps"] = {"up": 10, "down": 30.5}
    config = parse(raw)
    assert config.capacity_mbps.bps == (60_000_000, 60_000_000)
    assert config.regions["west"].capacity_mbps.bps == (10_000_000, 30_500_000)


# --- what the documentation says


def blocks_of_documentation() -> list[str]:
    """Every YAML block of the reference."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)


def test_demo_configuration_is_right():
    """The commented example loads."""
    assert set(load(ROOT / "config" / "demo.yaml").regions) == {"west", "east"}


@pytest.mark.parametrize("block", blocks_of_documentation())
def test_documented_block_is_right(block: str, tmp_path: Path):
    """What a reader copies parses, alone or in place of the base's block of that name."""
    raw = yaml.safe_load(block)
    whole = raw if "capacity_mbps" in raw and "regions" in raw else {**yaml.safe_load(BASE), **raw}
    if "users" in raw and "groups" not in raw:
        whole.pop("groups")
    parse(whole)


def test_reference_is_current():
    """The tables of the reference are those of the models."""
    document = (ROOT / "docs" / "configuration.md").read_text()
    assert renewed(document) == document, "run: python -m northbound.reference docs/configuration.md"


def blocks_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Every block that the file may hold."""
    found = {model}
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= blocks_of(part)
    return found


def _parts(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(part for argument in inner for part in _parts(argument))]


def test_every_block_and_key_is_documented():
    """A key that the reference leaves out, or names without its meaning, is no use to an operator."""
    documented = {model for _, model in BLOCKS}
    assert blocks_of(Config) - {Rates, Capacity} == documented
    document = (ROOT / "docs" / "configuration.md").read_text()
    for model in documented:
        for name, field in model.model_fields.items():
            assert f"| `{name}` |" in document, f"{model.__name__}.{name}"
            assert field.description or model is Config, f"{model.__name__}.{name}"
