import random
import string
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageapi.storage.backend import original_key, rendition_key
from imageapi.storage.signing import SignedURLs

NEW, OLD, OTHER = (f"the {name} secret of at least 32 bytes" for name in ("new", "old", "other"))
KEY = rendition_key("5cf8c06d-83fa-4ede-b995-5efd3133b6e5", 3, "full", "jpg")
W = 3600
URLS = SignedURLs([NEW, OLD])


def query(urls=URLS, name="local", key=KEY, window=10):
    return urlsplit(urls.url(name, key, window)).query


def test_the_url():
    parts = urlsplit(SignedURLs([NEW], "https://img.example.org/api").url("disk2", KEY, 10))
    assert parts[:3] == ("https", "img.example.org", f"/api/files/disk2/{KEY}")
    assert parts.query.startswith("expires=43200&signature=")
    assert URLS.url("disk2", KEY, 10).startswith(f"/files/disk2/{KEY}?expires=43200&")


@pytest.mark.parametrize(
    ("now", "left"), [(10 * W, 2 * W), (11 * W, W), (12 * W - 1, 1), (12 * W - 0.5, 0), (12 * W, 0)]
)
def test_it_ends_at_its_second(now, left):
    assert URLS.verify("local", KEY, query(), now) == left


def test_older_keys_still_verify_and_the_newest_signs():
    assert URLS.verify("local", KEY, query(SignedURLs([OLD])), 0)
    assert SignedURLs([NEW]).verify("local", KEY, query(), 0)
    assert not SignedURLs([OLD]).verify("local", KEY, query(), 0)
    assert not URLS.verify("local", KEY, query(SignedURLs([OTHER])), 0)


def test_a_thousand_rotations_refuse_nothing():
    keys = [f"{number:032}" for number in range(1000)]
    for place in range(len(keys) - 2):
        before, after = SignedURLs(keys[place : place + 2]), SignedURLs(keys[place + 1 : place + 3])
        assert after.verify("local", KEY, query(SignedURLs([keys[place + 1]])), 0)
        assert not after.verify("local", KEY, query(before), 0)


def test_a_signature_counts_for_its_purpose_storage_and_key_alone():
    other = original_key()
    assert not SignedURLs([NEW], purpose="other").verify("local", KEY, query(), 0)
    assert not URLS.verify("local2", KEY, query(), 0)
    assert not URLS.verify("local", other, query(), 0)
    assert not URLS.verify("local", KEY.replace(".3.", ".4."), query(), 0)
    assert not URLS.verify("local", KEY.replace("full", "mini"), query(), 0)
    assert not URLS.verify("local/" + KEY[:2], KEY[3:], query(), 0)


def test_one_spelling_is_valid():
    expires, signature = query().split("&")
    code = signature.removeprefix("signature=")
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    same_bytes = [code[:-1] + letter for letter in letters if letter != code[-1]]
    variants = [
        f"{signature}&{expires}",
        f"{expires}&{expires}&{signature}",
        f"{expires}&{signature}&{signature}",
        f"{expires}&{signature}&",
        f"&{expires}&{signature}",
        f"?{expires}&{signature}",
        f"{expires};{signature}",
        f"{expires}&{signature}&more=1",
        f"{expires}&{signature}=",
        f"{expires}&{signature}\n",
        f"{expires.upper()}&{signature}",
        expires,
        signature,
        "",
        f"{expires}&signature=",
        *(f"{expires}&signature={other}" for other in same_bytes),
        f"{expires}&signature={code.swapcase()}",
        f"{expires}&signature={code[:-1]}",
        f"{expires}&signature=%{ord(code[0]):x}{code[1:]}",
        f"{expires}&signature={code[:-1]}\ud800",
        f"{expires}&signature={'é' * 43}",
        *(
            f"expires={text}&{signature}"
            for text in ("043200", "+43200", " 43200", "43200.0", "4e4")
        ),
        *(f"expires={text}&{signature}" for text in ("-1", "\uff143200", "43_200", "0", "9" * 400)),
    ]
    assert URLS.verify("local", KEY, query(), 0)
    for variant in variants:
        assert URLS.verify("local", KEY, variant, 0) == 0, variant


@given(name=st.text(), key=st.text(), text=st.text(), now=st.floats(0, 1e10))
def test_anything_else_is_refused_without_an_error(name, key, text, now):
    assert URLS.verify(name, KEY, query(), 0) == 0 or name == "local"
    assert URLS.verify("local", key, query(), 0) == 0 or key == KEY
    assert URLS.verify("local", KEY, text, now) == 0


def test_ten_thousand_changed_characters():
    whole = f"local|{KEY}|{query()}"
    chance = random.Random(1)  # noqa: S311 - repeatable
    for _ in range(10_000):
        place = chance.randrange(len(whole))
        change = chance.choice(string.ascii_letters + string.digits + "|/.&=-_%")
        changed = whole[:place] + change + whole[place + 1 :]
        if changed != whole:
            name, key, text = [*changed.split("|", 2), "", ""][:3]
            assert URLS.verify(name, key, text, 0) == 0, changed
