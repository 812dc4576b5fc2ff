"""Who may ask: Host, Origin and API keys, on HTTP and WebSocket alike."""

import pytest
from starlette.testclient import WebSocketDenialResponse

from affekt.errors import BadConfig
from affekt.serving.guard import CONTENT_POLICY, read_keys
from affekt.serving.settings import ServiceSettings
from tests.serving.service import make_client

KEY = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def client(tiny_bundle):
    with make_client(tiny_bundle, hosts=("emotions.example",), origins=("https://app.example",)) as client:
        yield client


@pytest.fixture(scope="module")
def locked(tiny_bundle, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# the web shop\n{'x' * 20}\n\n{KEY}\n")
    with make_client(tiny_bundle, key_file=str(keys)) as client:
        yield client


def code_of(client, **headers):
    """Return the code of the error of a request with these headers; "ok" without one. HTTP and WebSocket must agree."""
    headers = {"host": "127.0.0.1:8000", **headers}
    response = client.get("/v1/models", headers=headers)
    code = "ok" if response.status_code == 200 else response.json()["error"]["code"]
    if code == "ok":
        with client.websocket_connect("/v1/stream", headers=headers) as stream:
            assert stream.receive_json()["kind"] == "ready"
        return code
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/v1/stream", headers=headers):
        pass
    assert (refused.value.status_code, refused.value.json()) == (response.status_code, response.json())
    return code


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1", "[::1]:8000", "LOCALHOST", "emotions.example"])
def test_known_hosts_are_served(client, host):
    assert code_of(client, host=host) == "ok"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:x", "emotions.example.", ""])
def test_other_hosts_are_refused_but_for_probes(client, host):
    assert code_of(client, host=host) == "unknown_host"
    assert client.get("/readyz", headers={"host": host}).status_code == 200
    assert client.get("/", headers={"host": host}).status_code == 421


def test_headers_that_are_too_large_are_refused(client):
    assert code_of(client, **{"x": "x" * 33_000}) == "headers_too_large"


def test_a_star_allows_any_host(tiny_bundle):
    with make_client(tiny_bundle, hosts=("*",)) as client:
        assert code_of(client, host="10.0.0.7:8000") == "ok"


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://127.0.0.1:8000", "ok"),
        ("https://app.example", "ok"),
        ("https://evil.example", "forbidden_origin"),
        ("http://127.0.0.1:8001", "forbidden_origin"),
        ("https://app.example.evil.example", "forbidden_origin"),
        ("null", "forbidden_origin"),
    ],
)
def test_pages_of_other_sites_may_not_ask(client, origin, code):
    assert code_of(client, host="127.0.0.1:8000", origin=origin) == code


def test_an_allowed_site_may_read_the_answer(client):
    origin = {"origin": "https://app.example"}
    assert client.get("/v1/models", headers=origin).headers["access-control-allow-origin"] == "https://app.example"
    preflight = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert client.options("/v1/recognize", headers=preflight).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"authorization": f"Bearer {KEY}"}, "ok"),
        ({"authorization": f"bearer  {KEY} "}, "ok"),
        ({"sec-websocket-protocol": f"affekt.v1, affekt.key.{KEY}"}, "ok"),
        ({}, "unauthorized"),
        ({"authorization": KEY}, "unauthorized"),
        ({"authorization": f"Bearer {KEY[:-1]}"}, "unauthorized"),
        ({"authorization": "Bearer "}, "unauthorized"),
        ({"authorization": "Bearer # the web shop"}, "unauthorized"),
        ({"authorization": b"Bearer \xff\xfe"}, "unauthorized"),
        ({"sec-websocket-protocol": f"affekt.key.no, affekt.key.no, affekt.key.{KEY}"}, "unauthorized"),
    ],
    ids=str,
)
def test_keys(locked, headers, code):
    assert code_of(locked, **headers) == code


def test_what_needs_no_key(locked):
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/metrics").status_code == 401
    assert locked.get("/v1/models/default/files/model.onnx").status_code == 401


@pytest.mark.parametrize("content", ["", "# none\n", "short\n", "with a space inside it\n", "ä" * 20])
def test_files_of_keys_are_checked(tmp_path, content):
    path = tmp_path / "keys"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadConfig, match="API key"):
        read_keys(str(path))
    with pytest.raises(BadConfig, match="cannot be read"):
        read_keys(str(tmp_path))


def test_settings_are_checked_and_reach_the_workers():
    settings = ServiceSettings(port=0, profiles={"me": "me.json"}, origins=("https://a.example",))
    assert ServiceSettings.from_json(settings.to_json()) == settings
    for wrong in ({"port": -1}, {"workers": 0}, {"origins": ("a.example",)}, {"origins": ("https://a.example/",)}):
        with pytest.raises(BadConfig, match="expected"):
            ServiceSettings(**wrong)


def test_the_policy_allows_wasm_and_nothing_from_elsewhere():
    policy = dict(rule.split(" ", 1) for rule in CONTENT_POLICY.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert not {"*", "http:", "https:"} & set(CONTENT_POLICY.replace(";", " ").split())
