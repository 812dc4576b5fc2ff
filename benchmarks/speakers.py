"""Measure the speaker encoder's equal error rate: `python benchmarks/speakers.py [CORPUS] [--folder FOLDER] [--json]`

Every pair of a corpus's utterances is a trial. Its score is the cosine of the two speaker vectors; nothing is trained,
normalized or calibrated on the corpus. The equal error rate is the error rate at the threshold where the fraction of rejected
same-speaker pairs equals the fraction of accepted different-speaker pairs.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from affekt.corpora.source import Source
from affekt.features.extract import extract
from affekt.features.speaker import ECAPA, ECAPAConfig, equal_error_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="?", default="emodb", help="NAME or NAME:PATH, with speakers")
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("AFFEKT_MODELS", ".")) / "ecapa-voxceleb")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments = parser.parse_args()
    result = measure(Source.parse(arguments.corpus), ECAPA.from_folder(arguments.folder, ECAPAConfig()))
    if arguments.json:
        print(json.dumps(result))
    else:
        print("{corpus}: {utterances} utterances, {speakers} speakers".format(**result))
        print("{pairs} pairs, {same} of them by one speaker".format(**result))
        print("equal error rate {equal_error_rate:.2%} (cosine, all pairs)".format(**result))


def measure(source: Source, encoder: ECAPA) -> dict[str, Any]:
    """Return the numbers of utterances, speakers and pairs, and the equal error rate as a fraction."""
    utterances = [utterance for utterance in source.read() if utterance.speaker]
    stored = extract(encoder, "ecapa", utterances)
    vectors = np.stack([np.asarray(vector, np.float64).reshape(-1) for vector in stored])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    speakers = np.array([utterance.speaker_key for utterance in utterances])
    first, second = np.triu_indices(len(vectors), k=1)
    scores, same = (vectors @ vectors.T)[first, second], speakers[first] == speakers[second]
    return {
        "corpus": source.title,
        "utterances": len(utterances),
        "speakers": len(set(speakers)),
        "pairs": len(scores),
        "same": int(same.sum()),
        "equal_error_rate": equal_error_rate(scores[same], scores[~same]),
    }


if __name__ == "__main__":
    main()
