"""schemathesis against the running application: nothing that it answers is undescribed, or a 5xx.

What is sent fits the document, or breaks it in one place; in half of the cases the path names what is
there. A sample, or with FAULTS=full 500 examples a route.
"""

from __future__ import annotations

import urllib.parse

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from imageapi.blueprints.openapi.operations import OPERATIONS
from tests.auth.conftest import many
from tests.openapi.described import Document, Undescribed
from tests.openapi.seed import seed
from tests.servers.gunicorn import gunicorn

EXAMPLES = many(60, 500)
LINE = 4000
"""Characters of a request line, about, over which gunicorn answers for the application."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
IDS = [
    name
    for endpoint, row in OPERATIONS.items()
    for name in [endpoint.replace(".", "_"), *([f"{endpoint}_head".replace(".", "_")] * row.head)]
]


@pytest.fixture(scope="module")
def server():
    with gunicorn() as server:
        yield server


@pytest.fixture(scope="module")
def served(server):
    """The document that the running application answers."""
    return Document(requests.get(f"{server.url}/openapi.json", timeout=30).json())


@pytest.fixture(scope="module")
def fuzzer(served):
    return schemathesis.openapi.from_dict(served.document)


@pytest.mark.parametrize("name", IDS)
def test_every_answer_is_described(name, server, served, fuzzer):
    operation = fuzzer.find_operation_by_id(name)
    there = [seed(server) for _ in range(4 if operation.method in ("delete", "put") else 1)]
    reached = []

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=EXAMPLES < 100,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=_cases(operation, there), bearer=st.sampled_from(there))
    def ask(case, bearer):
        headers = {"Authorization": f"Bearer {bearer.token}"}
        response = case.call(base_url=server.url, headers=headers, timeout=30)
        path = urllib.parse.unquote(urllib.parse.urlsplit(response.request.url).path)
        if _is_of(served, case, path) and len(response.request.path_url) < LINE:
            case.validate_response(response, checks=CHECKS, headers=headers)
            body = response.content
            served.check(case.method, path, response.status_code, _plain(response), body)
            reached.append(response.status_code)

    ask()
    assert reached
    if name != "files_rendition":  # its URLs are signed
        assert min(reached) < 400, "nothing succeeded"


def _cases(operation, there):
    """Free and seeded paths, with what fits and what does not."""
    names = {parameter.name for parameter in operation.path_parameters}
    found = [
        operation.as_strategy(
            mode, path_parameters={name: one.ids[name] for name in names} if one else None
        )
        for mode in schemathesis.GenerationMode
        for one in (*there, None)
    ]
    if operation.definition.raw["operationId"] == "tags_put_on":
        found += [_put_on(operation, one) for one in there]
    return st.one_of(found)


def _put_on(operation, one):
    """A body that no generator finds: images that there are."""
    path, body = {"tag_id": one.ids["tag_id"]}, {"image_ids": [one.ids["image_id"]]}
    return operation.as_strategy(path_parameters=path, body=body, media_type="application/json")


def _is_of(document, case, path):
    """Whether a path is one of the case's operation; a slash in a variable makes it another's."""
    try:
        found = document.operation(case.method, path)
    except Undescribed:
        return False
    return found["operationId"] == case.operation.definition.raw["operationId"]


def _plain(response):
    return requests.structures.CaseInsensitiveDict(
        {name: values[0] for name, values in response.headers.items()}
    )
