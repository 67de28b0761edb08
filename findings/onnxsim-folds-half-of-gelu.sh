#!/usr/bin/env bash
# onnxsim 0.8.1 (onnx 1.23.2, onnxruntime 1.32.0).
#
# One would guess that a simplifier leaves GELU's five operators as the exporter wrote them (Div, Erf, Add, Mul, Mul by 0.5), so that
# every engine that recognizes GELU by its operators still does.
# What happens: where a convolution follows, the Mul by 0.5 is gone and the convolution's kernel is half of what it was. The function
# is the same; an engine that looks for the whole pattern finds no GELU there any more.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" -q install onnxsim==0.8.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$directory/venv/bin/python" - <<'PYTHON'
import collections, sys
import numpy as np, onnx, onnxruntime, onnxsim
from onnx import TensorProto, helper, numpy_helper

kernel = np.random.default_rng(0).normal(0, 1, (4, 1, 3, 3)).astype("f4")
constants = [numpy_helper.from_array(np.array(value, "f4"), name) for name, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))]
constants.append(numpy_helper.from_array(kernel, "kernel"))
nodes = [
    helper.make_node("Div", ["x", "root"], ["a"]),
    helper.make_node("Erf", ["a"], ["b"]),
    helper.make_node("Add", ["b", "one"], ["c"]),
    helper.make_node("Mul", ["x", "c"], ["d"]),
    helper.make_node("Mul", ["d", "half"], ["e"]),
    helper.make_node("Conv", ["e", "kernel"], ["y"], group=4, pads=[1, 1, 1, 1]),
]
info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8])
model = helper.make_model(helper.make_graph(nodes, "gelu", [info("x")], [info("y")], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
simplified, same = onnxsim.simplify(model)
kinds = lambda model: dict(collections.Counter(node.op_type for node in model.graph.node))
print("before:", kinds(model))
print("after: ", kinds(simplified))
name = next(node.input[1] for node in simplified.graph.node if node.op_type == "Conv")
held = {tensor.name: numpy_helper.to_array(tensor) for tensor in simplified.graph.initializer}
held |= {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in simplified.graph.node if node.op_type == "Constant"}
ratio = held[name].ravel() / kernel.ravel()
print("kernel after / before:", ratio.min(), "to", ratio.max())
x = np.random.default_rng(1).normal(0, 1, (1, 4, 8, 8)).astype("f4")
run = lambda model: onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
print("largest difference of the outputs:", np.abs(run(model) - run(simplified)).max())
sys.exit(not (same and kinds(simplified).get("Mul") == 1 and np.allclose(ratio, 0.5)))
PYTHON
