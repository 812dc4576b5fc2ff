"""The registry of models. To add a model, write a file in this package and add a line here; the contract tests
then cover it without changes.

A preset is named after its model: "tdfnet-small" is `tdfnet` with the settings of its preset "small".
"""

from affekt.registry import Registry

models = Registry(
    "model",
    {
        "mstr": "affekt.models.mstr.model:MSTR",
        "vanilla": "affekt.models.mstr.vanilla:VanillaTransformer",
        "tdfnet": "affekt.models.tdfnet.model:TDFNet",
        "mcsan": "affekt.models.mcsan.model:MCSAN",
        "ks_transformer": "affekt.models.ks_transformer.model:KSTransformer",
        "emotionnas-spectrogram": "affekt.models.emotionnas.spectrogram:SpectrogramBranch",
        "emotionnas-recurrent": "affekt.models.emotionnas.recurrent:RecurrentBranch",
        "emotionnas-fusion": "affekt.models.emotionnas.fusion:DecisionFusion",
    },
)
