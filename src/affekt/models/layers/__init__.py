"""Layers that several models use."""

from affekt.models.layers.attention import FullAttention, key_biases
from affekt.models.layers.fractal.attention import FractalAttention, fractal_attention
from affekt.models.layers.inputs import StreamInput, average_frames
from affekt.models.layers.outputs import Classifier, Pooling
from affekt.models.layers.shapes import NEGATIVE, ContextFrames, FrameMask, Frames, KeyMask
from affekt.models.layers.transformer import FeedForward, TransformerBlock, add_sinusoids

__all__ = [
    "NEGATIVE",
    "Classifier",
    "ContextFrames",
    "FeedForward",
    "FractalAttention",
    "FrameMask",
    "Frames",
    "FullAttention",
    "KeyMask",
    "Pooling",
    "StreamInput",
    "TransformerBlock",
    "add_sinusoids",
    "average_frames",
    "fractal_attention",
    "key_biases",
]
