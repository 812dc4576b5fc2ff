"""How well the speaker encoder tells people apart: `python benchmarks/speakers.py [CORPUS] [--folder FOLDER] [--json]`

Every pair of a corpus's utterances is a trial: by one speaker, or by two. A pair's score is the cosine of its two vectors,
nothing trained, normalized or calibrated on the corpus. Printed is the equal error rate: the share of errors at the threshold
where as large a share of same-speaker pairs is rejected as of different-speaker pairs is accepted.
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
    result = errors(Source.parse(arguments.corpus), ECAPA.from_folder(arguments.folder, ECAPAConfig()))
    if arguments.json:
        print(json.dumps(result))
    else:
        print("{corpus}: {utterances} utterances, {speakers} speakers".format(**result))
        print("{pairs} pairs, {same} of them by one speaker".format(**result))
        print("equal error rate {equal_error_rate:.2%} (cosine, all pairs)".format(**result))


def errors(source: Source, encoder: ECAPA) -> dict[str, Any]:
    utterances = [one for one in source.read() if one.speaker]
    stored = extract(encoder, "ecapa", utterances)
    vectors = np.stack([np.asarray(one, np.float64).reshape(-1) for one in stored])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    people = np.array([one.speaker_key for one in utterances])
    first, second = np.triu_indices(len(vectors), k=1)
    scores, alike = (vectors @ vectors.T)[first, second], people[first] == people[second]
    return {
        "corpus": source.title,
        "utterances": len(utterances),
        "speakers": len(set(people)),
        "pairs": len(scores),
        "same": int(alike.sum()),
        "equal_error_rate": equal_error_rate(scores[alike], scores[~alike]),
    }


if __name__ == "__main__":
    main()
