#!/usr/bin/env python3
"""What equality saturation is worth: predicted cycles of whole programs with the pass and without.

    cargo build --release -p dojoc
    python3 tests/saturation_table.py FOLDER...

A folder has model.onnx and test_data_set_0/input_*.pb. Prints a Markdown table.
"""

import argparse
import json
import pathlib
import subprocess


def predicted(args, folder, *options):
    command = [args.dojoc, "run", folder / "model.onnx", "--input", folder / "test_data_set_0"]
    command += ["--message-format", "json", "--format", "json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True, text=True)
    for line in reversed(done.stdout.splitlines()):
        summary = json.loads(line)
        if "predicted_cycles" in summary:
            return summary["predicted_cycles"], summary["instructions"]
    raise ValueError(f"{folder}: no summary")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--dojoc", default="target/release/dojoc", help="the command")
    args = parser.parse_args()
    print("| model | cycles without | cycles with | ratio | instructions without | with |")
    print("|---|--:|--:|--:|--:|--:|")
    for folder in args.folders:
        before, more = predicted(args, folder, "--skip-pass", "saturate")
        after, fewer = predicted(args, folder)
        print(f"| {folder.name} | {before} | {after} | {after / before:.3f} | {more} | {fewer} |", flush=True)


if __name__ == "__main__":
    main()
