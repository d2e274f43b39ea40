#!/usr/bin/env bash
# Brings a machine to where `make demo` and `make test` run. Quick when there is nothing to do.
#
#   scripts/setup.sh             both parts
#   scripts/setup.sh --os        Open vSwitch, Mininet, iperf3 ... (apt; root or sudo only if something is missing)
#   scripts/setup.sh --tests     the same and Chromium, in which the dashboard is tested
#   scripts/setup.sh --python    .venv with Ryu, the libraries and the `tidegate` command (never root)
#
# PYTHON=python3.12 chooses the interpreter of a new .venv; otherwise the first of python3,
# python3.13, python3.12 and python3.11 that is 3.11 to 3.13 and can make one.

set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd -P)
# Debian keeps ip, ethtool and ovs-vswitchd out of an ordinary user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

venv=$root/.venv
stamp=$venv/tidegate-setup
scratch=
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# --- the operating system's part ---------------------------------------------------------------------

# command:package, one command standing for the package
readonly wanted_commands=(
    ovs-vsctl:openvswitch-switch
    ovs-vswitchd:openvswitch-switch
    ovs-ofctl:openvswitch-common
    mn:mininet
    mnexec:mininet
    iperf3:iperf3
    ethtool:ethtool
    ip:iproute2
    tc:iproute2
    ping:iputils-ping
    ps:procps
)
# Only the dashboard's tests need a browser; a demo shall not wait for 400 MB.
readonly wanted_by_tests=(
    chromium:chromium
    chromedriver:chromium-driver
)

missing_packages() { # command:package besides those always wanted
    local pair
    {
        for pair in "${wanted_commands[@]}" "$@"; do
            command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
        done
        # Numba's OpenMP threads; it has no command of its own.
        { /sbin/ldconfig -p 2>/dev/null || true; } | grep -q 'libgomp\.so\.1' || echo libgomp1
        fits "$venv/bin/python" || find_python >/dev/null || printf '%s\n' python3 python3-venv
    } | sort -u
}

# How to become root: nothing for root; sudo that may ask where somebody sits at a terminal.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

apt() {
    # A fresh machine may still be running its first automatic update: wait for the lock.
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
}

set_up_os() { # command:package besides those always wanted
    local missing still
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null ||
        fail "missing: $missing" "this is no Debian or Ubuntu; install them in its own way and run this again"
    if [ "$(id -u)" != 0 ] && ! { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; then
        fail "missing: $missing" "as root: apt-get install $missing"
    fi
    say "installing $missing"
    apt update || { sleep 5 && apt update; } || say "apt-get update failed; trying with the lists at hand"
    # apt also fails when a service may not start while it is installed, as in a container. Whoever
    # needs Open vSwitch starts it; what counts here is whether the commands are there.
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends $missing || say "apt-get install reported an error"
    hash -r
    still=$(missing_packages "$@" | tr '\n' ' ')
    [ -z "$still" ] || fail "still missing after apt-get install: $still"
}

# --- Python's part -----------------------------------------------------------------------------------

fits() { # can this interpreter make our .venv?
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

minor_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

venv_is_ours() { # it runs, and was made here: a copied or moved one has scripts that point elsewhere
    fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
        head -n 1 "$venv/bin/pip" | grep -qF "$venv/bin/"
}

make_venv() {
    local python
    if [ -f "$stamp" ] || [ -d "$venv" ]; then
        if { [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$root" ] && fits "$venv/bin/python"; } || venv_is_ours; then
            [ -z "${PYTHON:-}" ] || [ "$(minor_of "$PYTHON")" = "$(minor_of "$venv/bin/python")" ] ||
                fail ".venv is Python $(minor_of "$venv/bin/python"), PYTHON=$PYTHON is $(minor_of "$PYTHON")" \
                    "'make distclean' removes .venv; then run this again"
            return 0
        fi
        say ".venv does not work here (moved, or its Python is gone); making it anew"
        rm -rf "$venv"
    fi
    python=$(find_python) || fail "no Python 3.11, 3.12 or 3.13 that can make a virtual environment" \
        "as root: apt-get install python3 python3-venv, or set PYTHON=/path/to/python3.12"
    say "making .venv with $python (Python $(minor_of "$python"))"
    "$python" -m venv "$venv"
}

# Changes when anything changes that the environment is made from.
fingerprint() {
    printf '%s\n' "$root"
    "$venv/bin/python" - setup.cfg pyproject.toml constraints.txt scripts/ryu-build-constraints.txt scripts/setup.sh <<'EOF'
import hashlib, pathlib, sys
print(sys.version.split()[0], hashlib.sha256(b"\0".join(pathlib.Path(p).read_bytes() for p in sys.argv[1:])).hexdigest())
EOF
}

# pip with one constraints file for what it installs and for what it builds with. Older pips hand
# PIP_CONSTRAINT on to the build environment, newer ones read PIP_BUILD_CONSTRAINT for it. Both split
# their value at blanks, so the file is a copy in a place that has none.
pip_within() {
    local constraints=$scratch/constraints.txt quiet=-qq
    cp "$1" "$constraints"
    shift
    [ ! -t 1 ] || quiet=
    # shellcheck disable=SC2086
    PIP_CONSTRAINT=$constraints PIP_BUILD_CONSTRAINT=$constraints PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 \
        "$venv/bin/python" -m pip install $quiet "$@"
}

install_packages() {
    local ryu
    rm -f "$stamp"
    scratch=$(mktemp -d /tmp/tidegate-setup.XXXXXX)
    ryu=$(grep '^ryu==' constraints.txt)
    if ! "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit("ryu==" + m.version("ryu") != sys.argv[1])' \
        "$ryu" 2>/dev/null; then
        say "building $ryu"
        pip_within scripts/ryu-build-constraints.txt --no-deps "$ryu"
    fi
    say "installing the Python packages of constraints.txt (the first time a minute or two, 1.5 GB on disk)"
    pip_within constraints.txt -e '.[dev]'
}

# Cheap, and what they copy may arrive later than .venv did: done every time.
link_mininet() {
    local site=$1 found
    found=/usr/lib/python3/dist-packages/mininet
    if [ ! -d "$found" ]; then
        # Built from source it may be elsewhere; it is absent where nobody needs it (make replay).
        found=$(cd / && /usr/bin/python3 -c 'import mininet; print(mininet.__path__[0])' 2>/dev/null) || return 0
    fi
    [ "$(readlink "$site/mininet" 2>/dev/null)" = "$found" ] || ln -sfn "$found" "$site/mininet"
}

copy_ryu_hook() {
    local site=$1 file
    for file in tidegate_ryu_compat.py tidegate_ryu_compat.pth; do
        cmp -s "scripts/$file" "$site/$file" || cp "scripts/$file" "$site/$file"
    done
}

check_it_starts() {
    # Dies here with the library's own words rather than in the middle of a demo.
    "$venv/bin/python" -c 'import catboost, duckdb, numba, sklearn' ||
        fail "a library does not load in .venv; the lines above say why"
    PYTHONWARNINGS=ignore "$venv/bin/ryu-manager" --version >/dev/null || fail "ryu-manager does not start in .venv"
    [ ! -e "$1/mininet" ] || "$venv/bin/python" -W ignore -c 'import mininet.net' ||
        fail "Mininet does not load in .venv"
}

set_up_python() {
    local site now
    make_venv
    now=$(fingerprint)
    site=$(echo "$venv"/lib/python3.*/site-packages)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then
        link_mininet "$site"
        copy_ryu_hook "$site"
        return 0
    fi
    install_packages
    link_mininet "$site"
    copy_ryu_hook "$site"
    check_it_starts "$site"
    printf '%s\n' "$now" >"$stamp"
    say "done: $venv"
}

[ -z "${PYTHON:-}" ] || fits "$PYTHON" ||
    fail "PYTHON=$PYTHON must be Python 3.11, 3.12 or 3.13 with the venv and ensurepip modules"

case "${1:-}" in
    --os) set_up_os ;;
    --tests) set_up_os "${wanted_by_tests[@]}" ;;
    --python) set_up_python ;;
    "")
        # Two commands, not `a && b`: inside a list bash would forget to stop at the first error.
        set_up_os
        set_up_python
        ;;
    *) fail "usage: scripts/setup.sh [--os | --tests | --python]" ;;
esac
