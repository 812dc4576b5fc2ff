"""The kernels for a GPU, run on the CPU by Triton's interpreter, compared with torch operations.

Triton reads the variable that switches its interpreter on when it is imported. All tests with the interpreter therefore run
in a separate process, which `test_the_kernels_in_the_interpreter` starts: only there, `TestInterpreted` is collected.
"""

import importlib
import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from affekt.models.layers.fractal import gpu
from affekt.models.layers.fractal.gpu_plan import bytes_moved, kernel_constants, schedule
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.fractal.torch_ops import fractal_scales

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton, which CUDA's torch has"
)


def fused(frames, dim=6, batch=2, dtype=torch.float64, seed=0):
    """Return query, key and value as thirds of one projection: views of a tensor with rows three times as long."""
    projected = torch.randn(batch, frames, 3 * dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [x.requires_grad_() for x in projected.to(dtype).chunk(3, dim=2)]


def torch_operations(query, key, value, options, lengths=None):
    mask = None if lengths is None else torch.arange(query.shape[1], device=query.device) < lengths.unsqueeze(1)
    scales = fractal_scales(
        query,
        key,
        value,
        heads=options.heads,
        factor=options.factor,
        scales=options.scales,
        mask=mask,
        mask_window_padding=options.mask_window_padding,
        temperature=options.temperature,
        upsampling=options.upsampling,
    )
    return sum(scales) if mask is None else sum(scales) * mask.unsqueeze(2)


def assert_agreement(inputs, options, lengths=None):
    """Compare outputs to 1e-12 and gradients to 1e-10."""
    expected, output = torch_operations(*inputs, options, lengths), gpu.attend(*inputs, options, lengths)
    torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)
    output_gradient = torch.randn_like(expected)
    gradients = [torch.autograd.grad(x, inputs, output_gradient) for x in (output, expected)]
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=0)


def small_launches(monkeypatch, elements):
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(gpu, name, gpu.Launch(elements, registers=128, programs=1))


class TestInterpreted:
    __test__ = INTERPRETED

    @pytest.mark.parametrize(
        ("frames", "options"),
        [
            (1, FractalOptions(1)),
            (2, FractalOptions(3, factor=2, scales=2)),
            (3, FractalOptions(1, scales=2, mask_window_padding=True)),
            (7, FractalOptions(1, scales=2, upsampling="repeat")),
            (26, FractalOptions(1, scales=2, temperature=0.5)),
            (27, FractalOptions(1, factor=3, scales=3, mask_window_padding=True)),
            (33, FractalOptions(1, factor=4, scales=2, upsampling="repeat")),
            (33, FractalOptions(1, factor=2, scales=4)),
            (82, FractalOptions(1, factor=3, scales=5)),
            (31, FractalOptions(1, factor=3, scales=1, temperature=2.0)),
            (31, FractalOptions(1, factor=2, scales=2, mask_window_padding=True)),
            (55, FractalOptions(1, scales=3)),
        ],
    )
    def test_the_kernels_equal_torch_operations(self, frames, options):
        assert_agreement(fused(frames, batch=1), options)

    @pytest.mark.parametrize(
        "options",
        [
            FractalOptions(1, scales=3),
            FractalOptions(1, factor=2, scales=2, upsampling="repeat"),
            FractalOptions(1, scales=2, mask_window_padding=True),
        ],
    )
    def test_each_utterance_has_its_own_length(self, options):
        assert_agreement(fused(31, batch=2), options, torch.tensor([31, 12]))

    def test_padding_is_not_read(self):
        options, lengths = FractalOptions(1, scales=2), torch.tensor([28, 10, 0])
        mask = torch.arange(28) < lengths.unsqueeze(1)
        clean = fused(28, batch=3)
        dirty = [x.detach().masked_fill(~mask.unsqueeze(2), float("nan")).requires_grad_() for x in clean]
        outputs = [gpu.attend(*inputs, options, lengths) for inputs in (clean, dirty)]
        assert torch.equal(*outputs)
        assert not outputs[0][~mask].any()
        outputs[1].sum().backward()
        assert all(not x.grad[~mask].any() and x.grad[mask].isfinite().all() for x in dirty)

    def test_blocks_may_be_smaller_than_tiles_and_a_head_may_have_any_width(self, monkeypatch):
        small_launches(monkeypatch, elements=32)  # two windows of 64-bit numbers
        assert_agreement(fused(11, dim=5, batch=1), FractalOptions(1, scales=2))
        assert_agreement(fused(17, dim=3, batch=1), FractalOptions(1, factor=4, scales=2))

    def test_the_result_does_not_depend_on_the_schedule(self, monkeypatch):
        inputs, options = fused(20, batch=1), FractalOptions(1, scales=2, dropout=0.3)
        small_launches(monkeypatch, elements=64)
        results = []
        for processors in (1, 100):
            monkeypatch.setattr(gpu, "MULTIPROCESSORS", processors)
            torch.manual_seed(5)
            output = gpu.attend(*inputs, options)
            results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
        assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 0.01), (torch.bfloat16, 0.05)]
    )
    def test_lower_precisions_are_accurate(self, dtype, tolerance):
        inputs, options = fused(20, batch=1, dtype=dtype), FractalOptions(1, scales=2)
        exact = [x.detach().double().requires_grad_() for x in inputs]
        output, expected = gpu.attend(*inputs, options), torch_operations(*exact, options)
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=0)
        gradients = torch.autograd.grad(output.float().sum(), inputs)
        for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), exact), strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours.double(), theirs, atol=tolerance, rtol=0)

    def test_dropout_keeps_the_mean_and_is_uniform(self):
        # Scores are equal and values are one: GELU's input is the number of kept weights over 3 * 0.75.
        inputs = [torch.zeros(3, 240, 3), torch.zeros(3, 240, 3), torch.ones(3, 240, 3)]
        torch.manual_seed(1)
        output = gpu.attend(*inputs, FractalOptions(3, scales=1, dropout=0.25))
        possible_outputs = torch.nn.functional.gelu(torch.arange(4) / 2.25)
        num_kept = (output.unsqueeze(3) - possible_outputs).abs().argmin(dim=3)
        torch.testing.assert_close(output, possible_outputs[num_kept], atol=1e-6, rtol=0)
        fractions = num_kept.flatten().bincount(minlength=4) / num_kept.numel()
        torch.testing.assert_close(fractions, torch.tensor([0.25**3, 9 / 64, 27 / 64, 27 / 64]), atol=0.04, rtol=0)
        for dim in range(3):  # utterances, frames and features are independent
            assert (num_kept == num_kept.roll(1, dims=dim)).float().mean() < 0.5  # 0.376 by chance

    def test_without_dropout_no_random_numbers_are_drawn(self):
        inputs = fused(20, batch=1)
        state = torch.get_rng_state()
        gpu.attend(*inputs, FractalOptions(1, scales=2, dropout=0.0))
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(("factor", "scales"), [(3, 2), (5, 1)])
    def test_the_backward_pass_drops_the_same_weights(self, factor, scales):
        inputs, options = fused(31, batch=1, dim=4), FractalOptions(1, factor=factor, scales=scales, dropout=0.4)
        directions = [torch.randn_like(x) for x in inputs]

        def loss_at(step):
            torch.manual_seed(7)
            moved = [
                (x + step * direction).detach().requires_grad_()
                for x, direction in zip(inputs, directions, strict=True)
            ]
            return gpu.attend(*moved, options).square().sum(), moved

        difference_quotient = (loss_at(1e-5)[0] - loss_at(-1e-5)[0]) / 2e-5
        loss, moved = loss_at(0.0)
        gradients = torch.autograd.grad(loss, moved)
        expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
        torch.testing.assert_close(difference_quotient, expected, atol=1e-6, rtol=1e-7)

    def test_no_copies_are_kept_for_the_backward_pass(self):
        inputs = fused(12)
        saved = gpu.attend(*inputs, FractalOptions(1, scales=1)).grad_fn.saved_tensors
        assert [x.data_ptr() for x in saved[:3]] == [x.data_ptr() for x in inputs]

    def test_supported_types_and_factors(self):
        assert gpu.supports(torch.zeros(1, 2, 4), FractalOptions(1))
        assert not gpu.supports(torch.zeros(1, 2, 4, dtype=torch.complex64), FractalOptions(1))
        assert not gpu.supports(torch.zeros(1, 2, 4), FractalOptions(1, factor=17))


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the process that the test starts")
@needs_triton
def test_the_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider", "-k", "TestInterpreted"]
    process = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert " passed" in process.stdout
    assert "skipped" not in process.stdout


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="compiled kernels and interpreted ones do not mix")
@needs_triton
@pytest.mark.parametrize("kernel_name", ["attend_kernel", "differentiate_kernel"])
def test_the_kernels_compile_for_a_gpu(kernel_name, monkeypatch, tmp_path):
    """The interpreter accepts code that the compiler rejects, so both are tested."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler, targets = (importlib.import_module(f"triton.{name}") for name in ("compiler", "backends.compiler"))
    if "nvidia" not in importlib.import_module("triton.backends").backends:
        pytest.skip("this triton cannot compile for NVIDIA GPUs")
    kernel = getattr(importlib.import_module("affekt.models.layers.fractal.gpu_kernels"), kernel_name)
    options = FractalOptions(2, factor=2, scales=2, dropout=0.1)
    constants = kernel_constants(options, width=16, frames=99, elements=512, ragged=True, double=False)
    pair, numbers = ("i32", "i32"), "*fp32"
    streams = [(numbers,) * 3, (pair,) * 3, numbers, pair]
    if kernel_name == "differentiate_kernel":
        streams += [(numbers,) * 3, pair]
    kinds = [*streams, "*i64", numbers, *["i32"] * 6, "constexpr"]
    source = compiler.ASTSource(kernel, dict(zip(kernel.arg_names, kinds, strict=True)), {(len(kinds) - 1,): constants})
    card = targets.GPUTarget("cuda", 90, 32)
    compiled = compiler.compile(source, target=card, options=gpu._compile_options(gpu.BACKWARD))
    # Barriers between writing and reading a program's buffer: after pooling, and after the coarse scale.
    assert compiled.asm["ptx"].count("bar.sync") >= 2


@pytest.mark.skipif(INTERPRETED, reason="the interpreter supports a CPU")
def test_a_cpu_is_not_supported():
    assert not gpu.supports(torch.zeros(1, 2, 4), FractalOptions(1))


def test_bytes_moved_are_the_tensors_sizes():
    inputs = [torch.zeros(2, 5, 8) for _ in range(3)]
    output = torch.zeros(2, 5, 8)
    forward = sum(x.nbytes for x in (*inputs, output))
    assert bytes_moved(2, 5, 8, itemsize=4) == forward
    assert bytes_moved(2, 5, 8, itemsize=4, backward=True) == forward + sum(x.nbytes for x in inputs)


@pytest.mark.parametrize("factor", [2, 3, 4, 16])
@pytest.mark.parametrize("frames", [1, 26, 27, 1000, 65536])
def test_tiles_are_whole_windows_of_the_coarsest_scale(factor, frames):
    constants = kernel_constants(
        FractalOptions(4, factor=factor, scales=5), width=48, frames=frames, elements=1024, ragged=False, double=False
    )
    assert constants.tile % factor**constants.scales == 0
    assert constants.scales == 5 or factor**constants.scales > frames >= factor ** (constants.scales - 1)
    rows = [constants.tile // factor**scale for scale in range(1, constants.scales)]
    assert [*constants.starts[1:], constants.rows] == ([sum(rows[:k]) for k in range(len(rows) + 1)] if rows else [0])
    assert constants.lanes == 64


@pytest.mark.parametrize("programs", [1, 8, 264])
@pytest.mark.parametrize("frames", [1, 100, 9000])
def test_every_item_belongs_to_one_program(programs, frames):
    constants = kernel_constants(FractalOptions(4), width=64, frames=frames, elements=1024, ragged=True, double=False)
    work = schedule(constants, heads=12, frames=frames, programs=programs)
    assert work.programs <= programs
    assert work.tiles * constants.tile >= frames > (work.tiles - 1) * constants.tile
    assert (
        (work.programs - 1) * work.items_per_program
        < work.items
        == 12 * work.tiles
        <= work.programs * work.items_per_program
    )


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("factor", [2, 3])
def test_the_kernels_on_a_gpu(factor):
    for frames, width in ((163, 6), (5000, 64)):
        inputs = [x.detach().cuda().requires_grad_() for x in fused(frames, dim=2 * width)]
        assert_agreement(inputs, FractalOptions(2, factor=factor))
        assert_agreement(inputs, FractalOptions(2, factor=factor), torch.tensor([frames, frames // 3], device="cuda"))
        single = [x.detach().float() for x in inputs]
        torch.testing.assert_close(
            gpu.attend(*single, FractalOptions(2)).double(),
            torch_operations(*inputs, FractalOptions(2)),
            atol=1e-5,
            rtol=0,
        )
