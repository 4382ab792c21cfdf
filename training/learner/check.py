"""check: test whether the learner computes a model exactly, and by which path.

    python -m training.learner.check FOLDER

Compares the learner's forward passes and decoding of the Hugging Face model in FOLDER with those of transformers.
Prints one JSON object: {"verdict": "fast" | "generic" | "refused", "scoring": ..., "decoding": ..., "why": "..."}.

    fast     exact by packed passes
    generic  exact by padded batches through the model's own forward pass and cache; slower
    refused  not exact; the programs do not accept the model

The exit code is 0 for each of them, and 1 without a folder.
"""

import json
import sys

from training.learner.models.verdict import verdict_on

if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    if len(sys.argv) != 2:
        sys.exit("error: expected one argument, the folder of a model")
    print(json.dumps(verdict_on(sys.argv[1])))
