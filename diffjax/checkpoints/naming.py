"""How networks are named in checkpoints: one table for each kind.

Our attribute names are the torch ones but for the renames here. ``mappings`` reads
files by these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MOST_STAGES = 8  # of a ResNet: more entries no list of a config has


@dataclass(frozen=True, kw_only=True)
class Names:
    """How one kind of network is named in checkpoints.

    Attributes:
        renames: (ours, torch) fragments of dotted names. A ``*`` in the torch
            fragment stands for every block: diffusers repeats that tensor.
        aliases: (pattern, replacement) from names of older or newer files to the
            torch names of the other tables.
        ignored: patterns of tensors that are not parameters, with the reason.
    """

    renames: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)


UNET = Names(
    renames=(
        ("to_out", "to_out.0"),
        ("ff.proj_in", "ff.net.0.proj"),
        ("ff.proj_out", "ff.net.2"),
    )
)
AUTOENCODER = Names(
    renames=(
        ("attention.to_q", "to_q"),
        ("attention.to_k", "to_k"),
        ("attention.to_v", "to_v"),
        ("attention.to_out", "to_out.0"),
    ),
    aliases=(  # files from before diffusers 0.16
        (r"\.query\.", ".to_q."),
        (r"\.key\.", ".to_k."),
        (r"\.value\.", ".to_v."),
        (r"\.proj_attn\.", ".to_out.0."),
    ),
)
CLIP_TEXT = Names(
    renames=(
        ("token_embedding", "text_model.embeddings.token_embedding"),
        ("position_embedding", "text_model.embeddings.position_embedding"),
        ("layers", "text_model.encoder.layers"),
        ("final_layer_norm", "text_model.final_layer_norm"),
    ),
    aliases=((r"^(?=embeddings\.|encoder\.|final_layer_norm\.)", "text_model."),),
    ignored={
        r"text_model\.embeddings\.position_ids": "a buffer: 0, 1, 2, …",
        r"text_projection\.weight": "only used for the pooled output",
    },
)
CLIP_TEXT_WITH_PROJECTION = replace(
    CLIP_TEXT,
    ignored={
        name: why
        for name, why in CLIP_TEXT.ignored.items()
        if not name.startswith("text_projection")
    },
)
# Both towers in one file: as transformers' CLIPModel names them, and as the program of
# the paper and OpenCLIP do; ``open_clip`` splits what these fuse.
CLIP_BOTH = Names(
    renames=(
        ("vision.patch_embedding", "vision_model.embeddings.patch_embedding"),
        ("vision.class_embedding", "vision_model.embeddings.class_embedding"),
        (
            "vision.position_embedding",
            "vision_model.embeddings.position_embedding.weight",
        ),
        ("vision.layers", "vision_model.encoder.layers"),
        ("vision.projection", "visual_projection"),
        ("vision", "vision_model"),
        ("text.text_projection", "text_projection"),
        *((f"text.{ours}", torch) for ours, torch in CLIP_TEXT.renames),
    ),
    ignored={r"(text|vision)_model\.embeddings\.position_ids": "a buffer: 0, 1, 2, …"},
)
OPEN_CLIP = Names(
    renames=(
        ("vision.patch_embedding", "visual.conv1"),
        ("vision.position_embedding", "visual.positional_embedding"),
        ("vision.pre_layrnorm", "visual.ln_pre"),
        ("vision.post_layernorm", "visual.ln_post"),
        ("vision.layers", "visual.transformer.resblocks"),
        ("vision.projection", "visual.proj"),
        ("vision", "visual"),
        ("text.token_embedding", "token_embedding"),
        ("text.position_embedding.weight", "positional_embedding"),
        ("text.layers", "transformer.resblocks"),
        ("text.final_layer_norm", "ln_final"),
        ("text.text_projection", "text_projection"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("self_attn", "attn"),
        ("fc1", "c_fc"),
        ("fc2", "c_proj"),
    ),
    aliases=((r"^text\.", ""),),  # of models whose text tower is a module of its own
    ignored={
        r"(.*\.)?num_batches_tracked": "a counter of training",
        r"attn_mask": "a buffer: the causal mask",
        r"input_resolution|context_length|vocab_size": "numbers of the network",
    },
)
T5_ENCODER = Names(
    renames=(
        ("layers", "encoder.block"),
        ("attention_norm", "layer.0.layer_norm"),
        ("attention", "layer.0.SelfAttention"),
        ("ff_norm", "layer.1.layer_norm"),
        ("ff", "layer.1.DenseReluDense"),
        ("bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
        ("final_norm", "encoder.final_layer_norm"),
    ),
    ignored={r"encoder\.embed_tokens\.weight": "the same table as shared.weight"},
)
DIT = Names(
    renames=(
        ("patch", "pos_embed.proj"),
        ("adaln", "norm1.linear"),
        *UNET.renames,
        ("timestep_embedder", "transformer_blocks.*.norm1.emb.timestep_embedder"),
        (
            "class_embedder",
            "transformer_blocks.*.norm1.emb.class_embedder.embedding_table",
        ),
    ),
    ignored={r"pos_embed\.pos_embed": "a buffer: the sinusoids are computed"},
)

# The text's part of attention has names of its own in diffusers' one Attention.
SD3 = Names(
    renames=(
        ("patch", "pos_embed.proj"),
        ("positions.weight", "pos_embed.pos_embed"),
        ("timestep_embedder", "time_text_embed.timestep_embedder"),
        ("text_embedder", "time_text_embed.text_embedder"),
        ("proj_out_1", "norm_out.linear"),
        ("proj_out_2", "proj_out"),
        ("image.adaln", "norm1.linear"),
        ("text.adaln", "norm1_context.linear"),
        ("text.attention.to_q", "attn.add_q_proj"),
        ("text.attention.to_k", "attn.add_k_proj"),
        ("text.attention.to_v", "attn.add_v_proj"),
        ("text.attention.to_out", "attn.to_add_out"),
        ("text.attention.norm_q", "attn.norm_added_q"),
        ("text.attention.norm_k", "attn.norm_added_k"),
        ("image.attention", "attn"),
        ("image.attention_2", "attn2"),
        ("to_out", "to_out.0"),
        ("image.ff", "ff"),
        ("text.ff", "ff_context"),
        ("ff.proj_in", "ff.net.0.proj"),
        ("ff.proj_out", "ff.net.2"),
        ("ff_context.proj_in", "ff_context.net.0.proj"),
        ("ff_context.proj_out", "ff_context.net.2"),
    )
)

PIXART = Names(
    renames=(
        ("patch", "pos_embed.proj"),
        ("timestep_embedder", "adaln_single.emb.timestep_embedder"),
        ("resolution_embedder", "adaln_single.emb.resolution_embedder"),
        ("aspect_ratio_embedder", "adaln_single.emb.aspect_ratio_embedder"),
        ("adaln", "adaln_single.linear"),
        ("caption_1", "caption_projection.linear_1"),
        ("caption_2", "caption_projection.linear_2"),
        ("scale_shift.weight", "scale_shift_table"),
        *UNET.renames,
    ),
    ignored={r"caption_projection\.y_embedding": "in place of a prompt in training"},
)
FLUX = Names(
    renames=(
        *(each for each in SD3.renames if each[0] not in ("patch", "positions.weight")),
        ("guidance_embedder", "time_text_embed.guidance_embedder"),
        ("adaln", "norm.linear"),  # of single blocks
    )
)

# As the program of the paper (Peebles & Xie 2023) names them, which stores c's MLP and
# table once; its fused attn.qkv is split by ``original_dit``.
ORIGINAL_DIT = Names(
    renames=(
        ("transformer_blocks", "blocks"),
        ("patch", "x_embedder.proj"),
        ("adaln", "adaLN_modulation.1"),
        ("attn1.to_out", "attn.proj"),
        ("attn1", "attn"),
        ("ff.proj_in", "mlp.fc1"),
        ("ff.proj_out", "mlp.fc2"),
        ("timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("class_embedder", "y_embedder.embedding_table"),
        ("proj_out_1", "final_layer.adaLN_modulation.1"),
        ("proj_out_2", "final_layer.linear"),
    ),
    ignored={"pos_embed": "a buffer: compared with the sinusoids that are computed"},
)

# Classifiers as transformers 4 saved them, and the names that its 5th version has.
VIT_CLASSIFIER = Names(
    renames=(
        ("patch", "vit.embeddings.patch_embeddings.projection"),
        ("class_token.weight", "vit.embeddings.cls_token"),
        ("positions.weight", "vit.embeddings.position_embeddings"),
        ("attention.to_q", "attention.attention.query"),
        ("attention.to_k", "attention.attention.key"),
        ("attention.to_v", "attention.attention.value"),
        ("attention.to_out", "attention.output.dense"),
        ("fc1", "intermediate.dense"),
        ("fc2", "output.dense"),
        ("layers", "vit.encoder.layer"),
        ("layernorm", "vit.layernorm"),
    ),
    aliases=(
        (r"^vit\.layers\.", "vit.encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    ignored={r"vit\.pooler\.dense\.(weight|bias)": "the classes go around the pooler"},
)
_COUNTER = {r"(.*\.)?num_batches_tracked": "a counter of training"}
RESNET_CLASSIFIER = Names(
    renames=(
        ("embedder", "resnet.embedder.embedder"),
        *(
            (f"stages.{i}", f"resnet.encoder.stages.{i}.layers")
            for i in range(MOST_STAGES)
        ),
        ("classifier", "classifier.1"),
    ),
    ignored=_COUNTER,
)
# The same as torchvision's own files name them; ``torchvision`` splits what they fuse.
TORCHVISION_VIT = Names(
    renames=(
        ("patch", "conv_proj"),
        ("class_token.weight", "class_token"),
        ("positions.weight", "encoder.pos_embedding"),
        ("layernorm_before", "ln_1"),
        ("layernorm_after", "ln_2"),
        ("attention", "self_attention"),
        ("to_out", "out_proj"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.3"),
        ("layers", "encoder.layers"),
        ("layernorm", "encoder.ln"),
        ("classifier", "heads.head"),
    ),
    aliases=(
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"encoder.layers.\1."),
        (r"\.mlp\.linear_1\.", ".mlp.0."),  # files from before torchvision 0.13
        (r"\.mlp\.linear_2\.", ".mlp.3."),
    ),
)
TORCHVISION_RESNET = Names(
    renames=(
        ("embedder.convolution", "conv1"),
        ("embedder.normalization", "bn1"),
        *(
            (f"layer.{i}.{ours}", f"{torch}{i + 1}")
            for i in range(3)
            for ours, torch in (("convolution", "conv"), ("normalization", "bn"))
        ),
        ("shortcut.convolution", "downsample.0"),
        ("shortcut.normalization", "downsample.1"),
        *((f"stages.{i}", f"layer{i + 1}") for i in range(MOST_STAGES)),
        ("classifier", "fc"),
    ),
    ignored=_COUNTER,
)
