"""Encoders of the transformers library, loaded from a folder or downloaded from the hub by name.

`Checkpoint` reads the files. `TransformersEncoder`, the base class of speech and text encoders, wraps the library's network
and records its hidden states.
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

FOR_TRAINING = {
    "masked_spec_embed"
}  # weights used only in training: the vector of masked frames, which some checkpoints lack
# Entries about files and software, which do not change what a network computes.
INCIDENTAL = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"}
# Sets of files from which a tokenizer can be built.
TOKENIZER = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True)
class Checkpoint:
    """The files of a network. Its methods raise `BadConfig` for files that are missing or cannot be used."""

    source: str
    """A folder, or a name on the hub."""
    revision: str = "main"
    local: bool = False

    @classmethod
    def locate(
        cls, folder: Path | None, name: str, revision: str, feature: str, extra_file: str = "preprocessor_config.json"
    ) -> Checkpoint:
        """Return the checkpoint in a folder, or without one, the checkpoint with a name on the hub.

        Args:
            folder: A folder with config.json.
            name: A name on the hub.
            revision: A branch, tag or commit on the hub.
            feature: The feature's name, for error messages.
            extra_file: The file that the folder needs besides settings and weights, for error messages.
        """
        if folder is None and not name:
            raise BadConfig(f"{feature} needs folder, the folder of a checkpoint, or checkpoint, its name on the hub")
        if folder is None:
            return cls(name, revision)
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise BadConfig(f"{folder} has no checkpoint: expected config.json, {extra_file} and model.safetensors")
        return cls(str(folder), local=True)

    def settings(self) -> dict[str, Any]:
        """Return the content of config.json."""
        from transformers import PretrainedConfig

        with self._translate_errors("config.json"):
            stored: dict[str, Any] = PretrainedConfig.get_config_dict(self.source, **self._location())[0]
        return stored

    def preprocessing(self) -> dict[str, Any]:
        """Return the content of preprocessor_config.json, or its section in processor_config.json.

        Raises:
            BadConfig: The file is missing or cannot be read.
        """
        from transformers.feature_extraction_utils import FeatureExtractionMixin

        if self.local and not list(Path(self.source).glob("p*processor_config.json")):
            raise BadConfig(
                f"{self.source} has no preprocessor_config.json, which states whether waveforms are normalized: "
                "add it, or set normalize = true or false"
            )
        with self._translate_errors("preprocessor_config.json"):
            stored: dict[str, Any] = FeatureExtractionMixin.get_feature_extractor_dict(self.source, **self._location())[
                0
            ]
        return stored

    def tokenizer(self) -> Any:
        """Return the fast tokenizer as a `tokenizers.Tokenizer`. Only fast ones return each token's position in the text.

        Raises:
            BadConfig: There is no fast tokenizer.
        """
        from transformers import AutoTokenizer

        names = [" and ".join(names) for names in TOKENIZER]
        complete = [all((Path(self.source) / name).is_file() for name in names) for names in TOKENIZER]
        if self.local and not any(complete):  # transformers would build an empty tokenizer
            raise BadConfig(
                f"{self.source} has no tokenizer: add {', or '.join(names)}, which the tokenizer's save_pretrained writes"
            )
        with _quiet(), self._translate_errors("tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(self.source, use_fast=True, **self._location())
        if not tokenizer.is_fast:
            raise BadConfig(
                f"{self.source} has a slow tokenizer ({type(tokenizer).__name__}), which has no token positions: "
                "add the tokenizer.json that a fast tokenizer's save_pretrained writes"
            )
        return tokenizer.backend_tokenizer

    def network(self, kind: Any, config: Any, renamed: Mapping[str, str], **options: Any) -> nn.Module:
        """Build a network with the checkpoint's weights, which must be complete.

        Args:
            kind: The network's class in transformers.
            config: The network's configuration.
            renamed: Patterns of parameter names in the checkpoint, and the names in the class.
            options: Further arguments of the class.
        """
        if self.local and not list(Path(self.source).glob("*.safetensors")):
            raise BadConfig(self._without_safetensors())
        with _quiet(), self._translate_errors("safetensors"):
            network, report = kind.from_pretrained(
                self.source,
                config=config,
                use_safetensors=True,
                output_loading_info=True,
                key_mapping=dict(renamed) or None,
                **options,
                **self._location(),
            )
        if missing := sorted(set(report["missing_keys"]) - FOR_TRAINING):
            raise BadConfig(f"{self.source} lacks {len(missing)} weights of a {kind.__name__}, first {missing[0]}")
        return network

    def _location(self) -> dict[str, Any]:
        return {"local_files_only": True} if self.local else {"revision": self.revision}

    def _without_safetensors(self) -> str:
        message = f"{self.source} has no safetensors file"
        if pickled := sorted(Path(self.source).glob("*.bin")):
            target = pickled[0].with_name("model.safetensors")
            message += f", and {pickled[0].name} may contain code; convert it: affekt convert {pickled[0]} {target}"
        return message

    @contextlib.contextmanager
    def _translate_errors(self, content: str) -> Iterator[None]:
        """Turn the errors of transformers and the hub's client into `BadConfig`. `content` is what is read."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if self.local:
                raise BadConfig(f"{self.source}: its {content} cannot be read: {reason}") from error
            raise BadConfig(
                f"{self.source} cannot be downloaded from the hub ({content}): {reason}. "
                "Without a connection, set folder to a folder with its files; the weights must be safetensors"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' report of unused weights and its progress bar."""
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
    """The settings of an encoder."""

    blocks: tuple[int, ...] = (-1,)
    """Blocks whose hidden states are concatenated: 0 is the input of the first block, -1 the output of the last."""
    checkpoint: str = ""
    """Name on the hub, such as "facebook/hubert-large-ll60k", if no folder is given."""
    revision: str = "main"
    """Branch, tag or commit of the checkpoint on the hub."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's config.json; set when it is loaded."""

    def __post_init__(self) -> None:
        if not self.blocks:
            raise BadConfig("blocks = []: expected at least one block, such as [-1] for the last")


class TransformersEncoder(Feature):
    """The base class of encoders that wrap a network of transformers and return some of its hidden states.

    State k is the output of block k, `hidden_states[k]` in transformers 5. Blocks after the last one in `blocks` are
    removed. So is everything that follows the last block, except Whisper's final norm.
    """

    Config = EncoderConfig
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    model_type: ClassVar[str]
    """The network's type in config.json."""
    network_class: ClassVar[str]
    """The module and the class in transformers, as "module:class"."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the class."""
    depth: ClassVar[str] = "num_hidden_layers"
    """The key of the number of blocks in config.json."""
    width: ClassVar[str] = "hidden_size"
    """The key of the number of features per state."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Patterns of parameter names in a checkpoint -> names in the class."""
    extra_file: ClassVar[str] = "preprocessor_config.json"
    """File that a checkpoint needs besides settings and weights."""

    def __init__(self, config: Any, network: nn.Module | None = None) -> None:
        """Wrap `network`, or build one with random weights from `config.architecture`."""
        super().__init__()
        if not config.architecture:
            raise BadConfig(
                f"{self.model_type} is built from a checkpoint: set folder, or checkpoint, a name on the hub"
            )
        count = config.architecture[self.depth]
        self.blocks = _resolve_blocks(config.blocks, count, self.model_type)
        self.config = replace(config, blocks=self.blocks)
        self.dim, self.num_states = config.architecture[self.width] * len(self.blocks), len(self.blocks)
        self.includes_last_block = max(self.blocks) == count
        self.network: Any = network or self._class()(self._build_config(config.architecture), **self.options)
        del self._layers()[max(1, *self.blocks) :]

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> TransformersEncoder:
        """Load a checkpoint from a folder or from the hub.

        Raises:
            BadConfig: There is no checkpoint, it contains another type of network, its weights are incomplete or not
                safetensors, or it does not have one of the blocks.
            MissingExtra: Transformers is not installed.
        """
        kind = cls._class()
        checkpoint = Checkpoint.locate(folder, config.checkpoint, config.revision, cls.model_type, cls.extra_file)
        config = cls._complete(config, checkpoint)
        _resolve_blocks(config.blocks, config.architecture[cls.depth], cls.model_type)
        network = checkpoint.network(kind, cls._build_config(config.architecture), cls.renamed, **cls.options)
        return cls(config, network, **cls._extra_arguments(checkpoint)).float().eval().requires_grad_(False)

    @classmethod
    def _class(cls) -> Any:
        need("transformers", extra="train", purpose=f"a {cls.model_type} encoder")
        module, name = cls.network_class.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def _build_config(cls, architecture: Mapping[str, Any]) -> Any:
        return cls._class().config_class.from_dict(dict(architecture))

    @classmethod
    def _complete(cls, config: Any, checkpoint: Checkpoint) -> Any:
        """Return the settings, completed by those of the checkpoint."""
        stored = checkpoint.settings()
        if stored.get("model_type") != cls.model_type:
            raise BadConfig(
                f"{checkpoint.source} contains a model of type {stored.get('model_type')!r}; expected {cls.model_type!r}"
            )
        merged = {**cls._build_config({}).to_dict(), **stored}
        architecture = {name: value for name, value in merged.items() if name not in INCIDENTAL and value is not None}
        return replace(config, architecture=architecture)

    @classmethod
    def _extra_arguments(cls, _: Checkpoint) -> dict[str, Any]:
        """Return further arguments of the constructor, read from the checkpoint."""
        return {}

    def _layers(self) -> nn.ModuleList:
        return self.network.encoder.layers

    def _hidden_states(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """Run the network and return all hidden states, each (batch, frames, features)."""
        with _record_states(self._layers()) as states:
            self.network(*inputs, **options)
        return states


def _resolve_blocks(blocks: tuple[int, ...], count: int, name: str) -> tuple[int, ...]:
    """Return the blocks with negative numbers counted from the end. Raises `BadConfig` for a block out of range."""
    if invalid := [block for block in blocks if not -count - 1 <= block <= count]:
        raise BadConfig(f"blocks {invalid}: this {name} has 0 to {count}, or -1 to {-count - 1} from its end")
    return tuple(block % (count + 1) for block in blocks)


@contextlib.contextmanager
def _record_states(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Record the input of the first layer and the output of every layer while a network runs."""
    states: list[Tensor] = []

    def record_input(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0])

    def record_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [
        layers[0].register_forward_pre_hook(record_input),
        *(layer.register_forward_hook(record_output) for layer in layers),
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()
