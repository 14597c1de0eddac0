"""Judges are opened from the right folders alone; each is told by its weights; CLIP is CLIP."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import CLASSES, loading, open_judges, tiny
from lidit_jax.evaluation.judges.records import Answer, Detection

BLIP, CLIP = "BlipForQuestionAnswering", "CLIPModel"
EVERY = [(kind, name) for kind, names in CLASSES.items() for name in names]
QUESTIONS = ["a red cat?", "Is the dog, which is green, to the left of a car?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns the folder of the tiny model of a class, written on first use."""
    root = tmp_path_factory.mktemp("judges")

    def path(name):
        if not (root / name).exists():
            tiny.write(name, root / name)
        return root / name

    return path


@pytest.fixture
def copy(folder, tmp_path):
    """Returns a copy of a tiny model's folder that a test may spoil."""

    def path(name):
        for file in folder(name).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    return path


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_class_has_a_tiny_model():
    assert [name for _, name in EVERY] == list(tiny.MODELS)


@pytest.mark.parametrize("size", [(64, 64), (3, 20), (200, 31), (90, 160)])
@pytest.mark.parametrize("kind, name", EVERY)
def test_pictures_of_any_size_are_judged(folder, kind, name, size):
    judge = getattr(open_judges({kind: str(folder(name))}), kind)
    assert judge.identity == loading.identity(folder(name)) and judge.identity.startswith(name)
    if kind == "detector":
        found = judge.detect(picture(*size), ["dog", "cat"])
        scores = [d.score for d in found]
        assert scores == sorted(scores, reverse=True)
        assert {d.label for d in found} <= {"dog", "cat"}
        assert judge.detect(picture(*size), []) == []
        for d in found:
            assert isinstance(d, Detection) and 0 <= d.score <= 1
            assert 0 <= d.box[0] < d.box[2] <= size[1] and 0 <= d.box[1] < d.box[3] <= size[0]
    elif kind == "vqa":
        answers = judge.ask(picture(*size), QUESTIONS)
        alone = [judge.ask(picture(*size), [question])[0] for question in QUESTIONS]
        np.testing.assert_allclose(
            [a.p_yes for a in answers], [a.p_yes for a in alone], rtol=0, atol=1e-5
        )
        assert [a.answer for a in answers] == [a.answer for a in alone]
        assert answers[0] != answers[1] and judge.ask(picture(*size), []) == []
        assert all(isinstance(a, Answer) and 0 < a.p_yes < 1 for a in answers)
    else:
        assert judge.images([picture(*size)]).shape == judge.texts(["a dog"]).shape == (1, 16)


def test_a_tiny_judge_of_each_kind_is_opened_on_the_spot():
    judges = open_judges(dict.fromkeys(CLASSES, "tiny"))
    for kind, names in CLASSES.items():
        assert getattr(judges, kind).identity.startswith(next(iter(names)))
    assert open_judges({}).detector is open_judges({"clip": "tiny"}).vqa is None


def test_tiny_models_are_always_the_same_and_leave_torchs_random_state(tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        tiny.write(CLIP, tmp_path / str(seed))
        assert (torch.random.get_rng_state() == before).all()
    assert loading.identity(tmp_path / "1") == loading.identity(tmp_path / "2")


def test_an_identity_is_of_all_that_decides_an_answer(folder, copy):
    spoilt = copy(CLIP)
    assert loading.identity(spoilt) == loading.identity(folder(CLIP))
    (spoilt / "README.md").write_text("a copy")
    assert loading.identity(spoilt) == loading.identity(folder(CLIP))
    weights = safetensors.torch.load_file(spoilt / "model.safetensors")
    weights["logit_scale"] += 1e-3
    safetensors.torch.save_file(weights, spoilt / "model.safetensors", {"format": "pt"})
    assert loading.identity(spoilt) != loading.identity(folder(CLIP))
    for name in ("config.json", "preprocessor_config.json"):
        before = loading.identity(spoilt)
        (spoilt / name).write_text((spoilt / name).read_text() + "\n")
        assert loading.identity(spoilt) != before


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (transformers.Mask2FormerConfig(), " swin 96/2-2-18-2:"),
        (
            transformers.Mask2FormerConfig(backbone_config=transformers.ResNetConfig()),
            " resnet 256/3-4-6-3:",
        ),
        (transformers.CLIPConfig(), " 768/32/224:"),
        (transformers.CLIPConfig(vision_config={"image_size": 336}), " 768/32/336:"),
        (transformers.Qwen2VLConfig(vision_config={"hidden_size": 64}), " 64/14:"),
        (transformers.ViltConfig(), ":"),
    ],
    ids=lambda of: of if isinstance(of, str) else "",
)
def test_an_identity_tells_models_of_a_class_apart(tmp_path, config, told):
    config.architectures = ["Class"]
    config.save_pretrained(tmp_path)
    assert loading.identity(tmp_path).startswith(f"Class{told}")


def no_config(path):
    (path / "config.json").unlink()


def configured(**changed):
    """Returns what changes the config.json of a folder."""

    def spoil(path):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changed))

    return spoil


def no_weights(path):
    (path / "model.safetensors").unlink()


def pickled(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def no_tokenizer(path):
    (path / "tokenizer.json").unlink()


def no_processor(path):
    (path / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (no_config, "no config.json; want, as vqa, the folder of a BlipForQuestionAnswering or"),
        (configured(architectures=[{}]), "holds a model without a class name; want, as vqa"),
        (configured(architectures=None), "holds a model without a class name; want, as vqa"),
        (no_weights, "a BlipForQuestionAnswering, has no weights; want, as vqa"),
        (pickled, "only in pytorch_model.bin, a pickle"),
        (no_tokenizer, "has no tokenizer; want one of tokenizer.json"),
        (no_processor, "has no preprocessor_config.json"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_unloaded(copy, monkeypatch, spoil, message):
    monkeypatch.setattr(loading, "model", None)  # whoever calls it fails
    path = copy(BLIP)
    spoil(path)
    with pytest.raises(InputError, match=message):
        open_judges({"vqa": str(path)})


@pytest.mark.parametrize("kind, name", EVERY)
def test_a_judge_of_another_kind_is_refused_unloaded(folder, monkeypatch, kind, name):
    monkeypatch.setattr(loading, "model", None)
    for other in CLASSES.keys() - {kind}:
        wanted = " or a ".join(CLASSES[other])
        with pytest.raises(InputError, match=f"holds a {name}; want, as {other}, .* {wanted}"):
            open_judges({other: str(folder(name))})


def test_weights_that_are_not_finite_are_refused(copy):
    path = copy(CLIP)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    weights["text_projection.weight"][0, 0] = float("nan")
    safetensors.torch.save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="its weight text_projection.weight has a NaN"):
        open_judges({"clip": str(path)})


def test_weights_that_lack_a_tensor_or_are_cut_off_are_refused(copy):
    path = copy(CLIP)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    del weights["text_projection.weight"]
    safetensors.torch.save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        InputError, match="lack 1 of the model.s tensors, such as text_projection.weight"
    ):
        open_judges({"clip": str(path)})
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot load .*; get a complete copy"):
        open_judges({"clip": str(path)})


def test_a_config_of_another_form_is_refused(copy):
    path = copy(CLIP)
    configured(text_config="x")(path)
    with pytest.raises(InputError, match="cannot load .*text_config.*; get a complete copy"):
        open_judges({"clip": str(path)})


def test_other_mistakes_are_told(folder, tmp_path):
    with pytest.raises(InputError, match="unknown judge 'vqas'; known: vqa"):
        open_judges({"vqas": "tiny"})
    with pytest.raises(InputError, match="nowhere is not a model's folder"):
        open_judges({"clip": str(tmp_path / "nowhere")})
    vilt = open_judges({"vqa": str(folder("ViltForQuestionAnswering"))}).vqa
    with pytest.raises(InputError, match="accepts no picture of 300x3 pixels"):
        vilt.ask(picture(3, 300), QUESTIONS)


def test_torch_and_transformers_are_imported_late():
    code = (
        "import sys, lidit_jax.evaluation.judges; sys.exit('torch' in sys.modules"
        " or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_clip_is_the_unit_features_of_the_model(folder):
    clip = open_judges({"clip": str(folder(CLIP))}).clip
    model = transformers.CLIPModel.from_pretrained(folder(CLIP)).eval()
    process = transformers.CLIPImageProcessorPil.from_pretrained(folder(CLIP))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder(CLIP))
    images = [picture(50, 40), picture(33, 70, seed=1)]
    texts = ["a photo of a red dog", "a cat", "word " * 100]
    seen = model.get_image_features(**process(images, return_tensors="pt")).pooler_output
    words = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    assert words.input_ids.shape == (3, 77) and words.input_ids[2, -1] == tokenizer.eos_token_id
    read = model.get_text_features(**words).pooler_output
    features = clip.features(images)
    np.testing.assert_allclose(features, seen.detach().numpy(), rtol=0, atol=1e-5)
    assert np.ptp(np.linalg.norm(features, axis=1)) > 1e-4
    for ours, theirs in ((clip.images(images), seen), (clip.texts(texts), read)):
        theirs = theirs.detach().numpy()
        theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        assert ours.dtype == np.float32
    np.testing.assert_allclose(clip.texts(texts)[:1], clip.texts(texts[:1]), rtol=0, atol=1e-5)
