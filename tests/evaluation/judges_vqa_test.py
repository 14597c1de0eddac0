"""VQA judges equal their models, asked by the published recipes, which are written out here."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import open_judges, qwen_vl, tiny

QUESTIONS = [
    "a red cat?",
    "Is the dog, which is green, to the left of the car that stands in front of the old house?",
    "green",
]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)


def opened(name, folder):
    tiny.write(name, folder)
    return open_judges({"vqa": str(folder)}).vqa


def assert_same(answers, p_yes, said):
    np.testing.assert_allclose([a.p_yes for a in answers], p_yes, rtol=0, atol=1e-5)
    assert [a.answer for a in answers] == said


class Blip:
    """BLIP by T2I-CompBench's recipe, of which each part can be left out."""

    def __init__(self, folder):
        hf = transformers
        self.model = hf.BlipForQuestionAnswering.from_pretrained(folder).eval()
        self.process = hf.BlipImageProcessorPil.from_pretrained(folder)
        self.tokenizer = hf.BertTokenizer.from_pretrained(folder)
        self.decode = len(self.tokenizer)  # as [DEC] and [ENC] come after BERT's tokens

    def inputs(self, image, question, encode=True, size=480):
        ids = self.tokenizer(question, return_tensors="pt", truncation=True, max_length=35)
        ids = ids.input_ids
        if encode:
            ids[0, 0] = self.decode + 1
        square = {"height": size, "width": size}
        pixels = self.process(Image.fromarray(image), size=square, return_tensors="pt").pixel_values
        return {"input_ids": ids, "pixel_values": pixels}

    @torch.no_grad()
    def p_yes(self, image, question, start=None, among_all=False, **options):
        inputs = self.inputs(image, question, **options)
        seen = self.model.vision_model(inputs["pixel_values"], interpolate_pos_encoding=True)[0]
        read = self.model.text_encoder(inputs["input_ids"], encoder_hidden_states=seen)[0]
        start = torch.tensor([[self.decode if start is None else start]])
        logits = self.model.text_decoder(start, encoder_hidden_states=read).logits[0, 0]
        if among_all:
            logits = logits - logits.logsumexp(0)
            return logits[self.tokenizer.vocab["yes"]].exp().item()
        yes, no = (logits[self.tokenizer.vocab[word]].exp().item() for word in ("yes", "no"))
        return yes / (yes + no)


def test_blip_is_the_published_recipe(tmp_path, image):
    judge, recipe = opened("BlipForQuestionAnswering", tmp_path), Blip(tmp_path)
    p_yes = [recipe.p_yes(image, question) for question in QUESTIONS]
    assert_same(judge.ask(image, QUESTIONS), p_yes, ["yes" if p > 0.5 else "no" for p in p_yes])
    assert len({p > 0.5 for p in p_yes}) == 2  # both answers are given


@pytest.mark.parametrize(
    "trap", [{"encode": False}, {"size": 64}, {"start": 101}, {"among_all": True}], ids=str
)
def test_each_of_blips_traps_matters(tmp_path, image, trap):
    judge, recipe = opened("BlipForQuestionAnswering", tmp_path), Blip(tmp_path)
    for question, answer in zip(QUESTIONS, judge.ask(image, QUESTIONS)):
        assert abs(recipe.p_yes(image, question, **trap) - answer.p_yes) > 1e-3


def test_blips_first_step_is_that_of_generating(tmp_path, image):
    judge, recipe = opened("BlipForQuestionAnswering", tmp_path), Blip(tmp_path)
    yes_no = recipe.tokenizer.convert_tokens_to_ids(["yes", "no"])
    for question, answer in zip(QUESTIONS, judge.ask(image, QUESTIONS)):
        said = recipe.model.generate(
            **recipe.inputs(image, question),
            interpolate_pos_encoding=True,
            max_new_tokens=1,
            output_scores=True,
            return_dict_in_generate=True,
        )
        p_yes = said.scores[0][0, yes_no].softmax(0)[0].item()
        assert answer.p_yes == pytest.approx(p_yes, abs=1e-5)


def test_blip_reads_35_tokens_of_a_question(tmp_path, image):
    judge = opened("BlipForQuestionAnswering", tmp_path)
    letters = " ".join("abcdefghijklmnopqrstuvwxyz0123456")  # 33 tokens, with [ENC] and [SEP] 35
    asked = [letters, letters + " a", letters + " z" * 600, letters[:-2]]
    answers = judge.ask(image, asked)
    assert answers[0] == answers[1] == answers[2] != answers[3]


def test_vilt_is_its_model_and_says_any_answer(tmp_path, image):
    judge = opened("ViltForQuestionAnswering", tmp_path)
    model = transformers.ViltForQuestionAnswering.from_pretrained(tmp_path).eval()
    process = transformers.ViltProcessor(
        transformers.ViltImageProcessorPil.from_pretrained(tmp_path),
        transformers.BertTokenizer.from_pretrained(tmp_path),
    )
    p_yes, said = [], []
    for question in QUESTIONS:
        inputs = process(
            Image.fromarray(image), question, return_tensors="pt", truncation=True, max_length=40
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        yes, no = logits.sigmoid()[:2].tolist()
        p_yes.append(yes / (yes + no))
        said.append(tiny.ANSWERS[logits.argmax()])
    assert inputs.input_ids.shape[1] < 40
    assert_same(judge.ask(image, QUESTIONS), p_yes, said)
    assert set(said) - {"yes", "no"}


def test_vilt_is_the_same_whatever_torchs_random_state(tmp_path, image):
    judge = opened("ViltForQuestionAnswering", tmp_path)
    answers = judge.ask(image, QUESTIONS)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert judge.ask(image, QUESTIONS) == answers == judge.ask(image, QUESTIONS)
    assert (torch.random.get_rng_state() == before).all()


def test_qwen_is_its_model_asked_by_its_template(tmp_path, image):
    judge = opened("Qwen2VLForConditionalGeneration", tmp_path)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    process = transformers.Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    pixels = process(Image.fromarray(image), return_tensors="pt")
    _, rows, columns = pixels["image_grid_thw"][0].tolist()
    pads = "<|image_pad|>" * (rows // 2 * columns // 2)  # 2 x 2 patches are one feature
    p_yes = []
    for question in QUESTIONS:
        words = tokenizer(
            f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{question} Answer yes or no."
            "<|im_end|>\n<|im_start|>assistant\n",
            return_tensors="pt",
        )
        sees = (words.input_ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
        with torch.no_grad():
            logits = model(**words, **pixels, mm_token_type_ids=sees).logits[0, -1]
        p = dict(zip(tokenizer.convert_ids_to_tokens(range(len(logits))), logits.softmax(0)))
        yes, no = p["Yes"] + p["yes"], p["No"] + p["no"]
        p_yes.append((yes / (yes + no)).item())
    said = ["yes" if p > 0.5 else "no" for p in p_yes]
    assert_same(judge.ask(image, QUESTIONS), p_yes, said)
    black = judge.ask(np.zeros_like(image), QUESTIONS)
    assert max(abs(b.p_yes - p) for b, p in zip(black, p_yes)) > 1e-3  # it looks


def test_judges_that_cannot_say_yes_are_refused(tmp_path, monkeypatch):
    tiny.write("ViltForQuestionAnswering", tmp_path / "vilt")
    config = json.loads((tmp_path / "vilt" / "config.json").read_text())
    config["id2label"]["0"] = "maybe"
    (tmp_path / "vilt" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot answer 'yes' or 'no'"):
        open_judges({"vqa": str(tmp_path / "vilt")})
    tiny.write("Qwen2VLForConditionalGeneration", tmp_path / "qwen")
    monkeypatch.setitem(qwen_vl.SPELLINGS, "yes", ("Yes", "Yeah"))
    with pytest.raises(InputError, match="'Yeah' is 3 tokens or unknown"):
        open_judges({"vqa": str(tmp_path / "qwen")})
    (tmp_path / "qwen" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template; want a Qwen2-VL"):
        open_judges({"vqa": str(tmp_path / "qwen")})
