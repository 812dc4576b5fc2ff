"""Text encoders as transformers runs them, from a folder or by their name on the hub, with the genuine classes.

BERT (Devlin et al., 2019), RoBERTa (Liu et al., 2019) and MiniLM (Wang et al., 2020), each of any size. MiniLM is a BERT by
its architecture; it has a name of its own, so that a recipe and the store say what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.extras import need
from affekt.features.base import TextFeature
from affekt.features.transformers_encoder import Checkpoint, Encoder, EncoderConfig

SHORTEST = 3  # tokens: one between the two special ones


@dataclass(frozen=True)
class TextEncoderConfig(EncoderConfig):
    # Tokens that the network reads of a text, the special ones at its ends among them; what goes beyond is cut off before
    # the special one at the end. None: all of them, and a text that is longer than the network can read is refused.
    longest: int | None = None
    special: bool = True  # whether the special tokens, [CLS] and [SEP] or <s> and </s>, stand in the stream

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest is not None and self.longest < SHORTEST:
            raise BadConfig(f"longest = {self.longest}: expected at least {SHORTEST}, a token between two special ones")


class TextEncoder(TextFeature, Encoder):
    """What these encoders have in common. Letters are lowered, or not, as the checkpoint's tokenizer says.

    The tokenizer is part of the state: a network made of its settings and its state reads as the first one did. One that is
    missing from a checkpoint, slow, or another network's raises `BadConfig`.
    """

    Config = TextEncoderConfig
    libraries = ("torch", "transformers", "tokenizers")
    options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}  # it stands after the last block
    beside = "tokenizer.json"

    def __init__(self, config: TextEncoderConfig, network: nn.Module | None = None, tokenizer: Any = None) -> None:
        """`tokenizer`: a `tokenizers.Tokenizer`; without one it comes with the state."""
        super().__init__(config, network)
        self.padding = int(config.architecture["pad_token_id"])
        self.positions = self._positions()
        if config.longest is not None and config.longest > self.positions:
            raise BadConfig(f"longest = {config.longest}: this {self.model_type} reads at most {self.positions} tokens")
        self.tokenizer: Any = None if tokenizer is None else self._prepared(tokenizer)

    @classmethod
    def _besides(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"tokenizer": checkpoint.tokenizer()}

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """(batch, tokens, dim), masked, with `words`: the index of each token's word in `text.split()`, -1 for none.

        Special tokens have no word, and nor have the spaces that RoBERTa reads where there are several. Raises `BadConfig`
        for a text that leaves no token, or that is too long.
        """
        read = self._read(texts)
        states = self._states([one.ids for one in read])
        values = [row[torch.from_numpy(one.kept)] for row, one in zip(states, read, strict=True)]
        words = [torch.from_numpy(one.words) for one in read]
        counts = torch.tensor([len(one.kept) for one in read], device=states.device)
        return Stream(
            pad_sequence(values, batch_first=True),
            frame_mask(counts, int(counts.max())),
            None,
            pad_sequence(words, batch_first=True, padding_value=-1).to(states.device),
        )

    def words(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Of each text (tokens,): the word of every token, as `forward` gives it, without running the network."""
        return [one.words for one in self._read(texts)]

    def get_extra_state(self) -> Tensor:
        """The tokenizer, as the bytes of its JSON: part of the state, so of what a stored feature is known by."""
        content = b"" if self.tokenizer is None else self.tokenizer.to_str().encode()
        return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))

    def set_extra_state(self, state: Tensor) -> None:
        """Read the tokenizer from the bytes of its JSON."""
        tokenizers = need("tokenizers", extra="train", purpose=f"a {self.model_type} encoder")
        content = bytes(state.cpu().numpy()).decode()
        self.tokenizer = self._prepared(tokenizers.Tokenizer.from_str(content)) if content else None

    def _prepared(self, tokenizer: Any) -> Any:
        """The tokenizer, which cuts where we say; refused if it is not this network's."""
        known, size = self.config.architecture["vocab_size"], tokenizer.get_vocab_size()
        if size > known:
            raise BadConfig(
                f"the tokenizer knows {size} tokens, and this {self.model_type} {known}: "
                "give the tokenizer that was saved with it"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if self.config.longest is not None:
            tokenizer.enable_truncation(self.config.longest)
        return tokenizer

    def _read(self, texts: Sequence[str]) -> list[_Text]:
        encodings = self.tokenizer.encode_batch(list(texts))
        return [self._checked(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def _checked(self, text: str, encoding: Any) -> _Text:
        if len(encoding.ids) > self.positions:
            raise BadConfig(
                f"{text[:40]!r}... has {len(encoding.ids)} tokens, and this {self.model_type} reads at most "
                f"{self.positions}: set longest = {self.positions} to cut off the others"
            )
        special = np.array(encoding.special_tokens_mask, bool)
        words = np.where(special, -1, words_of(text, encoding.offsets))
        kept = np.flatnonzero(special <= self.config.special)
        if not len(kept):
            raise BadConfig(
                f"{text!r} leaves no token: give it words, or set special = true, which keeps the tokens at its ends"
            )
        return _Text(encoding.ids, kept, words[kept])

    def _states(self, ids: Sequence[Sequence[int]]) -> Float[Tensor, "batch tokens dim"]:
        """The states of the blocks that were asked for, side by side."""
        device = next(self.network.parameters()).device
        # RoBERTa counts positions past the padding's number: it must be the network's own.
        rows = pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=self.padding).to(device)
        counts = torch.tensor([len(row) for row in ids], device=device)
        mask = None if bool((counts == rows.shape[1]).all()) else frame_mask(counts, rows.shape[1]).long()
        states = self._seen(rows, attention_mask=mask)
        return torch.cat([states[block] for block in self.blocks], dim=2)

    def _positions(self) -> int:
        """Tokens that it can read."""
        return int(self.config.architecture["max_position_embeddings"])

    def _layers(self) -> nn.ModuleList:
        return self.network.encoder.layer


@dataclass(frozen=True)
class _Text:
    """A text as a network reads it, and what of that stands in the stream."""

    ids: list[int]  # of all tokens
    kept: NDArray[np.int64]  # which of them
    words: NDArray[np.int64]  # of those that are kept


def words_of(text: str, spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The index in `text.split()` of the word that each span of characters begins in; -1 for a span of nothing but space."""
    begins = [not character.isspace() and (at == 0 or text[at - 1].isspace()) for at, character in enumerate(text)]
    word_at = np.where([character.isspace() for character in text], -1, np.cumsum(begins) - 1) if text else np.zeros(0)
    found = [next((int(word) for word in word_at[start:end] if word >= 0), -1) for start, end in spans]
    return np.array(found, np.int64)


class BERT(TextEncoder):
    model_type = "bert"
    genuine = "transformers.models.bert.modeling_bert:BertModel"


class MiniLM(BERT):
    """A BERT distilled to a small one; its checkpoints say that they are of type bert."""


class RoBERTa(TextEncoder):
    model_type = "roberta"
    genuine = "transformers.models.roberta.modeling_roberta:RobertaModel"

    def _positions(self) -> int:
        return super()._positions() - self.padding - 1  # which its counting leaves out
