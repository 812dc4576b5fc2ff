"""Compare the shipped graph with graphs whose weights have 8 bits: speed, size, and scores on the card's speakers.

    make quantized    prints a table, and writes benchmarks/results/quantized.json (needs AFFEKT_DATA; ten minutes)

onnxruntime's dynamic quantization multiplies matrices of 8-bit integers. Weights have one scale for each output channel,
activations one for each tensor, computed at run time. In two variants, some matrices stay in 32 bits: those whose
quantization changes the probabilities most. "By groups" is onnxruntime's MatMulNBits, in which each group of weights has a
scale. All graphs recognize all clips of the test subset, in turn; times are processor times with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.evaluation.metrics import confusion, ua
from affekt.protocols import Split, utterance_key

SENSITIVE = 3, 7
"""How many of the most sensitive matrices stay in 32 bits, in each of the two variants."""
GROUP = 32
REFERENCE = "16-bit weights, 32-bit arithmetic (shipped)"
SENSITIVITY_CLIPS = 40
"""Number of clips on which the matrices are ranked by how much their quantization changes the probabilities."""

Probabilities = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["cremad", "emodb"])
    parser.add_argument("--every", type=int, default=1, help="use one clip in this many")
    arguments = parser.parse_args()
    bundle = Bundle.open(DEFAULT)
    split, emotions = Split.load(bundle.file("split.json")), list(bundle.emotions)
    utterances = {utterance_key(u): u for name in arguments.corpora for u in Source.parse(name).read()}
    test, train = ([utterances[k] for k in split.subsets[part] if k in utterances] for part in ("test", "train"))
    with tempfile.TemporaryDirectory() as folder:
        clips = [read_waveform(u)[None] for u in train[:: len(train) // SENSITIVITY_CLIPS]]
        paths = make_variants(bundle.onnx, Path(folder), clips)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
        sessions = {name: open_session(path) for name, path in paths.items()}
        outputs: dict[str, list[Probabilities]] = {name: [] for name in sessions}
        times, seconds = dict.fromkeys(sessions, 0.0), 0.0
        chosen = test[:: arguments.every]
        for number, utterance in enumerate(chosen):
            waveform = read_waveform(utterance)[None]
            seconds += waveform.size / SAMPLE_RATE
            names = list(sessions)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                start = time.process_time()
                outputs[name].append(infer(sessions[name], waveform))
                times[name] += time.process_time() - start
    labels = np.array([emotions.index(u.emotion) for u in chosen])
    corpora = np.array([u.corpus for u in chosen])
    result = {
        name: {
            "cpu_seconds_per_second": times[name] / seconds,
            "megabytes": sizes[name] / 1e6,
            "agreement": float(np.mean(classes(outputs[name]) == classes(outputs[REFERENCE]))),
            "largest_difference": float(np.abs(np.stack(outputs[name]) - np.stack(outputs[REFERENCE])).max()),
            "ua": {
                corpus: score(labels[corpora == corpus], classes(outputs[name])[corpora == corpus], len(emotions))
                for corpus in arguments.corpora
            },
        }
        for name in sessions
    }
    show(result)
    print(f"\nwrote {harness.write('quantized', {'clips': len(chosen), 'variants': result})}")


def make_variants(source: Path, folder: Path, clips: Sequence[np.ndarray]) -> dict[str, Path]:
    """Write the quantized graphs; return name -> path of all graphs, including the shipped one."""
    plain = folder / "plain.onnx"
    onnx.save(with_float_weights(source), plain)
    ranked = rank_matrices(plain, folder, clips)
    paths = {REFERENCE: source, "8 bits": quantize(plain, folder / "all.onnx", ranked)}
    for count in SENSITIVE:
        paths[f"8 bits, {count} matrices in 32"] = quantize(plain, folder / f"{count}.onnx", ranked[count:])
    for bits in (8, 4):
        paths[f"{bits} bits by groups of {GROUP}"] = quantize_groups(source, folder / f"groups-{bits}.onnx", bits)
    return paths


def with_float_weights(path: Path) -> Any:
    """Return a graph whose 16-bit weights are stored in 32 bits, which the quantization expects."""
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        tensor = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or len(tensor.dims) < 2:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def rank_matrices(path: Path, folder: Path, clips: Sequence[np.ndarray]) -> list[str]:
    """Return the names of the products with weights; first those whose quantization changes the probabilities most."""
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    expected = [infer(open_session(path), clip) for clip in clips]
    changes = {}
    for name in names:
        session = open_session(quantize(path, folder / "one.onnx", [name]))
        changes[name] = sum(divergence(p, infer(session, clip)) for p, clip in zip(expected, clips, strict=True))
    return sorted(names, key=lambda name: -changes[name])


def quantize(source: Path, target: Path, names: Sequence[str]) -> Path:
    """Write a graph in which some products have 8-bit weights and activations."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, nodes_to_quantize=list(names), per_channel=True, weight_type=QuantType.QInt8)
    return target


def quantize_groups(source: Path, target: Path, bits: int) -> Path:
    """Write a graph in which all products have weights of few bits, with a scale for each group."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=GROUP, is_symmetric=True, accuracy_level=4, bits=bits)
    quantizer = MatMulNBitsQuantizer(with_float_weights(source), algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))
    return target


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level, options.enable_cpu_mem_arena = 4, False
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def infer(session: Any, waveform: np.ndarray) -> Probabilities:
    """Return the probabilities of one clip, (emotions,)."""
    probabilities: Probabilities = session.run(["probabilities"], {"waveform": waveform.astype(np.float32)})[0][0]
    return probabilities


def divergence(expected: Probabilities, predicted: Probabilities) -> float:
    """Return the Kullback-Leibler divergence."""
    return float((expected * np.log((expected + 1e-9) / (predicted + 1e-9))).sum())


def classes(probabilities: Sequence[Probabilities]) -> np.ndarray:
    return np.stack(probabilities).argmax(axis=1)


def score(labels: np.ndarray, predicted: np.ndarray, count: int) -> float:
    return 100 * float(ua(confusion(labels, predicted, count)))


def show(result: Mapping[str, Mapping[str, Any]]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    corpora = next(iter(result.values()))["ua"]
    formats: dict[str, Callable[[Any], str]] = {
        "cpu_seconds_per_second": "{:.4f}".format,
        "megabytes": "{:.1f}".format,
        "agreement": "{:.1%}".format,
        "largest_difference": "{:.3f}".format,
    }
    rows = [
        [name, *(form(side[key]) for key, form in formats.items()), *(f"{side['ua'][c]:.1f}" for c in corpora)]
        for name, side in result.items()
    ]
    columns = ["CPU s per s of speech", "MB", "same emotion", "largest difference", *(f"UA, {c}" for c in corpora)]
    harness.table(["", *columns], rows)


if __name__ == "__main__":
    main()
