"""Helpers for the tests of EmotionNAS's networks: perturbed models, comparison with a reference, and ONNX export."""

import warnings

import onnxruntime
import torch

from affekt.batch import Batch, Stream
from tests.conftest import shapes_unchecked


def perturbed(model, seed=0):
    """Convert a model to float64 and perturb its weights, because the zeros and ones of an initialization hide mistakes.

    The statistics of normalizations get the size of their inputs; otherwise no value would be above a ReLU's zero.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                if "running" in name:
                    tensor.copy_(0.02 + 0.1 * noise if name.endswith("var") else 0.1 * (noise - 0.5))
                else:
                    tensor.add_((0.5 if name.split(".")[0] in ("input", "architecture") else 0.1) * noise)
    return model.eval()


def utterances(lengths, dim, seed=0, noise=0.0, length=None):
    """Return random values (batch, frames, dim), with `noise` times such values in the padding, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length or max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, dim, generator=generator, dtype=torch.float64)
    return torch.where(mask.unsqueeze(2), values, noise * values), mask


def leaves(model):
    """Return the tensors that have gradients, parameters and architecture weights, by their names in the state."""
    alphas = {name: tensor for name, tensor in model.named_buffers() if "architecture." in name}
    return {**dict(model.named_parameters()), **alphas}


def assert_agrees(model, reference, inputs):
    """Assert that logits agree to 1e-10, and so do the gradients of a random projection of them for every weight and input.

    reference(weights, values) -> logits, where `inputs` maps streams to (values, mask) and `values` streams to values.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    names = [name for name in leaves(model) if leaves(model)[name].requires_grad]
    inputs_of_model = {stream: values.clone().requires_grad_() for stream, (values, _) in inputs.items()}
    inputs_of_reference = {stream: values.clone().requires_grad_() for stream, (values, _) in inputs.items()}
    for name in names:
        weights[name].requires_grad_()
    batch = Batch({stream: Stream(inputs_of_model[stream], mask, 50.0) for stream, (_, mask) in inputs.items()})
    logits, expected = model(batch), reference(weights, inputs_of_reference)
    torch.testing.assert_close(logits, expected, atol=1e-10, rtol=0)
    projection = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((output * projection).sum(), tensors, materialize_grads=True, allow_unused=True)
        for output, tensors in (
            (logits, [*(leaves(model)[name] for name in names), *inputs_of_model.values()]),
            (expected, [*(weights[name] for name in names), *inputs_of_reference.values()]),
        )
    ]
    inert = model.inert_parameters()
    has_gradient = [
        float(g.abs().max()) > 1e-6
        for name, g in zip([*names, *inputs_of_reference], gradients[1], strict=True)
        if name not in inert
    ]
    assert sum(has_gradient) > 0.8 * len(has_gradient)
    for name, gradient, expected_gradient in zip([*names, *inputs_of_reference], *gradients, strict=True):
        torch.testing.assert_close(
            gradient, expected_gradient, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


class Tensors(torch.nn.Module):
    """A model whose arguments are the values and the mask of each of its streams, as in an exported graph."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *tensors):
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        return self.model(Batch({name: Stream(*pair) for name, pair in zip(self.model.streams, pairs, strict=True)}))


def assert_onnx_equals_torch(model, path):
    """Assert that the ONNX graph returns the same logits as torch for several batch sizes and lengths."""
    model = model.float().eval()
    names = [f"{kind}_{stream}" for stream in model.streams for kind in ("values", "mask")]
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with shapes_unchecked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own code
        torch.onnx.export(
            Tensors(model),
            tuple(_tensors(model, [7, 9])),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=((axes,) * len(names),),
            input_names=names,
            output_names=["logits"],
            opset_version=23,
        )
    session = onnxruntime.InferenceSession(path)
    for lengths in ([3], [12, 5, 8], [31, 30]):
        tensors = _tensors(model, lengths)
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        (logits,) = session.run(None, arrays)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), Tensors(model)(*tensors), atol=1e-4, rtol=0)


def _tensors(model, lengths):
    tensors = []
    for seed, stream in enumerate(model.streams):
        values, mask = utterances(lengths, model.dims[stream], seed=seed)
        tensors += [values.float(), mask]
    return tensors
