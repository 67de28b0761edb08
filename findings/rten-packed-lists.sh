#!/bin/bash
# rten 0.27.0 (the crate; its parser is rten-onnx 0.27.0), an ONNX file in which lists of integers are packed, as prost and other proto3
# writers encode them by default.
#
# One would guess: such a file loads, since protobuf asks of every parser to take a repeated number packed and one by one ("Encoding",
# repeated elements), and rten does so for int32_data, int64_data and float_data.
# What happens: it refuses attributes' `ints` and tensors' `dims` that are packed: FieldTypeMismatch, field 8 of AttributeProto. onnx's own
# checker and ONNX Runtime take both files.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/python"
"$place/python/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$place/try.py" <<'END'
import sys
import numpy as np, onnx, onnxruntime

message = lambda number, content: bytes([number << 3 | 2, len(content)]) + content  # all of them are shorter than 128 bytes
number = lambda field, value: bytes([field << 3, value])
text = lambda field, value: message(field, value.encode())


def value_info(name, shape):
    dims = b"".join(message(1, number(1, size)) for size in shape)
    return text(1, name) + message(2, message(1, number(1, 1) + message(2, dims)))


def model(packed):
    """A Transpose, whose `perm` is one packed field or three."""
    perm = message(8, bytes([0, 2, 1])) if packed else b"".join(number(8, axis) for axis in (0, 2, 1))
    attribute = text(1, "perm") + perm + bytes([0xA0, 1, 7])  # field 20, type: INTS
    node = text(1, "x") + text(2, "y") + text(3, "node") + text(4, "Transpose") + message(5, attribute)
    graph = message(1, node) + text(2, "g") + message(11, value_info("x", [1, 2, 3])) + message(12, value_info("y", [1, 3, 2]))
    return number(1, 8) + message(7, graph) + message(8, number(2, 17))


for name, packed in (("packed", True), ("one-by-one", False)):
    path = f"{sys.argv[1]}/{name}.onnx"
    with open(path, "wb") as file:
        file.write(model(packed))
    onnx.checker.check_model(path, full_check=True)
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    y = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert (y == x.transpose(0, 2, 1)).all()
    print(f"{name}: right in ONNX Runtime")
END
"$place/python/bin/python" "$place/try.py" "$place" 2>&1 | grep -v cpuid
mkdir -p "$place/rten/src"
cat > "$place/rten/Cargo.toml" <<'END'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
rten-onnx = "=0.27.0"

[workspace]
END
cat > "$place/rten/src/main.rs" <<'END'
fn main() {
    let path = std::env::args().nth(1).expect("a file");
    match rten_onnx::onnx::ModelProto::parse_buf(&std::fs::read(path).expect("readable")) {
        Ok(model) => println!("read, {} node", model.graph.map_or(0, |graph| graph.node.len())),
        Err(error) => println!("refused, {error:?}"),
    }
}
END
PATH=$HOME/.cargo/bin:$PATH cargo build --quiet --manifest-path "$place/rten/Cargo.toml"
said=0
for name in packed one-by-one; do
    answer=$("$place/rten/target/debug/finding" "$place/$name.onnx")
    echo "$name: $answer"
    case "$name:$answer" in
    packed:refused*FieldTypeMismatch* | one-by-one:read*) ;;
    *) said=1 ;;
    esac
done
exit $said
