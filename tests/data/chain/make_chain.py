"""Writes tiny networks of each architecture between ViT-Adapter with Mask2Former and EoMT, with small random weights, and the logits that
they give.

Pixel decoder and transformer decoder are transformers' own modules (5.24). ViT, adapter and simple feature pyramid are plain PyTorch here,
written from the papers (ViT-Adapter: Chen et al. 2023, section 3; ViTDet: Li et al. 2022, section 3; EoMT: Kerssies et al. 2025, section 3).

usage: make_chain.py [DIRECTORY]      needs torch, transformers, safetensors
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder, Mask2FormerTransformerModule

SIZES = {
    "hidden": 16, "heads": 2, "blocks": 4, "inner": 32, "registers": 2, "image": 64, "eps": 1e-6, "queries": 6, "classes": 3,
    "decoder_width": 32, "decoder_heads": 4, "decoder_layers": 4, "decoder_inner": 24, "pixel_decoder_layers": 2,
    "pixel_decoder_inner": 24, "interactions": 2, "prior_channels": 4, "deformable_ratio": 0.5,
}
# Where a group norm's groups hold two channels each.
WIDER = {"no-adapter": {"decoder_width": 64, "decoder_layers": 1, "pixel_decoder_layers": 1}}
LABELS = ["wall", "floor", "box"]
PATCH, POINTS = 16, 4


class Layer(nn.Module):
    """A pre-norm block of DINOv2 under the names of transformers' EoMT."""

    def __init__(self, d, heads, inner, eps):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, eps), nn.LayerNorm(d, eps)
        self.attention = nn.ModuleDict({name: nn.Linear(d, d) for name in ["q_proj", "k_proj", "v_proj", "out_proj"]})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(d, inner), "fc2": nn.Linear(inner, d)})
        self.layer_scale1 = nn.ParameterDict({"lambda1": torch.ones(d)})
        self.layer_scale2 = nn.ParameterDict({"lambda1": torch.ones(d)})

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (self.attention[name](y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ["q_proj", "k_proj", "v_proj"])
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.layer_scale1["lambda1"] * self.attention["out_proj"](y)
        return x + self.layer_scale2["lambda1"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Embeddings(nn.Module):
    def __init__(self, d, registers, patches):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, d))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, d, PATCH, PATCH)})
        self.position_embeddings = nn.Embedding(patches, d)

    def forward(self, pixels):
        patches = self.patch_embeddings["projection"](pixels).flatten(2).transpose(1, 2) + self.position_embeddings.weight
        prefix = torch.cat([self.cls_token, self.register_tokens], 1).expand(len(pixels), -1, -1)
        return prefix, patches


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention: a weighed sum of bilinear samples around a reference point, head by head."""

    def __init__(self, d, heads, levels, ratio):
        super().__init__()
        self.heads, self.levels = heads, levels
        self.value_proj, self.output_proj = nn.Linear(d, int(d * ratio)), nn.Linear(int(d * ratio), d)
        self.sampling_offsets = nn.Linear(d, heads * levels * POINTS * 2)
        self.attention_weights = nn.Linear(d, heads * levels * POINTS)

    def forward(self, query, reference, feature, sides):
        batch, count, _ = query.shape
        value = self.value_proj(feature).unflatten(-1, (self.heads, -1))
        offsets = self.sampling_offsets(query).view(batch, count, self.heads, self.levels, POINTS, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, self.levels, POINTS)
        result, start = 0, 0
        for level, (height, width) in enumerate(sides):
            image = value[:, start:start + height * width].permute(0, 2, 3, 1).reshape(batch * self.heads, -1, height, width)
            start += height * width
            places = reference[None, :, None, None] + offsets[:, :, :, level] / torch.tensor([width, height])
            places = (2 * places - 1).transpose(1, 2).flatten(0, 1)
            samples = F.grid_sample(image, places, mode="bilinear", padding_mode="zeros", align_corners=False)
            part = (samples * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
            result = result + part.view(batch, self.heads, -1, count).permute(0, 3, 1, 2).flatten(2)
        return self.output_proj(result)


def centres(sides):
    points = []
    for height, width in sides:
        y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
        points.append(torch.stack([x, y], -1).flatten(0, 1))
    return torch.cat(points)


class Injector(nn.Module):
    def __init__(self, d, heads, ratio):
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(d, 1e-6), nn.LayerNorm(d, 1e-6)
        self.attn = DeformableAttention(d, heads, 3, ratio)
        self.gamma = nn.Parameter(torch.zeros(d))

    def forward(self, x, c, grid, sides):
        return x + self.gamma * self.attn(self.query_norm(x), centres([grid]), self.feat_norm(c), sides)


class ConvFfn(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, d // 4), nn.Linear(d // 4, d)
        self.dwconv = nn.Conv2d(d // 4, d // 4, 3, padding=1, groups=d // 4)

    def forward(self, x, sides):
        x, parts = self.fc1(x), []
        for part, side in zip(x.split([h * w for h, w in sides], 1), sides):
            parts.append(self.dwconv(part.transpose(1, 2).unflatten(2, side)).flatten(2).transpose(1, 2))
        return self.fc2(F.gelu(torch.cat(parts, 1)))


class Extractor(nn.Module):
    def __init__(self, d, heads, ratio):
        super().__init__()
        self.query_norm, self.feat_norm, self.ffn_norm = (nn.LayerNorm(d, 1e-6) for _ in range(3))
        self.attn = DeformableAttention(d, heads, 1, ratio)
        self.ffn = ConvFfn(d)

    def forward(self, c, x, grid, sides):
        c = c + self.attn(self.query_norm(c), centres(sides), self.feat_norm(x), [grid])
        return c + self.ffn(self.ffn_norm(c), sides)


class PriorStep(nn.Module):
    def __init__(self, start, to, stride):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(start, to, 3, stride, 1, bias=False), nn.BatchNorm2d(to)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class SpatialPrior(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.stem = nn.Sequential(PriorStep(3, n, 2), PriorStep(n, n, 1), PriorStep(n, n, 1))
        self.conv2, self.conv3, self.conv4 = PriorStep(n, 2 * n, 2), PriorStep(2 * n, 4 * n, 2), PriorStep(4 * n, 4 * n, 2)
        self.fc1, self.fc2 = nn.Conv2d(n, d, 1), nn.Conv2d(2 * n, d, 1)
        self.fc3, self.fc4 = nn.Conv2d(4 * n, d, 1), nn.Conv2d(4 * n, d, 1)

    def forward(self, pixels):
        c1 = F.max_pool2d(self.stem(pixels), 3, 2, 1)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(self.conv4(c3))


class Interaction(nn.Module):
    def __init__(self, d, heads, ratio, last):
        super().__init__()
        self.injector, self.extractor = Injector(d, heads, ratio), Extractor(d, heads, ratio)
        self.extra_extractors = nn.ModuleList(Extractor(d, heads, ratio) for _ in range(2 if last else 0))


class Adapter(nn.Module):
    def __init__(self, s):
        super().__init__()
        d = s["hidden"]
        self.spatial_prior = SpatialPrior(d, s["prior_channels"])
        self.level_embed = nn.Parameter(torch.zeros(3, d))
        count = s["interactions"]
        self.interactions = nn.ModuleList(
            Interaction(d, s["heads"], s["deformable_ratio"], index == count - 1) for index in range(count))
        self.up = nn.ConvTranspose2d(d, d, 2, 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(d) for _ in range(4))

    def forward(self, pixels, embeddings, layers):
        c1, *maps = self.spatial_prior(pixels)
        sides = [tuple(level.shape[-2:]) for level in maps]
        c = torch.cat([level.flatten(2).transpose(1, 2) + self.level_embed[i] for i, level in enumerate(maps)], 1)
        prefix, x = embeddings(pixels)
        grid = (pixels.shape[2] // PATCH, pixels.shape[3] // PATCH)
        stretch = len(layers) // len(self.interactions)
        for index, interaction in enumerate(self.interactions):
            x = interaction.injector(x, c, grid, sides)
            tokens = torch.cat([prefix, x], 1)
            for layer in layers[index * stretch:(index + 1) * stretch]:
                tokens = layer(tokens)
            prefix, x = tokens.split([prefix.shape[1], x.shape[1]], 1)
            for extractor in [interaction.extractor, *interaction.extra_extractors]:
                c = extractor(c, x, grid, sides)
        c2, c3, c4 = (part.transpose(1, 2).unflatten(2, side) for part, side in zip(c.split([h * w for h, w in sides], 1), sides))
        own = x.transpose(1, 2).unflatten(2, grid)
        outputs = []
        for level, norm in zip([c1 + self.up(c2), c2, c3, c4], [self.norm1, self.norm2, self.norm3, self.norm4]):
            outputs.append(norm(level + F.interpolate(own, size=level.shape[-2:], mode="bilinear", align_corners=False)))
        return outputs


class Scale(nn.Module):
    """Up or down by two: EoMT's ScaleBlock, and the same with a convolution."""

    def __init__(self, d, kind):
        super().__init__()
        self.conv1, self.conv2 = kind(d, d, 2, 2), nn.Conv2d(d, d, 3, padding=1, groups=d, bias=False)
        self.layernorm2d = nn.LayerNorm(d, 1e-6)

    def forward(self, x):
        return self.layernorm2d(self.conv2(F.gelu(self.conv1(x))).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Network(nn.Module):
    def __init__(self, architecture, s):
        super().__init__()
        self.architecture = architecture
        d, width = s["hidden"], s["decoder_width"]
        self.embeddings = Embeddings(d, s["registers"], (s["image"] // PATCH) ** 2)
        self.layers = nn.ModuleList(Layer(d, s["heads"], s["inner"], s["eps"]) for _ in range(s["blocks"]))
        if architecture == "vit-adapter-m2f":
            self.adapter = Adapter(s)
        else:
            self.layernorm = nn.LayerNorm(d, s["eps"])
            self.pyramid = nn.ModuleDict({"quarter": nn.Sequential(Scale(d, nn.ConvTranspose2d), Scale(d, nn.ConvTranspose2d))})
            if architecture != "no-multi-scale":
                self.pyramid["eighth"] = nn.Sequential(Scale(d, nn.ConvTranspose2d))
                self.pyramid["last"] = nn.Sequential(Scale(d, nn.Conv2d))
        config = Mask2FormerConfig(
            feature_size=width, mask_feature_size=width, hidden_dim=width, num_attention_heads=s["decoder_heads"], dropout=0.0,
            encoder_feedforward_dim=s["pixel_decoder_inner"], encoder_layers=s["pixel_decoder_layers"],
            decoder_layers=s["decoder_layers"] + 1, dim_feedforward=s["decoder_inner"], num_queries=s["queries"],
            feature_strides=[4, 8, 16, 32], common_stride=4)
        has_pixel_decoder = architecture in ["vit-adapter-m2f", "no-adapter"]
        if has_pixel_decoder:
            self.pixel_level_module = nn.ModuleDict({"decoder": Mask2FormerPixelDecoder(config, feature_channels=[d] * 4)})
        else:
            self.mask_projection = nn.Conv2d(d, width, 1)
        self.transformer_module = Mask2FormerTransformerModule(in_features=width if has_pixel_decoder else d, config=config)
        if architecture == "no-multi-scale":
            module = self.transformer_module
            module.num_feature_levels = module.decoder.num_feature_levels = 1
            module.input_projections = module.input_projections[:1]
            module.level_embed = nn.Embedding(1, width)
        self.class_predictor = nn.Linear(width, s["classes"] + 1)

    def forward(self, pixels):
        if self.architecture == "vit-adapter-m2f":
            features = self.adapter(pixels, self.embeddings, self.layers)
        else:
            prefix, patches = self.embeddings(pixels)
            tokens = torch.cat([prefix, patches], 1)
            for layer in self.layers:
                tokens = layer(tokens)
            grid = (pixels.shape[2] // PATCH, pixels.shape[3] // PATCH)
            own = self.layernorm(tokens)[:, prefix.shape[1]:].transpose(1, 2).unflatten(2, grid)
            features = [self.pyramid["quarter"](own), own]
            if self.architecture != "no-multi-scale":
                features = [features[0], self.pyramid["eighth"](own), own, self.pyramid["last"](own)]
        if "pixel_level_module" in self._modules:
            decoded = self.pixel_level_module["decoder"](features, return_dict=True)
            scales, masks = decoded.multi_scale_features, decoded.mask_features
        else:
            scales, masks = features[:0:-1], self.mask_projection(features[0])
        output = self.transformer_module(list(scales), masks, output_hidden_states=True)
        classes = [self.class_predictor(hidden.transpose(0, 1)) for hidden in output.intermediate_hidden_states]
        return classes, output.masks_queries_logits


def shake(network, generator):
    """Small random weights everywhere, so that nothing is 0 or 1 by chance of its start."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise.abs())
            elif "norm" in name and name.endswith("weight") or name.endswith(("lambda1", "_1.1.weight", "s.0.1.weight", "s.1.1.weight", "s.2.1.weight")):
                tensor.copy_(1 + 0.2 * noise)
            elif tensor.ndim > 1 and "embed" not in name and "token" not in name and "queries" not in name:
                tensor.copy_(noise * (1.5 / tensor[0].numel()) ** 0.5)
            elif "sampling_offsets.bias" in name:
                tensor.copy_(1.5 * noise)
            else:
                tensor.copy_(0.3 * noise)
            tensor.copy_(tensor.bfloat16())  # as they are stored


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for seed, architecture in enumerate(["vit-adapter-m2f", "no-adapter", "no-pixel-decoder", "no-multi-scale"]):
        torch.manual_seed(seed)
        sizes = SIZES | WIDER.get(architecture, {})
        network = Network(architecture, sizes).eval()
        shake(network, torch.Generator().manual_seed(seed))
        pixels = torch.randn(1, 3, SIZES["image"], SIZES["image"], generator=torch.Generator().manual_seed(100 + seed))
        with torch.no_grad():
            classes, masks = network(pixels)
        folder = root / architecture
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.bfloat16().contiguous() for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        names = dict(enumerate(LABELS))
        config = {"model_type": "vit_mask2former", "architecture": architecture, "patch_size": PATCH, "id2label": names,
                  "stuff_classes": [0, 1], **sizes}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        count = len(masks)
        expected = {"pixel_values": pixels, "class_queries_logits": classes[-1], "masks_queries_logits": masks[-1],
                    "intermediate_class_logits": torch.stack(classes[:-1]), "first_mask_logits": masks[0]}
        save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")
        print(architecture, sum(tensor.numel() for tensor in state.values()), count, float(masks[-1].abs().mean()), float(masks[-1].std()),
              float((masks[-1] > 0).float().mean()), float(classes[-1].std()))


main()
