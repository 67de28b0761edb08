"""Runs our files in other engines, compares their logits with the reference, and writes the table of docs/engines.md.

usage: engines_check.py PROGRAM RTEN_RUN      (scripts/engines-check.sh calls it with everything that it needs)

Each run is a process of its own, so that one engine's fault is a row of the table and not the end of it. Fails when an engine does
not do what the table says of it: what is said to be right must stay within its bound, and what is said to be wrong or refused must
not have become right without anybody noticing.
"""
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

OUTPUTS = ["class_queries_logits", "masks_queries_logits"]
PAGE = Path("docs/engines.md")
BEGIN, END = "<!-- begin: made by scripts/engines_check.py -->", "<!-- end -->"
# Bounds of the relative error, sum |a - b| / sum |b|, the larger one of class and mask logits.
SUMS = 2e-6  # f32, sums in another order; seen: 4e-7
CURVES = 1e-3  # f32, with exp and erf approximated; seen: 3e-4 (MNN)
HALF = 3e-2  # bfloat16 has 8 bits of mantissa; seen: 9e-3
INT8 = 2e-2  # 8 bits of weights and, one scale a tensor, of activations; seen: 7e-3
INT8_SMALL = 0.1  # the same on reference networks about 48 wide; seen: 5e-2


# How each engine runs a file: (model, pixels) -> (outputs, what it says about itself). Called in a child process.


def run_onnxruntime(model, pixels):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(OUTPUTS, {"pixel_values": pixels}), ""


def openvino_with(configuration):
    def run(model, pixels):
        import openvino

        compiled = openvino.Core().compile_model(model, "CPU", configuration)
        result = compiled([pixels])
        products = {}
        for node in compiled.get_runtime_model().get_ordered_ops():
            if node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul"):
                precision = node.get_rt_info()["runtimePrecision"].astype(str)
                products[precision] = products.get(precision, 0) + 1
        said = ", ".join(f"{count} products in {kind}" for kind, count in sorted(products.items()))
        return [result[index] for index in range(2)], said

    return run


def run_rten(model, pixels):
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in"), Path(scratch, "out")
        source.write_bytes(pixels.astype("<f4").tobytes())
        subprocess.run([os.environ["RTEN_RUN"], model, source, *map(str, pixels.shape[2:]), target], check=True)
        values = np.fromfile(target, "<f4")
    return [values], ""


def run_ncnn(model, pixels):
    import ncnn

    package = importlib.util.find_spec("pnnx").submodule_search_locations[0]  # importing it would import PyTorch
    program = next(path for path in Path(package).rglob("pnnx") if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        shape = ",".join(map(str, pixels.shape))
        Path(scratch, "m.onnx").write_bytes(Path(model).read_bytes())
        command = [program, "m.onnx", f"inputshape=[{shape}]", "fp16=0"]
        converted = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        unknown = sorted({word for word in (converted.stdout + converted.stderr).split() if word.startswith("aten::") or "MatMulInteger" in word})
        network = ncnn.Net()
        network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
        if network.load_param(f"{scratch}/m.ncnn.param") or network.load_model(f"{scratch}/m.ncnn.bin"):
            raise RuntimeError(f"not converted: {' '.join(unknown) or 'ncnn does not load what pnnx writes'}")
        extractor = network.create_extractor()
        extractor.input("in0", ncnn.Mat(pixels[0]).clone())
        return [np.array(extractor.extract(f"out{index}")[1]) for index in range(2)], ""


def mnn_with(*options):
    def run(model, pixels):
        import MNN.expr
        import MNN.nn
        import _tools  # MNN's converter itself; its command `mnnconvert` installs a package and reports usage

        with tempfile.TemporaryDirectory() as scratch:
            target = f"{scratch}/m.mnn"
            _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", model, "--MNNModel", target, "--bizCode", "check", *options])
            network = MNN.nn.load_module_from_file(target, ["pixel_values"], OUTPUTS)
            placeholder = MNN.expr.placeholder(list(pixels.shape), MNN.expr.NCHW)
            placeholder.write(pixels.reshape(-1).tolist())
            outputs = network.forward([placeholder])
            return [np.array(MNN.expr.convert(output, MNN.expr.NCHW).read()) for output in outputs], ""

    return run


def litert_with(suffix, *options):
    def run(model, pixels):
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch, "m.onnx"), Path(scratch, "out")
            source.write_bytes(Path(model).read_bytes())  # onnx2tf writes the shapes that it infers into its input
            command = [os.environ["LITERT_PYTHON"], "-m", "onnx2tf", "-i", source, "-o", target, "-kat", "pixel_values", "-n", "-rtpo", "Erf", *options]
            subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
            code = (
                "import sys, numpy as np; from ai_edge_litert.interpreter import Interpreter\n"
                "i = Interpreter(sys.argv[1]); i.allocate_tensors(); x = np.load(sys.argv[2])\n"
                "i.set_tensor(i.get_input_details()[0]['index'], x); i.invoke()\n"
                "o = sorted((i.get_tensor(d['index']) for d in i.get_output_details()), key=lambda v: v.ndim)\n"
                "np.savez(sys.argv[3], *o)\n"
            )
            np.save(Path(scratch, "x.npy"), pixels)
            file = next(path for path in target.glob("*.tflite") if path.stem.endswith(suffix))
            arguments = [str(file), str(Path(scratch, "x.npy")), str(Path(scratch, "y.npz"))]
            subprocess.run([os.environ["LITERT_PYTHON"], "-c", code, *arguments], check=True)
            loaded = np.load(Path(scratch, "y.npz"))
            return [loaded[name] for name in loaded.files], ""

    return run


RUNS = {
    "onnxruntime": run_onnxruntime,
    "openvino": openvino_with({}),
    "openvino-f32": openvino_with({"INFERENCE_PRECISION_HINT": "f32"}),
    "rten": run_rten,
    "ncnn": run_ncnn,
    "mnn": mnn_with(),
    "mnn-weights": mnn_with("--weightQuantBits", "8"),
    "litert": litert_with("_float32"),
    "litert-dynamic": litert_with("_dynamic_range_quant", "-odrqt"),
}

# Networks whose attention masks are still needed hold Greater and Where, which ncnn lacks.
WITHOUT_MASKS = ["ncnn"]

# Engine, file, how to run it, bound (None: said to be wrong or refused), bound on the reference networks, advice.
ROWS = [
    ("ONNX Runtime {onnxruntime}", "f32", "onnxruntime", SUMS, SUMS, "as it is"),
    ("ONNX Runtime {onnxruntime}", "int8", "onnxruntime", INT8, INT8_SMALL, "as it is: every quantized product becomes one fused operator"),
    ("OpenVINO {openvino}, `INFERENCE_PRECISION_HINT=f32`", "f32", "openvino-f32", SUMS, SUMS, "as it is"),
    ("OpenVINO {openvino}, defaults", "f32", "openvino", HALF, None, "the file to give it; bfloat16 is its own choice where the CPU has it"),
    ("OpenVINO {openvino}, defaults", "int8", "openvino", INT8 + HALF, None, "right and slow, no product runs in int8: give it the f32 file"),
    ("rten {rten}", "f32", "rten", SUMS, SUMS, "as it is"),
    ("rten {rten}", "int8", "rten", INT8, INT8_SMALL, "as it is"),
    ("ncnn {ncnn}, by pnnx {pnnx}", "f32", "ncnn", SUMS, SUMS, "`pnnx model.onnx inputshape=[1,3,H,W] fp16=0`; with its default, fp16=1, weights lose 13 bits. Not for networks that still need masks"),
    ("ncnn {ncnn}, by pnnx {pnnx}", "int8", "ncnn", None, None, "give pnnx the f32 file"),
    ("MNN {MNN}", "f32", "mnn", CURVES, CURVES, "as it is; its exp and erf are approximations"),
    ("MNN {MNN}", "int8", "mnn", None, None, "never: above 8192 activations its dynamic int8 product is wrong. Give it the f32 file"),
    ("MNN {MNN}, `--weightQuantBits 8`", "f32", "mnn-weights", INT8, None, "weights in int8"),
]
LITERT_ROWS = [
    ("LiteRT {ai-edge-litert}, by onnx2tf {onnx2tf}", "f32", "litert", SUMS, None, "`onnx2tf -i model.onnx -kat pixel_values -rtpo Erf`; without `-rtpo` LiteRT lacks an operator (FlexErf)"),
    ("LiteRT {ai-edge-litert}, by onnx2tf {onnx2tf}", "int8", "litert", None, None, "give onnx2tf the f32 file"),
    ("LiteRT {ai-edge-litert}, by onnx2tf {onnx2tf} `-odrqt`", "f32", "litert-dynamic", INT8, None, "weights in int8, activations quantized at run time"),
]


def child(kind, model, source, target):
    outputs, said = RUNS[kind](model, np.load(source))
    np.savez(target, *[np.asarray(output, np.float32).reshape(-1) for output in outputs], said=np.array(said))


def attempt(kind, model, pixels, scratch):
    """The outputs in one row and what the engine says, or None and the reason."""
    source, target = Path(scratch, "x.npy"), Path(scratch, "y.npz")
    target.unlink(missing_ok=True)
    np.save(source, pixels)
    command = [sys.executable, __file__, "--child", kind, str(model), str(source), str(target)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=1200)
    if done.returncode or not target.exists():
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        return None, lines[-1] if lines and done.returncode > 0 else f"its process died ({done.returncode})"
    loaded = np.load(target)
    return np.concatenate([loaded[name] for name in loaded.files if name != "said"]), str(loaded["said"])


def relative_error(values, expected):
    """The larger one of class and mask logits; infinite for other sizes and for what is not finite."""
    sizes = [expected[name].size for name in OUTPUTS]
    if values.size != sum(sizes) or not np.isfinite(values).all():
        return float("inf")
    parts = np.split(values, [sizes[0]])
    return max(float(np.abs(part - expected[name].reshape(-1)).sum() / np.abs(expected[name]).sum()) for part, name in zip(parts, OUTPUTS))


class Case:
    """A checkpoint converted to both precisions, an input, and what its network answers."""

    def __init__(self, program, checkpoint, scratch, pixels=None, expected=None):
        self.files = {}
        for precision in ("f32", "int8"):
            self.files[precision] = Path(scratch, f"{checkpoint.name}-{precision}.onnx")
            command = [program, "convert", checkpoint, "-o", self.files[precision], "--precision", precision]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.name, self.pixels, self.expected = checkpoint.name, pixels, expected


def logits(program, model, pixels, scratch):
    from safetensors.numpy import load_file, save_file

    save_file({"pixel_values": pixels}, Path(scratch, "in.safetensors"))
    subprocess.run([program, "logits", "--model", model, Path(scratch, "in.safetensors"), "-o", Path(scratch, "out.safetensors")], check=True)
    return load_file(Path(scratch, "out.safetensors"))


def cases(program, scratch):
    """The small network first, whose truth is ours, then those that came with their answers from transformers."""
    from safetensors.numpy import load_file

    pixels = np.random.default_rng(1).normal(size=(1, 3, 160, 160)).astype(np.float32)
    nano = Case(program, Path("tests/data/nano"), scratch, pixels)
    nano.expected = logits(program, nano.files["f32"], pixels, scratch)
    found = [nano]
    for path in sorted(Path("tests/data/reference").glob("*/expected.safetensors")):
        expected = load_file(path)
        if "pixel_values" in expected:
            found.append(Case(program, path.parent, scratch, expected["pixel_values"], {name: expected[name] for name in OUTPUTS}))
    return found


def number(error):
    return "wrong" if error > 0.1 else f"{error:.0e}".replace("e-0", "e-")


def row(engine, precision, kind, bound, bound_small, advice, networks, scratch, versions):
    """A line of the table, and what is not as it is said to be."""
    nano, *small = networks
    values, said = attempt(kind, nano.files[precision], nano.pixels, scratch)
    name, complaints = engine.format(**versions), []
    if values is None:
        seen, error = "no", None
    else:
        error = relative_error(values, nano.expected)
        seen = number(error)
    print(f"{name}, {precision}: {seen} {error} {said}", flush=True)
    right = error is not None and error <= (bound or 0.1)
    if right != (bound is not None):
        complaints.append(f"{name}, {precision}: said to be {'right' if bound else 'wrong'}, but: {seen} {error} {said}")
    errors = []
    refused = [case for case in small if kind in WITHOUT_MASKS and case.name.endswith("masked")]
    for case in (case for case in small if bound_small and case not in refused):
        values, reason = attempt(kind, case.files[precision], case.pixels, scratch)
        errors.append(float("inf") if values is None else relative_error(values, case.expected))
        print(f"  {case.name}: {errors[-1]:.1e} {reason}", flush=True)
        if not errors[-1] <= bound_small:
            complaints.append(f"{name}, {precision}, {case.name}: {errors[-1]:.1e} {reason}")
    for case in refused if bound_small else []:
        if attempt(kind, case.files[precision], case.pixels, scratch)[0] is not None:
            complaints.append(f"{name}, {precision}, {case.name}: said to be refused, but it runs")
    cells = [name, precision, "no" if values is None and error is None else "yes", seen if error is not None else "", number(max(errors)) if errors else "", advice]
    return f"| {' | '.join(cells)} |", complaints


def versions():
    found = {name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino", "ncnn", "pnnx", "MNN")}
    found["rten"] = "0.27.0"  # pinned by scripts/engines-check.sh
    if os.environ.get("LITERT_PYTHON"):
        code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('ai-edge-litert', 'onnx2tf')}))"
        found |= json.loads(subprocess.check_output([os.environ["LITERT_PYTHON"], "-c", code]))
    return found


def main():
    if os.environ.get("LITERT_PYTHON"):
        os.environ["LITERT_PYTHON"] = os.path.abspath(os.environ["LITERT_PYTHON"])
    program, os.environ["RTEN_RUN"] = sys.argv[1], str(Path(sys.argv[2]).resolve())
    rows = ROWS + (LITERT_ROWS if os.environ.get("LITERT_PYTHON") else [])
    known, lines, complaints = versions(), [], []
    with tempfile.TemporaryDirectory() as scratch:
        networks = cases(program, scratch)
        for description in rows:
            line, wrong = row(*description, networks, scratch, known)
            lines.append(line)
            complaints += wrong
    header = "| engine | file | runs | error, nano | largest error, reference networks | what to do |\n|---|---|---|---|---|---|"
    before, rest = PAGE.read_text().split(BEGIN)
    kept = [] if os.environ.get("LITERT_PYTHON") else [line for line in rest.split(END)[0].splitlines() if line.startswith("| LiteRT")]
    PAGE.write_text(f"{before}{BEGIN}\n{header}\n" + "\n".join(lines + kept) + f"\n{END}{rest.split(END)[1]}")
    print("\n".join(complaints), file=sys.stderr)
    print(f"{len(lines) - len({line.split(':')[0] for line in complaints})} passed, {len(complaints)} failed")
    return 1 if complaints else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main())
