"""The description of the service in OpenAPI: it is valid, its examples are real, and the service keeps it."""

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from affekt.serving.browser import SETTINGS
from tests.serving.service import RECOGNIZE, form, make_client
from tests.sounds import encode_audio, noise

CLIP = encode_audio(noise(16_000))


@pytest.fixture(scope="module")
def client(tiny_bundle):
    with make_client(tiny_bundle, {"max_body": 200_000, "max_duration": 5.0}, hosts=("*",)) as client:
        yield client


@pytest.fixture(scope="module")
def description(client):
    return client.get("/openapi.json").json()


def validate(content, schema, description):
    """Raise an error if a content does not follow a schema of the description."""
    jsonschema.Draft202012Validator({**schema, "components": description["components"]}).validate(content)


def operations(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def json_of(answer):
    return answer.get("content", {}).get("application/json", {})


def test_examples_of_answers_follow_their_schemas(description):
    count = 0
    for _, _, operation in operations(description):
        for status, answer in operation["responses"].items():
            content = json_of(answer)
            examples = [example["value"] for example in content.get("examples", {}).values()]
            for example in examples:
                validate(example, content["schema"], description)
                assert int(status) >= 400
            count += len(examples)
    assert count >= 10
    for schema in description["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            validate(example, schema, description)


def test_every_operation_answers_as_described(client, description):
    example_of = {"name": SETTINGS}
    for path, method, operation in operations(description):
        options = {
            parameter["name"]: parameter["schema"]["examples"][0]
            for parameter in operation.get("parameters", ())
            if parameter["schema"].get("examples")
        }
        body = {"files": form(CLIP)} if "requestBody" in operation else {}
        answer = client.request(method.upper(), path.format(**example_of), params=options, **body)
        assert answer.status_code == 200
        if schema := json_of(operation["responses"]["200"]).get("schema"):
            validate(answer.json(), schema, description)
    assert RECOGNIZE in description["paths"]


@pytest.mark.parametrize(
    ("options", "data"),
    [({"emotions": "joy"}, CLIP), ({}, b"no audio"), ({}, encode_audio(noise(100_000))), ({}, bytes(300_000))],
    ids=["option", "audio", "duration", "size"],
)
def test_errors_follow_their_schemas(client, description, options, data):
    answer = client.post(RECOGNIZE, params=options, files=form(data))
    answers = description["paths"][RECOGNIZE]["post"]["responses"]
    validate(answer.json(), json_of(answers[str(answer.status_code)])["schema"], description)


@pytest.mark.slow
def test_generated_requests_are_answered_as_described(client):
    api = schemathesis.openapi.from_asgi("/openapi.json", client.app)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def check(case):
        response = case.call()
        case.validate_response(
            response, checks=[not_a_server_error, response_schema_conformance, content_type_conformance]
        )

    described = [result.ok() for result in api.get_all_operations()]
    assert len(described) == 6
    for operation in described:
        given(case=operation.as_strategy())(check)()
