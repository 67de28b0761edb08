"""Random checkpoints in the layouts of LightlyTrain, LibreYOLO, attr-eomt and Lightning, each with what its own code computes.

usage: make_family.py OUTDIR [EOMT_SOURCE]     (this folder; a checkout of the EoMT authors' repository for the Lightning case)

Packages: lightly-train==0.18.0, libreyolo==1.6.0, attr-eomt==2.0.0, timm==1.0.31, lightning==2.6.6, transformers==5.24.0,
torch==2.15.0, torchvision==0.29.2. Their smallest networks are too large for a repository, so that the tables of sizes (or the
builders of the backbones) are replaced before the networks are made; everything else, the forward pass and the way
in which the file is written, is the packages' own.
"""
import json, os, sys, types

import torch
from safetensors.torch import save_file

OUT = sys.argv[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def randomize(model, seed):
    """Weights of which every one matters: nothing is 0 or 1, and nothing saturates."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() > 1 and "token" not in name and "pos" not in name:
                p.copy_(noise * (0.7 / max(1, p[0].numel()) ** 0.5))
            elif "gamma" in name or "lambda" in name:
                p.copy_(0.5 + 0.2 * noise)
            elif "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.3 * noise)
            p.copy_(p.half())  # so that the files can hold them at half the size
    return model.eval()


def half(state):
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def write(case, file, content, pixels, classes, masks, hints=None):
    d = os.path.join(OUT, case)
    os.makedirs(d, exist_ok=True)
    torch.save(content, os.path.join(d, file))
    if hints:
        json.dump(hints, open(os.path.join(d, "hints.json"), "w"), indent=1)
    save_file({"pixel_values": pixels.contiguous(), "class_queries_logits": classes.contiguous(),
               "masks_queries_logits": masks.contiguous()}, os.path.join(d, "expected.safetensors"))
    print(case, tuple(classes.shape), tuple(masks.shape), float(masks.std()), os.path.getsize(os.path.join(d, file)))


def pixels(seed, height, width):
    return torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def lightly():
    """Exported models: DINOv2 without and with registers at another grid than that of pre-training, DINOv3."""
    import functools
    from lightly_train._models.dinov2_vit.dinov2_vit_src.models import vision_transformer as v2
    from lightly_train._models.dinov3 import dinov3_package
    from lightly_train._models.dinov3.dinov3_src.hub import backbones
    from lightly_train._task_models.dinov2_eomt_panoptic_segmentation.task_model import DINOv2EoMTPanopticSegmentation
    from lightly_train._task_models.dinov2_eomt_semantic_segmentation.task_model import DINOv2EoMTSemanticSegmentation
    from lightly_train._task_models.dinov3_eomt_panoptic_segmentation.task_model import DINOv3EoMTPanopticSegmentation

    def tiny(patch_size=16, num_register_tokens=0, **kwargs):
        kwargs.update(img_size=70)  # a table of 5x5 positions
        return v2.DinoVisionTransformer(patch_size=patch_size, embed_dim=24, depth=3, num_heads=3, mlp_ratio=2,
                                        block_fn=functools.partial(v2.Block, attn_class=v2.MemEffAttention),
                                        num_register_tokens=num_register_tokens, **kwargs)

    v2.vit_small = tiny
    normalize = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    cases = [
        # 56x42 is 4x3 patches of 14; the ids are those of the data set, in its order.
        ("lightly-dinov2", DINOv2EoMTPanopticSegmentation, 1, dict(
            model_name="dinov2/vits14-eomt", thing_classes={7: "person", 2: "car"}, stuff_classes={11: "sky", 1: "road"},
            image_size=(56, 42), image_normalize=normalize, num_queries=6, num_joint_blocks=2)),
        # No registers: the older resampling, with an offset.
        ("lightly-dinov2-noreg", DINOv2EoMTSemanticSegmentation, 2, dict(
            model_name="dinov2/vits14-eomt", classes={0: "floor", 1: "wall", 2: "door"}, class_ignore_index=-100,
            image_size=(28, 84), image_normalize=normalize, num_queries=5, num_joint_blocks=1,
            backbone_args={"num_register_tokens": 0, "interpolate_antialias": False, "interpolate_offset": 0.1})),
    ]
    for case, kind, seed, args in cases:
        model = randomize(kind(**args, load_weights=False), seed)
        save_lightly(case, model, seed, args["image_size"], {"num_attention_heads": 3})

    def tiny3(patch_size=16, in_chans=3, pretrained=False, weights=None, **kwargs):
        return backbones._make_dinov3_vit(
            img_size=64, patch_size=patch_size, in_chans=in_chans, pos_embed_rope_base=100, pos_embed_rope_normalize_coords="separate",
            pos_embed_rope_rescale_coords=2, pos_embed_rope_dtype="fp32", embed_dim=32, depth=3, num_heads=2, ffn_ratio=2, qkv_bias=True,
            drop_path_rate=0.0, layerscale_init=1e-5, norm_layer="layernormbf16", ffn_layer=kwargs.pop("ffn_layer", "mlp"), ffn_bias=True,
            proj_bias=True, n_storage_tokens=4, mask_k_bias=True, pretrained=pretrained, weights=weights, compact_arch_name="vits",
            check_hash=False, **kwargs)

    for name in ["vits16", "vits16plus"]:
        info = dinov3_package.MODEL_NAME_TO_INFO[name]
        info["builder"] = functools.partial(tiny3, ffn_layer="swiglu") if name.endswith("plus") else tiny3
    for case, name, seed in [("lightly-dinov3", "vits16", 3), ("lightly-dinov3-gated", "vits16plus", 4)]:
        args = dict(model_name=f"dinov3/{name}-eomt", thing_classes={0: "person"}, stuff_classes={1: "sky", 2: "road"},
                    image_size=(48, 64), image_normalize={"mean": MEAN, "std": STD}, num_queries=5, num_joint_blocks=2)
        model = randomize(DINOv3EoMTPanopticSegmentation(**args, load_weights=False), seed)
        save_lightly(case, model, seed, args["image_size"], None)


def save_lightly(case, model, seed, size, hints):
    x = pixels(seed, *size)
    with torch.no_grad():
        masks, classes = model.forward_train(x, return_logits_per_layer=False)
    state = {"model." + name: value for name, value in half(model.state_dict()).items()}
    state["criterion.empty_weight"] = torch.ones(classes[-1].shape[-1])
    content = {"train_model": state, "model_class_path": model.class_path, "model_init_args": model.init_args, "license_info": "none"}
    write(case, "exported_best.pt", content, x, classes[-1], masks[-1], hints)


def libreyolo():
    """A panoptic checkpoint that still needs masked attention in its first query block."""
    from libreyolo.models.eomt import nn
    from libreyolo.utils.serialization import wrap_libreyolo_checkpoint

    nn._SIZE_TO_CONFIG["s"] = {**nn.EOMT_S_CONFIG, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_blocks": 2, "mlp_ratio": 2}
    net = randomize(nn.LibreEoMTNet("s", nb_classes=4, image_size=48, num_queries=6), 5)
    net.eomt.attn_mask_probs.copy_(torch.tensor([1.0, 0.0]))
    x = pixels(5, 48, 48)
    with torch.no_grad():
        out = net.eomt(pixel_values=x)
    content = wrap_libreyolo_checkpoint(half(net.state_dict()), model_family="eomt", size="s", task="panoptic", nc=4,
                                        names={0: "road", 1: "person", 2: "sky", 3: "car"}, imgsz=48, thing_class_ids=[1, 3])
    write("libreyolo", "LibreEoMTs-panoptic.pt", content, x, out.class_queries_logits, out.masks_queries_logits, {"num_attention_heads": 4})


def attr_eomt():
    """The state of the end of a training: plain and averaged weights, an optimizer, attribute heads, patch 14."""
    import dataclasses
    import eomt
    from eomt import config, ema

    config.EOMT_CONFIGS["s"] = dataclasses.replace(config.EOMT_CONFIGS["s"], hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_queries=6, num_blocks=2)
    heads = [config.AuxHeadSpec("colour", 3, {0: "red", 1: "green", 2: "blue"})]
    model = randomize(eomt.build_model("s", nc=3, imgsz=56, names={0: "cup", 1: "plate", 2: "fork"}, aux_heads=heads), 6)
    average = ema.ModelEMA(model)
    randomize(model, 7)
    for each in (model, average.module):
        each.eomt.set_attn_mask_probs([0.0, 0.0])
    x = pixels(6, 56, 56)
    with torch.no_grad():
        out = average.module(x)
    optimizer = torch.optim.AdamW(model.aux_heads.parameters())
    model.aux_heads["colour"][0].weight.sum().backward()
    optimizer.step()
    content = eomt.wrap_checkpoint(half(model.state_dict()), size="s", nc=3, imgsz=56, names=model.names, aux_heads=heads,
                                   aux_head_arch=model.aux_head_arch, letterbox=True, num_upscale_blocks=model.num_upscale_blocks,
                                   norm_mean=(0.5, 0.5, 0.5), norm_std=(0.25, 0.25, 0.25), patch_size=14, epoch=3, best_metric=0.5,
                                   optimizer=optimizer.state_dict(), ema={**average.state_dict(), "module": half(average.module.state_dict())})
    write("attr-eomt", "last.pt", content, x, out["class_queries_logits"], out["masks_queries_logits"], {"num_attention_heads": 3})


def lightning(source):
    """A Lightning .ckpt of the authors' panoptic module, whose hyperparameters hold the whole network as a pickled object."""
    import timm
    sys.path.insert(0, source)
    from lightning import LightningModule
    from models.eomt import EoMT
    from models.vit import ViT

    encoder = ViT.__new__(ViT)
    torch.nn.Module.__init__(encoder)
    encoder.backbone = timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=False, img_size=(48, 64), patch_size=16, num_classes=0,
                                         embed_dim=24, depth=2, num_heads=3, mlp_ratio=2)
    encoder.register_buffer("pixel_mean", torch.tensor(MEAN).reshape(1, -1, 1, 1))
    encoder.register_buffer("pixel_std", torch.tensor(STD).reshape(1, -1, 1, 1))
    network = randomize(EoMT(encoder, num_classes=4, num_q=6, num_blocks=2, masked_attn_enabled=False), 8)

    class Module(LightningModule):
        """What of the authors' LightningModule writes the file: its arguments, its names."""
        def __init__(self, network, img_size, num_classes, stuff_classes, attn_mask_annealing_enabled=True, mask_thresh=0.8):
            super().__init__()
            self.network = network
            self.save_hyperparameters(ignore=["_class_path"])

    module = Module(network, (48, 64), 4, [3, 1])
    x = pixels(8, 48, 64)
    with torch.no_grad():
        masks, classes = network(x * network.encoder.pixel_std + network.encoder.pixel_mean)
    state = half(module.state_dict())
    state["criterion.empty_weight"] = torch.ones(5)
    network.half()  # the pickled object too
    hyper = dict(module.hparams)
    content = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.6.6", "state_dict": state, "loops": {}, "callbacks": {},
               "optimizer_states": [], "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": hyper}
    write("lightning", "epoch=3-step=7.ckpt", content, x, classes[-1], masks[-1])


if __name__ == "__main__":
    lightly()
    libreyolo()
    attr_eomt()
    if len(sys.argv) > 2:
        lightning(sys.argv[2])
