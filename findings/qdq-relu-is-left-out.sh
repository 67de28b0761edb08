#!/usr/bin/env bash
# onnxruntime 1.32.0, onnxruntime.quantization.quantize_static in QDQ form with its defaults (u8 activations, i8 weights).
#
# One would guess that QuantizeLinear and DequantizeLinear around the activations only round, so that a program that leaves the pairs
# out computes the same network a little more exactly.
# What happens: the quantizer removes the network's Relu. The pair behind it has the zero point 0, its integers hold nothing negative, and
# so the pair is the Relu: without it negative values pass through.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" -q install onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$directory"
"$directory/venv/bin/python" - <<'PYTHON'
import collections, sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

random = np.random.default_rng(0)
matrix = lambda name: numpy_helper.from_array(random.normal(0, 0.5, (8, 8)).astype("f4"), name)
nodes = [
    helper.make_node("MatMul", ["x", "first"], ["a"], name="first_product"),
    helper.make_node("Relu", ["a"], ["b"], name="relu"),
    helper.make_node("MatMul", ["b", "second"], ["y"], name="second_product"),
]
info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8])
graph = helper.make_graph(nodes, "relu", [info("x")], [info("y")], [matrix("first"), matrix("second")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "float.onnx")
x = random.normal(0, 1, (4, 8)).astype("f4")


class Reader(CalibrationDataReader):
    batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


quantize_static("float.onnx", "qdq.onnx", Reader(), quant_format=QuantFormat.QDQ)
model = onnx.load("qdq.onnx")
print("before: MatMul 2, Relu 1; after:", dict(collections.Counter(node.op_type for node in model.graph.node)))
run = lambda path: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
float_answer = run("float.onnx")
error = lambda answer: np.abs(answer - float_answer).sum() / np.abs(float_answer).sum()
print("relative error of the quantized file:", error(run("qdq.onnx")))
# every pair of the same scale left out, as a program does that computes in float
source = {}
for node in model.graph.node:
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        source[node.output[0]] = node.input[0]
constants = {tensor.name: tensor for tensor in model.graph.initializer}
for node in model.graph.node:
    for index, name in enumerate(node.input):
        if node.op_type == "MatMul":
            while name in source and source[name] not in constants:
                name = source[name]
            node.input[index] = name
onnx.save(model, "left-out.onnx")
left_out = error(run("left-out.onnx"))
print("relative error without the pairs:", left_out)
sys.exit(not (all(node.op_type != "Relu" for node in model.graph.node) and left_out > 0.3))
PYTHON
