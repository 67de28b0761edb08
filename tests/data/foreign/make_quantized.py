"""Statically quantized files, with ONNX Runtime's answers: a whole network, and small graphs around QuantizeLinear and DequantizeLinear.

pip install onnx==1.23.2 onnxruntime==1.32.0 numpy safetensors
python make_quantized.py
"""

import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
NAMES = ["class_queries_logits", "masks_queries_logits"]


def run(path, pixels, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    classes, masks = session.run(None, {session.get_inputs()[0].name: pixels})
    return (classes, masks) if masks.ndim == 4 else (masks, classes)


class Reader(CalibrationDataReader):
    def __init__(self, name, batches):
        self.batches = iter([{name: batch} for batch in batches])

    def get_next(self):
        return next(self.batches, None)


def network():
    """The torchscript export, by quantize_static with its defaults: u8 activations, i8 weights, every operator type."""
    source, directory = HERE / "dinov2-torchscript", HERE / "dinov2-static"
    directory.mkdir(exist_ok=True)
    shutil.copy(source / "config.json", directory)
    pixels = load_file(HERE.parent / "reference" / "dinov2" / "expected.safetensors")["pixel_values"]
    random = np.random.default_rng(0)
    batches = [pixels] + [pixels + random.normal(0, 0.3, pixels.shape).astype("f4") for _ in range(3)]
    prepared = directory / "prepared.onnx"
    quant_pre_process(source / "model.onnx", prepared, skip_symbolic_shape=True)
    name = onnx.load(prepared).graph.input[0].name
    target = directory / "model.onnx"
    quantize_static(
        prepared,
        target,
        Reader(name, batches),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    classes, masks = run(target, pixels)
    save_file({NAMES[0]: classes, NAMES[1]: masks}, directory / "onnxruntime.safetensors")


class Graph:
    """A chain from pixel_values [1, 3, 8, 8]."""

    def __init__(self):
        self.nodes, self.constants, self.last = [], [], "pixel_values"

    def constant(self, values):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind, *others, **attributes):
        output = f"{kind}{len(self.nodes)}"
        others = [other if isinstance(other, str) else self.constant(other) for other in others]
        self.nodes.append(helper.make_node(kind, [self.last, *others], [output], name=output, **attributes))
        self.last = output
        return self

    def pair(self, scale, zero, between=lambda graph: graph, **attributes):
        scale = np.asarray(scale, "f4")
        return between(self.node("QuantizeLinear", scale, zero, **attributes)).node("DequantizeLinear", scale, zero, **attributes)

    def save(self, name, opset):
        info = helper.make_tensor_value_info
        self.nodes += [
            helper.make_node("Reshape", [self.last, self.constant(np.array([1, 3, 64]))], [NAMES[0]], name="class"),
            helper.make_node("Reshape", [self.last, self.constant(np.array([1, 3, 8, 8]))], [NAMES[1]], name="masks"),
        ]
        outputs = [info(NAMES[0], TensorProto.FLOAT, [1, 3, 64]), info(NAMES[1], TensorProto.FLOAT, [1, 3, 8, 8])]
        graph = helper.make_graph(self.nodes, name, [info("pixel_values", TensorProto.FLOAT, [1, 3, 8, 8])], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        path = HERE / "quantized" / f"{name}.onnx"
        onnx.save(model, path)
        pixels = np.random.default_rng(len(name)).normal(0, 1, (1, 3, 8, 8)).astype("f4")
        # as the standard says: without the fusions to integer kernels, which round once more
        classes, masks = run(path, pixels, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        save_file({"pixel_values": pixels, NAMES[0]: classes, NAMES[1]: masks}, path.with_suffix(".safetensors"))


def small():
    (HERE / "quantized").mkdir(exist_ok=True)
    (HERE / "quantized" / "config.json").write_text('{"model_type": "eomt", "image_size": 8}\n')
    u8, i8, u16 = np.uint8, np.int8, np.uint16
    Graph().pair(0.03, u8(90)).node("Softmax", axis=-1).pair(1 / 255, u8(0)).save("softmax", 17)
    Graph().pair(0.03, u8(90)).node("Softmax", axis=1).pair(1 / 127, i8(0)).save("softmax-channels", 13)
    Graph().pair(0.03, i8(5)).node("Erf").pair(0.01, i8(-3)).save("erf", 10)
    Graph().pair(0.03, u8(0)).node("Sigmoid").pair(1 / 255, u8(0)).save("relu-left-out", 17)
    Graph().pair(0.0001, u16(30000)).node("Softmax", axis=-1).pair(1 / 65535, u16(0)).save("sixteen", 21)
    by_channel = np.array([0.02, 0.05, 0.11], "f4"), np.array([3, 100, 250], u8)
    Graph().pair(*by_channel, axis=1).node("ReduceSum", np.array([3]), keepdims=1).node("Expand", np.array([1, 3, 8, 8])).save("channels", 17)
    moved = lambda graph: graph.node("Transpose", perm=[0, 1, 3, 2])
    Graph().pair(0.04, u8(128), moved).node("Tanh").pair(0.01, i8(0), moved).save("moved", 17)
    weights = np.random.default_rng(0).normal(0, 0.5, (8, 8)).astype("f4")
    graph = Graph()
    integers, scale = np.clip(np.rint(weights / 0.02), -128, 127).astype(i8), np.float32(0.02)
    matrix = graph.constant(integers), graph.constant(scale), graph.constant(i8(0))
    graph.nodes.append(helper.make_node("DequantizeLinear", list(matrix), ["matrix"], name="matrix"))
    graph.pair(0.03, u8(90)).node("MatMul", "matrix").pair(0.06, u8(120)).save("product", 17)


if __name__ == "__main__":
    small()
    network()
