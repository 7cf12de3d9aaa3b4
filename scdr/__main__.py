"""`scdr VERB ...`, the console script: each verb is also `python -m scdr.VERB`."""

from __future__ import annotations

import importlib
import sys

VERBS = {
    "train": "train on a pair of domains and evaluate on cold-start users",
    "compare": "compare methods over pairs, betas and seeds, and print the paper's tables",
    "analyze": "measure robustness, flatness and landscapes, and draw the paper's figures",
    "prepare": "turn rating dumps into Parquet domains that load in seconds",
    "recommend": "recommend target items to the users of a file, or by hand",
    "serve": "serve a model over HTTP",
    "export": "write a model as ONNX, or as NumPy arrays that need no torch",
    "doctor": "say what this installation can do, and why not",
}


def main() -> int:
    """Run the verb named first; returns its exit status."""
    verb, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if verb in VERBS:
        status: int = importlib.import_module(f"scdr.{verb}").main(arguments)
        return status
    asked = verb in ("-h", "--help")
    stream = sys.stdout if asked else sys.stderr
    if not asked:
        print(f"scdr: error: unknown verb {verb!r}: choose one of {', '.join(VERBS)}", file=stream)
        return 2
    print("usage: scdr VERB [OPTIONS]\n", file=stream)
    for name, purpose in VERBS.items():
        print(f"  {name:<9} {purpose}", file=stream)
    print("\nscdr VERB --help lists a verb's options.", file=stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
