"""Exports of one tiny EoMT whose pixel values are normalized in different places, and what transformers computes.

pip install torch==2.15.0 transformers==5.24.0 onnx==1.23.2 onnxscript scipy safetensors torchvision
python3 make_normalization.py

`normalization/NAME.onnx` are exports of the same network (seed 0) behind a wrapper of that name; `masked.onnx` is it with
`attn_mask_probs` 1. `expected.safetensors`: `levels` [1, 3, 32, 32], 0 to 255, and the logits of the network on the normalized picture.
"""

import json
import pathlib

import onnx
import torch
from safetensors.torch import save_file
from transformers import EomtConfig, EomtForUniversalSegmentation

HERE = pathlib.Path(__file__).parent / "normalization"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LABELS = ["ball", "box", "floor"]


def network(probability):
    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, num_blocks=1, num_queries=6,
        num_upscale_blocks=1, num_register_tokens=1, mlp_ratio=2,
        id2label=dict(enumerate(LABELS)), label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = EomtForUniversalSegmentation(config).eval()
    with torch.no_grad():
        model.class_predictor.weight.mul_(60)  # so that queries have something to say
        for parameter in [*model.mask_head.parameters(), *model.upscale_block.parameters()]:
            if parameter.dim() > 1:
                parameter.mul_(12)
    del model.attn_mask_probs  # a buffer cannot be branched on by torch.export
    model.attn_mask_probs = [probability]
    return model


class Wrapped(torch.nn.Module):
    def __init__(self, kind, model):
        super().__init__()
        self.kind, self.model = kind, model
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.batch = torch.nn.BatchNorm2d(3, eps=0.0, affine=False)
        self.batch.running_mean, self.batch.running_var = torch.tensor(MEAN), torch.tensor(STD) ** 2

    def forward(self, x):
        x = getattr(self, self.kind.split("-")[0])(x)
        outputs = self.model(pixel_values=x)
        return outputs.class_queries_logits, outputs.masks_queries_logits

    def outside(self, x):
        return x

    def masked(self, x):
        return x

    def inside(self, x):
        return (x - self.mean) / self.std

    def multiplied(self, x):
        return x * (1 / self.std) + (-self.mean / self.std)

    def levels(self, x):
        return (x / 255 - self.mean) / self.std

    def bytes(self, x):
        return (x.to(torch.float32) / 255 - self.mean) / self.std

    def batchnorm(self, x):
        return self.batch(x)

    def scaled(self, x):
        return x / 255

    def last(self, x):
        return (x.permute(0, 3, 1, 2) - self.mean) / self.std

    def turned(self, x):
        return (x[:, [2, 1, 0]] - self.mean) / self.std


def strip(path):
    """Without the exporter's stack traces, most of the file's bytes."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(1)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5), (32, 32), mode="bilinear").mul(255).round()
    names = {"input_names": ["pixel_values"], "output_names": ["class_queries_logits", "masks_queries_logits"]}
    kinds = ["outside", "inside", "inside-dynamo", "multiplied", "levels", "bytes", "batchnorm", "scaled", "last", "turned", "masked"]
    for kind in kinds:
        model = network(1.0 if kind == "masked" else 0.0)
        sample = picture.to(torch.uint8) if kind == "bytes" else picture / 255
        if kind == "last":
            sample = sample.permute(0, 2, 3, 1)
        options = dict(dynamo=True, opset_version=20, external_data=False) if kind.endswith("dynamo") else dict(dynamo=False, opset_version=17)
        wrapped = Wrapped(kind, model).eval()
        torch.onnx.export(wrapped, (sample,), str(HERE / f"{kind}.onnx"), **names, **options)
        strip(HERE / f"{kind}.onnx")
        if kind in ("outside", "masked"):
            mean, std = wrapped.mean, wrapped.std
            with torch.no_grad():
                classes, masks = wrapped((picture / 255 - mean) / std)
            file = {"outside": "expected", "masked": "expected-masked"}[kind]
            tensors = {"levels": picture, "class_queries_logits": classes, "masks_queries_logits": masks}
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(HERE / f"{file}.safetensors"))
            (HERE / f"{file}.safetensors").chmod(0o644)
        if kind == "outside":
            (HERE / "config.json").write_text(json.dumps(json.loads(model.config.to_json_string()), indent=1) + "\n")


main()
