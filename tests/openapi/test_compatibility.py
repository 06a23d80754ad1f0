"""No change of the API breaks a client that was written for an earlier document.

The rule: the document of now is held against every version of `docs/openapi.json` that git knows, and
against the one in the tree. So it does not help to run `make docs` along with the change. Where an old
document was wrong, as no answer was ever like that, the sentence goes into `WRONG` with a reason.
"""

from __future__ import annotations

import copy
import json
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.openapi.compatibility import breaks

KEPT = "docs/openapi.json"
WRONG: dict[str, str] = {}
"""A sentence of `breaks` to the reason why nobody is broken by it."""


def git(*arguments: str, given: str = "") -> str:
    command = ["git", "-C", REPOSITORY, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def versions():
    """Every version of the document: that in the tree, and those of the commits behind it."""
    yield (REPOSITORY / KEPT).read_text()
    for commit in git("log", "--format=%H", "--diff-filter=AM", "--", KEPT).split():
        yield git("show", f"{commit}:{KEPT}")


def test_no_earlier_client_is_broken(made):
    found = {
        sentence: None
        for version in dict.fromkeys(filter(None, versions()))
        for sentence in breaks(json.loads(version), made)
    }
    assert [sentence for sentence in found if sentence not in WRONG] == []


IMAGE = "/api/v1/images/{image_id}"
IMAGES = "/api/v1/albums/{album_id}/images"
SHARES = "/api/v1/albums/{album_id}/shares"


def schema(document, name):
    return document["components"]["schemas"][name]


def form(document, path=IMAGE, method="put", kind="application/json"):
    return document["paths"][path][method]["requestBody"]["content"][kind]["schema"]


def query(document, name):
    (one,) = [p for p in document["paths"][IMAGES]["get"]["parameters"] if p.get("name") == name]
    return one


def a_field_goes(document):
    del schema(document, "Stats")["properties"]["bytes"]


def a_field_is_renamed(document):
    properties = schema(document, "Stats")["properties"]
    properties["size"] = properties.pop("bytes")


def a_field_is_retyped(document):
    schema(document, "Stats")["properties"]["bytes"]["type"] = "string"


def a_field_may_be_null(document):
    schema(document, "Views")["properties"]["count"]["type"] = ["integer", "null"]


def an_object_may_be_null(document):
    item = schema(document, "Stats")["properties"]["views"]
    item["items"] = {"anyOf": [item["items"], {"type": "null"}]}


def a_field_may_be_missing(document):
    schema(document, "Stats")["required"].remove("bytes")


def a_value_is_retyped(document):
    schema(document, "Stats")["properties"]["formats"]["additionalProperties"]["type"] = "string"


def an_item_is_retyped(document):
    schema(document, "Share")["properties"]["abilities"]["items"]["type"] = "integer"


def a_time_is_none(document):
    del schema(document, "Views")["properties"]["day"]["format"]


def a_route_goes(document):
    del document["paths"][IMAGE]["delete"]


def a_path_goes(document):
    del document["paths"]["/healthz"]


def an_operation_is_renamed(document):
    document["paths"][IMAGE]["delete"]["operationId"] = "remove"


def a_public_route_needs_a_token(document):
    del document["paths"]["/healthz"]["get"]["security"]


def a_parameter_goes(document):
    document["paths"][IMAGES]["get"]["parameters"].remove(query(document, "tag"))


def a_parameter_is_retyped(document):
    query(document, "limit")["schema"]["type"] = "string"


def a_limit_is_narrower(document):
    query(document, "limit")["schema"]["maximum"] = 100


def a_limit_is_new(document):
    query(document, "tag")["schema"]["pattern"] = "^a"


def a_value_is_refused(document):
    query(document, "format")["schema"]["enum"].remove("gif")


def a_parameter_must_be_there(document):
    query(document, "tag")["required"] = True


def a_parameter_that_must_be_there_is_new(document):
    new = {"name": "size", "in": "query", "required": True, "schema": {"type": "string"}}
    document["paths"][IMAGES]["get"]["parameters"].append(new)


def a_field_that_is_sent_goes(document):
    del form(document)["properties"]["rotation"]


def a_field_that_is_sent_must_be_there(document):
    form(document)["required"] = ["rotation"]


def a_body_must_be_there(document):
    document["paths"][IMAGE]["put"]["requestBody"]["required"] = True


def a_body_is_new(document):
    body = document["paths"][IMAGE]["put"]["requestBody"]
    document["paths"][IMAGE]["delete"]["requestBody"] = {**body, "required": True}


def a_body_goes(document):
    del document["paths"][IMAGE]["put"]["requestBody"]


def a_kind_of_body_goes(document):
    content = document["paths"][IMAGE]["put"]["requestBody"]["content"]
    del content["application/x-www-form-urlencoded"]


def null_is_refused(document):
    form(document, SHARES, "post")["properties"]["label"]["type"] = "string"


def a_status_goes(document):
    document["paths"][IMAGE]["delete"]["responses"]["200"] = document["paths"][IMAGE]["delete"][
        "responses"
    ].pop("204")


def a_kind_of_answer_goes(document):
    content = document["paths"]["/healthz"]["get"]["responses"]["200"]["content"]
    content["text/html"] = content.pop("text/plain")


def a_header_goes(document):
    del document["paths"][IMAGE]["get"]["responses"]["200"]["headers"]["ETag"]


def a_header_may_be_missing(document):
    document["components"]["headers"]["Location"]["required"] = False


BREAKS = [
    (a_field_goes, "stats: 200: application/json: bytes: is gone."),
    (a_field_is_renamed, "stats: 200: application/json: bytes: is gone."),
    (a_field_is_retyped, "stats: 200: application/json: bytes: may be string now."),
    (a_field_may_be_null, "stats: 200: application/json: views[]: count: may be null now."),
    (an_object_may_be_null, "stats: 200: application/json: views[]: may be null now."),
    (a_field_may_be_missing, "stats: 200: application/json: bytes: may be missing now."),
    (a_value_is_retyped, "stats: 200: application/json: formats{}: may be string now."),
    (an_item_is_retyped, "shares: 200: application/json[]: abilities[]: may be integer now."),
    (a_time_is_none, "views[]: day: format was date, is None."),
    (a_route_goes, f"DELETE {IMAGE}: is gone."),
    (a_path_goes, "GET /healthz: is gone."),
    (an_operation_is_renamed, f"DELETE {IMAGE}: operationId was images_delete, is remove."),
    (a_public_route_needs_a_token, "GET /healthz: needs a token now."),
    (a_parameter_goes, f"GET {IMAGES}: query tag: is gone."),
    (a_parameter_is_retyped, f"GET {IMAGES}: query limit: integer is refused now."),
    (a_limit_is_narrower, f"GET {IMAGES}: query limit: maximum is 100 now."),
    (a_limit_is_new, f"GET {IMAGES}: query tag: pattern is ^a now."),
    (a_value_is_refused, f"GET {IMAGES}: query format: gif refused now."),
    (a_parameter_must_be_there, f"GET {IMAGES}: query tag: must be there now."),
    (
        a_parameter_that_must_be_there_is_new,
        f"GET {IMAGES}: query size: is new and must be there.",
    ),
    (a_field_that_is_sent_goes, f"PUT {IMAGE}: application/json: rotation: is gone."),
    (a_field_that_is_sent_must_be_there, "application/json: rotation: must be there now."),
    (a_body_must_be_there, f"PUT {IMAGE}: a body must be there now."),
    (a_body_is_new, f"DELETE {IMAGE}: a body is new and must be there."),
    (a_body_goes, f"PUT {IMAGE}: takes no body now."),
    (a_kind_of_body_goes, f"PUT {IMAGE}: takes no application/x-www-form-urlencoded now."),
    (null_is_refused, f"POST {SHARES}: application/json: label: null is refused now."),
    (a_status_goes, f"DELETE {IMAGE}: 204: is gone."),
    (a_kind_of_answer_goes, "GET /healthz: 200: text/plain is gone."),
    (a_header_goes, f"GET {IMAGE}: 200: header ETag is gone."),
    (a_header_may_be_missing, "POST /api/v1/images/{image_id}/duplicate: 201: header Location"),
]


@pytest.mark.parametrize(
    ("change", "sentence"), BREAKS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_break_is_said(made, change, sentence):
    new = copy.deepcopy(made)
    change(new)
    found = breaks(made, new)
    assert any(sentence in one for one in found), found


def an_addition_everywhere(document):
    document["paths"]["/new"] = {"get": {"operationId": "new", "responses": {}}}
    schema(document, "Stats")["properties"]["more"] = {"type": "string"}
    schema(document, "Stats")["required"].append("more")
    form(document)["properties"]["filter"] = {"type": "string"}
    new = {"name": "size", "in": "query", "schema": {"type": "string"}}
    document["paths"][IMAGES]["get"]["parameters"].append(new)
    query(document, "limit")["schema"]["maximum"] = 5000
    query(document, "format")["schema"]["enum"].append("jxl")
    answers = document["paths"][IMAGE]["get"]["responses"]
    answers["200"]["headers"]["X-new"] = {"required": True, "schema": {"type": "string"}}
    answers["410"] = answers["404"]
    del answers["503"]
    document["paths"]["/api/v1/albums"]["get"]["security"] = []


def test_what_is_added_breaks_nobody(made):
    new = copy.deepcopy(made)
    an_addition_everywhere(new)
    assert breaks(made, new) == []
    assert breaks(made, made) == []
