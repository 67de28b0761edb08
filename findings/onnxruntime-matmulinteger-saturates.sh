#!/usr/bin/env bash
# ONNX Runtime 1.32.0 (PyPI) on an x86-64 CPU with AVX2 and without VNNI.
# One would guess: MatMulInteger is exact, since the ONNX specification says of it that the production must never overflow; so an int8 file gives the same answer on every CPU.
# What happens: u8 times i8, the pair that quantized networks use, is added two by two in 16 bits that saturate. Four products of 255 and 127 give 65534 instead of 129540, of 255 and
#   -127 give -65536. Products that fit (128 and 127, 255 and 64), i8 times i8 and u8 times u8 are exact. An EoMT (ViT-S, int8, 320x320) has mask logits there
#   that are 9 % of their magnitude away from those of exact products.
set -euo pipefail
if grep -qwE 'avx512_vnni|avx_vnni' /proc/cpuinfo; then echo "this CPU has VNNI, whose products are exact" >&2; exit 1; fi
grep -qw avx2 /proc/cpuinfo || { echo "this CPU has no AVX2" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy
cat >"$work/look.py" <<'END'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

TYPES = {"u8": (np.uint8, TensorProto.UINT8), "i8": (np.int8, TensorProto.INT8)}


def product(left, a, right, b):
    """Four products of a and b, added."""
    ends = [("a", TYPES[left][1], [1, 4]), ("b", TYPES[right][1], [4, 1]), ("y", TensorProto.INT32, [1, 1])]
    a_info, b_info, y_info = (helper.make_tensor_value_info(*end) for end in ends)
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "products", [a_info, b_info], [y_info])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"a": np.full((1, 4), a, TYPES[left][0]), "b": np.full((4, 1), b, TYPES[right][0])}
    return int(session.run(None, inputs)[0][0, 0])


for left, a, right, b in [("u8", 255, "i8", 127), ("u8", 255, "i8", -127), ("u8", 128, "i8", 127), ("u8", 255, "i8", 64), ("i8", 127, "i8", 127), ("u8", 255, "u8", 255)]:
    print(left, a, right, b, product(left, a, right, b), 4 * a * b)
END
found=$("$work/venv/bin/python" "$work/look.py")
echo "$found"
diff - <(echo "$found") <<'END'
u8 255 i8 127 65534 129540
u8 255 i8 -127 -65536 -129540
u8 128 i8 127 65024 65024
u8 255 i8 64 65280 65280
i8 127 i8 127 64516 64516
u8 255 u8 255 260100 260100
END
