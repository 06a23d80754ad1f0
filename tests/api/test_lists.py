"""Lists of images: pages, filters, views."""

from __future__ import annotations

import re
import urllib.parse
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from imageapi.catalog import albums, images, listing, tags
from imageapi.extensions import db
from tests.conftest import jpeg
from tests.storages import everywhere

LIST = "/albums/holidays/images"


@pytest.fixture
def pictures(anna):
    """Seven images, oldest first."""
    return [anna.upload(data=jpeg(seed=number)) for number in range(7)]


def following(response):
    """The path of the next page, or None."""
    link = response.headers.get("Link")
    if link is None:
        return None
    match = re.fullmatch(r'</api/v1(?P<path>[^>]+)>; rel="next"', link)
    return match["path"]


def walk(api, path):
    pages = []
    while path:
        response = api.get(path)
        assert response.status_code == 200, response.text
        pages.append([image["public_id"] for image in response.json])
        path = following(response)
    return pages


def ids(images):
    return [image["public_id"] for image in images]


@everywhere
def test_newest_first_in_pages(anna, pictures):
    newest = ids(pictures)[::-1]
    assert walk(anna, LIST) == [newest]
    assert walk(anna, f"{LIST}?limit=3") == [newest[:3], newest[3:6], newest[6:]]
    assert walk(anna, f"{LIST}?limit=7") == [newest]


@everywhere
def test_a_walk_sees_what_was_there_once_while_others_come_and_go(anna, pictures):
    there = ids(pictures)
    first = anna.get(f"{LIST}?limit=2")
    seen = ids(first.json)
    anna.upload(data=jpeg(seed=100))
    anna.delete(f"/images/{seen[1]}")
    gone = there[0]
    anna.delete(f"/images/{gone}")
    for page in walk(anna, following(first)):
        seen += page
    assert sorted(seen) == sorted(set(there) - {gone})


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "cursor=x", "offset=3", "format=bmp"],
)
def test_a_bad_parameter_names_itself(anna, query):
    response = anna.get(f"{LIST}?{query}")
    assert response.status_code == 422
    assert response.json["errors"][0]["field"] == query.partition("=")[0]


def test_a_cursor_belongs_to_its_list_and_filters(anna, api, album, pictures):
    album("other", owner="anna")
    path = following(anna.get(f"{LIST}?limit=2&format=jpg"))
    query = urllib.parse.parse_qs(path.partition("?")[2])
    cursor = query["cursor"][0]
    assert query["format"] == ["jpg"]
    assert anna.get(f"{LIST}?format=jpg&cursor={cursor}").status_code == 200
    for foreign in (
        f"{LIST}?cursor={cursor}",
        f"{LIST}?format=png&cursor={cursor}",
        f"/albums/other/images?format=jpg&cursor={cursor}",
        f"{LIST}/untag?format=jpg&cursor={cursor}",
        f"{LIST}?format=jpg&cursor={cursor[:-1]}",
    ):
        response = anna.get(foreign)
        assert (response.status_code, response.json["errors"][0]["field"]) == (422, "cursor")


@everywhere
def test_filters(anna):
    paris = anna.upload(data=jpeg(seed=1), latitude="48.86", longitude="2.35")
    fiji = anna.upload(data=jpeg(seed=2), latitude="-18", longitude="179.5")
    nowhere = anna.upload(data=jpeg(seed=3))

    def found(query):
        response = anna.get(f"{LIST}?{query}")
        assert response.status_code == 200, response.text
        return ids(response.json)

    assert found("bbox=2,48,3,49") == [paris["public_id"]]
    assert found("bbox=170,-20,-170,-10") == [fiji["public_id"]]
    assert found("bbox=-180,-90,180,90") == ids([fiji, paris])
    assert found("format=jpg") == ids([nowhere, fiji, paris])
    assert found("format=png") == []
    moment = urllib.parse.quote(fiji["created_at"])
    assert found(f"created_after={moment}") == [nowhere["public_id"]]
    assert found(f"created_before={moment}") == [paris["public_id"]]
    assert found("created_after=2001-01-01&created_before=2001-01-02") == []
    # An unescaped plus sign means a space in a query; it is understood all the same.
    assert found(f"created_after={fiji['created_at']}") == [nowhere["public_id"]]
    for wrong in ("bbox=1,2,3", "bbox=0,10,0,5", "bbox=0,0,181,0", "created_after=yesterday"):
        assert anna.get(f"{LIST}?{wrong}").status_code == 422, wrong


def test_taken_is_what_the_camera_wrote(anna):
    taken = {0x8769: {0x9003: "2015:09:25 13:32:55"}}
    image = anna.upload(data=jpeg(exif=_exif(taken)))
    anna.upload(data=jpeg(seed=5))
    assert ids(anna.get(f"{LIST}?taken_after=2015-09-25T13:32:54").json) == [image["public_id"]]
    assert ids(anna.get(f"{LIST}?taken_before=2015-09-25T13:32:56").json) == [image["public_id"]]
    assert anna.get(f"{LIST}?taken_after=2015-09-25T13:32:55").json == []


def _exif(values):
    from PIL import Image  # noqa: PLC0415

    exif = Image.Exif()
    for tag, value in values.items():
        exif[tag] = value
    return exif


@everywhere
def test_the_same_statements_at_any_length(anna, pictures, statements):
    counts = []
    anna.get(f"{LIST}?limit=1")
    for limit in (1, 3, 7):
        statements.clear()
        anna.get(f"{LIST}?limit={limit}")
        counts.append(len(statements))
    assert counts == [2, 2, 2]


FILTERS = [
    listing.Filters(),
    listing.Filters(tag="a"),
    listing.Filters(format="jpg"),
    listing.Filters(bbox=(1, 2, 3, 4)),
    listing.Filters(bbox=(3, 2, 1, 4)),
    listing.Filters(untagged=True),
    listing.Filters(taken_after=1, taken_before=9),
    listing.Filters(created_after=1, created_before=9),
    listing.Filters(tag="a", format="jpg", bbox=(1, 2, 3, 4), taken_after=1, created_before=9),
]


NEWEST = 2 * len(FILTERS) + 4
"""The place of what is read of several albums at once, after all pages."""
LISTS = NEWEST + 4


@pytest.fixture
def plans(app):
    """The plans of all that is read, each a list of its steps."""
    found = []

    def explain(connection, cursor, statement, parameters, *_rest):
        sqlite = connection.dialect.name == "sqlite"
        if statement.startswith("SELECT"):
            beside = cursor.connection.cursor()
            beside.execute(f"EXPLAIN {'QUERY PLAN' if sqlite else ''} {statement}", parameters)
            found.append([row[-1] for row in beside.fetchall()])

    sa.event.listen(app.extensions["reader"]._engine, "before_cursor_execute", explain)
    return found


def read_every_list(album_id):
    """Each of its orders and filters: their pages, then what is read of no album's length."""
    for chosen in FILTERS:
        for after in (None, (5, "x")):
            listing.page(SimpleNamespace(id=album_id, public_id="a"), 10, after, chosen)
    for name in (None, "a"):
        for after in (None, (5, "x")):
            tags.page(album_id, name, None, 10, after)
    listing.newest([1, 2, 3])
    images.find(album_id, "x")
    images.newest(album_id, 4)
    tags.page(album_id, None, "x", 10, None)


def test_every_list_stays_in_the_albums_index(app, settings, plans):
    if settings.database_url:
        pytest.skip("these are the words of SQLite's plans")
    with app.app_context():
        read_every_list(1)
    assert len(plans) == LISTS
    for plan in (*plans[: 2 * len(FILTERS)], plans[NEWEST]):
        assert any("ix_image_album (album_id=?" in step for step in plan), plan
    for plan in plans[: 2 * len(FILTERS)]:
        assert not any("TEMP B-TREE" in step for step in plan), plan
    for plan in plans:
        scanned = {step.split()[1] for step in plan if step.startswith("SCAN")}
        assert all(name == "generation" or name.startswith("anon_") for name in scanned), plan


def test_every_list_of_postgresql_stays_in_an_index(app, settings, plans):
    if not settings.database_url:
        pytest.skip("these are the words of PostgreSQL's plans")
    with app.app_context():
        large = many_images()
        plans.clear()
        read_every_list(large)
    assert len(plans) == LISTS
    for plan in plans[:2]:
        assert any("using ix_image_album on image" in step for step in plan), plan
        assert not any("Sort" in step for step in plan), plan
    for plan in plans[: 2 * len(FILTERS)]:
        assert any("ix_image_album" in step or "uq_tag_" in step for step in plan), plan
    for plan in plans:
        assert not any(f"Seq Scan on {name}" in step for step in plan for name in LARGE), plan


LARGE = ("image", "stored_object")


ROWS = (
    """INSERT INTO stored_object SELECT i, CASE i % 10 WHEN 0 THEN :large ELSE :other END, 'local',
    md5(i::text), md5(i::text), '', 1, 'jpg', 1, 1, i FROM generate_series(1, :count) i""",
    """INSERT INTO image (id, album_id, object_id, created_ms, width, height, rendered, infos, exifs,
    file_name, latitude, longitude, taken_ms) SELECT gen_random_uuid(), album_id, id, id, 1, 1, '',
    '', '', '', id % 90, id % 180, id FROM stored_object""",
    "INSERT INTO tag VALUES ('a', :large, 0, 'a', ''), ('b', :other, 0, 'a', '')",
    """INSERT INTO tag_image SELECT id, CASE album_id WHEN :large THEN 'a' ELSE 'b' END, id,
    created_ms, 'anna' FROM image WHERE object_id % 3 = 0""",
)


def many_images():
    """An album in so many rows that PostgreSQL would not read them all; its id."""
    count = 50_000
    for name in ("large", "other"):
        albums.create(name, "anna")
    large, other = (albums.find(name).id for name in ("large", "other"))
    values = {"large": large, "other": other, "count": count}
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ROWS:
            connection.execute(sa.text(statement), values)
        connection.exec_driver_sql("ANALYZE")
    return large


@everywhere
def test_views_count_the_lists_of_others(app, anna, api, pictures):
    stranger = api("holidays", "image_list", user_id="bert")
    for _ in range(3):
        stranger.get(LIST)
    anna.get(LIST)
    api(user_id="bert").get(LIST)
    app.extensions["background"].once()
    assert anna.get("/albums/holidays").json["views_count"] == 3
    stats = anna.get("/albums/holidays/stats").json
    assert [views["count"] for views in stats["views"]] == [3]
    assert (stats["images"], stats["formats"]) == (7, {"jpg": 7})
    assert stats["bytes"] == sum(image["infos"]["bytes"] for image in pictures)


@everywhere
def test_untagged_are_those_that_carry_no_tag(anna, api, pictures):
    named = {"holidays": {"Tags": {"Sea": "Sea"}, "Access": {"image_tag": True}}}
    tagger = api(abilities=named, user_id="bert")
    (tag,) = tagger.get("/albums/holidays/tags").json
    chosen = ids(pictures)[:2]
    tagger.post(f"/tags/{tag['id']}/tag_images", json={"image_ids": chosen})
    assert walk(anna, f"{LIST}/untag?limit=2") == [
        ids(pictures)[:4:-1],
        ids(pictures)[4:2:-1],
        [ids(pictures)[2]],
    ]
    assert ids(anna.get(f"{LIST}?tag=Sea").json) == chosen[::-1]
    assert anna.get(f"{LIST}?tag=Land").json == []
