"""Tiny judges with random weights, to test a benchmark end to end. Their scores mean nothing.

Each has a published architecture, in a folder that is loaded like a real one. Weights are drawn
with a fixed seed, and are large, so that the answers depend on the questions.
"""

from collections.abc import Callable
from pathlib import Path

from lidit_jax.evaluation.judges import tiny_tokenizers

COCO = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, "
    "elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, "
    "skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, "
    "orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
    "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, "
    "toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
).split(", ")
ANSWERS = ("yes", "no", "red", "green", "2", "3")  # of the tiny ViLT

_SPREAD = {"initializer_range": 0.2}
_BLOCKS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_SMALL = _BLOCKS | {"intermediate_size": 32} | _SPREAD
_SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)} | _SPREAD


def write(architecture: str, folder: Path):
    """Writes a tiny model of a transformers class, with all that its judge needs, to a folder.

    architecture: a key of MODELS. torch's global random state is not changed.
    """
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        config, processor = MODELS[architecture](folder)
        getattr(transformers, architecture)(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _mask2former(folder: Path):
    import transformers as hf

    stages = ["stage1", "stage2", "stage3", "stage4"]
    config = hf.Mask2FormerConfig(
        backbone_config=hf.SwinConfig(**_SWIN, image_size=64, out_features=stages),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=10,
        id2label=dict(enumerate(COCO)),
    )
    return config, hf.Mask2FormerImageProcessorPil(size={"height": 64, "width": 64})


def _owlv2(folder: Path):
    import transformers as hf

    longest = 16  # tokens of a query, as published
    size = tiny_tokenizers.write_clip(folder, longest)
    ids = {"bos_token_id": size - 2, "eos_token_id": size - 1}
    text = _SMALL | ids | {"vocab_size": size, "max_position_embeddings": longest}
    vision = _SMALL | {"image_size": 64, "patch_size": 16}
    config = hf.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    return config, hf.Owlv2ImageProcessorPil(size={"height": 64, "width": 64})


def _grounding_dino(folder: Path):
    import transformers as hf

    text = _SMALL | {"vocab_size": tiny_tokenizers.write_bert(folder)}
    config = hf.GroundingDinoConfig(
        backbone_config=hf.SwinConfig(
            **_SWIN, image_size=64, out_features=["stage2", "stage3", "stage4"]
        ),
        text_config=hf.BertConfig(**text),
        num_queries=20,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        d_model=64,  # of 32 normalised groups
    )
    size = {"shortest_edge": 64, "longest_edge": 128}
    return config, hf.GroundingDinoImageProcessorPil(size=size)


def _blip(folder: Path):
    import transformers as hf

    words = tiny_tokenizers.write_bert(folder)
    ids = {"vocab_size": words + 2, "bos_token_id": words, "sep_token_id": 102}  # and [ENC] behind
    vision = _SMALL | {"image_size": 64, "patch_size": 16}
    config = hf.BlipConfig(text_config=_SMALL | ids, vision_config=vision)
    return config, hf.BlipImageProcessorPil(size={"height": 64, "width": 64})


def _qwen2_vl(folder: Path):
    import transformers as hf

    ids = tiny_tokenizers.write_qwen(folder)
    text = _SMALL | {
        "vocab_size": len(ids),
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2} | _SPREAD
    config = hf.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    fewest, most = 56 * 56, 112 * 112  # pixels
    return config, hf.Qwen2VLImageProcessorPil(min_pixels=fewest, max_pixels=most)


def _vilt(folder: Path):
    import transformers as hf

    config = hf.ViltConfig(
        **_SMALL,
        vocab_size=tiny_tokenizers.write_bert(folder),
        image_size=64,
        patch_size=8,
        id2label=dict(enumerate(ANSWERS)),
    )
    return config, hf.ViltImageProcessorPil(size={"shortest_edge": 64}, size_divisor=8)


def _clip(folder: Path):
    import transformers as hf

    longest = 77  # tokens of a text, as published
    size = tiny_tokenizers.write_clip(folder, longest)
    ids = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    text = _SMALL | ids | {"vocab_size": size, "max_position_embeddings": longest}
    vision = _SMALL | {"image_size": 32, "patch_size": 8}
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    square = {"height": 32, "width": 32}
    return config, hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)


# transformers class -> a function that writes a tokenizer, if the model has one, to a folder and
# returns the model's config and image processor
MODELS: dict[str, Callable] = {
    "Mask2FormerForUniversalSegmentation": _mask2former,
    "Owlv2ForObjectDetection": _owlv2,
    "GroundingDinoForObjectDetection": _grounding_dino,
    "BlipForQuestionAnswering": _blip,
    "Qwen2VLForConditionalGeneration": _qwen2_vl,
    "ViltForQuestionAnswering": _vilt,
    "CLIPModel": _clip,
}
