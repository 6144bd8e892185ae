#!/usr/bin/env python3
"""Wall time of `dojoc run` beside ONNX Runtime in f32, on the same host, inputs and number of threads.

    cargo build --release -p dojoc
    python3 tests/compare_onnxruntime.py FOLDER...

A folder has model.onnx and test_data_set_0/input_*.pb. The two take turns, the best of all runs
counts. Needs onnxruntime and numpy. Prints a Markdown table: seconds of both and their ratio,
instructions, nanoseconds per instruction (of wall time), and the share of the threads' time that
went into instructions that compute (the rest: messages, dispatch, waiting).
"""

import argparse
import json
import math
import pathlib
import subprocess
import time

import numpy
import onnxruntime

# TensorProto.DataType with the numpy type of its raw bytes.
TYPES = {1: "<f4", 2: "<u1", 3: "<i1", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}


def varint(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Number, wire type and value of the fields of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            value, at = data[at : at + size], at + size
        yield key >> 3, kind, value


def tensor(path):
    """The array of a TensorProto with raw data, as test cases have them."""
    dims, dtype, raw = [], None, b""
    for number, kind, value in fields(path.read_bytes()):
        if number == 1 and kind == 0:
            dims.append(value)
        elif number == 1:
            at = 0
            while at < len(value):
                dim, at = varint(value, at)
                dims.append(dim)
        elif number == 2:
            dtype = TYPES[value]
        elif number == 9:
            raw = value
    return numpy.frombuffer(raw, dtype).reshape(dims)


def inputs(folder):
    found = (folder / "test_data_set_0").glob("input_*.pb")
    return [tensor(p) for p in sorted(found, key=lambda p: int(p.stem.split("_")[1]))]


def run_dojoc(args, folder):
    command = [args.dojoc, "run", folder / "model.onnx", "--input", folder / "test_data_set_0"]
    command += ["--threads", str(args.threads), "--repeat", str(args.repeat), "--time", "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[0])["stats"]


class Reference:
    """A session of ONNX Runtime with all its optimisations."""

    def __init__(self, args, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = str(folder / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [port.name for port in self.session.get_inputs()]
        self.feed = dict(zip(names, inputs(folder)))

    def run(self, repeat):
        best = math.inf
        for _ in range(repeat):
            start = time.perf_counter()
            self.session.run(None, self.feed)
            best = min(best, time.perf_counter() - start)
        return best


def row(args, folder):
    reference = Reference(args, folder)
    reference.run(1)
    best, other = None, math.inf
    for _ in range(args.rounds):
        stats = run_dojoc(args, folder)
        if best is None or stats["seconds"] < best["seconds"]:
            best = stats
        other = min(other, reference.run(args.repeat))
    seconds, instructions = best["seconds"], best["instructions"]
    share = best["compute_seconds"] / (args.threads * seconds)
    return (
        f"| {folder.name} | {seconds:.4f} | {other:.4f} | {seconds / other:.1f} | {instructions} "
        f"| {1e9 * seconds / instructions:.0f} | {100 * share:.0f} % |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--dojoc", default="target/release/dojoc", help="the command to measure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="how often the two take turns")
    parser.add_argument("--repeat", type=int, default=3, help="runs in a turn")
    args = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}, {args.threads} threads, best of {args.rounds * args.repeat}\n")
    print("| model | dojoc, s | ONNX Runtime, s | ratio | instructions | ns each | computing |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for folder in args.folders:
        print(row(args, folder), flush=True)


if __name__ == "__main__":
    main()
