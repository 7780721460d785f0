"""Secrets in texts: what is masked, what stays, and how long that may take."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.ground.secrets import mask_secrets

SECRET = "hunter2Hunter2xQ"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nhunter2\n-----END RSA PRIVATE KEY-----"

HIDDEN = [
    (
        "postgresql+asyncpg://me:hunter2@db/x: connection refused",
        "postgresql+asyncpg://me:***@db/x: connection refused",
    ),
    ("cannot clone https://ci:hunter2@git.example/a.git, or https://h/?token=hunter2&x=1", None),
    ("password=hunter2", "password=***"),
    ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
    ("Server=db;Password=hunter2;User=me", "Server=db;Password=***;User=me"),
    ("login failed (password: hunter2)", None),
    ("PGPASSWORD='hunter2 with more' psql", "PGPASSWORD='***' psql"),
    ('{"user": "me", "password": "hunter2, hunter2", "port": 1}', '{"user": "me", "password": "***", "port": 1}'),
    ("{'api_key': 'hunter2', 'n': 1}", "{'api_key': '***', 'n': 1}"),
    (r'"{\"client_secret\": \"hunter2\"}"', r'"{\"client_secret\": \"***\"}"'),
    ('{"dbPassword":"hunter2"', '{"dbPassword":"***"'),
    ('password = "hunter2 that does not end', None),
    ("OPENAI_API_KEY=hunter2 AWS_SECRET_ACCESS_KEY: hunter2", None),
    ("x-api-key: hunter2", "x-api-key: ***"),
    ("error: token=hunter2", "error: token=***"),
    ("url=password=hunter2", "url=password=***"),
    ("Authorization: Basic hunter2==\nAccept: */*", "Authorization: ***\nAccept: */*"),
    ("{b'authorization': b'Bearer hunter2'}", "{b'authorization': b'***'}"),
    ("Set-Cookie: sid=hunter2; Path=/", "Set-Cookie: ***"),
    ("refused: Bearer hunter2hunter2", "refused: Bearer ***"),
    ("Incorrect API key: sk-proj-hunter2hunter2hunter2", None),
    (f"sk_live_{SECRET} ghp_{SECRET}{SECRET} glpat-{SECRET} xoxb-{SECRET} hf_{SECRET}{SECRET}", "*** *** *** *** ***"),
    (f"github_pat_{SECRET}{SECRET} pypi-{SECRET}{SECRET} npm_{SECRET}{SECRET}", "*** *** ***"),
    ("AKIAIOSFODNN7EXAMPLE and AIzaSyhunter2hunter2hunter2hunter2hunter2", "*** and ***"),
    (f"session {JWT} has expired", "session *** has expired"),
    (f"cannot read {KEY_BLOCK}, or more", "cannot read ***, or more"),
    (repr(KEY_BLOCK), "'***'"),
    (KEY_BLOCK[:60], "***"),
    ("Authorization: Bearer\n  hunter2hunter2, and more", None),
    ("refused: Bearer \\\n hunter2hunter2", "refused: Bearer \\\n ***"),
    ("refused: Basic aHVudGVyMg==", "refused: Basic ***"),
    ('{"password":\n    "hunter2"}', '{"password":\n    "***"}'),
    ('{"password": "a\\"hunter2", "port": 1}', '{"password": "***", "port": 1}'),
    ('{"password": {"value": "hunter2"}, "port": 1}', '{"password": ***, "port": 1}'),
    ("tokens: ['hunter2', 'hunter2'], limit=3", "tokens: ***, limit=3"),
    ("password1=hunter2 secret_key_base=hunter2", "password1=*** secret_key_base=***"),
    ("password      =      hunter2", "password      =      ***"),
    ("mysqldump --password hunter2 --token 'hunter2'", "mysqldump --password *** --token '***'"),
    (
        "Command '['mysql', '--password', 'hunter2', 'x']' failed",
        "Command '['mysql', '--password', '***', 'x']' failed",
    ),
    ("[('password', 'hunter2'), ('n', '1')]", "[('password', '***'), ('n', '1')]"),
    ("https://h/login?next=%2Fa%3Ftoken%3Dhunter2", "https://h/login?next=%2Fa%3Ftoken%3D***"),
    ("fatal: https://hunter2hunter2hunter2@git.example/a.git", "fatal: https://***@git.example/a.git"),
    ('Cookie: a="hunter2"; b=hunter2', "Cookie: ***"),
    ('Authorization: Digest username="u", response="hunter2"', "Authorization: ***"),
    (f"https://hooks.slack.com/services/T0/B0/{SECRET} and /bot123456789:{SECRET}{SECRET}/send", None),
    (
        f"SG.{SECRET}.{SECRET} hvs.{SECRET}{SECRET} whsec_{SECRET} gsk_{SECRET}{SECRET} glrt-{SECRET}",
        "*** *** *** *** ***",
    ),
]

SHOWN = [
    "",
    "merged 3 of 4 chunks",
    "conversation_id=team-call",
    "0c6ad70beb3a7e76c3fc7adab7c46acc",
    "http://host:8080/path?page=2&sort=time",
    "s3://recordings/production: 403 Forbidden",
    "max_tokens=4096 and token_count: 12",
    "unexpected token: end of file",
    "KeyError: 'name' in key order: a, b",
    "Bearer authentication required",
    "the task-force-of-tomorrow-met risk-assessment-of-the-year",
    "at 12:30:01 in module.py:12",
    'File "/app/tasks.py", line 3, in work\n    result = service(name="x", limit=3)',
    "the password is wrong",
    "tokens=4096, of ['a', 'b'] and ('name', 'x')",
    "Basic authentication is off, --token-file is not given",
]


@pytest.mark.parametrize(("text", "masked"), HIDDEN)
def test_secrets_are_masked(text: str, masked: str | None) -> None:
    """Whatever form they have, and as much of the rest stays as can."""
    found = mask_secrets(text)
    assert "hunter2" not in found.lower()
    assert JWT not in found
    assert "AKIA" not in found
    assert "***" in found
    if masked is not None:
        assert found == masked


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_no_secret_stays(text: str) -> None:
    """A history that hides everything tells nothing."""
    assert mask_secrets(text) == text


BLOCK = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
NAMES = (
    "password",
    "token",
    "tokens",
    "--token",
    "Cookie",
    "('token', ",
    "%3D",
    "[",
    "}",
    "api_key",
    "Bearer ",
    "Authorization",
    "sk-",
    "eyJ",
)
PIECES = st.sampled_from([*["://", ":", "@", "=", "?", "&", ";", ".", "-", "a", "***"], *"\"' \n\\", *NAMES, *BLOCK])
HOSTILE = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


@given(HOSTILE)
def test_what_is_masked_stays_as_it_is_when_it_is_masked_again(text: str) -> None:
    """Texts pass more than one door."""
    once = mask_secrets(text)
    assert mask_secrets(once) == once


WORD = st.text(string.ascii_letters + string.digits, min_size=12, max_size=40)
AROUND = [
    "redis://user:{}@host/0",
    "https://h/?access_token={}",
    "password={}",
    '"password": "{}"',
    "'client_secret': '{}'",
    "api_key={}",
    "Authorization: Bearer {}",
    "sk-{}{}",
]


@given(WORD, st.sampled_from(AROUND), st.sampled_from(["", "said: ", "a\n  b = ", "('x', "]), HOSTILE)
def test_a_secret_is_masked_wherever_it_stands_in_a_text(secret: str, form: str, before: str, behind: str) -> None:
    """Behind prose or code, and before anything."""
    text = before + form.replace("{}", secret) + "\n" + behind.replace(secret, "")
    assert secret not in mask_secrets(text)


ATTACKS = [
    *("://", "://a:", "://:x", "://a:b@", "?", "?a", "?key", "&key=", "key", "token", "token=", "token: ", "token='"),
    *('token="', "token\\'=", "\\", '\\"token\\": \\"', "-", "a-", "password ", "password  =", "bearer ", "Bearer a1"),
    *(
        "sk-",
        "sk-a",
        "eyJ",
        "eyJaaaaaaaa.",
        "AKIA",
        "gho_",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "=",
        ":",
        "a",
    ),
    *(
        "Authorization: ",
        "secret_",
        "password:***",
        "İ",
        'token="\\"',
        "token=[",
        "token=[]",
        "token=(((",
        'cookie: a="',
    ),
    *(
        "--token ",
        "--token",
        '("token", "',
        "password:\n",
        "basic\n",
        "bearer \\",
        "%3D",
        "token%3D",
        "://aaaaaaaaaaaaaaaaaaaaaaaa",
    ),
]


@pytest.mark.clock
def test_hostile_texts_take_a_bounded_time() -> None:
    """A hundred kilobytes of anything that might be read again and again: that would take hours."""
    every_hint = " pass pw secret token key auth ://?& bearer sk- eyj akia private key "
    for attack in ATTACKS:
        many = attack * (100_000 // len(attack))
        for text in (many + every_hint, f"x{many}{every_hint}", f"{every_hint}password='{many}"):
            began = time.process_time()
            mask_secrets(text)
            assert time.process_time() - began < 5, attack
