"""`flask users erase`: what is taken out, what stays, and that it goes on where it was stopped."""

import pytest
import sqlalchemy as sa

from imageapi.catalog import library, users
from imageapi.extensions import read, transaction
from imageapi.models import Album, Image, Revocation, Share, TagImage
from tests.auth.conftest import assert_refused, insert_image, insert_integrator
from tests.cli.conftest import assert_done, assert_told
from tests.conftest import bearing, jpeg, part, sign

ACME = "the-secret-of-acme-5f6e7d8c9b0a1f2e3d4c"
ABILITIES = ("see", "image_list", "image_upload", "image_share", "image_tag", "image_duplicate")
ADDRESS = (52.5, 13.25)
BROWSER = {"latitude": "48.861934399999996", "longitude": "2.3", "accuracy": "36"}
NOTHING = "Erased: shares 0, images 0, positions 0, tags 0."


@pytest.fixture
def as_user(client):
    """`as_user(name, issuer)(method, path, …)`: a request of a user that may do all in `holidays`."""

    def of(user, issuer=""):
        entry = {"holidays": {"Access": dict.fromkeys(ABILITIES, True)}}
        claims = {"user_id": user, "abilities": entry, **({"iss": issuer} if issuer else {})}
        header = bearing(sign(claims, ACME) if issuer else sign(claims))

        def ask(method, path, **options):
            answer = client.open(f"/api/v1/{path}", method=method, headers=header, **options)
            assert answer.status_code < 300, answer.text
            return answer.get_json()

        return ask

    return of


@pytest.fixture
def upload(app, monkeypatch):
    """`upload(ask, seed, **fields)`: an image from a place that its address tells."""
    with app.app_context():
        geoip = library().geoip
    monkeypatch.setattr(type(geoip), "position", lambda _self, _address: ADDRESS)

    def send(ask, seed, **fields):
        data = {"file": part(jpeg(seed=seed)), **fields}
        return ask("POST", "albums/holidays/images", data=data)

    return send


def image_row(app, image_id):
    with app.app_context():
        return read(sa.select(*Image.__table__.columns).where(Image.id == image_id))[0]


def test_positions_by_browser_and_by_address_are_taken_out(app, flask, album, as_user, upload):
    album(owner="owner")
    anna = as_user("anna")
    block = upload(anna, 1, **BROWSER)
    plain = upload(anna, 2)
    before = image_row(app, block["public_id"])
    assert block["gps_html"] == [48.861934399999996, 2.3]
    assert block["gps_ip"] == list(ADDRESS)
    assert block["gps"] == block["gps_html"]
    assert (before.latitude, before.uploader) == (48.861934399999996, "anna")
    assert image_row(app, plain["public_id"]).latitude == ADDRESS[0]

    done = flask("users", "erase", "anna", "--yes")
    assert_done(done, "Erased: shares 0, images 2, positions 2, tags 0.")

    after = image_row(app, block["public_id"])
    location = ',"location":{"accuracy":36,"latitude":48.861934399999996,"longitude":2.3}'
    assert location in before.infos
    assert after.infos == before.infos.replace(location, "")
    changed = {"infos", "gps_html", "gps_ip", "latitude", "longitude", "uploader"}
    assert {name for name, value in before._asdict().items() if getattr(after, name) != value} == (
        changed
    )
    assert not any(getattr(after, name) for name in changed - {"infos"})
    shown = anna("GET", f"images/{block['public_id']}")
    assert list(shown) == list(block)
    assert list(shown["infos"]) == [name for name in block["infos"] if name != "location"]
    assert (shown["gps"], shown["gps_html"], shown["gps_ip"]) == (None, None, None)
    assert anna("GET", "albums/holidays/images?bbox=-180,-90,180,90") == []
    assert_done(flask("users", "erase", "anna", "--yes"), NOTHING)


def test_a_position_of_the_picture_itself_stays(app, flask, album, as_user, upload):
    album(owner="owner")
    image_id = upload(as_user("anna"), 1, **BROWSER)["public_id"]
    values = {"gps_exifs": "[10.0,-20.5]", "latitude": 10.0, "longitude": -20.5}
    with app.app_context(), transaction() as session:
        session.execute(sa.update(Image).values(**values))
    assert_done(
        flask("users", "erase", "anna", "--yes"),
        "Erased: shares 0, images 1, positions 1, tags 0.",
    )
    row = image_row(app, image_id)
    assert {name: getattr(row, name) for name in values} == values
    shown = as_user("anna")("GET", "albums/holidays/images?bbox=-21,9,-20,11")
    assert [image["gps"] for image in shown] == [[10.0, -20.5]]


def test_duplicates_that_others_made_forget_it_too(app, flask, album, as_user, upload):
    album(owner="owner")
    image_id = upload(as_user("anna"), 1, **BROWSER)["public_id"]
    again = as_user("bob")("POST", f"images/{image_id}/duplicate")
    assert "location" in again["infos"]
    done = flask("users", "erase", "anna", "--yes")
    assert_done(done, "Erased: shares 0, images 2, positions 2, tags 0.")
    assert "location" not in image_row(app, again["public_id"]).infos


def test_shares_end_and_tags_lose_their_user(app, client, flask, album, as_user, upload):
    album(owner="owner")
    anna, bob = as_user("anna"), as_user("bob")
    with app.app_context(), transaction() as session:
        album_id = session.scalars(sa.select(Album.id)).one()
        image_id = insert_image(session, album_id)
    tags = {"holidays": {"Access": {"image_tag": True}, "Tags": {"sea": "Sea"}}}
    header = bearing(sign({"abilities": tags}))
    tag = client.get("/api/v1/albums/holidays/tags", headers=header).get_json()[0]["id"]
    made = anna("POST", f"tags/{tag}/tag_images", json={"image_ids": [image_id]})
    body = {"abilities": ["image_list"], "expires_in": 600, "label": "for the family"}
    shares = [ask("POST", "albums/holidays/shares", json=body)["token"] for ask in (anna, bob)]
    url = "/api/v1/albums/holidays/images"
    for share in shares:
        assert client.get(url, headers=bearing(share)).status_code == 200

    done = flask("users", "erase", "anna", "--yes")
    assert_done(done, "Erased: shares 1, images 0, positions 0, tags 1.")

    assert_refused(client.get(url, headers=bearing(shares[0])))
    assert client.get(url, headers=bearing(shares[1])).status_code == 200
    with app.app_context():
        assert [row.maker for row in read(sa.select(Share.maker))] == ["bob"]
        assert [row.user for row in read(sa.select(TagImage.user))] == [None]
    assert [row["id"] for row in anna("GET", "tag_images?album_id=holidays")] == [
        row["id"] for row in made
    ]


def test_only_that_user_of_that_issuer(app, flask, album, as_user, upload):
    album(owner="owner")
    album(owner="owner", issuer="acme")
    with app.app_context(), transaction() as session:
        insert_integrator(session, "acme", ACME)
    body = {"abilities": ["see"], "expires_in": 600}
    for seed, who in enumerate([("anna",), ("anna", "acme"), ("bob",), ("anna%",)]):
        ask = as_user(*who)
        upload(ask, seed, **BROWSER)
        ask("POST", "albums/holidays/shares", json=body)

    def kept():
        wanted = sa.select(Album.issuer, Image.uploader, Image.gps_ip).join(Image)
        with app.app_context():
            return sorted((row.issuer, row.uploader or "") for row in read(wanted) if row.gps_ip)

    said = "Erased: shares 1, images 1, positions 1, tags 0."
    assert_done(flask("users", "erase", "anna", "--issuer", "acme", "--yes"), said)
    assert kept() == [("", "anna"), ("", "anna%"), ("", "bob")]
    assert_done(flask("users", "erase", "anna", "--yes"), said)
    assert kept() == [("", "anna%"), ("", "bob")]


def test_albums_stay_and_are_told_of(app, flask, album):
    album()
    album("beach")
    album("gone", deleted_ms=1)
    album("other", issuer="acme")
    assert_done(flask("revoke", "user", "anna"))
    lines = flask("users", "erase", "anna", "--yes").stdout.splitlines()
    assert lines == [NOTHING, "Albums that stay the user's until transferred or deleted: 2."]
    assert_done(flask("albums", "transfer", "holidays", "--owner", "bob"))
    assert "deleted: 1." in flask("users", "erase", "anna", "--yes").stdout
    with app.app_context():
        assert len(read(sa.select(Revocation.kind))) == 1, "or old tokens would count again"


def test_it_is_done_in_batches_and_goes_on_where_it_was_stopped(app, flask, album, monkeypatch):
    number = album(owner="owner")
    with app.app_context(), transaction() as session:
        for _ in range(5):
            insert_image(session, number)
        session.execute(sa.update(Image).values(uploader="anna", gps_ip="[1.0,2.0]"))
    monkeypatch.setattr(users, "BATCH", 2)
    whole, calls = users._erase_uploads, []

    def stopped(session, image_ids):
        done = whole(session, image_ids)
        calls.append(len(image_ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(users, "_erase_uploads", stopped)
    done = flask("users", "erase", "anna", "--yes")
    assert (done.exit_code, done.stdout.strip()) == (
        1,
        "Erased: shares 0, images 2, positions 2, tags 0.",
    )
    again = flask("users", "erase", "anna", "--yes")
    assert_done(again, "Erased: shares 0, images 3, positions 3, tags 0.")
    assert calls == [2, 2, 2, 1]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_it_asks_first(app, flask, album, as_user, upload, answer, code):
    album(owner="owner")
    image_id = upload(as_user("anna"), 1)["public_id"]
    done = flask("users", "erase", "anna", input=answer)
    assert done.exit_code == code
    assert "Erase what is kept about the user 'anna'?" in done.stderr
    assert ("Erased: " in done.stdout) is (code == 0)
    assert (image_row(app, image_id).uploader is None) is (code == 0)


def test_what_is_no_user_is_a_usage_error(flask):
    assert_told(flask("users", "erase", "", "--yes"), 2, "ID must be a text of 1 to 128")
    assert_told(flask("users", "erase", "a", "--issuer", "a\nb", "--yes"), 2, "can be printed")
