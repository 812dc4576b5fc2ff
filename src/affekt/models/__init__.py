"""The models, by name. A new one is a file beside these and a line here; the tests come free."""

from affekt.registry import Registry

models = Registry(
    "model",
    {
        "mstr": "affekt.models.mstr:MSTR",
        "vanilla": "affekt.models.vanilla:VanillaTransformer",
    },
)
