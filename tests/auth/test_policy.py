"""The decision, beside ten lines of reference; and the policy table against what Flask serves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageapi.auth import guard, policy
from imageapi.auth.policy import Ability, Access, AlbumFacts, ShareFacts
from imageapi.auth.tokens import Key, Keyring, TokenFault
from tests.auth import reference
from tests.auth.conftest import NOW, dump, many, mint
from tests.conftest import SECRET

IDS = [
    "holidays",
    "Holidays",
    "holidays ",
    "holiday",
    "s",
    "été",
    "e\u0301te\u0301",
    "h\u043elidays",
    "1",
    "",
]
USERS = ["anna", "Anna", "anna ", "bob"]
ISSUERS = ["", "acme", "Acme"]
KEYRING = Keyring({issuer: [Key(SECRET)] for issuer in ISSUERS}, 3600)

FLAG = st.sampled_from(
    [True, True, False, None, 1, 1.0, 0, "true", "True", [True], {"see": True}, []]
)
FLAGS = st.one_of(
    st.dictionaries(
        st.sampled_from([*sorted(reference.ABILITIES), "SEE", "__proto__", "admin", ""]), FLAG
    ),
    st.sampled_from([None, True, 1, "see", ["see"], [["see", True]], []]),
)
ENTRY = st.one_of(
    st.dictionaries(st.sampled_from(["Access", "access", "Tags", "__proto__"]), FLAGS, max_size=3),
    st.sampled_from(
        [None, True, 1, "Access", ["Access"], [], {"Access": {"Access": {"see": True}}}]
    ),
)
ENTRIES = st.one_of(
    st.dictionaries(st.sampled_from(IDS), ENTRY, max_size=3),
    st.sampled_from([None, True, 1, "holidays", [], ["holidays"], [{"holidays": True}]]),
)
CLAIMS = st.fixed_dictionaries(
    {"exp": st.just(NOW + 60)},
    optional={
        "iss": st.sampled_from([*ISSUERS[1:], None]),
        "user_id": st.sampled_from([*USERS, None]),
        "abilities": ENTRIES,
        "owner": st.just("anna"),
        "share": st.sampled_from(["a", None]),
    },
)
ALBUMS = st.builds(
    AlbumFacts,
    st.integers(1, 3),
    st.sampled_from(ISSUERS),
    st.sampled_from(IDS),
    st.sampled_from([*USERS, None]),
)
SHARES = st.none() | st.builds(
    ShareFacts, st.integers(1, 3), st.frozensets(st.sampled_from(sorted(reference.ABILITIES)))
)


@settings(max_examples=many(1000, 50_000), deadline=None)
@given(CLAIMS, ALBUMS, SHARES)
def test_the_decision_is_the_references(claims, album, share):
    token = mint(dump(claims))
    counts = reference.claims(token, {key: [SECRET] for key in ISSUERS}, NOW) is not None
    if not counts:
        with pytest.raises(TokenFault):
            KEYRING.verify(token, NOW)
        return
    decided = policy.abilities(KEYRING.verify(token, NOW), album, share)
    wanted = reference.decide(claims, tuple(album), tuple(share) if share else None)
    assert decided == wanted


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)


@settings(max_examples=many(1000, 10_000), deadline=None)
@given(NAMES, NAMES)
def test_an_entry_opens_the_album_of_exactly_its_id(named, asked):
    said = {"exp": NOW + 60, "abilities": {named: {"Access": {"see": True}}}}
    token = KEYRING.verify(mint(said), NOW)
    decided = policy.abilities(token, AlbumFacts(1, "", asked, "anna"))
    assert decided == ({Ability.SEE} if named == asked else None)


def test_the_abilities_are_the_designs():
    assert {str(ability) for ability in Ability} == reference.ABILITIES
    assert reference.ABILITIES - {"image_share"} == policy.OWNER_ABILITIES


def test_as_many_albums_as_fit():
    """As many as 8 KiB hold, about: each opens, and nothing else."""
    entries = {f"album-{n}": {"Access": {"see": True}} for n in range(160)}
    token = KEYRING.verify(mint({"exp": NOW + 60, "abilities": entries}), NOW)
    for n in (0, 159):
        assert policy.abilities(token, AlbumFacts(n, "", f"album-{n}", None)) == {Ability.SEE}
    assert policy.abilities(token, AlbumFacts(1, "", "album-160", None)) is None


@pytest.mark.parametrize("rule", ["/api/v1/forgotten", "/forgotten"])
def test_a_route_that_the_table_does_not_list_stops_the_start(rule, app):
    app.add_url_rule(rule, "forgotten", lambda: "")
    with pytest.raises(RuntimeError, match="forgotten"):
        guard.init_app(app, app.extensions["authority"])


def test_an_entry_of_the_table_without_a_route_stops_the_start(app, monkeypatch):
    monkeypatch.setattr(policy, "POLICY", {**policy.POLICY, "gone": Access.PUBLIC})
    with pytest.raises(RuntimeError, match="gone"):
        guard.init_app(app, app.extensions["authority"])


def test_an_answer_that_nobody_decided_is_a_500(app, client, album, token):
    album()
    app.view_functions["albums.list_images"] = lambda album_id: f"all of {album_id}"
    response = client.get("/api/v1/albums/holidays/images", headers=token("holidays", "image_list"))
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "all of" not in response.text
