"""The layers that models share."""

from affekt.models.layers.attention import FullAttention
from affekt.models.layers.fractal.attention import FractalAttention, fractal_attention
from affekt.models.layers.inputs import StreamInput, strided
from affekt.models.layers.outputs import Classifier, Pooling
from affekt.models.layers.shapes import NEGATIVE, Context, KeyMask, Mask, Sequence
from affekt.models.layers.transformer import FeedForward, TransformerBlock, sinusoids

__all__ = [
    "NEGATIVE",
    "Classifier",
    "Context",
    "FeedForward",
    "FractalAttention",
    "FullAttention",
    "KeyMask",
    "Mask",
    "Pooling",
    "Sequence",
    "StreamInput",
    "TransformerBlock",
    "fractal_attention",
    "sinusoids",
    "strided",
]
