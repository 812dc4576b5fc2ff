"""The numba kernels of fractal attention compared with torch operations, in all special cases of the kernels."""

import math
import pickle
from dataclasses import asdict

import numpy as np
import pytest
import torch

from affekt.errors import BadConfig
from affekt.models.layers import fractal_attention
from affekt.models.layers.fractal import cpu
from affekt.models.layers.fractal.cpu import attend
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.fractal.torch_ops import fractal_scales
from tests.conftest import shapes_unchecked

pytest.importorskip("numba")
from affekt.models.layers.fractal import cpu_kernels


def streams(frames, dim=16, batch=2, dtype=torch.float64, gradient=False):
    generator = torch.Generator().manual_seed(frames)
    tensors = [torch.randn(batch, frames, dim, generator=generator, dtype=dtype) for _ in range(3)]
    return [x.requires_grad_(gradient) for x in tensors]


def torch_operations(query, key, value, options, mask=None):
    return sum(fractal_scales(query, key, value, mask=mask, **asdict(options)))


LENGTHS = (1, 2, 3, 5, 26, 27, 80, 81, 82, 100, 163, 326)


@pytest.mark.parametrize("upsampling", ["interpolate", "repeat"])
@pytest.mark.parametrize("mask_window_padding", [False, True])
@pytest.mark.parametrize(("factor", "scales"), [(3, 4), (3, 1), (3, 5), (2, 5), (4, 2)])
def test_outputs_and_gradients_equal_torch_operations(factor, scales, mask_window_padding, upsampling):
    options = FractalOptions(4, factor, scales, mask_window_padding, temperature=1.5, upsampling=upsampling)
    for frames in LENGTHS:
        inputs = streams(frames, gradient=True)
        outputs = [function(*inputs, options) for function in (attend, torch_operations)]
        torch.testing.assert_close(*outputs, atol=1e-12, rtol=0)
        output_gradient = torch.randn(2, frames, 16, dtype=torch.float64)
        gradients = [torch.autograd.grad(output, inputs, output_gradient) for output in outputs]
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [81, 326, 1024])
def test_errors_in_32_bits_at_the_papers_width(frames):
    exact = streams(frames, 1024, 1, gradient=True)
    single = [x.detach().float().requires_grad_() for x in exact]
    outputs = [torch_operations(*exact, FractalOptions(16)), attend(*single, FractalOptions(16))]
    torch.testing.assert_close(outputs[1].double(), outputs[0], atol=1e-5, rtol=0)
    output_gradient = torch.randn(1, frames, 1024)
    gradients = (
        torch.autograd.grad(outputs[0], exact, output_gradient.double()),
        torch.autograd.grad(outputs[1], single, output_gradient),
    )
    torch.testing.assert_close([x.double() for x in gradients[1]], list(gradients[0]), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_are_accurate_and_keep_their_type(dtype):
    inputs = streams(50, dtype=dtype, gradient=True)
    output = fractal_attention(*inputs, heads=2)
    assert output.dtype == dtype
    output.sum().backward()
    exact = fractal_attention(*(x.detach().double() for x in inputs), heads=2)
    torch.testing.assert_close(output.double(), exact, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)
    assert all(x.grad.dtype == dtype for x in inputs)


def test_outputs_with_padding_equal_torch_operations_and_are_zero_in_the_padding():
    inputs, lengths = streams(90, batch=5, gradient=True), torch.tensor([90, 27, 4, 1, 0])
    mask = torch.arange(90) < lengths.unsqueeze(1)
    output = fractal_attention(*inputs, heads=4, mask=mask)
    torch.testing.assert_close(
        output * mask.unsqueeze(2),
        torch_operations(*inputs, FractalOptions(4), mask) * mask.unsqueeze(2),
        atol=1e-12,
        rtol=0,
    )
    assert not output[~mask].any()
    output.sum().backward()
    assert all(not x.grad[~mask].any() and x.grad[:4].flatten(1).any(dim=1).all() for x in inputs)


def test_views_with_other_strides_give_the_same():
    projection = torch.randn(3, 40, 48, dtype=torch.float64)
    thirds = projection.split(16, dim=2)
    expected = attend(*(x.contiguous() for x in thirds), FractalOptions(4))
    assert cpu._as_rows(*thirds)[1][0].ctypes.data == projection.data_ptr()  # no copy
    transposed = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in thirds]
    longer = [torch.cat([x, x], dim=1)[:, :40] for x in thirds]
    for views in (thirds, transposed, longer):
        torch.testing.assert_close(attend(*views, FractalOptions(4)), expected, atol=0, rtol=0)
    second = [x[1:2] for x in thirds]
    torch.testing.assert_close(attend(*second, FractalOptions(4)), expected[1:2], atol=0, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(monkeypatch, batch):
    monkeypatch.setattr(cpu, "MAX_SERIAL_SIZE", 0)
    inputs = streams(30, batch=batch, gradient=True)
    results = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        torch.manual_seed(0)
        output = attend(*inputs, FractalOptions(4, dropout=0.3))
        results.append([output, *torch.autograd.grad(output.sum(), inputs)])
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, atol=1e-15, rtol=0)


@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], [9, 1, 1], [0, 3], [7] * 8])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_head_of_every_utterance_is_computed_once(monkeypatch, lengths, threads):
    monkeypatch.setattr(cpu, "MAX_SERIAL_SIZE", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    work = cpu._divide_work(np.array(lengths), 8, heads=4)
    assert 1 <= len(work) <= threads
    done = sorted((u, h) for tasks in work for u, first, end in tasks.tolist() for h in range(first, end))
    assert done == [(u, h) for u in range(len(lengths)) for h in range(4)]


def test_dropout_differs_between_calls_and_repeats_with_the_seed():
    inputs = [x * 0.5 for x in streams(27, 4, batch=1)]
    options = FractalOptions(2, scales=1, dropout=0.4)
    torch.manual_seed(0)
    draws = torch.stack([attend(*inputs, options) for _ in range(300)])
    assert len({float(draw.sum()) for draw in draws}) == 300
    torch.manual_seed(0)
    torch.testing.assert_close(draws[0], attend(*inputs, options), atol=0, rtol=0)


@pytest.mark.slow
def test_dropout_drops_its_fraction_and_rescales_the_others():
    weights = torch.full((3, 3 * 4096), 1 / 3).numpy()
    dropped = np.empty_like(weights)
    options = cpu_kernels.KernelOptions(
        4096, 3, 1, False, False, 1.0, np.float32(1 / 0.7), np.uint32(0.3 * 2**32), np.uint64(7)
    )
    cpu_kernels._drop(weights, dropped, 4096, options, 0)
    assert abs((dropped == 0).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / dropped.size)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 3 / 0.7, rtol=1e-6)
    other = np.empty_like(weights)
    cpu_kernels._drop(weights, other, 4096, options._replace(seed=np.uint64(8)), 0)
    both = ((dropped == 0) & (other == 0)).mean()
    assert abs(both - 0.09) < 4 * math.sqrt(0.09 * 0.91 / dropped.size)


@pytest.mark.slow
def test_the_backward_pass_drops_the_same_weights():
    inputs = streams(31, 8, batch=1, gradient=True)

    def seeded(query, key, value):
        torch.manual_seed(3)
        return attend(query, key, value, FractalOptions(2, scales=3, dropout=0.3))

    assert torch.autograd.gradcheck(seeded, inputs)


def test_nan_stays_nan():
    inputs = streams(81, 8, batch=1, dtype=torch.float32)
    inputs[2][0, 40, 3] = math.nan
    output = attend(*inputs, FractalOptions(2))
    assert output[0, 40].isnan().any()
    assert output[0, :, 5:].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [6.0, 30.0])
def test_polynomials_are_accurate_to_32_bits(limit):
    from numba import njit

    @njit
    def evaluate(x, normal, slope):
        for index in range(x.shape[0]):
            normal[index] = cpu_kernels.gelu(x[index])
            slope[index] = cpu_kernels.gelu_slope(x[index])

    x = np.linspace(-limit, limit, 200_001).astype(np.float32)
    normal, slope = np.empty_like(x), np.empty_like(x)
    evaluate(x, normal, slope)
    exact = torch.from_numpy(x).double().requires_grad_()
    expected = torch.nn.functional.gelu(exact)
    (derivative,) = torch.autograd.grad(expected.sum(), exact)
    assert np.max(np.abs(normal - expected.detach().numpy()) / np.maximum(1, np.abs(x))) < 3e-7
    assert np.max(np.abs(slope - derivative.numpy())) < 5e-7


def test_torch_operations_run_without_numba(monkeypatch):
    inputs = streams(30)
    compiled = fractal_attention(*inputs, heads=4)
    assert cpu.supports(inputs[0], FractalOptions(4))
    assert not cpu.supports(inputs[0].half(), FractalOptions(4))
    monkeypatch.setattr(cpu, "_has_numba", lambda: False)
    assert not cpu.supports(inputs[0], FractalOptions(4))
    torch.testing.assert_close(fractal_attention(*inputs, heads=4), compiled, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_an_exported_network_contains_torch_operations():
    class Network(torch.nn.Module):
        def forward(self, x):
            return fractal_attention(x, x, x, heads=2)

    x = torch.randn(2, 30, 8)
    exported = torch.export.export(Network(), (x,)).module()
    torch.testing.assert_close(exported(x), Network()(x), atol=1e-6, rtol=0)


def test_kernels_compile_without_a_writable_cache(monkeypatch):
    def njit(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function, options

    monkeypatch.setattr(cpu_kernels, "njit", njit)
    assert cpu_kernels.compile_cached(len) == (len, {"nogil": True})


def test_the_cache_on_disk_names_no_class_of_the_package():
    """numba cannot read the index of a cache that names a class which has been renamed since."""
    inputs = [x.requires_grad_() for x in streams(30)]
    fractal_attention(*inputs, heads=4).sum().backward()
    for kernel in (cpu_kernels.forward, cpu_kernels.backward):
        assert kernel.signatures
        assert b"affekt" not in pickle.dumps(kernel.signatures)


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        ([(1, 6, 4), (1, 3, 4), (1, 6, 4)], {}, r"a key of \(1, 3, 4\)"),
        ([(2, 9, 4), (2, 9, 4), (1, 9, 4)], {}, r"a value of \(1, 9, 4\)"),
        ([(9, 4)] * 3, {}, r"a query of \(9, 4\) and 2 heads"),
        ([(1, 9, 5)] * 3, {}, "multiple of the number of heads"),
        ([(1, 9, 4)] * 3, {"heads": 0}, "heads = 0: expected a whole number, 1 or more"),
        ([(1, 9, 4)] * 3, {"factor": 1}, "factor = 1"),
        ([(1, 9, 4)] * 3, {"scales": 0}, "scales = 0"),
        ([(1, 9, 4)] * 3, {"scales": 2.0}, r"scales = 2\.0"),
        ([(1, 9, 4)] * 3, {"dropout": 1.0}, r"dropout = 1\.0"),
        ([(1, 9, 4)] * 3, {"mask": torch.ones(1, 10, dtype=torch.bool)}, r"a mask of \(1, 10\)"),
        ([(2, 9, 4)] * 3, {"mask": torch.ones(1, 9, dtype=torch.bool)}, r"a mask of \(1, 9\)"),
        ([(1, 9, 4)] * 3, {"mask": torch.ones(1, 9)}, r"torch\.float32: expected"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(shapes, settings, message):
    with shapes_unchecked(), pytest.raises(BadConfig, match=message):
        fractal_attention(*(torch.zeros(shape) for shape in shapes), **{"heads": 2, **settings})


def test_types_that_differ_are_refused():
    query, key, value = streams(9)
    with pytest.raises(BadConfig, match=r"a key of \(2, 9, 16\), torch\.float32 on cpu"):
        fractal_attention(query, key.float(), value, heads=2)


def test_scales_without_frames_are_skipped():
    inputs = streams(30)
    torch.testing.assert_close(
        fractal_attention(*inputs, heads=2, scales=60), fractal_attention(*inputs, heads=2, scales=4), atol=0, rtol=0
    )


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, of its own attention under vmap
def test_torch_func_transforms_use_torch_operations():
    inputs = streams(20, batch=3)
    each = torch.func.vmap(lambda q, k, v: fractal_attention(q[None], k[None], v[None], heads=2)[0])(*inputs)
    torch.testing.assert_close(each, fractal_attention(*inputs, heads=2), atol=1e-12, rtol=0)


def test_nan_in_the_padding_reaches_no_frame():
    for function in (torch_operations, lambda q, k, v, options, mask: attend(q, k, v, options, mask.sum(dim=1))):
        inputs, mask = streams(30, batch=1), torch.arange(30).unsqueeze(0) < 11
        expected = function(*inputs, FractalOptions(2), mask)
        for x in inputs:
            x[:, 11:] = math.nan
        torch.testing.assert_close(function(*inputs, FractalOptions(2), mask)[:, :11], expected[:, :11], atol=0, rtol=0)


def test_gelu_of_large_negative_numbers_is_zero():
    inputs = [torch.full((1, 81, 4), -1e6) for _ in range(3)]
    assert not fractal_attention(*inputs, heads=1).any()
