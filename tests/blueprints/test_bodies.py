"""Small bodies through the front door: what is not whole or not well formed changes nothing."""

from __future__ import annotations

import io
import itertools

import pytest
import requests
import sqlalchemy as sa
from flask.testing import EnvironBuilder
from werkzeug.wrappers import Response

from imageapi.auth.policy import Ability
from imageapi.extensions import Base, read
from tests.conftest import bearing, jpeg, part, sign
from tests.faults.front import front, picture

API = "/api/v1"
JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
SEEDS = itertools.count()


@pytest.fixture
def send(app, album):
    """`send(method, path, body, kind, length)`: a body as a server hands it on; its length may lie."""
    album()
    entry = {"Access": dict.fromkeys(Ability, True), "Tags": {"Mer": {}}}
    headers = bearing(sign({"user_id": "anna", "abilities": {"holidays": entry}}))

    def ask(method, path, body=b"", kind=None, length=None, **environ):
        builder = EnvironBuilder(app, f"{API}{path}", method=method, headers=headers)
        stream = io.BytesIO(body) if isinstance(body, bytes) else body
        given = {
            "wsgi.input": stream,
            "wsgi.input_terminated": True,
            "CONTENT_TYPE": kind,
            "CONTENT_LENGTH": str(len(body) if length is None else length),
            **environ,
        }
        environ = {**builder.get_environ(), **given}
        environ = {name: value for name, value in environ.items() if value is not None}
        return Response.from_app(app, environ, buffered=True)

    ask.headers = headers
    return ask


@pytest.fixture
def things(client, send):
    """The ids of what there is, by the names that the routes have for them."""
    client.environ_base["HTTP_AUTHORIZATION"] = send.headers["Authorization"]
    album = f"{API}/albums/holidays"
    image = client.post(f"{album}/images", data={"file": part(jpeg())}).json["public_id"]
    tag = client.get(f"{album}/tags").json[0]["id"]
    (tagged,) = client.post(f"{API}/tags/{tag}/tag_images", json={"image_ids": [image]}).json
    share = client.post(f"{album}/shares", json={"abilities": ["see"], "expires_in": 60}).json
    return {
        "album_id": "holidays",
        "image_id": image,
        "tag_id": tag,
        "tag_image_id": tagged["id"],
        "share_id": share["id"],
    }


def changing(app, things):
    """Method and path of every route that changes something."""
    adapter = app.url_map.bind("")
    for rule in app.url_map.iter_rules():
        for method in rule.methods - {"GET", "HEAD", "OPTIONS"}:
            path = adapter.build(rule.endpoint, {name: things[name] for name in rule.arguments})
            yield method, path.removeprefix(API)


def rows(app):
    """Every row of every table."""
    with app.app_context():
        return {name: read(sa.select(table)) for name, table in Base.metadata.tables.items()}


# bodies that lie about their length ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, b""),
        (URLENCODED, b""),
        (URLENCODED, b"rotation=90"),
        (JSON, b""),
        (JSON, b'{"rotation":90}'),
        (MULTIPART, b'--b\r\nContent-Disposition: form-data; name="rotation"\r\n\r\n90\r\n--b--'),
    ],
)
@pytest.mark.parametrize("terminated", [True, None])
def test_no_route_takes_a_body_that_is_shorter_than_it_said(
    app, send, things, kind, body, terminated
):
    before = rows(app)
    routes = list(changing(app, things))
    assert len(routes) >= 11
    for method, path in routes:
        answer = send(
            method, path, body, kind, len(body) + 1, **{"wsgi.input_terminated": terminated}
        )
        assert answer.status_code in (400, 415), (method, path, answer.data)
        uploads = path.endswith("/holidays/images") and kind is None  # nothing of it is read
        assert answer.json["code"] == ("unsupported_format" if uploads else "incomplete_body")
    assert rows(app) == before


class Gone:
    """A connection that ends with an error; gunicorn has some of its own."""

    def read(self, _size=-1):
        raise OSError("gone")


def test_no_route_takes_a_body_whose_connection_is_gone(app, send, things):
    before = rows(app)
    for method, path in changing(app, things):
        answer = send(method, path, Gone(), JSON, 15)
        assert answer.status_code == 400, (method, path, answer.data)
    assert rows(app) == before


def test_bytes_beyond_the_length_belong_to_the_next_request(send, things):
    stream = io.BytesIO(b"rotation=90GET / HTTP/1.1")
    answer = send("PUT", f"/images/{things['image_id']}", stream, URLENCODED, 11)
    assert answer.json["rotation"] == 90
    assert stream.tell() == 11


@pytest.mark.parametrize("kind", [None, URLENCODED, JSON, MULTIPART, "text/plain"])
@pytest.mark.parametrize("terminated", [True, None])
@pytest.mark.parametrize("length", ["0", "", None])
def test_no_body_is_no_field_whatever_its_type(send, kind, terminated, length):
    environ = {"wsgi.input_terminated": terminated, "CONTENT_LENGTH": length}
    assert send("POST", "/albums", b"", kind, **environ).status_code == 200


def test_a_chunked_body_is_taken_where_the_server_knows_its_end(send):
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None}
    body = b"album[public_id]=work"
    assert send("POST", "/albums", body, URLENCODED, **chunked).json["public_id"] == "work"
    unknown = {**chunked, "wsgi.input_terminated": None}
    assert send("POST", "/albums", body, URLENCODED, **unknown).status_code == 411


@pytest.mark.parametrize("length", [None, ""])
def test_a_megabyte_and_no_more(app, send, things, length):
    environ = {} if length is None else {"CONTENT_LENGTH": length}
    path = f"/images/{things['image_id']}"
    largest = b'{"rotation":90}'.ljust(1 << 20)
    assert send("PUT", path, largest, JSON, **environ).json["rotation"] == 90
    before = rows(app)
    for method, path in changing(app, things):
        if not path.endswith("/holidays/images"):
            assert send(method, path, largest + b" ", JSON, **environ).status_code == 413
    assert rows(app) == before


# forms --------------------------------------------------------------------------------------


def parts(*pairs, end="--b--"):
    """A multipart form; a pair is what follows `form-data; `, and the text."""
    head = "--b\r\nContent-Disposition: form-data; "
    return "".join(f"{head}{name}\r\n\r\n{text}\r\n" for name, text in [*pairs]) + end


NAME = 'name="album[public_id]"'
MALFORMED = {
    "Latin-1": (URLENCODED, b"album[public_id]=\xe9t\xe9"),
    "a byte that is no UTF-8, elsewhere": (URLENCODED, b"album[public_id]=b&x=\xff"),
    "an escape that is no UTF-8": (URLENCODED, b"album[public_id]=%e9t%e9"),
    "half an escape": (URLENCODED, b"album[public_id]=%c3"),
    "a surrogate": (URLENCODED, b"album[public_id]=%ed%a0%80"),
    "a name that is no UTF-8": (URLENCODED, b"%ff=b"),
    "no end": (MULTIPART, parts((NAME, "b"), end="")),
    "half of an end": (MULTIPART, parts((NAME, "b"), end="--b-")),
    "no form": (MULTIPART, "garbage"),
    "no boundary": ("multipart/form-data", parts((NAME, "b"))),
    "an empty boundary": ('multipart/form-data; boundary=""', parts((NAME, "b"))),
    "another boundary": ("multipart/form-data; boundary=c", parts((NAME, "b"))),
    "a boundary in Latin-1": (
        "multipart/form-data; boundary=\xe9",
        parts((NAME, "b")).replace("--b", "--\xe9").encode("latin-1"),
    ),
    "a part that is no UTF-8": (MULTIPART, parts((NAME, "\xe9t\xe9")).encode("latin-1")),
    "a part's name that is no UTF-8": (MULTIPART, parts(('name="\xe9"', "b")).encode("latin-1")),
    "no header": (MULTIPART, "--b\r\n\r\nb\r\n--b--"),
    "JSON in Latin-1": (JSON, b'{"album":{"public_id":"\xe9t\xe9"}}'),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_form_is_none_at_all(app, send, things, case):
    kind, body = MALFORMED[case]
    body = body if isinstance(body, bytes) else body.encode()
    before = rows(app)
    for method, path in changing(app, things):
        if method != "DELETE" and not path.endswith("/holidays/images"):
            answer = send(method, path, body, kind)
            assert answer.status_code == 400, (method, path, answer.data)
            assert answer.json["code"] == "bad_request"
    assert rows(app) == before


@pytest.mark.parametrize(
    "pair", [f'{NAME}; filename="a.txt"', f'{NAME}; filename=""', 'name="file"; filename="a.jpg"']
)
def test_a_form_of_fields_takes_no_file(app, send, pair):
    before = rows(app)
    answer = send("POST", "/albums", parts((pair, "b")).encode(), MULTIPART)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] in pair
    assert rows(app) == before


@pytest.mark.parametrize(
    ("kind", "body", "public_id"),
    [
        (URLENCODED, "album[public_id]=été".encode(), "été"),
        (URLENCODED, b"album%5Bpublic_id%5D=%c3%A9t%C3%a9", "été"),
        (f"{URLENCODED}; charset=UTF-8", b"album%5bpublic_id%5d=a+b", "a b"),
        (URLENCODED, b"&&album[public_id]=a=b&", "a=b"),
        (URLENCODED, b"album[public_id]=100%25", None),
        (MULTIPART, parts((NAME, "été")).encode(), "été"),
        (MULTIPART, b"before\r\n" + parts((NAME, "b")).encode() + b"\r\nafter", "b"),
        ('Multipart/Form-Data; BOUNDARY="b"', parts((NAME, "b")).encode(), "b"),
        (
            MULTIPART,
            parts((f"{NAME}\r\nContent-Type: text/plain; charset=UTF-8", "été")).encode(),
            "été",
        ),
        (
            MULTIPART,
            parts((f"{NAME}\r\nContent-Type: text/plain; charset=ISO-8859-1", "été")).encode(
                "latin-1"
            ),
            "été",
        ),
        ("application/json; charset=utf-8", '{"album":{"public_id":"été"}}'.encode(), "été"),
    ],
)
def test_a_form_as_clients_write_them(send, kind, body, public_id):
    answer = send("POST", "/albums", body, kind)
    if public_id is None:  # read as it was meant, and no id
        assert answer.json["errors"][0]["field"] == "album[public_id]"
    else:
        assert answer.json["public_id"] == public_id


def test_ten_thousand_fields_and_no_more(send):
    names = [f"x{number}" for number in range(10_001)]
    for kind, body in [
        (URLENCODED, "=1&".join),
        (MULTIPART, lambda names: parts(*[(f"name={name}", "") for name in names])),
    ]:
        answer = send("POST", "/albums", body(names).encode(), kind)
        assert answer.status_code == 413
        assert "10000 fields" in answer.json["detail"]
        answer = send("POST", "/albums", body(names[1:]).encode(), kind)
        assert len(answer.json["errors"]) == 10_000


# JSON ---------------------------------------------------------------------------------------


def nested(name, levels):
    """A JSON object nested as deep, itself counted."""
    return f'{{"{name}":{"[" * (levels - 1)}{"]" * (levels - 1)}}}'.encode()


@pytest.mark.parametrize("levels", [17, 300, 979, 100_000])
def test_json_is_nested_at_most_sixteen_deep(app, send, things, levels):
    before = rows(app)
    for method, path in changing(app, things):
        if method != "DELETE" or path == "/albums/holidays":
            assert send(method, path, nested("rotation", 16), JSON).status_code in (404, 422)
            answer = send(method, path, nested("rotation", levels), JSON)
            assert answer.status_code == 400, (method, path, answer.data)
            assert "16" in answer.json["detail"]
    assert rows(app) == before


@pytest.mark.parametrize("value", ["[]", "{}", "null", "90.0", "true", '"90.0"', '"90x"', '""'])
def test_a_whole_number_is_nothing_else(send, things, value):
    body = f'{{"rotation":{value}}}'.encode()
    answer = send("PUT", f"/images/{things['image_id']}", body, JSON)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["rotation"]


# through gunicorn ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served():
    with front("--workers", "1") as door:
        yield door


@pytest.fixture
def image(served):
    """The path of a new image."""
    made = requests.post(
        f"{served.app.url}{API}/albums/holidays/images",
        files={"file": ("a.png", picture(1000, seed=next(SEEDS)))},
        headers=served.headers,
        timeout=30,
    )
    assert made.status_code == 201
    return f"{API}/images/{made.json()['public_id']}"


CUT = {
    "a crop": ("PUT", "", URLENCODED, b"crop_x=0&crop_y=0&crop_h=50&crop_w=1", 38),
    "a name": ("POST", f"{API}/albums", URLENCODED, b"album[public_id]=holidays2", 30),
    "JSON": ("PUT", "", JSON, b'{"rotation":90}', 50),
    "nothing at all": ("POST", "/duplicate", JSON, b"", 50),
    "of no use": ("DELETE", "", URLENCODED, b"a=b", 50),
}


@pytest.mark.parametrize("case", CUT)
def test_through_gunicorn_a_body_that_is_cut_changes_nothing(served, image, case):
    method, path, kind, body, length = CUT[case]
    before = state(served, image)
    head = served.head(
        f"Content-Length: {length}",
        start=f"{method} {path if path.startswith(API) else image + path}",
        kind=kind,
    )

    answer = served.raw(head, body)

    assert answer.split(b" ")[1] == b"400", answer
    assert b"incomplete_body" in answer
    assert state(served, image) == before


def state(served, image):
    """The albums, and an image, as they are shown."""
    return [
        requests.get(f"{served.app.url}{path}", headers=served.headers, timeout=30).json()
        for path in (f"{API}/albums", image)
    ]


CHUNKS = {
    "a length that is none": b"zz\r\n{}\r\n0\r\n\r\n",
    "no line break": b"2\r\n{}XX0\r\n\r\n",
    "a bad trailer": b"2\r\n{}\r\n0\r\nno colon here\r\n\r\n",
    "no last chunk": b"2\r\n{}\r\n",
    "a chunk that is cut": b"9\r\n{}",
    "nothing": b"",
}


@pytest.mark.parametrize("case", CHUNKS)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_through_gunicorn_malformed_chunks_change_nothing(served, image, method, case):
    before = state(served, image)
    start = f"{method} {image}{'/duplicate' if method == 'POST' else ''}"
    head = served.head("Transfer-Encoding: chunked", start=start, kind=JSON)

    answer = served.raw(head, CHUNKS[case])

    assert answer.split(b" ")[1] == b"400", answer
    assert b"application/problem+json" in answer
    assert state(served, image) == before


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "image"), ("POST", f"{API}/albums/holidays/images")]
)
def test_through_gunicorn_no_depth_of_json_is_a_fault_of_ours(served, image, method, path):
    """Just below the depth that json itself takes, what looks at a value went too deep."""
    url = served.app.url + (image if path == "image" else path)
    statuses = set()
    with requests.Session() as session:
        for levels in range(900, 1001):
            headers = {**served.headers, "Content-Type": JSON, "Idempotency-Key": f"k{levels}"}
            data = nested("rotation", levels)
            answer = session.request(method, url, data=data, headers=headers, timeout=30)
            statuses.add(answer.status_code)
    assert statuses == {400}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"rotation": 90, "rotation": 180}'),
        (JSON, b'{"rotation": 90, "crop": {"x": 1, "x": 1}}'),
        (URLENCODED, b"rotation=90&rotation=180"),
    ],
)
def test_a_field_is_there_once(send, client, kind, body):
    headers = bearing(sign({"user_id": "anna"}))
    image = client.post(
        f"{API}/albums/holidays/images", data={"file": part(jpeg())}, headers=headers
    ).json["public_id"]
    answer = send("PUT", f"/images/{image}", body, kind)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["message"] == "must be there once"
