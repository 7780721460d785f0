"""Masks secrets in texts. Every text that is stored, logged or shown as an error passes here, and none is masked else.

It must stay linear: texts come from strangers, and are masked while an attempt ends. So no pattern tries a place twice,
or goes back over text that it has read (`++`). Masking too much is better than too little.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MASK = "***"


def mask_secrets(text: str) -> str:
    """The text with masks in place of passwords, tokens and keys.

    It finds passwords and secret parameters of URLs, values with a telling name (`password=…`, `"api_key": "…"`,
    `--token …`, `Authorization: …`), bearer tokens, keys of well-known shapes, and blocks of private keys. It takes
    time in proportion to the text. What is masked stays as it is when it is masked again.
    """
    if _NUMBER.fullmatch(text) or (len(text) < _SHORTEST and not any(mark in text for mark in " :=")):
        return text
    lowered = text.lower()
    for hints, mask in _MASKS:
        if any(hint in lowered for hint in hints):
            text = mask(text)
    return text


# ---------------------------------------------------------------------- blocks of private keys

_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z ]{0,30}PRIVATE KEY( BLOCK)?-----|\Z)", re.DOTALL
)


def _mask_key_blocks(text: str) -> str:
    return _KEY_BLOCK.sub(MASK, text)


# ---------------------------------------------------------------------- URLs

_USER = re.compile(r"(://[^:/@\s]*+):(\S++)")
_LONE_USER = re.compile(r"://[\w.~-]{20,}+@")
_PARAMETER = re.compile(r"([?&])([^=&?\s]++)=([^&\s]++)")
_SECRET_PARAMETER = re.compile("pass|pwd|secret|token|key|auth|cred|sig|%", re.IGNORECASE)


def _mask_users(text: str) -> str:
    # A token alone stands before the host where a service takes it as the user.
    return _LONE_USER.sub(f"://{MASK}@", _USER.sub(_without_password, text))


def _without_password(found: re.Match[str]) -> str:
    # Up to the last "@", because a password may hold any character.
    password, at, rest = found[2].rpartition("@")
    return f"{found[1]}:{MASK}@{rest}" if at and password else found[0]


def _mask_parameters(text: str) -> str:
    return _PARAMETER.sub(_without_parameter, text)


def _without_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if _SECRET_PARAMETER.search(found[2]) else found[0]


# ---------------------------------------------------------------------- values with a telling name

_NAME = re.compile(
    r"(?<![\w-])(?P<name>[\w-]++)(?:\\{0,3}[\"'])?[ \t]{0,20}(?P<sign>=>?|:|%3[ADad](?:%20)?)"
    r"(?:[ \t]{0,20}\r?\n)?[ \t]{0,20}"
)
_OPTION = re.compile(
    r"(?<![\w-])--(?P<name>[\w-]++)(?P<sign>[ \t]{1,20}(?=[^\s-])|[\"'],\s{1,20}(?=[bru]?[\"']))",
)
_PAIR = re.compile(r"[(\[][bru]?[\"'](?P<name>[\w-]++)(?P<sign>[\"'],\s{1,20})(?=[bru]?[\"'])")

_PASSWORD = re.compile(
    r"((^|[_-])(pass|pw)|passwd|password|passphrase|passcode|pwd)([_-]?(hash|\d{1,3}))?$", re.IGNORECASE
)
_SECRET = re.compile(
    r"(secret|token|credentials?|jwt|((api|access|secret|private|account|auth|master|signing|encryption|"
    r"shared|storage|license)[_-]?key))([_-]?(hash|base|\d{1,3}))?$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"(passwords|secrets|tokens|cookies|[_-]keys)$", re.IGNORECASE)
_HEADER = re.compile(r"(authorization|cookie)$", re.IGNORECASE)
_QUOTE = re.compile(r"[bru]?(\\{0,3}[\"'])")
_BRACKET = re.compile(r"([\[({])|[\])}]")
_TO_THE_NEXT = re.compile(r"[^\s\"'&;]++")
_TO_THE_END_OF_THE_LINE = re.compile(r"(?:[^\r\n\"'\\]|(?<==)\\{0,3}\"[^\r\n\"]*+\")++")
_WORD = re.compile(r"[a-z]{1,15}[.,:;!?)]*+(?=\s|$)")


def is_secret(name: str) -> bool:
    """Whether a value with this name is a secret, whatever it is."""
    return any(kind.search(name) for kind in (_PASSWORD, _SECRET, _HEADER))


def _mask_named(text: str) -> str:
    for kind in (_NAME, _OPTION, _PAIR):
        parts, done = [], 0
        for found in kind.finditer(text):
            if found.start() >= done:
                place = _value_of(found, text)
                if place is not None:
                    parts += [text[done : place[0]], MASK]
                    done = place[1]
        text = "".join([*parts, text[done:]])
    return text


def _value_of(found: re.Match[str], text: str) -> tuple[int, int] | None:
    """The place of the secret behind a name, or None if there is no secret."""
    name, at = found["name"], found.end()
    is_one = is_secret(name)
    if not is_one and not _SEVERAL.search(name):
        return None
    quote = _QUOTE.match(text, at)
    if quote is not None:
        return quote.end(), _closing(quote[1], text, quote.end())
    if _BRACKET.match(text, at):
        return at, _end_of_brackets(text, at)
    if not is_one:
        return None  # a number of them, such as "tokens=4096"
    is_header = _HEADER.search(name) is not None
    if found["sign"] == ":" and not is_header and not _PASSWORD.search(name) and _WORD.match(text, at):
        return None  # prose, such as "unexpected token: end of file"
    value = (_TO_THE_END_OF_THE_LINE if is_header else _TO_THE_NEXT).match(text, at)
    return value.span() if value is not None else None


def _closing(quote: str, text: str, start: int) -> int:
    """The place of the quote that ends a value; one behind a backslash belongs to the value."""
    end = text.find(quote, start)
    while end > start and text[end - 1] == "\\":
        end = text.find(quote, end + 1)
    return len(text) if end < 0 else end


def _end_of_brackets(text: str, start: int) -> int:
    """The place behind the bracket that closes the one at the start, or the end of the text."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if bracket[1] else -1
        if depth == 0:
            return bracket.end()
    return len(text)


# ---------------------------------------------------------------------- keys without a name

_BEARER = re.compile(
    r"\b((?:bearer|basic)[\s\\]{1,20})(?:(?=[\w.~+/=-]*?[\d=])[\w.~+/=-]{6,}+|[\w.~+/=-]{20,}+)", re.IGNORECASE
)
_KEY = re.compile(
    r"(?<![\w-])(?:"
    r"sk-[\w-]{16,}+|[sr]k_(?:live|test)_\w{10,}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)"
    r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_\w{20,}+|gl(?:pat|rt|dt|cbt|ptt|soat|ft)-[\w-]{16,}+"
    r"|x(?:ox[a-z]|app)-[\w-]{10,}+|AIza[\w-]{30,}+|ya29\.[\w-]{20,}+|(?:hf|npm|gsk)_[A-Za-z0-9]{20,}+|pypi-[\w-]{20,}+"
    r"|SG\.[\w-]{16,}+\.[\w-]{16,}+|dop_v1_[a-f0-9]{32,}+|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{16,}+|hv[sb]\.[\w-]{20,}+"
    r"|whsec_[\w+/=-]{16,}+|sq0[a-z]{3}-[\w-]{16,}+|lin_api_\w{20,}+|AGE-SECRET-KEY-1\w{40,}+"
    r"|hooks\.slack\.com/services/[\w/]{16,}+|discord(?:app)?\.com/api/webhooks/[\w/-]{16,}+|bot\d{6,12}:[\w-]{30,}+"
    r"|eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+"
    r")"
)


def _mask_bearers(text: str) -> str:
    return _BEARER.sub(rf"\1{MASK}", text)


def _mask_keys(text: str) -> str:
    return _KEY.sub(MASK, text)


_SHORTEST = 20
"""The length of the shortest key that is known without its name."""

_NUMBER = re.compile(r"[0-9a-fA-F-]*+")
"""Ids, which most subjects are, hold none of the hints."""

_NAME_HINTS = ("pass", "pw", "secret", "token", "auth", "cookie", "cred", "jwt", "_key", "-key")
_LAST_LETTERS = "istehrgnd"  # of the words before "key" in `_SECRET`, in one word with it; a mere "key" is everywhere
_KEY_HINTS = (
    "sk-",
    "k_live_",
    "k_test_",
    "akia",
    "asia",
    "github_pat_",
    "glpat-",
    "xox",
    "aiza",
    "hf_",
    "npm_",
    "pypi-",
    *("glrt-", "gldt-", "glcbt-", "glptt-", "glsoat-", "glft-", "xapp-", "ya29.", "gsk_", "sg.", "dop_v1_", "shpat_"),
    *("shpca_", "shppa_", "shpss_", "hvs.", "hvb.", "whsec_", "sq0", "lin_api_", "age-secret-key-1", "/services/"),
    *("/webhooks/", "bot"),
)

_MASKS: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (("private key",), _mask_key_blocks),
    (("://",), _mask_users),
    (("?", "&"), _mask_parameters),
    (("bearer", "basic"), _mask_bearers),  # before what bears a name: a header may go on in the next line
    ((*_NAME_HINTS, *(f"{letter}key" for letter in _LAST_LETTERS)), _mask_named),
    ((*_KEY_HINTS, *(f"gh{letter}_" for letter in "pousr"), "eyj"), _mask_keys),
)
"""The masks, each with hints in lower case: it is tried only on texts that have one of them."""
