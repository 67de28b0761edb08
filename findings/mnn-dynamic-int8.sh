#!/bin/bash
# MNN 3.6.1 (PyPI), DynamicQuantizeLinear -> MatMulInteger as onnxruntime.quantization writes it for dynamic int8.
#
# One would guess: MNN's converter takes the pattern ("Converted Success!"), so its result is that of ONNX Runtime but for rounding.
# What happens: up to 8192 activations it is, to 1e-7; with one row more the result has nothing to do with the product (relative error
# above 1), on one thread or several, without a word.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/python"
"$place/python/bin/pip" install --quiet MNN==3.6.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$place/try.py" <<'END'
import os, sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
import MNN.expr, MNN.nn
import _tools  # the converter itself: the command `mnnconvert` installs a package and reports usage

os.chdir(sys.argv[1])
random = np.random.default_rng(0)


def error(rows, columns, outputs=8):
    """Of MNN's result against ONNX Runtime's, sum |a - b| / sum |b|."""
    weights = random.integers(-127, 128, size=(columns, outputs)).astype(np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", "weights", "zero", "weights_zero"], ["integers"]),
        helper.make_node("Cast", ["integers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "weights_scale"], ["scales"]),
        helper.make_node("Mul", ["floats", "scales"], ["y"]),
    ]
    constants = {"weights": weights, "weights_zero": np.zeros(outputs, np.int8), "weights_scale": np.full(outputs, 0.01, np.float32)}
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "product", [value("x", columns)], [value("y", outputs)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    x = random.normal(size=(rows, columns)).astype(np.float32)
    truth = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "finding"])
    network = MNN.nn.load_module_from_file("m.mnn", ["x"], ["y"])
    placeholder = MNN.expr.placeholder([rows, columns], MNN.expr.NCHW)
    placeholder.write(x.reshape(-1).tolist())
    y = np.array(network.forward([placeholder])[0].read()).reshape(truth.shape)
    return float(np.abs(y - truth).sum() / np.abs(truth).sum())


as_written = True
for columns in (16, 64, 256):
    last = 8192 // columns
    right, wrong = error(last, columns), error(last + 1, columns)
    print(f"RESULT {last} x {columns}: error {right:.0e}; {last + 1} x {columns}: error {wrong:.1f}")
    as_written = as_written and right < 1e-5 and wrong > 0.5
sys.exit(0 if as_written else 1)
END
"$place/python/bin/python" "$place/try.py" "$place" 2>&1 | grep -E "RESULT|Error" | sed 's/^RESULT //'
