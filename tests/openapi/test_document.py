"""The OpenAPI document: valid, complete, made of what the code runs on, served well."""

from __future__ import annotations

import json
import subprocess
import sys

import marshmallow
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from imageapi import create_app, errors
from imageapi.auth.policy import ACCESS_HEADERS, POLICY, Access
from imageapi.blueprints.openapi import answers, document, operations, words
from imageapi.blueprints.openapi.words import HAND_IN
from imageapi.errors import ImageAPIError
from tests.conftest import REPOSITORY

OF_NO_ROUTE = {"method_not_allowed"}
"""Codes of requests that no operation is about."""


def test_it_is_valid(made):
    assert made["openapi"] == "3.1.1"
    assert not list(OpenAPIV31SpecValidator(made).iter_errors())


def test_every_route_is_in_it(app, described):
    routes = {
        (method, document._path(rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    documented = {(method, path) for method, path, _operation in described.operations()}
    assert {(method, path) for method, path in documented if method != "HEAD"} == routes
    assert documented - routes == {
        ("HEAD", "/api/v1/images/{image_id}"),
        ("HEAD", "/api/v1/images/{image_id}/original"),
    }


def test_a_route_without_a_row_is_refused(settings):
    app = create_app(settings)
    app.add_url_rule("/api/v1/new", "images.new", lambda: "")
    with pytest.raises(KeyError, match=r"images\.new"):
        document.make(app)


def test_no_row_is_left_over(described):
    assert operations.OPERATIONS.keys() == POLICY.keys()
    text = json.dumps(described.document)
    for name in words.REQUEST_HEADERS:
        assert f'"#/components/parameters/{name}"' in text, name
    for name in words.ANSWER_HEADERS:
        assert f'"#/components/headers/{name}"' in text, name
    for schema in described.document["components"]["schemas"]:
        assert f'"#/components/schemas/{schema}"' in text, schema
    assert set(words.PATH) == {
        parameter["name"]
        for item in described.document["paths"].values()
        for parameter in item.get("parameters", ())
    }


def test_an_operation_has_an_id_of_its_own_and_words(described):
    found = [operation for _method, _path, operation in described.operations()]
    assert len({operation["operationId"] for operation in found}) == len(found)
    for operation in found:
        assert operation["summary"].endswith("."), operation["operationId"]
        assert operation["description"].endswith("."), operation["operationId"]
        for parameter in operation["parameters"]:
            assert described.resolve(parameter)["description"], operation["operationId"]


def test_who_may_is_what_the_policy_table_says(described):
    public = {Access.PUBLIC, Access.SIGNED}
    for method, path, operation in described.operations():
        rule = POLICY[operation["operationId"].removesuffix("_head").replace("_", ".", 1)]
        assert operation.get("x-abilities") == (
            None if isinstance(rule, Access) else sorted(rule)
        ), path
        assert operation.get("security") == ([] if rule in public else None), path
        assert ("401" in operation["responses"]) == (rule not in public), (method, path)
    assert described.document["security"] == [{"token": []}]


def test_the_access_headers_are_those_of_the_policy_table(described):
    found = {}
    for _method, _path, operation in described.operations():
        for status, answer in operation["responses"].items():
            names = described.resolve(answer).get("headers", {})
            if told := [name for name in names if name.startswith("X-access-")]:
                found[operation["operationId"], status] = told
    found.pop(("images_show_head", "200"))
    assert found == {
        (endpoint.replace(".", "_"), "200"): list(names)
        for endpoint, names in ACCESS_HEADERS.items()
    }


def test_every_code_stands_with_its_status(described):
    codes = {}
    for kind in tree(ImageAPIError):
        codes.setdefault(kind.code, kind.status)
    found = {}
    for answer in described.document["components"]["responses"].values():
        narrowed = answer["content"]["application/problem+json"]["schema"]["properties"]
        assert narrowed["code"]["enum"] == answer["x-codes"]
        found |= dict.fromkeys(answer["x-codes"], narrowed["status"]["const"])
    assert found == {code: codes[code] for code in codes if code not in OF_NO_ROUTE}
    problem = described.document["components"]["schemas"]["Problem"]
    assert problem["properties"]["code"]["examples"] == sorted(codes)


def tree(kind):
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_answers_are_in_contract_order(described):
    schemas = described.document["components"]["schemas"]
    assert list(schemas["Image"]["properties"]) == [
        *("public_id", "infos", "exifs", "gps", "gps_ip", "gps_exifs", "gps_html", "created_at"),
        *("width", "height", "rotation", "crop_x", "crop_y", "crop_w", "crop_h", "album_id"),
        *("thumbnails", "placeholder", "srcset"),
    ]
    assert schemas["Image"]["properties"]["gps"]["type"] == ["array", "null"]
    for name, schema in schemas.items():
        declared = getattr(answers, name)._declared_fields
        assert list(schema["properties"]) == list(declared)


def test_what_is_checked_is_what_is_described(described):
    """Every field of every schema that a request is checked by stands in the document."""
    for _method, _path, operation in described.operations():
        row = operations.OPERATIONS[
            operation["operationId"].removesuffix("_head").replace("_", ".", 1)
        ]
        query = [
            described.resolve(parameter)["name"]
            for parameter in operation["parameters"]
            if described.resolve(parameter)["in"] == "query"
        ]
        assert query == (list(row.query().fields) if row.query else [])
        for kind, media in operation.get("requestBody", {"content": {}})["content"].items():
            schema = media["schema"]
            hands_in = row.upload and kind != "multipart/form-data"
            assert schema["additionalProperties"] is hands_in  # whatever a storage answers
            names = [name.partition("[")[0] for name in schema["properties"] if name != "file"]
            own = list(HAND_IN) if hands_in else []
            assert list(dict.fromkeys(names)) == own + list(row.body().fields), kind
            assert row.body().unknown == marshmallow.RAISE


def test_the_examples_are_valid(described):
    count = 0
    for schema in described.document["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            described.validate(example, schema)
            described.check_order(example, schema)
            count += 1
    for _method, _path, operation in described.operations():
        for media in operation.get("requestBody", {"content": {}})["content"].values():
            if "example" in media:
                described.validate(media["example"], media["schema"])
                count += 1
        for parameter in map(described.resolve, operation["parameters"]):
            for example in parameter["schema"].get("examples", ()):
                described.validate(example, parameter["schema"])
                count += 1
    assert count > 40


def test_it_is_served_to_anyone_and_kept_a_while(client, made):
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert json.loads(answer.data) == made
    again = client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    head = client.head("/openapi.json")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(answer.data))


def test_it_is_made_once(client, monkeypatch):
    made = []
    make = document.make
    monkeypatch.setattr(document, "make", lambda app: made.append(app) or make(app))
    assert client.get("/openapi.json").data == client.get("/openapi.json").data
    assert len(made) == 1


def test_a_start_does_not_wait_for_it(tmp_path):
    script = (
        "import sys, pathlib; from imageapi import create_app; from imageapi.settings import Settings;"
        f"create_app(Settings(secret_keys=('{'k' * 40}',), instance=pathlib.Path(sys.argv[1])));"
        "print([m for m in ('apispec', 'imageapi.blueprints.openapi.document') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
