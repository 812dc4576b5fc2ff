"""Several projections in one product, compared with separate ones."""

import pytest
import torch
from torch import nn

from affekt.models.layers import FractalAttention, FullAttention, projection


@pytest.mark.parametrize("bias", [True, False])
def test_one_product_equals_separate_projections(monkeypatch, bias):
    layers = [nn.Linear(6, width, bias=bias, dtype=torch.float64) for width in (4, 8, 2)]
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for min_frames in (10, 11):
        monkeypatch.setattr(projection, "MIN_FRAMES", min_frames)
        outputs = projection.project(x, *layers)
        weights = [p for layer in layers for p in layer.parameters()]
        results.append(
            [*outputs, *torch.autograd.grad(sum(output.square().sum() for output in outputs), [x, *weights])]
        )
    assert [tuple(output.shape) for output in results[0][:3]] == [(2, 5, 4), (2, 5, 8), (2, 5, 2)]
    torch.testing.assert_close(*results, atol=1e-12, rtol=0)


@pytest.mark.parametrize("attention", [FractalAttention, FullAttention])
def test_attention_is_the_same_with_one_product(monkeypatch, attention):
    layer = attention(8, 2).double().eval()
    x, mask = torch.randn(2, 30, 8, dtype=torch.float64), torch.arange(30) < torch.tensor([[30], [11]])
    results = []
    for min_frames in (1, 1000):
        monkeypatch.setattr(projection, "MIN_FRAMES", min_frames)
        results.append(layer(x, mask) * mask.unsqueeze(2))
    torch.testing.assert_close(*results, atol=1e-12, rtol=0)
