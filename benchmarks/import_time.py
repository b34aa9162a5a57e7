"""How long a cold import takes: whole processes, interleaved, beside
a bare interpreter and the peers. `python -m benchmarks.import_time`
"""

from __future__ import annotations

import argparse

from benchmarks._cold import rounds, table

SCRIPTS = {
    "bare Python": "pass",
    "embedkit": "import embedkit",
    "embedkit, every name": "from embedkit import *",
    "baseten": "import baseten_performance_client",
    "openai": "import openai",
    "litellm": "import litellm",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    print(table(rounds(SCRIPTS, parser.parse_args().rounds), base="bare Python", than="embedkit"))


if __name__ == "__main__":
    main()
