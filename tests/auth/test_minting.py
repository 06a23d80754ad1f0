"""docs/tokens.md: its lines mint what its vectors say, and such tokens count."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys

import pytest

from imageapi.auth import tokens
from imageapi.auth.policy import Ability
from imageapi.auth.tokens import Key, Keyring
from tests.conftest import REPOSITORY
from tests.servers.need import need

PAGE = (REPOSITORY / "docs" / "tokens.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SECRET, *TOKENS = (
    text.strip() for _kind, text in BLOCKS if _kind == "text" and "Authorization" not in text
)
CLAIMS = [text.strip() for kind, text in BLOCKS if kind == "json" and "…" not in text]
VECTORS = list(zip(CLAIMS, TOKENS, strict=True))

# How each language is run, and what makes of its lines a program: claims, secret → token.
RUN = {
    "python": (
        lambda: [sys.executable, "-c"],
        "import json, sys\nclaims, secret = json.loads(sys.argv[1]), sys.argv[2]\n{}\nprint(token)",
    ),
    "javascript": (
        lambda: [need("node", install="apt install nodejs"), "--eval"],
        "const claims = JSON.parse(process.argv[1]), secret = process.argv[2]\n{}\nconsole.log(token)",
    ),
    "php": (
        lambda: [need("php", install="apt install php-cli"), "-r"],
        "$claims = json_decode($argv[1]); $secret = $argv[2];\n{}\necho $token;",
    ),
}


def snippet(language):
    """The first block of a language: the lines that sign."""
    return next(text for kind, text in BLOCKS if kind == language)


@pytest.mark.parametrize("language", RUN)
def test_the_lines_mint_the_vectors(language):
    command, program = RUN[language]
    code = program.replace("{}", snippet(language))
    separator = ["--"] if language == "php" else []
    for claims, token in VECTORS:
        ended = subprocess.run(
            [*command(), code, *separator, claims, SECRET],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert ended.stdout.strip() == token


@pytest.mark.parametrize("language", RUN)
def test_it_is_five_lines_at_most(language):
    assert len([line for line in snippet(language).splitlines() if line]) <= 5


@pytest.mark.parametrize(("claims", "token"), VECTORS)
def test_the_vectors_are_right_and_count(claims, token):
    header = b'{"typ":"JWT","alg":"HS256"}'
    text = ".".join(encode(part) for part in (header, claims.encode()))
    assert token == f"{text}.{encode(hmac.digest(SECRET.encode(), text.encode(), hashlib.sha256))}"
    said = json.loads(claims)
    keyring = Keyring({said.get("iss", ""): [Key(SECRET)]}, 3600)
    assert keyring.verify(tokens.credential(f"Bearer {token}"), 1_000_000_000).claims == said
    assert tokens.sign(said, SECRET) == token


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_the_page_names_every_ability_and_parameter():
    abilities = re.search(r"\*\*Abilities\*\*: `([^`]*)`", PAGE)[1].split()
    assert abilities == [str(ability) for ability in Ability]
    assert f"more than {tokens.MAX_DEPTH} levels" in PAGE
    assert f"Clocks may differ by {tokens.LEEWAY} seconds" in PAGE
    assert f"1 to {tokens.MAX_ID} characters" in PAGE
