"""The settings of TDFNet (Zhao et al., IEEE/ACM TASLP 2023): sizes, Table V's rows, and what the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from affekt.errors import BadConfig
from affekt.models.base import check_sizes


@dataclass(frozen=True)
class TDFNetConfig:
    """TDFNet's settings; the defaults are the paper, resolved where it is silent. Lengths in frames, widths in features."""

    speech_frames: int | Literal["any"] = 512  # 10.24 s of HuBERT
    text_tokens: int | Literal["any"] = 128
    masked: bool = False  # the paper has no masks: padding is read as frames. True: padding changes nothing
    speech_dim: int = 1024  # HuBERT large; 128 for the log-mel of Table V's "w/o ME", which changes nothing else
    text_dim: int = 768  # BERT base
    speaker_dim: int = 192  # ECAPA-TDNN
    dim: int = 768  # d: the one width with which the printed sizes of U and O are exact
    heads: int = 12
    feedforward: int | Literal["square"] = 4096  # "square": the one matrix W of eq. 5 and 7, with its GELU
    feedforward_scaled: bool = False  # halved with the width in every block; printed as one number "for each layer"
    layers: int = 2  # of every encoder
    blocks: int = 2  # N
    speech_stride: int = 8  # of the first block, 512 -> 64 frames; later blocks halve
    text_stride: int = 2  # of the first block, 128 -> 64 tokens
    # What Table V leaves out. "first_cnn" keeps A' and T', which the DST's first encoder and CNN make.
    path: Literal["both", "audio", "text"] = "both"
    deep_scale: Literal["full", "first_cnn", "none"] = "full"
    mutual: bool = True  # C, C_AT, C_TA
    speaker: bool = True  # S; the paper has it in the mutual transformer alone, so "w/o MT" drops both
    projection: Literal["speech", "both"] = "speech"  # also of a text that has the width d already
    # What eq. 6-8 and 10 call A and T: the projected features, those as they came (in eq. 10 alone, since eq. 8 needs
    # equal widths), or what the first encoder of the deep-scale transformer makes of them.
    embeddings: Literal["projected", "raw", "encoded"] = "projected"
    primes: Literal["after_cnn", "before_cnn"] = (
        "after_cnn"  # A' and T' of eq. 10; after the CNN O has its printed size
    )
    first_encoder: Literal["once", "every_block"] = "once"  # before the CNN; Fig. 2's legend has it in no later block
    kernel: int | Literal["stride"] = "stride"  # not printed. "stride": no padding. A number: odd, padded by its half
    gru_sizes: Literal["halved", "same"] = "halved"  # 768 and 384 are printed, but H_2 and D_2 are 192 wide
    bidirectional: bool = False  # True: two directions of half the width
    shared: tuple[Literal["gru", "cnn", "encoder"], ...] = ("gru",)  # by speech and text; only the GRUs are said to be
    literal_eq5: bool = False  # the second residual of eq. 5 and 7 as printed: the layer's input, not the first norm
    # Keys and values of the second mutual layer: the other sequence as it came in, or as its own first layer made it.
    # "one": one layer for each direction, the other way to read "two mutual transformer layers".
    mutual_layers: Literal["raw", "updated", "one"] = "raw"
    mutual_pooling: Literal["mean+max", "mean"] = "mean+max"  # eq. 9 says average; U has 6d + f entries only with both
    gate: Literal["full", "parts", "scalar"] = "full"  # a weight for every entry of O, for every group, or for all
    gate_bias: bool = False  # eq. 11 has none
    inner_product: bool = False  # alpha^T O read as an inner product: one number, from which all logits follow
    gelu_logits: bool = True  # the GELU around the logits in eq. 11
    positions: Literal["none", "sinusoids"] = "none"  # the encoders' features know their place
    dropout: float = 0.1  # on both residual branches; none is printed
    attention_dropout: float = 0.1  # likewise
    fused_dropout: float = 0.0  # on what the classifier takes; ours
    input_norm: Literal["none", "standard"] = "none"  # of the features, and of the speaker's vector

    def __post_init__(self) -> None:
        check_sizes(self)
        self._check_widths()
        self._check_choices()

    def _check_widths(self) -> None:
        if self.dim % 2**self.blocks:
            raise BadConfig(
                f"dim = {self.dim} cannot be halved {self.blocks} times (blocks): give a multiple of 2^blocks"
            )
        for width in (self.dim // 2**number for number in range(self.blocks + 1)):
            if width % self.heads:
                raise BadConfig(f"heads = {self.heads} does not divide {width}, the width of one of the blocks")
        if self.kernel != "stride" and self.kernel % 2 == 0:
            raise BadConfig(f"kernel = {self.kernel}: expected an odd number, or 'stride'")

    def _check_choices(self) -> None:
        if self.masked and self.bidirectional:
            raise BadConfig(
                "bidirectional = true reads the padding before the frames, so that masked = true cannot hold: unset one"
            )
        if self.mutual and self.path != "both":
            raise BadConfig(
                f"the mutual transformer needs speech and text: with path = {self.path!r} set mutual = false"
            )
        if "cnn" in self.shared and self.kernel == "stride" and self.speech_stride != self.text_stride:
            raise BadConfig(
                "speech and text cannot share a CNN whose kernels are their strides: set kernel to a number"
            )
        if self.deep_scale == "none" and self.embeddings == "encoded":
            raise BadConfig(
                "embeddings = 'encoded' needs the deep-scale transformer's encoder: set deep_scale = 'full'"
            )
        if self.deep_scale == "none" and self.embeddings == "raw" and not self.mutual:
            raise BadConfig("embeddings = 'raw' with neither DST nor MT leaves the projection without use: 'projected'")

    @property
    def paths(self) -> tuple[str, ...]:
        return {"both": ("speech", "text"), "audio": ("speech",), "text": ("text",)}[self.path]

    @property
    def streams(self) -> tuple[str, ...]:
        return (*self.paths, "speaker") if self.speaker else self.paths
