"""Small graphs around ONNX's Attention (opset 23), with ONNX Runtime's answers.

pip install onnx==1.23.2 onnxruntime==1.32.0 numpy safetensors
python make_attention.py            # writes attention/NAME.onnx and attention/NAME.safetensors beside itself
"""

import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

TOKENS, WIDTH = 12, 16
# name: heads of queries, heads of keys, axes of the inputs, mask, attributes, whether the scores are an output too
CASES = {
    "flat": (4, 4, 3, None, {}, False),
    "groups": (4, 2, 3, None, {"scale": 0.7}, False),
    "heads": (2, 2, 4, None, {"scale": 0.3}, False),
    "causal": (4, 4, 3, None, {"is_causal": 1}, False),
    "seen": (4, 4, 3, "bool", {}, False),
    "added": (2, 1, 4, "float", {}, False),
    "added-causal": (4, 4, 3, "float", {"is_causal": 1}, False),
    "products": (4, 4, 3, "float", {"qk_matmul_output_mode": 0}, True),
    "probabilities": (4, 4, 3, "bool", {"qk_matmul_output_mode": 3}, True),
}


def graph(heads, kv_heads, axes, mask, attributes, scores, random):
    nodes, constants = [], []

    def constant(name, values):
        constants.append(numpy_helper.from_array(values, name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    tokens = node("Reshape", ["pixel_values", constant("tokens.shape", np.array([1, TOKENS, WIDTH]))], "tokens")
    parts = []
    for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        width = WIDTH // heads * count
        weights = constant(f"{part}.weights", random.normal(0, 0.4, (WIDTH, width)).astype("f4"))
        value = node("MatMul", [tokens, weights], part)
        if axes == 4:
            value = node("Reshape", [value, constant(f"{part}.shape", np.array([1, TOKENS, count, WIDTH // heads]))], f"{part}.split")
            value = node("Transpose", [value], f"{part}.heads", perm=[0, 2, 1, 3])
        parts.append(value)
    if mask == "bool":
        seen = random.random((TOKENS, TOKENS)) < 0.6
        parts.append(constant("mask", seen | np.eye(TOKENS, dtype=bool)))
    elif mask == "float":
        parts.append(constant("mask", random.normal(0, 1, (TOKENS, TOKENS)).astype("f4")))
    if axes == 3:
        attributes = attributes | {"q_num_heads": heads, "kv_num_heads": kv_heads}
    outputs = ["attended", "", "", "scores"] if scores else ["attended"]
    nodes.append(helper.make_node("Attention", parts, outputs, name="attention", **attributes))
    out = "attended"
    if axes == 4:
        out = node("Transpose", [out], "by_token", perm=[0, 2, 1, 3])
    masks = node("Reshape", [out, constant("masks.shape", np.array([1, TOKENS, 4, 4]))], "masks_queries_logits")
    rows = "scores" if scores else masks
    last = heads * TOKENS if scores else WIDTH
    if scores:
        rows = node("Transpose", [rows], "scores.by_token", perm=[0, 2, 1, 3])
    node("Reshape", [rows, constant("class.shape", np.array([1, TOKENS, last]))], "class_queries_logits")
    info = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "attention",
        [info("pixel_values", TensorProto.FLOAT, [1, 3, 8, 8])],
        [info("class_queries_logits", TensorProto.FLOAT, [1, TOKENS, last]), info("masks_queries_logits", TensorProto.FLOAT, [1, TOKENS, 4, 4])],
        constants,
    )


def main():
    directory = pathlib.Path(__file__).parent / "attention"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"model_type": "eomt", "image_size": 8}\n')
    for index, (name, case) in enumerate(CASES.items()):
        random = np.random.default_rng(index)
        model = helper.make_model(graph(*case, random), opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        onnx.checker.check_model(model, full_check=True)
        pixels = random.normal(0, 1, (1, 3, 8, 8)).astype("f4")
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        classes, masks = session.run(["class_queries_logits", "masks_queries_logits"], {"pixel_values": pixels})
        onnx.save(model, directory / f"{name}.onnx")
        save_file({"pixel_values": pixels, "class_queries_logits": classes, "masks_queries_logits": masks}, directory / f"{name}.safetensors")
        print(name, classes.ravel()[:3], masks.ravel()[:3])


if __name__ == "__main__":
    main()
