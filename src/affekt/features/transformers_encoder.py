"""Encoders as transformers has them: a folder, or a name on the hub, whose files transformers fetches and keeps.

`Checkpoint` reads the files; `Encoder` is what the speech and text encoders share: the genuine network, seen at its blocks.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.extras import need
from affekt.features.base import Feature

FOR_TRAINING = {"masked_spec_embed"}  # a weight that stands in for masked frames: some checkpoints lack it
# Facts about files and about software, which change nothing of what a network computes.
INCIDENTAL = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"}
# What a tokenizer can be made of, one of these in full.
TOKENIZER = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True)
class Checkpoint:
    """Where a network is read from. Its methods raise `BadConfig` for what is not there or cannot be used."""

    source: str  # a folder, or a name on the hub
    revision: str = "main"
    local: bool = False

    @classmethod
    def at(
        cls, folder: Path | None, name: str, revision: str, kind: str, beside: str = "preprocessor_config.json"
    ) -> Checkpoint:
        """The folder, if one is given; else the name on the hub. `beside`: what it holds beside settings and weights."""
        if folder is None and not name:
            raise BadConfig(f"{kind} needs folder, where a checkpoint's files are, or checkpoint, its name on the hub")
        if folder is None:
            return cls(name, revision)
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise BadConfig(f"{folder} holds no checkpoint: expected config.json, {beside} and model.safetensors")
        return cls(str(folder), local=True)

    def settings(self) -> dict[str, Any]:
        """config.json."""
        from transformers import PretrainedConfig

        with self._read("config.json"):
            stored: dict[str, Any] = PretrainedConfig.get_config_dict(self.source, **self._where())[0]
        return stored

    def preprocessing(self) -> dict[str, Any]:
        """preprocessor_config.json, or the same within processor_config.json."""
        from transformers.feature_extraction_utils import FeatureExtractionMixin

        if self.local and not list(Path(self.source).glob("p*processor_config.json")):
            raise BadConfig(
                f"{self.source} has no preprocessor_config.json, which says whether waveforms are normalised: "
                "add it, or set normalise = true or false"
            )
        with self._read("preprocessor_config.json"):
            stored: dict[str, Any] = FeatureExtractionMixin.get_feature_extractor_dict(self.source, **self._where())[0]
        return stored

    def tokenizer(self) -> Any:
        """The fast tokenizer, as a `tokenizers.Tokenizer`: it alone knows where in the text a token stands."""
        from transformers import AutoTokenizer

        names = [" and ".join(names) for names in TOKENIZER]
        there = [all((Path(self.source) / name).is_file() for name in names) for names in TOKENIZER]
        if self.local and not any(there):  # transformers would make up an empty one
            raise BadConfig(
                f"{self.source} has no tokenizer: add {', or '.join(names)}, as the tokenizer's save_pretrained writes them"
            )
        with _quiet(), self._read("tokenizer"):
            found = AutoTokenizer.from_pretrained(self.source, use_fast=True, **self._where())
        if not found.is_fast:
            raise BadConfig(
                f"{self.source} has a slow tokenizer ({type(found).__name__}), which does not say where a token stands: "
                "add the tokenizer.json that a fast tokenizer's save_pretrained writes"
            )
        return found.backend_tokenizer

    def network(self, kind: Any, config: Any, renamed: Mapping[str, str], **options: Any) -> nn.Module:
        """The network of this class with the checkpoint's weights, all of them.

        renamed: patterns of names in the checkpoint, and what they are called in the class.
        options: what else the class is built with.
        """
        if self.local and not list(Path(self.source).glob("*.safetensors")):
            raise BadConfig(self._without_safetensors())
        with _quiet(), self._read("safetensors"):
            network, found = kind.from_pretrained(
                self.source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                key_mapping=dict(renamed) or None,
                **options,
                **self._where(),
            )
        if missing := sorted(set(found["missing_keys"]) - FOR_TRAINING):
            raise BadConfig(f"{self.source} lacks {len(missing)} weights of a {kind.__name__}, first {missing[0]}")
        return network

    def _where(self) -> dict[str, Any]:
        return {"local_files_only": True} if self.local else {"revision": self.revision}

    def _without_safetensors(self) -> str:
        message = f"{self.source} has no safetensors"
        if pickled := sorted(Path(self.source).glob("*.bin")):
            target = pickled[0].with_name("model.safetensors")
            message += f", and {pickled[0].name} may carry code: affekt convert {pickled[0]} {target}"
        return message

    @contextlib.contextmanager
    def _read(self, what: str) -> Iterator[None]:
        """What transformers and the hub's client raise, as an error of ours that says what to do."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if self.local:
                raise BadConfig(f"{self.source}: its {what} cannot be read: {reason}") from error
            raise BadConfig(
                f"{self.source} cannot be had from the hub ({what}): {reason} "
                "Without a connection, give folder, where its files are; they must be safetensors"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of the weights that a network leaves unused."""
    logging = need("transformers.utils.logging", extra="train", purpose="reading a checkpoint")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class EncoderConfig:
    # Whose states, counted from 1; 0 is what enters the first block, -1 is the last. They stand one after the other.
    blocks: tuple[int, ...] = (-1,)
    checkpoint: str = ""  # a name on the hub, as "facebook/hubert-large-ll60k", where no folder is given
    revision: str = "main"  # of the checkpoint: a branch, a tag or a commit
    architecture: Mapping[str, Any] = field(default_factory=dict)  # the checkpoint's config.json; filled in on reading

    def __post_init__(self) -> None:
        if not self.blocks:
            raise BadConfig("blocks = []: expected at least one, as [-1] for the last")


class Encoder(Feature):
    """What these encoders have in common: the genuine network, read from a checkpoint and watched at its blocks.

    State k is what block k gives: `hidden_states[k]` of transformers 5. Blocks after the last that is asked for are
    dropped, and so is whatever follows the last block, but for Whisper's final norm.
    """

    Config = EncoderConfig
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    model_type: ClassVar[str]  # what config.json calls the network
    genuine: ClassVar[str]  # transformers' class
    options: ClassVar[Mapping[str, Any]] = {}  # what the class is built with, beside its config
    depth: ClassVar[str] = "num_hidden_layers"  # what config.json calls the number of blocks
    width: ClassVar[str] = "hidden_size"  # and the features of a state
    renamed: ClassVar[Mapping[str, str]] = {}  # names in a checkpoint, as patterns -> names in the genuine class
    beside: ClassVar[str] = "preprocessor_config.json"  # what a checkpoint holds beside settings and weights

    def __init__(self, config: Any, network: nn.Module | None = None) -> None:
        """`network` with its weights, or one without them, of the architecture that `config` holds."""
        super().__init__()
        if not config.architecture:
            raise BadConfig(
                f"{self.model_type} is built from a checkpoint: give folder, or checkpoint, a name on the hub"
            )
        count = config.architecture[self.depth]
        self.blocks = _counted(config.blocks, count, self.model_type)
        self.config = replace(config, blocks=self.blocks)
        self.dim, self.num_states = config.architecture[self.width] * len(self.blocks), len(self.blocks)
        self.ends_at_the_last = max(self.blocks) == count
        self.network: Any = network or self._class()(self._their_config(config.architecture), **self.options)
        del self._layers()[max(1, *self.blocks) :]

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Encoder:
        """Read a checkpoint: its settings, what stands beside them and safetensors, from a folder or from the hub.

        Raises `BadConfig` where there is none, for another kind of network, for weights that are not safetensors or not
        all there, for blocks that it does not have; `MissingExtra` without transformers.
        """
        kind = cls._class()
        checkpoint = Checkpoint.at(folder, config.checkpoint, config.revision, cls.model_type, cls.beside)
        config = cls._completed(config, checkpoint)
        _counted(config.blocks, config.architecture[cls.depth], cls.model_type)
        network = checkpoint.network(kind, cls._their_config(config.architecture), cls.renamed, **cls.options)
        return cls(config, network, **cls._besides(checkpoint)).float().eval().requires_grad_(False)

    @classmethod
    def _class(cls) -> Any:
        need("transformers", extra="train", purpose=f"a {cls.model_type} encoder")
        module, name = cls.genuine.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def _their_config(cls, architecture: Mapping[str, Any]) -> Any:
        return cls._class().config_class.from_dict(dict(architecture))

    @classmethod
    def _completed(cls, config: Any, checkpoint: Checkpoint) -> Any:
        """The settings with what the checkpoint says of itself."""
        stored = checkpoint.settings()
        if stored.get("model_type") != cls.model_type:
            raise BadConfig(
                f"{checkpoint.source} holds a model of type {stored.get('model_type')!r}; expected {cls.model_type!r}"
            )
        whole = {**cls._their_config({}).to_dict(), **stored}
        architecture = {name: value for name, value in whole.items() if name not in INCIDENTAL and value is not None}
        return replace(config, architecture=architecture)

    @classmethod
    def _besides(cls, _: Checkpoint) -> dict[str, Any]:
        """What else it is built with, out of the checkpoint."""
        return {}

    def _layers(self) -> nn.ModuleList:
        return self.network.encoder.layers

    def _seen(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """The states of the network's run on these inputs, each (batch, frames, features)."""
        with _watched(self._layers()) as states:
            self.network(*inputs, **options)
        return states


def _counted(blocks: tuple[int, ...], count: int, name: str) -> tuple[int, ...]:
    """Blocks counted from 0, which is what enters the first."""
    if wrong := [block for block in blocks if not -count - 1 <= block <= count]:
        raise BadConfig(f"blocks {wrong}: this {name} has 0 to {count}, or from its end -1 to {-count - 1}")
    return tuple(block % (count + 1) for block in blocks)


@contextlib.contextmanager
def _watched(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """What enters the first layer and what each layer gives, while a network runs."""
    seen: list[Tensor] = []

    def entered(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0])

    def left(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layers[0].register_forward_pre_hook(entered), *(layer.register_forward_hook(left) for layer in layers)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
