"""What the tests of EmotionNAS's networks share: small models, agreement with a reference, and the ONNX file."""

import warnings

import onnxruntime
import torch

from affekt.batch import Batch, Stream
from tests.conftest import shapes_unchecked


def perturbed(model, seed=0):
    """In float64, away from the zeros and ones of an initialization, which hide mistakes.

    Normalizations are given statistics of the size of what they see: others would leave nothing above a ReLU.
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
    """values (batch, frames, dim), with noise of so much in the padding, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length or max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, dim, generator=generator, dtype=torch.float64)
    return torch.where(mask.unsqueeze(2), values, noise * values), mask


def leaves(model):
    """What a gradient may be asked of: the parameters and the architecture's weights, by the state's names."""
    alphas = {name: tensor for name, tensor in model.named_buffers() if "architecture." in name}
    return {**dict(model.named_parameters()), **alphas}


def assert_agrees(model, reference, inputs):
    """Logits, and the gradients of a random projection of them for every weight and input, agree to 1e-10.

    reference(weights, values) -> logits, where `inputs` maps streams to (values, mask) and `values` streams to values.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    names = [name for name in leaves(model) if leaves(model)[name].requires_grad]
    mine = {stream: values.clone().requires_grad_() for stream, (values, _) in inputs.items()}
    theirs = {stream: values.clone().requires_grad_() for stream, (values, _) in inputs.items()}
    for name in names:
        weights[name].requires_grad_()
    batch = Batch({stream: Stream(mine[stream], mask, 50.0) for stream, (_, mask) in inputs.items()})
    answer, expected = model(batch), reference(weights, theirs)
    torch.testing.assert_close(answer, expected, atol=1e-10, rtol=0)
    projection = torch.randn(answer.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((logits * projection).sum(), asked, materialize_grads=True, allow_unused=True)
        for logits, asked in (
            (answer, [*(leaves(model)[name] for name in names), *mine.values()]),
            (expected, [*(weights[name] for name in names), *theirs.values()]),
        )
    ]
    inert = model.inert_parameters()
    reached = [
        float(g.abs().max()) > 1e-6
        for name, g in zip([*names, *theirs], gradients[1], strict=True)
        if name not in inert
    ]
    assert sum(reached) > 0.8 * len(reached)
    for name, gradient, wanted in zip([*names, *theirs], *gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


class Tensors(torch.nn.Module):
    """A model that takes values and mask of each of its streams in turn, as an exported graph does."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *tensors):
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        return self.model(Batch({name: Stream(*pair) for name, pair in zip(self.model.streams, pairs, strict=True)}))


def assert_onnx_equals_torch(model, path):
    """The model as an ONNX graph gives what it gives in torch, for one or many, whatever the length of what comes in."""
    model = model.float().eval()
    names = [f"{kind}_{stream}" for stream in model.streams for kind in ("values", "mask")]
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with shapes_unchecked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
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
        fed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        (logits,) = session.run(None, fed)
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), Tensors(model)(*tensors), atol=1e-4, rtol=0)


def _tensors(model, lengths):
    tensors = []
    for place, stream in enumerate(model.streams):
        values, mask = utterances(lengths, model.dims[stream], seed=place)
        tensors += [values.float(), mask]
    return tensors
