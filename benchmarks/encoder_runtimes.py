"""Compare ways to run a speech encoder of HuBERT's base size on the CPU, with torch and with onnxruntime.

    python benchmarks/encoder_runtimes.py    prints a table, and writes benchmarks/results/encoder_runtimes.json

affekt computes features on the CPU with torch, one utterance after another, in 32-bit floats. The alternatives are one padded
batch, bfloat16, and an export to onnxruntime. One of them would be used instead if it were faster by more than noise, and if
its hidden states differed from torch's by at most the tolerance. This is half the spacing of 16-bit floats, in which states
are stored, at the largest state.

Weights are random, and clips are noise of 1.5 to 4 s, since the speed does not depend on them. All run with one thread and
alternate; times are medians of processor time. A multiplication and an addition count as two operations. The operations per
second are compared with those of a product of two 2048 x 2048 matrices in the same process, the peak that the processor
reaches in practice.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor, nn

CLIPS, SECONDS = 8, (1.5, 4.0)
SAMPLE_RATE = 16_000
MATRIX = 2048
TOLERANCE = 2.0**-11
"""Relative to the largest state."""
REFERENCE = "torch, one by one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    clips = [torch.randn(1, int(seconds * SAMPLE_RATE)) for seconds in generator.uniform(*SECONDS, CLIPS)]
    seconds = sum(clip.shape[1] for clip in clips) / SAMPLE_RATE
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        network = build_network()
        sides = build_sides(network, clips, Path(folder))
        operations = count_operations(network, clips)
        states = {name: side() for name, side in sides.items()}
        times = harness.interleaved({**sides, "matrices": multiply_matrices()}, runs)
    peak = 2 * MATRIX**3 / times.pop("matrices") * 1000
    largest = max(float(state.abs().max()) for state in states[REFERENCE])
    result = {
        "seconds_of_speech": seconds,
        "operations_per_second_of_speech": operations / seconds,
        "peak_operations_per_second": peak,
        "bfloat16_in_hardware": has_bfloat16(),
        "tolerance": TOLERANCE * largest,
        "sides": {
            name: {
                "cpu_seconds_per_second": milliseconds / 1000 / seconds,
                "fraction_of_peak": operations / (milliseconds / 1000) / peak,
                "largest_difference": difference(states[name], states[REFERENCE]),
            }
            for name, milliseconds in times.items()
        },
    }
    show(result)
    print(f"\nwrote {harness.write('encoder_runtimes', result)}")


def build_network() -> Any:
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig()).eval()


def build_sides(network: Any, clips: Sequence[Tensor], folder: Path) -> dict[str, Callable[[], Sequence[Tensor]]]:
    """Return the functions to compare, by name. Each returns the hidden states of all clips, (1, frames, features)."""
    short = build_network()
    short.load_state_dict(network.state_dict())
    short.bfloat16()
    lengths = torch.tensor([clip.shape[1] for clip in clips])
    padded = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(padded, clips, strict=True):
        row[: clip.shape[1]] = clip[0]
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    session = export(network, clips[0], folder / "encoder.onnx")
    source = session.get_inputs()[0].name
    frames = [int(count) for count in network._get_feat_extract_output_lengths(lengths)]

    def batch() -> list[Tensor]:
        states = network(padded, attention_mask=mask).last_hidden_state
        return [row[None, :count] for row, count in zip(states, frames, strict=True)]

    return {
        REFERENCE: lambda: [network(clip).last_hidden_state for clip in clips],
        "torch, one padded batch": batch,
        "torch, one by one, bfloat16": lambda: [short(clip.bfloat16()).last_hidden_state.float() for clip in clips],
        "onnxruntime, one by one": lambda: [
            torch.from_numpy(session.run(None, {source: clip.numpy()})[0]) for clip in clips
        ],
    }


def export(network: nn.Module, clip: Tensor, path: Path) -> Any:
    """Export a network to ONNX, and return a session with one thread."""
    import onnxruntime

    samples = torch.export.Dim("samples", min=800, max=4_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (clip,),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            dynamic_shapes={"input_values": {1: samples}},
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def count_operations(network: Any, clips: Sequence[Tensor]) -> int:
    """Return the operations of linear layers, convolutions and attention for all clips."""
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += 2 * output.numel() * layer.in_features
        elif isinstance(layer, nn.Conv1d):
            total += 2 * output.numel() * layer.kernel_size[0] * layer.in_channels // layer.groups

    hooks = [layer.register_forward_hook(count) for layer in network.modules()]
    for clip in clips:
        frames = network(clip).last_hidden_state.shape[1]
        total += 4 * frames**2 * network.config.hidden_size * network.config.num_hidden_layers
    for hook in hooks:
        hook.remove()
    return total


def multiply_matrices() -> Callable[[], Tensor]:
    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    return lambda: left @ right


def has_bfloat16() -> bool | None:
    """Return whether the processor multiplies bfloat16 numbers; None if the system does not say so."""
    cpuinfo = Path("/proc/cpuinfo")
    return any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16")) if cpuinfo.exists() else None


def difference(states: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    return max(float((first - second).abs().max()) for first, second in zip(states, reference, strict=True))


def show(result: dict[str, Any]) -> None:
    print("{processor}, {cores} cores, Python {python}".format(**harness.machine()))
    print(
        f"{result['operations_per_second_of_speech'] / 1e9:.1f} billion operations per second of speech; peak "
        f"{result['peak_operations_per_second'] / 1e9:.0f} billion per second; bfloat16 in hardware: "
        f"{result['bfloat16_in_hardware']}; tolerance {result['tolerance']:.1g}\n"
    )
    rows = [
        [
            name,
            f"{side['cpu_seconds_per_second']:.3f}",
            f"{100 * side['fraction_of_peak']:.0f} %",
            f"{side['largest_difference']:.1g}",
        ]
        for name, side in result["sides"].items()
    ]
    harness.table(["", "CPU s per s of speech", "of the peak", "largest difference"], rows)


if __name__ == "__main__":
    main()
