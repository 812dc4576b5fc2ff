"""Speaks the samples with espeak-ng (Debian's package of that name): a synthesizer, not a person, and no emotion is meant.

python samples/make.py
"""

import subprocess
from pathlib import Path

# name -> sentence, words per minute, pitch (0 to 99), level (0 to 200)
SAMPLES = {
    "synthetic-1-even": ("The train to the coast leaves at a quarter past nine.", 165, 50, 100),
    "synthetic-2-fast-high-loud": ("I told you not to touch it, and you did it again!", 250, 90, 190),
    "synthetic-3-slow-low-soft": ("There was nobody left in the house when we came.", 105, 15, 25),
    "synthetic-4-fast-low": ("Somebody is standing behind the door, do not move.", 230, 20, 120),
    "synthetic-5-slow-high": ("We have won, they have really called our number.", 130, 95, 140),
}

if __name__ == "__main__":
    for name, (sentence, rate, pitch, level) in SAMPLES.items():
        target = Path(__file__).parent / f"{name}.wav"
        options = ["-v", "en", "-s", str(rate), "-p", str(pitch), "-a", str(level), "-w", str(target)]
        subprocess.run(["espeak-ng", *options, sentence], check=True)
        print(target.name)
