"""The description of the API says what the routes and the handlers say."""

from __future__ import annotations

import ast
import inspect
import json

import pytest

from netengine.api import openapi, server
from netengine.http import Handler

ROUTES = [(method, openapi.plain(path), handler) for method, path, handler in server._ROUTES]
_READERS = {"flag", "number", "moment"}


def _query_names(handler: Handler) -> set[str]:
    """The parameters that a handler's source takes out of the query by a literal name."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(handler))):
        if not isinstance(node, ast.Call):
            continue
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        called = ast.unparse(node.func)
        if texts and (called in _READERS or called.endswith(("query.get", "query.getall"))):
            names.add(texts[0])
    return names


def test_every_route_is_described_and_nothing_else() -> None:
    assert {(method, path) for method, path, _ in ROUTES} == set(openapi.DESCRIBED), "see netengine/api/openapi.py"


@pytest.mark.parametrize(
    ("method", "path", "handler"), ROUTES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_parameters_that_a_handler_reads_are_described(method: str, path: str, handler: Handler) -> None:
    described = {word.partition(":")[0] for word in openapi.DESCRIBED[method, path].query.split()}
    assert _query_names(handler) <= described, f"{method} {path}: see netengine/api/openapi.py"


def test_bodies_are_described_by_the_types_they_are_decoded_into() -> None:
    for method, path, handler in ROUTES:
        found = openapi.DESCRIBED[method, path]
        source = inspect.getsource(handler)
        if isinstance(found.body, type):
            assert found.body.__name__ in source, f"{method} {path}"
        else:
            assert "body_object(" not in source, f"{method} {path} reads a body that is not described"


def test_every_reference_leads_somewhere() -> None:
    document = openapi.describe((method, path) for method, path, _ in server._ROUTES)
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(schemas)
    assert document["paths"]["/networks/create"]["post"]["requestBody"]
