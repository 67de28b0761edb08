#!/bin/bash
# OpenVINO 2026.4.1 (PyPI), CPU plugin, DynamicQuantizeLinear -> MatMulInteger as onnxruntime.quantization writes it for dynamic int8.
#
# One would guess: a plugin that lists INT8 among its capabilities multiplies integers, or at least what it multiplies otherwise (bfloat16
# where the CPU has it), so that an int8 file is not slower than the f32 one.
# What happens: the product runs in f32 whatever the CPU offers, with the conversions of both factors before it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/python"
"$place/python/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cat > "$place/try.py" <<'END'
import sys
import numpy as np, onnx, openvino
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
rows, columns, outputs = 400, 384, 384


def products(nodes, constants):
    """The precisions in which the compiled model multiplies."""
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "product", [value("x", columns)], [value("y", outputs)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    compiled = openvino.Core().compile_model(sys.argv[1], "CPU")
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = ("MatMul", "FullyConnected", "Gemm")
    return [info["runtimePrecision"].astype(str) for info in infos if info["layerType"].astype(str) in kinds]


integers = products(
    [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", "weights", "zero", "weights_zero"], ["integers"]),
        helper.make_node("Cast", ["integers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "weights_scale"], ["scales"]),
        helper.make_node("Mul", ["floats", "scales"], ["y"]),
    ],
    {
        "weights": random.integers(-127, 128, size=(columns, outputs)).astype(np.int8),
        "weights_zero": np.zeros(outputs, np.int8),
        "weights_scale": np.full(outputs, 0.01, np.float32),
    },
)
floats = products([helper.make_node("MatMul", ["x", "weights"], ["y"])], {"weights": random.normal(size=(columns, outputs)).astype(np.float32)})
print("capabilities:", *openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
print(f"the f32 product runs in {floats}, the int8 product in {integers}")
sys.exit(0 if integers == ["f32"] else 1)
END
"$place/python/bin/python" "$place/try.py" "$place/m.onnx"
