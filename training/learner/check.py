"""check: whether a model is computed exactly here, and by which path.

    python -m training.learner.check FOLDER

Prints one JSON object: `{"verdict": "fast" | "generic" | "refused", "scoring", "decoding", "why"}`.
"""

import json
import sys

from training.learner.models.probe import verdict_on

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: expected one argument, the folder of a model")
    print(json.dumps(verdict_on(sys.argv[1])))
