#!/bin/bash
# pnnx 20261020 and ncnn 1.0.20261020 (PyPI): an ONNX file whose tokens are [tokens, channels], as a transformer without batches has them.
#
# One would guess: LayerNormalization over the last axis of a rank-2 tensor of static shape converts like that of a rank-3 one.
# What happens: pnnx takes the first axis, the tokens, for the batch and drops it: ncnn returns 8 values where 16 x 8 are, and pnnx says
# nothing. (Only where a Concat or Slice of tokens follows it prints "along batch axis is not supported", and writes its file all the
# same.) With an axis of 1 before the tokens the same graph is right to 1e-7.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/python"
"$place/python/bin/pip" install --quiet ncnn==1.0.20261020 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$place/python/bin/pip" install --quiet --no-deps pnnx==20261020 # its program does not need PyTorch
cat > "$place/try.py" <<'END'
import importlib.util, os, subprocess, sys
from pathlib import Path
import ncnn, numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

os.chdir(sys.argv[1])
package = importlib.util.find_spec("pnnx").submodule_search_locations[0]
program = next(path for path in Path(package).rglob("pnnx") if path.is_file())
random = np.random.default_rng(0)
kernel, pixels = random.normal(size=(8, 3, 4, 4)).astype(np.float32), random.normal(size=(1, 3, 16, 16)).astype(np.float32)


def run(leading):
    """Patches, tokens, layer norm; with `leading` axes of 1. The values in ONNX Runtime and in ncnn."""
    one = [1] * leading
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[*range(leading), leading + 1, leading]),
        helper.make_node("LayerNormalization", ["tokens", "scale", "shift"], ["y"], axis=-1),
    ]
    constants = {"kernel": kernel, "shape": np.array([*one, 8, 16]), "scale": np.ones(8, np.float32), "shift": np.zeros(8, np.float32)}
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tokens", [value("x", [1, 3, 16, 16])], [value("y", [*one, 16, 8])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    truth = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": pixels})[0]
    said = subprocess.run([program, "m.onnx", "inputshape=[1,3,16,16]", "fp16=0"], check=True, capture_output=True, text=True)
    network = ncnn.Net()
    assert network.load_param("m.ncnn.param") == 0 and network.load_model("m.ncnn.bin") == 0
    extractor = network.create_extractor()
    extractor.input("in0", ncnn.Mat(pixels[0]).clone())
    return truth, np.array(extractor.extract("out0")[1]), "batch axis" in said.stdout + said.stderr


truth, without, warned = run(0)
print(f"[tokens, channels]: {truth.shape} became {without.shape}, warned: {warned}")
truth, with_one, _ = run(1)
error = float(np.abs(with_one.reshape(-1) - truth.reshape(-1)).max()) if with_one.size == truth.size else float("inf")
print(f"[1, tokens, channels]: {truth.shape} became {with_one.shape}, largest difference {error:.0e}")
sys.exit(0 if without.size == 8 and not warned and error < 1e-5 else 1)
END
"$place/python/bin/python" "$place/try.py" "$place" 2>&1 | grep -v onnxruntime
