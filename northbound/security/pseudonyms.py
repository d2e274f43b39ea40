"""Users, addresses and MACs under other names, for those who may not know them.

A pseudonym is a keyed hash: the same at every answer and after every restart, and of no use to
who has not the key. It works on the way out, on whatever a route answers, so a route added later
cannot forget it; and on the way in, so that what was read can be asked for.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from typing import Final

from planner.snapshot import Level, Snapshot

#: A pseudonym starts so; it is a name that the API takes.
PREFIX: Final = "anon-"
_HASH_CHARACTERS: Final = 12
#: Strings seen, with their replacements. A large network's answer has some tens of thousands.
_MEMO: Final = 200_000
#: A name, an address or a MAC inside other text. Paths are split at their slashes by this.
_WORD: Final = re.compile(
    r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}"
    # Two colons at least: "10:30" is a time, and "anna: " a name.
    r"|(?<![\w.:])(?=[0-9A-Fa-f]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]+(?:(?:\.\d{1,3}){3})?(?!\w)"
    r"|[A-Za-z0-9][A-Za-z0-9._@-]*"
)
_LITERAL: Final = re.compile(rb'("(?:[^"\\]|\\.)*")', re.DOTALL)
#: JSON is worked through so many bytes at a time: a longer call would hold the interpreter's lock too long.
_PIECE: Final = 64 << 10
_MARKUP: Final = re.compile(r"(<[^>]*>)")
_ATTRIBUTE: Final = re.compile(r"""(\s(?!class=|style=|type=|rel=|method=|id=)[\w:@.-]+=)("[^"]*"|'[^']*')""")
_MAC: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")


class Pseudonyms:
    """The pseudonyms of one planner's users. Used from several threads."""

    def __init__(self, key: str, users: Iterable[str] = ()) -> None:
        self._key = key.encode()
        self._names: dict[str, str] = {}
        self._users: dict[str, str] = {}
        self._seen: Snapshot | None = None
        self._memo: dict[bytes, bytes] = {}
        self._vocabulary: Callable[[], frozenset[str]] = frozenset
        self._words: frozenset[str] | None = None
        self._add(users)

    def protect(self, vocabulary: Callable[[], frozenset[str]]) -> None:
        """Leave the API's own words alone: a user of such a name must not break an answer's form."""
        self._vocabulary = vocabulary

    def learn(self, snapshot: Snapshot) -> None:
        """Take up the users of a snapshot: what is no user's name is left as it is."""
        if snapshot is self._seen:
            return
        self._seen = snapshot
        rows = (snapshot.pools.level == Level.USER).nonzero()[0].tolist()
        self._add(snapshot.pools.path[row].rsplit("/", 1)[-1] for row in rows)
        self._add(member for group in snapshot.groups for member in group.members)
        self._add(snapshot.shared_services)

    def _add(self, users: Iterable[str]) -> None:
        new = {user for user in users if user not in self._names}
        if new:
            self._memo = {}
            for user in new:
                made = self.of(user)
                self._names[user] = made
                self._users[made] = user

    def of(self, name: str) -> str:
        """The pseudonym of a user, an address or a MAC."""
        digest = hmac.digest(self._key, name.encode(), "sha256")
        return PREFIX + base64.b32encode(digest).decode().lower()[:_HASH_CHARACTERS]

    # On the way out.

    def hide(self, body: bytes, media_type: str) -> bytes:
        """An answer's body with pseudonyms for users. What is no text is left as it is."""
        if "html" in media_type:
            return self.hide_markup(body.decode(errors="replace")).encode()
        if "json" in media_type or media_type == "text/event-stream":
            return self._hide_json(body)
        if media_type.startswith("text/"):
            return self._hidden(body.decode(errors="replace"), whole_too=True).encode()
        return body

    def hide_markup(self, text: str) -> str:
        """A page: its text, and the values of attributes that may name somebody."""
        parts = _MARKUP.split(text)
        for at, part in enumerate(parts):
            parts[at] = (
                _ATTRIBUTE.sub(lambda match: match[1] + self._hidden(match[2], whole_too=False), part)
                if at % 2
                else self._hidden(part, whole_too=True)
            )
        return "".join(parts)

    def _hide_json(self, body: bytes) -> bytes:
        memo, hidden, rest = self._memo, [], b""
        for at in range(0, len(body), _PIECE):
            parts = _LITERAL.split(rest + body[at : at + _PIECE])
            # What begins a string and does not end it waits for the next piece.
            text, quote, rest = parts[-1].partition(b'"')
            parts[-1], rest = text, quote + rest
            literals = parts[1::2]
            for literal in set(literals) - memo.keys():
                memo[literal] = self._hidden_literal(literal)
            parts[1::2] = [memo[literal] for literal in literals]
            hidden += parts
        if len(memo) > _MEMO:
            self._memo = {}
        return b"".join((*hidden, rest))

    def _hidden_literal(self, literal: bytes) -> bytes:
        try:
            text = json.loads(literal)
        except ValueError:
            return literal
        hidden = self._hidden(text, whole_too=text not in self._protected())
        return literal if hidden == text else json.dumps(hidden).encode()

    def _protected(self) -> frozenset[str]:
        if self._words is None:
            self._words = self._vocabulary()
        return self._words

    def _hidden(self, text: str, whole_too: bool) -> str:
        """``whole_too``: also where the whole of the text is one name."""

        def replaced(match: re.Match[str]) -> str:
            word = match[0]
            if not whole_too and word == text:
                return word
            return self._name_of(word)

        return _WORD.sub(replaced, text)

    def _name_of(self, word: str) -> str:
        if (known := self._names.get(word)) is not None:
            return known
        # The full stop of a sentence, and no part of the name.
        bare = word.rstrip(".-_@")
        if (known := self._names.get(bare)) is not None:
            return known + word[len(bare) :]
        if _MAC.fullmatch(word):
            return self.of(word.lower().replace("-", ":"))
        if ":" in word or word.count(".") == 3:
            bare = word.rstrip(".:") if "::" not in word[-2:] else word
            try:
                address = ipaddress.ip_address(bare)
            except ValueError:
                return word
            return word if address.is_unspecified else self.of(str(address)) + word[len(bare) :]
        return word

    # On the way in.

    def reveal(self, text: str) -> str:
        """A path, a query or a body with users for their pseudonyms.

        Raises
        ------
        KeyError : if it names a user outright: whether there is such a one is not told.
        """

        def replaced(match: re.Match[str]) -> str:
            word = match[0]
            if word in self._names and word not in self._protected():
                raise KeyError(word)
            return self._users.get(word, word)

        return _WORD.sub(replaced, text)
