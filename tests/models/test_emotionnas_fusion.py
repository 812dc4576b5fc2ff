"""EmotionNAS's decision-level fusion: the perceptron is trained, frozen branches are not."""

import copy

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.config import decode, encode
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.models.emotionnas.cell_graphs import CELL_GRAPHS
from affekt.models.emotionnas.fusion import DecisionFusion, FusionConfig
from affekt.models.emotionnas.genotypes import Genotype
from affekt.models.emotionnas.recurrent import RecurrentBranch, RecurrentConfig
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from tests.models.emotionnas import assert_agrees, perturbed, utterances
from tests.models.references import emotionnas_recurrent, emotionnas_spectrogram

GENES = {"normal": (("skip_connect", 0), ("sep_conv_3x3", 1)), "reduce": (("max_pool_3x3", 1), ("dil_conv_3x3", 0))}
SPECTROGRAM = SpectrogramBranchConfig(
    genotype=Genotype(**GENES), nodes=1, channels=2, frames=8, input_dim=4, masked=True
)
RECURRENT = RecurrentConfig(layers=1, hidden=3, frames=6, input_dim=4, masked=True)


def fusion(**changes):
    torch.manual_seed(0)
    return perturbed(DecisionFusion(FusionConfig(**{"spectrogram": SPECTROGRAM, "recurrent": RECURRENT, **changes}), 3))


def inputs():
    return {"spectrogram": utterances([7, 9, 3], 4), "speech": utterances([5, 7, 2], 4, seed=1, noise=2.0)}


def batch():
    return Batch({name: Stream(*pair) for name, pair in inputs().items()})


def test_parameters_are_those_of_table_2():
    with torch.device("meta"):
        model = models["emotionnas-fusion"](FusionConfig(), 4)
    sizes = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
    assert sum(p.numel() for p in model.perceptron.parameters()) == 128
    assert sum(size for size, trained in sizes.values() if trained) == 128
    assert sum(size for size, _ in sizes.values()) == 132_274 + 2_233_093 + 128


@pytest.mark.parametrize("frozen", [True, False])
def test_logits_and_gradients_equal_the_reference(frozen):
    model, streams = fusion(frozen=frozen), inputs()

    def reference_logits(weights, values):
        spectrogram, recurrent = (
            {name.removeprefix(part): tensor for name, tensor in weights.items() if name.startswith(part)}
            for part in ("spectrogram.", "recurrent.")
        )
        spectrogram_logits = emotionnas_spectrogram.spectrogram_logits(
            spectrogram,
            values["spectrogram"],
            streams["spectrogram"][1],
            cells=3,
            nodes=1,
            frames=8,
            masked=True,
            genes=GENES,
        )
        recurrent_logits = emotionnas_recurrent.recurrent_logits(
            recurrent,
            values["speech"],
            streams["speech"][1],
            graph=CELL_GRAPHS["id1010120"],
            layers=1,
            hidden=3,
            frames=6,
            masked=True,
        )
        return emotionnas_recurrent.fusion_logits(weights, spectrogram_logits, recurrent_logits)

    assert_agrees(model, reference_logits, streams)


@pytest.mark.parametrize("genotype", [None, Genotype(**GENES)])
def test_training_does_not_change_frozen_branches(genotype):
    config = SpectrogramBranchConfig(genotype=genotype, nodes=1, channels=2, frames=8, input_dim=4, masked=True)
    model = fusion(spectrogram=config).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    F.cross_entropy(model(batch()), torch.arange(3)).backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved <= {f"perceptron.{layer}.{kind}" for layer in (0, 3, 6) for kind in ("weight", "bias")} != set()
    assert "perceptron.6.bias" in moved
    assert {name for name, p in model.named_parameters() if p.grad is None} == model.inert_parameters()
    assert all(alpha.grad is None for alpha in model.spectrogram.alphas().values())


def test_branches_that_are_not_frozen_are_trained():
    model = fusion(frozen=False).train()
    before = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(batch()), torch.arange(3)).backward()
    assert {n for n, p in model.named_parameters() if not p.grad.abs().max() > 1e-12} == model.inert_parameters()
    assert not torch.equal(
        model.state_dict()["spectrogram.stem.1.running_mean"], before["spectrogram.stem.1.running_mean"]
    )


def test_loaded_branches_give_their_own_probabilities():
    model = fusion()
    torch.manual_seed(5)
    spectrogram = perturbed(SpectrogramBranch(SPECTROGRAM, 3), seed=5)
    recurrent = perturbed(RecurrentBranch(RECURRENT, 3), seed=6)
    for name, branch in (("spectrogram", spectrogram), ("recurrent", recurrent)):
        getattr(model, name).load_state_dict(branch.state_dict())
    explanation = model.explain(batch())
    for name, branch in (("spectrogram", spectrogram), ("speech", recurrent)):
        torch.testing.assert_close(explanation[f"{name}_probabilities"], branch(batch()).softmax(dim=1), atol=0, rtol=0)
    torch.testing.assert_close(model.perceptron(explanation["embedding"]), model(batch()), atol=0, rtol=0)


def test_build_uses_the_dimensions_of_the_features():
    specs = {"spectrogram": FeatureSpec(8, 18.0), "speech": FeatureSpec(5, 100.0)}
    model = DecisionFusion.build(FusionConfig(spectrogram=SPECTROGRAM, recurrent=RECURRENT), specs, 3)
    assert model.dims == {"spectrogram": 8, "speech": 5}
    assert model.lengths == {"spectrogram": 8, "speech": 6}


def test_the_small_preset_decodes_to_settings():
    kind, preset = models.resolve("emotionnas-fusion-small")
    config = decode(kind.Config, preset, "model")
    assert config.spectrogram.masked
    assert config.recurrent.masked
    assert decode(kind.Config, encode(config), "model") == config
