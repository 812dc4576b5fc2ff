"""Fractal attention compared with loops over the paper's equations, which share no code with it."""

import math

import pytest
import torch

from affekt.models.layers import FractalAttention, fractal_attention


def reference(query, key, value, *, heads, factor, scales, mask_window_padding):
    """Compute the output of one utterance, given as (frames, dim) lists of lists, one index at a time."""
    frames, dim = len(query), len(query[0])
    width = dim // heads
    output = [[0.0] * dim for _ in range(frames)]
    for scale in range(scales):
        size = factor**scale
        count = frames // size
        if count == 0:
            continue

        def pooled(x, size=size, count=count):
            return [[sum(x[n * size + j][d] for j in range(size)) / size for d in range(dim)] for n in range(count)]

        q, k, v = pooled(query), pooled(key), pooled(value)
        while len(q) % factor:
            q, k, v = ([*x, [0.0] * dim] for x in (q, k, v))
        attended = []
        for i in range(len(q)):
            positions = range(i // factor * factor, i // factor * factor + factor)
            window = [j for j in positions if j < count or not mask_window_padding]
            row = []
            for head in range(heads):
                columns = range(head * width, head * width + width)
                scores = [sum(q[i][c] * k[j][c] for c in columns) / math.sqrt(width) for j in window]
                weights = [math.exp(s - max(scores, default=0)) for s in scores]
                row += (
                    [sum(w * v[j][c] for w, j in zip(weights, window, strict=True)) / sum(weights) for c in columns]
                    if window
                    else []
                )
            attended.append(row)
        for t in range(frames):
            source = attended[t * count // frames]
            for d in range(dim):
                output[t][d] += 0.5 * source[d] * (1 + math.erf(source[d] / math.sqrt(2)))
    return output


def random_inputs(frames, dim, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, frames, dim, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("mask_window_padding", [False, True])
@pytest.mark.parametrize(
    ("frames", "factor", "scales"), [(1, 3, 4), (2, 3, 2), (7, 3, 3), (26, 3, 4), (27, 3, 4), (31, 2, 5), (10, 4, 2)]
)
def test_fractal_attention_equals_the_loops(frames, factor, scales, mask_window_padding):
    inputs = random_inputs(frames, 4)
    expected = reference(
        *(x[0].tolist() for x in inputs), heads=2, factor=factor, scales=scales, mask_window_padding=mask_window_padding
    )
    result = fractal_attention(*inputs, heads=2, factor=factor, scales=scales, mask_window_padding=mask_window_padding)
    torch.testing.assert_close(result[0], torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("mask_window_padding", [False, True])
def test_a_mask_gives_each_utterance_its_own_result(mask_window_padding):
    inputs = random_inputs(40, 4, batch=4)
    lengths = torch.tensor([40, 29, 5, 1])
    mask = torch.arange(40) < lengths.unsqueeze(1)
    batched = fractal_attention(*inputs, heads=2, mask=mask, mask_window_padding=mask_window_padding)
    for index, length in enumerate(lengths.tolist()):
        alone = [x[index : index + 1, :length] for x in inputs]
        expected = fractal_attention(*alone, heads=2, mask_window_padding=mask_window_padding)
        torch.testing.assert_close(batched[index : index + 1, :length], expected, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_gradients_pass_gradcheck():
    inputs = [x.requires_grad_() for x in random_inputs(11, 4)]
    assert torch.autograd.gradcheck(lambda q, k, v: fractal_attention(q, k, v, heads=2, scales=3), inputs)


def test_gradients_with_a_mask_pass_gradcheck_and_padding_gets_none():
    inputs = [x.requires_grad_() for x in random_inputs(9, 4, batch=2)]
    mask = torch.arange(9) < torch.tensor([[9], [4]])

    def masked(q, k, v):
        return fractal_attention(q, k, v, heads=2, scales=3, mask=mask) * mask.unsqueeze(2)

    assert torch.autograd.gradcheck(masked, inputs)
    masked(*inputs).sum().backward()
    assert all(not x.grad[1, 4:].any() for x in inputs)


def test_a_scale_without_frames_contributes_nothing():
    inputs = random_inputs(8, 4)
    torch.testing.assert_close(
        fractal_attention(*inputs, heads=2, scales=2), fractal_attention(*inputs, heads=2, scales=6), atol=0, rtol=0
    )


def test_a_change_affects_the_coarsest_window_and_nothing_beyond():
    query, key, value = random_inputs(27, 4)
    other = value.clone()
    other[0, 0] += 1.0
    change = (
        (
            fractal_attention(query, key, other, heads=1, scales=2)
            - fractal_attention(query, key, value, heads=1, scales=2)
        )
        .abs()
        .sum(dim=2)[0]
    )
    assert (change[:9] > 0).all()
    assert not change[9:].any()


def test_scale_fractions_sum_to_one():
    attention = FractalAttention(8, 2)
    fractions = attention.explain(torch.randn(2, 30, 8))
    assert fractions.shape == (2, 4, 30)
    torch.testing.assert_close(fractions.sum(dim=1), torch.ones(2, 30))
