"""Converts every reference checkpoint, to f32, bf16 and int8, and compares ONNX Runtime's outputs with the expected ones, and with tract's on
the shipped model. In int8 files, all quantized products must fuse. Networks for video get their clip frame by frame, with the state
that their metadata describes.

usage: onnxruntime_check.py PROGRAM REFERENCE_DIR...
"""
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

OUTPUTS = ["class_queries_logits", "masks_queries_logits"]
TOLERANCE = 1e-3  # f32 sums in another order
# Mean relative error, sum |a - b| / sum |b|, of networks about 48 wide, with ONNX Runtime's one scale per tensor; seen: 0.03.
TOLERANCE_INT8 = 0.07
# Matrices rounded to bfloat16, all else f32: 2^-9 of each weight; seen: 0.007.
TOLERANCE_BF16 = 0.015
# A mask logit near 0 opens or closes the view of a patch; seen: 0.03.
TOLERANCE_INT8_MASKED = 0.1
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


def saturates():
    """Whether products of u8 and i8 are wrong on this CPU, as on those with AVX2 and without VNNI (findings/onnxruntime-matmulinteger-saturates.sh)."""
    ends = [("a", TensorProto.UINT8, [1, 4]), ("b", TensorProto.INT8, [4, 1]), ("y", TensorProto.INT32, [1, 1])]
    a, b, y = (helper.make_tensor_value_info(*end) for end in ends)
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "products", [a, b], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((1, 4), 255, np.uint8), "b": np.full((4, 1), 127, np.int8)})
    return product[0, 0] != 4 * 255 * 127


def session(path, exact):
    """A session of an ONNX file. `exact`: weights of integer products are u8 with a zero point 128 larger, the same numbers, which no CPU multiplies wrong."""
    model = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node if exact else []:
        if node.op_type == "MatMulInteger" and weights[node.input[1]].data_type == TensorProto.INT8:
            for index in (1, 3):
                values = numpy_helper.to_array(weights[node.input[index]]).astype(np.int16) + 128
                name = node.input[index] + ".u8"
                if name not in weights:
                    weights[name] = numpy_helper.from_array(values.astype(np.uint8), name)
                    model.graph.initializer.append(weights[name])
                node.input[index] = name
    used = {name for node in model.graph.node for name in node.input}
    for name in weights.keys() - used:
        model.graph.initializer.remove(weights[name])
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(session, pixel_values):
    """All outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixel_values": pixel_values})))


def run_clip(session, frames):
    """The outputs of consecutive frames, one after the other along the first axis; the file itself says what goes from one to the next."""
    state = json.loads(session.get_modelmeta().custom_metadata_map["query_state"])
    assert state["first"] == "zeros", state
    carried, outputs = np.zeros(state["shape"], np.float32), {key: [] for key in OUTPUTS}
    for frame in frames:
        *logits, carried = session.run([*OUTPUTS, state["output"]], {"pixel_values": frame[None], state["input"]: carried})
        for key, value in zip(OUTPUTS, logits):
            outputs[key].append(value)
    return {key: np.concatenate(values) for key, values in outputs.items()}


def compare(name, ours, expected):
    """Prints the largest difference; True when it is within the tolerance."""
    difference = max(float(np.abs(ours[key] - expected[key]).max()) for key in OUTPUTS)
    print(f"{name}: {difference:.1e}")
    return difference < TOLERANCE


def compare_rounded(name, precision, ours, expected):
    """Prints the largest mean relative error of the outputs; True when it is within the tolerance."""
    error = max(float(np.abs(ours[key] - expected[key]).sum() / np.abs(expected[key]).sum()) for key in OUTPUTS)
    print(f"{name}, {precision}: {error:.1e}")
    if precision == "bf16":
        return error < TOLERANCE_BF16
    return error < (TOLERANCE_INT8_MASKED if "mask" in name else TOLERANCE_INT8)


def all_products_fuse(path, optimized):
    """True when ONNX Runtime leaves no bare integer product in the graph, but one fused operator for each."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)
    fused = kinds["DynamicQuantizeMatMul"] + kinds["MatMulIntegerToFloat"]
    if kinds["MatMulInteger"] or not fused:
        print(f"  {kinds['MatMulInteger']} integer products do not fuse, {fused} do")
        return False
    return True


def main():
    program, references = sys.argv[1], sys.argv[2:]
    passed = failed = 0
    exact = saturates()
    if exact:
        print("ONNX Runtime's products of u8 and i8 saturate on this CPU: weights of int8 files become u8 for it")
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch, "model.onnx")
        for case in sorted(path.parent for root in references for path in Path(root).glob("*/expected.safetensors")):
            expected = load_file(case / "expected.safetensors")
            checkpoint = next((path for name in ("*.bin", "*.ckpt", "*.pth") for path in case.glob(name)), case)
            command = [program, "convert", checkpoint, "-o", onnx_file]
            if (case / "hints.json").exists():
                command += ["--hints", case / "hints.json"]
            if (case / "base").exists():
                command += ["--base", case / "base"]
            clip = expected.get("pixel_values_videos")
            pixels = expected.get("pixel_values")
            if pixels is None and clip is None:  # the authors' network takes RGB and normalizes inside
                pixels = (expected["image_rgb_u8_as_f32"] / 255 - MEAN) / STD
            # networks with Mask2Former's decoder are f32 only
            precisions = ["f32"] if case.parent.name == "chain" else ["f32", "bf16", "int8"]
            for precision in precisions:
                arguments = command + ["--precision", precision]
                subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                onnx.checker.check_model(str(onnx_file), full_check=True)
                there = session(onnx_file, exact)
                outputs = run(there, pixels.astype(np.float32)) if clip is None else run_clip(there, clip[0])
                if precision == "f32":
                    ok = compare(case.name, outputs, expected)
                elif precision == "bf16":
                    ok = compare_rounded(case.name, precision, outputs, expected)
                else:
                    ok = compare_rounded(case.name, precision, outputs, expected) and all_products_fuse(onnx_file, Path(scratch, "optimized.onnx"))
                passed, failed = passed + ok, failed + (not ok)
        shipped = Path("models/eomt-nano-scenes.onnx")
        pixels = np.random.default_rng(1).normal(size=(1, 3, 160, 160)).astype(np.float32)
        save_file({"pixel_values": pixels}, Path(scratch, "in.safetensors"))
        arguments = ["logits", "--model", shipped, Path(scratch, "in.safetensors"), "-o", Path(scratch, "out.safetensors")]
        subprocess.run([program, *arguments], check=True)
        ok = compare_rounded(f"{shipped.name}, against tract", "int8", run(session(shipped, exact), pixels), load_file(Path(scratch, "out.safetensors")))
        ok = ok and all_products_fuse(shipped, Path(scratch, "optimized.onnx"))
        passed, failed = passed + ok, failed + (not ok)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
