"""A new model is one file and one line in the registry: all contracts then run on it without further changes."""

import inspect

import pytest

from affekt.config import decode_named
from affekt.cost import cost
from affekt.models import models
from tests.contracts import test_every_model, test_export, test_multimodal

CONTRACTS = {
    name: function
    for module in (test_every_model, test_export, test_multimodal)
    for name, function in vars(module).items()
    if name.startswith("test_") and "name" in inspect.signature(function).parameters
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(models.table, "dummy", "tests.contracts.dummy:Dummy")


@pytest.mark.parametrize(
    "contract", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("test_onnx")) for name in CONTRACTS]
)
def test_the_contracts_hold_for_a_new_model(contract, tmp_path):
    arguments = {"name": "dummy", "tmp_path": tmp_path, "silenced": "text"}
    parameters = inspect.signature(CONTRACTS[contract]).parameters
    CONTRACTS[contract](**{name: arguments[name] for name in parameters})


def test_recipes_and_costs_accept_a_new_model():
    model_class, config = decode_named(models, {"name": "dummy-small", "dropout": 0.2}, "model")
    assert (model_class.__name__, config.dim, config.dropout) == ("Dummy", 16, 0.2)
    counted = cost("dummy")
    assert counted.frames == {"speech": 100, "text": 20}
    assert counted.parameters == (40 + 1) * 64 + (30 + 1) * 64 + (4 * 64 + 1) * 64 + (64 + 1) * 4
    assert counted.encoders == ()
