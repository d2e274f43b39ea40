"""Tokens and sessions: in force when they are made, void when they are revoked, and never on the disk."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from northbound.cli import app as commands
from northbound.security.callers import Scope, Unrecognised
from northbound.security.tokens import TokenBook, TokenError, TokenKeeper, make
from planner.audit import AuditLog, verify
from planner.secret import SecretError
from tests.northbound.doubles import NOW, TOKEN
from tests.northbound.guarded import Guarded

runner = CliRunner()
CSRF = {"Tidegate-CSRF": "1"}


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


def test_token_is_kept_as_a_hash_for_its_owner_alone(guarded: Guarded, tmp_path: Path):
    """Who reads the file, or its backup, can ask nothing with it."""
    text = guarded.token("admin")
    path = tmp_path / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert text not in path.read_text()
    assert text.rsplit("_", 1)[1] not in path.read_text()
    assert len({guarded.token("read") for _ in range(20)}) == 20


def test_revoked_rotated_and_new_tokens_hold_at_the_next_request(guarded: Guarded):
    """Nothing is restarted, and nothing is waited for."""
    text = guarded.token("read", name="ops")
    assert guarded.ask("GET", "/plan", text).status_code == 200
    new, kept = guarded.book.rotate("ops", NOW, NOW + 60)
    assert (kept.name, kept.scope, kept.expires) == ("ops", "read", NOW + 60)
    assert [guarded.ask("GET", "/plan", one).status_code for one in (text, new)] == [401, 200]
    guarded.book.revoke("ops")
    assert guarded.ask("GET", "/plan", new).status_code == 401
    assert guarded.ask("GET", "/plan", guarded.token("read")).status_code == 200


def test_bootstrap_token_can_be_rotated_too(guarded: Guarded):
    """The file is read again; without it nobody has that token."""
    other = "another-token-of-more-than-32-characters"
    assert guarded.ask("GET", "/plan", TOKEN).status_code == 200
    guarded.bootstrap_file.write_text(other + "\n")
    assert [guarded.ask("GET", "/plan", one).status_code for one in (TOKEN, other)] == [401, 200]
    guarded.bootstrap_file.unlink()
    assert guarded.ask("GET", "/plan", other).status_code == 401


@pytest.mark.parametrize("body", ["not json", "{}", '{"tokens": [{}]}', '{"tokens": [1]}'])
def test_broken_file_lets_nobody_in(guarded: Guarded, tmp_path: Path, body: str):
    """What was revoked by an edit that went wrong does not live on; the bootstrap token mends it."""
    text = guarded.token("admin")
    assert guarded.ask("GET", "/plan", text).status_code == 200
    (tmp_path / "tokens.json").write_text(body)
    assert guarded.ask("GET", "/plan", text).status_code == 401
    assert guarded.ask("GET", "/plan", TOKEN).status_code == 200


def test_file_that_others_may_read_is_not_used(guarded: Guarded, tmp_path: Path):
    """Hashes alone are worth little, but whoever may read it may often write it."""
    text = guarded.token("admin")
    (tmp_path / "tokens.json").chmod(0o644)
    assert guarded.ask("GET", "/plan", text).status_code == 401
    with pytest.raises(SecretError, match="mode 644"):
        guarded.book.tokens()


def test_token_ends_by_itself(guarded: Guarded):
    """At its end and not before."""
    text = guarded.token("read", expires=NOW + 10)
    guarded.now = NOW + 9.9
    assert guarded.ask("GET", "/plan", text).status_code == 200
    guarded.now = NOW + 10
    answer = guarded.ask("GET", "/plan", text)
    assert (answer.status_code, answer.json()["title"]) == (
        401,
        "token must be given and in force: the token has expired",
    )


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"name": "a b"}, "name must be"), ({"name": "bootstrap"}, "name must be"), ({"scope": "root"}, "scope must be one of"),
        ({"expires": NOW}, "expires must be later"), ({"scope": "admin", "region": "west"}, "scope must be read or operate"),
    ],
)  # fmt: skip
def test_token_that_makes_no_sense_is_refused(values: dict[str, Any], fault: str):
    """The message names the rule and the value."""
    asked = {"name": "x", "scope": "read", "expires": None, **values}
    with pytest.raises(TokenError, match=fault):
        make(asked.pop("name"), asked.pop("scope"), NOW, asked.pop("expires"), **asked)


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path):
    """Eight of them make a token each, and all eight are there."""
    start = threading.Barrier(8)

    def one(number: int) -> None:
        start.wait()
        TokenBook(tmp_path / "tokens.json").add(make(f"t{number}", "read", NOW, None)[1])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in TokenBook(tmp_path / "tokens.json").tokens()} == {
        f"t{n}" for n in range(8)
    }


def test_command_makes_lists_rotates_and_revokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The token is printed once; what was done is in the audit log; the planner's own check agrees."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        result = runner.invoke(commands, ["token", *words])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    first = run(
        "create", "--name", "ops", "--scope", "operate", "--region", "east", "--expires", "30d", "--users"
    )
    keeper = TokenKeeper(TOKEN, None, Path("var/tokens.json"))
    import time

    now = time.time()
    caller = keeper.recognise(first, now)
    assert (caller.name, caller.scope, caller.region, caller.users) == ("ops", Scope.OPERATE, "east", True)
    assert caller.expires == pytest.approx(now + 30 * 86400, abs=60)
    listed = json.loads(run("list", "--json"))["tokens"]
    assert [token["name"] for token in listed] == ["ops"]
    assert "hash" not in listed[0]
    assert "ops" in run("list")
    second = run("rotate", "ops", "--expires", "never")
    assert keeper.recognise(second, now).expires == float("inf")
    with pytest.raises(Unrecognised):
        keeper.recognise(first, now)
    run("revoke", "ops")
    with pytest.raises(Unrecognised):
        keeper.recognise(second, now)
    run("rotate", "bootstrap")
    assert Path("var/token").stat().st_mode & 0o777 == 0o600
    entries, _ = AuditLog(Path("var/audit.jsonl")).page(0, 10)
    assert [entry["action"] for entry in entries] == [
        "token create",
        "token rotate",
        "token revoke",
        "token rotate",
    ]
    assert first not in json.dumps(entries)
    assert verify(Path("var/audit.jsonl")).faults == ()


@pytest.mark.parametrize(
    "words", [("create", "--name", "x", "--expires", "soon"), ("revoke", "nobody"), ("revoke", "bootstrap"),
              ("create", "--name", "x", "--scope", "root")],
)  # fmt: skip
def test_command_tells_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    """And changes nothing."""
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(commands, ["token", *words])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("tidegate: ")
    assert not Path("var/tokens.json").exists()


# Sessions.


def cookie_of(answer) -> dict[str, str]:
    return {"Cookie": answer.headers["set-cookie"].split(";")[0]}


def test_session_stands_for_its_token_and_ends_with_it(guarded: Guarded):
    """The cookie holds no token, is not for scripts or other sites, and is void once the token is."""
    text = guarded.token("operate", name="ops")
    answer = guarded.log_in(text)
    assert answer.status_code == 201
    assert answer.json() == {
        "name": "ops", "scope": "operate", "region": None, "group": None, "users": True, "ends": NOW + 3600,
    }  # fmt: skip
    header = answer.headers["set-cookie"]
    assert text not in header
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"} <= set(header.split("; "))
    cookie = cookie_of(answer)
    assert guarded.ask("GET", "/plan", None, headers=cookie).status_code == 200
    assert guarded.ask("GET", "/session", None, headers=cookie).json()["name"] == "ops"
    guarded.book.revoke("ops")
    assert guarded.ask("GET", "/plan", None, headers=cookie).status_code == 401


def test_session_ends_in_time_and_no_later_than_its_token(guarded: Guarded):
    """Whichever comes first."""
    long, short = guarded.token("read"), guarded.token("read", expires=NOW + 10)
    cookies = [cookie_of(guarded.log_in(token)) for token in (long, short)]
    guarded.now = NOW + 11
    assert [guarded.ask("GET", "/plan", None, headers=cookie).status_code for cookie in cookies] == [200, 401]
    guarded.now = NOW + 3600
    assert guarded.ask("GET", "/plan", None, headers=cookies[0]).status_code == 401


def test_sessions_writes_need_a_header_that_other_sites_cannot_send(guarded: Guarded):
    """A form of another site carries the cookie at most, and says where it comes from."""
    cookie = cookie_of(guarded.log_in(guarded.token("operate")))
    write = ("PUT", "/groups/g1/bandwidth", None)
    body = {"weight": 2}
    assert guarded.ask(*write, headers=cookie, json=body).status_code == 403
    foreign = {**cookie, **CSRF, "Sec-Fetch-Site": "cross-site"}
    assert guarded.ask(*write, headers=foreign, json=body).status_code == 403
    assert guarded.operations.written == []
    assert guarded.ask(*write, headers={**cookie, **CSRF}, json=body).status_code == 200


def test_another_site_cannot_log_a_browser_in(guarded: Guarded):
    """Nor with a form, whose body is no JSON."""
    text = guarded.token("read")
    assert guarded.log_in(text, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert guarded.ask("POST", "/session", None, data={"token": text}).status_code == 415


def test_cookie_that_was_changed_or_made_elsewhere_is_refused(guarded: Guarded, tmp_path: Path):
    """Every part of it is signed, by this planner's key."""
    text = guarded.token("read")
    value = cookie_of(guarded.log_in(text))["Cookie"].split("=", 1)[1]
    (tmp_path / "other").mkdir()
    other = Guarded(tmp_path / "other")
    other.security.sessions._key = b"x" * 32
    foreign = cookie_of(other.log_in(other.token("admin")))["Cookie"].split("=", 1)[1]
    head, claims, signature = value.split(".")
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    for wrong in (foreign, f"{head}.{claims[:-2]}AA.{signature}", f"{unsigned}.{claims}.", "", "x", "a.b.c"):
        answer = guarded.ask("GET", "/plan", None, headers={"Cookie": f"tidegate_session={wrong}"})
        assert answer.status_code == 401, wrong


def test_log_out_takes_the_cookie_away(guarded: Guarded):
    """The browser forgets it."""
    cookie = cookie_of(guarded.log_in(guarded.token("read")))
    answer = guarded.ask("DELETE", "/session", None, headers={**cookie, **CSRF})
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_by_tls_the_cookie_is_for_this_host_alone(guarded: Guarded):
    """The name's prefix has browsers check that."""
    guarded.security.sessions._secure = True
    guarded.security.sessions.cookie_name = "__Host-tidegate_session"
    header = guarded.log_in(guarded.token("read")).headers["set-cookie"]
    assert header.startswith("__Host-tidegate_session=")
    assert "Secure" in header.split("; ")


def test_logins_are_in_the_audit_log(guarded: Guarded):
    """Right ones with their name, wrong ones with why."""
    guarded.log_in(guarded.token("read", name="ops"))
    guarded.log_in("wrong" * 8, "192.0.2.7")
    assert guarded.security.audit is not None
    entries, _ = guarded.security.audit.page(0, 10)
    assert [(e["actor"], e["action"], e["target"]) for e in entries] == [
        ("ops", "log in", "127.0.0.1"),
        ("nobody", "log in", "192.0.2.7"),
    ]
    assert entries[1]["outcome"].startswith("refused")
