"""Comparisons of a model of one stream with a reference written as loops, and with its ONNX file."""

import contextlib
import io
import logging
import warnings

import onnxruntime
import torch
from torch import nn

from affekt.batch import Batch, Stream
from tests.conftest import shapes_unchecked
from tests.contracts.builders import synthetic_batch, with_noise_in_the_padding


def assert_reference_agrees(model, reference, lengths, tolerance=1e-10):
    """Compare logits, and the gradients of a random projection of the logits by every parameter and input."""
    batch = synthetic_batch(model, lengths)
    stream = (with_noise_in_the_padding(batch) if model.config.masked else batch).streams["speech"]
    values = stream.values.clone().requires_grad_()
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    parameters = [name for name, _ in model.named_parameters()]
    for name in parameters:
        weights[name].requires_grad_()
    inputs = values.detach().clone().requires_grad_()
    logits = model(Batch({"speech": Stream(inputs, stream.mask, 50.0)}))
    expected = reference(weights, model.config, values, lengths)
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)
    projection = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((logits * projection).sum(), [*model.parameters(), inputs], allow_unused=True)
    theirs = torch.autograd.grad(
        (expected * projection).sum(), [*(weights[name] for name in parameters), values], allow_unused=True
    )
    for name, x, y in zip([*parameters, "input"], ours, theirs, strict=True):
        x, y = (torch.zeros(()).double() if z is None else z for z in (x, y))
        torch.testing.assert_close(
            *torch.broadcast_tensors(x, y), atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


class FromTensors(nn.Module):
    """A model of one stream with tensors as inputs, as an exporter needs it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, values, mask):
        return self.model(Batch({"speech": Stream(values, mask)}))


def assert_exports(model, path, frames=(1, 23, 57, 130)):
    """Export at one batch size and length, and compare ONNX with torch at others."""
    network, dim = FromTensors(model.float().eval()), model.dims["speech"]
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = (torch.randn(2, 40, dim), torch.arange(40) < torch.tensor([[40], [31]]))
    with shapes_unchecked(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own warnings
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            example,
            dynamo=True,
            dynamic_shapes={"values": axes, "mask": axes},
            input_names=["values", "mask"],
            output_names=["logits"],
            opset_version=23,
        )
    path.write_bytes(program.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(path)
    for count in frames:
        values = torch.randn(3, count, dim)
        mask = torch.arange(count) < torch.tensor([[count], [max(1, count // 2)], [1]])
        (logits,) = session.run(["logits"], {"values": values.numpy(), "mask": mask.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), network(values, mask), atol=1e-4, rtol=0)
