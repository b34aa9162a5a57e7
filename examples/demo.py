"""The demo: a real text to real vectors with the embedded
model, then one question asked of them. Run it with `make demo`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

import embedkit

CORPUS = Path(__file__).parent.parent / "benchmarks" / "corpus" / "jargon.txt"
QUESTION = "a bug that disappears when you try to find it"
WIDE = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--vectors", type=Path, default=Path("build/jargon.npy"))
    options = parser.parse_args()

    options.vectors.parent.mkdir(parents=True, exist_ok=True)
    command = ["embed", str(CORPUS), "--output", str(options.vectors), "--force"]
    print(f"$ embedkit {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "embedkit", *command], check=True)

    passages = CORPUS.read_text("utf-8").splitlines()
    vectors = np.load(options.vectors, mmap_mode="r")
    with embedkit.connect_sync() as embedder:
        scores = vectors @ embedder.embed_query(options.question)

    print(f"\n{len(vectors):,} passages as vectors of {vectors.shape[1]} components in {options.vectors}")
    print(f'\nQuestion: "{options.question}"\n')
    for rank, row in enumerate(np.argsort(-scores)[:5], 1):
        lines = textwrap.wrap(passages[row], WIDE)[:3]
        print(f"{rank}.  {scores[row]:.3f}  " + "\n           ".join(lines) + ("\n" if rank < 5 else ""))


if __name__ == "__main__":
    main()
