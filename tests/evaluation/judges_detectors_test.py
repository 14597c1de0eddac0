"""Detectors equal their models, read by the published rules, which are written out here once more."""

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import mask2former, open_judges, tiny

LABELS = ["dog", "tv", "computer mouse"]
# The 80 classes by the names of Darknet's list, which Meta's Mask2Former has in its config.
DARKNET = {
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


def opened(name, folder):
    tiny.write(name, folder)
    return open_judges({"detector": str(folder)}).detector


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def enlarged(mask, size):
    """Bilinear, pixels' centres aligned, edges repeated."""
    for axis in (0, 1):
        n, wanted = mask.shape[axis], size[axis]
        at = np.clip((np.arange(wanted) + 0.5) * n / wanted - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        mask = (
            mask.take(low, axis) * (1 - share) + mask.take(np.minimum(low + 1, n - 1), axis) * share
        )
    return mask


def by_hand(class_logits_QxK1, masks_Qxhxw, size, classes):
    """mmdetection's instances of Mask2Former: a loop over the 100 best pairs of query and class."""
    odds = np.exp(class_logits_QxK1 - class_logits_QxK1.max(axis=1, keepdims=True))
    classes_QxK = (odds / odds.sum(axis=1, keepdims=True))[:, :-1]
    found = []
    for pair in np.argsort(-classes_QxK.flatten())[:100]:
        query, column = divmod(pair, classes_QxK.shape[1])
        logits = enlarged(masks_Qxhxw[query], size)
        y, x = np.nonzero(logits > 0)
        if column in classes.values() and len(x):
            score = classes_QxK[query, column] * sigmoid(logits[y, x]).mean()
            label = next(name for name, k in classes.items() if k == column)
            found.append((score, label, (x.min(), y.min(), x.max() + 1, y.max() + 1), logits > 0))
    return sorted(found, key=lambda f: -f[0])


def assert_same(found, wanted):
    assert [d.label for d in found] == [label for _, label, _, _ in wanted]
    scores = [score for score, _, _, _ in wanted]
    np.testing.assert_allclose([d.score for d in found], scores, rtol=1e-5)
    for d, (_, _, box, mask) in zip(found, wanted):
        assert d.box == box and d.mask.dtype == bool and (d.mask == mask).all()


@pytest.mark.parametrize("size", [(64, 64), (120, 37)])
def test_mask2former_is_its_model_read_by_hand(tmp_path, size):
    tiny.write("Mask2FormerForUniversalSegmentation", tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["class_predictor.bias"][-1] += 2  # "no object" is likelier than any, as in life
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    judge = open_judges({"detector": str(tmp_path)}).detector
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path).eval()
    process = transformers.Mask2FormerImageProcessorPil.from_pretrained(tmp_path)
    with torch.no_grad():
        given = process(picture(*size), return_tensors="pt", size=mask2former.SIDES)
        seen = model(**given)
    assert max(given["pixel_values"].shape) >= 800
    logits = (seen.class_queries_logits[0], seen.masks_queries_logits[0])
    logits = [x.numpy().astype(float) for x in logits]
    every = {name: k for k, name in enumerate(tiny.COCO)}
    wanted = by_hand(*logits, size, every)
    assert_same(judge.detect(picture(*size), tiny.COCO), wanted)
    some = [w for w in wanted if w[1] in {w[1] for w in wanted[::3]}]
    assert (
        0 < len(some) < len(wanted)
    )  # the 100 best are so among all classes, also if few are asked
    assert_same(judge.detect(picture(*size), sorted({w[1] for w in some})), some)


def test_masks_boxes_and_the_best_hundred_are_by_the_rule():
    """20 queries of 10 classes on soft random masks, every fourth of which is empty."""
    rng = np.random.default_rng(0)
    class_logits = rng.normal(0, 1, (20, 11))
    masks = rng.normal(0, 1, (20, 6, 5)) - 1.5
    masks[::4] = -1
    classes = {"a": 3, "b": 0, "c": 9}
    wanted = by_hand(class_logits, masks, (48, 30), classes)
    probabilities = torch.tensor(class_logits).softmax(dim=-1)[:, :-1]
    found = mask2former.detections(probabilities, torch.tensor(masks), (48, 30), classes)
    assert_same(found, wanted)
    assert 0 < len(found) < 100 and len({d.box for d in found}) > 5
    everything = {str(k): k for k in range(10)}
    masks[:] = 1
    found = mask2former.detections(probabilities, torch.tensor(masks), (48, 30), everything)
    assert len(found) == mask2former.MOST == 100


def test_a_box_ends_behind_its_last_pixel():
    mask = np.zeros((9, 7), bool)
    mask[2:5, 3] = True
    assert mask2former.bounds(mask) == (3, 2, 4, 5)


@pytest.mark.parametrize("names", [{}, DARKNET], ids=["COCO", "Darknet"])
def test_genevals_objects_are_the_classes_of_both_lists(official, names):
    id2label = {k: names.get(name, name) for k, name in enumerate(tiny.COCO)}
    objects = (official / "geneval" / "object_names.txt").read_text().split("\n")[:80]
    assert [mask2former.class_of(name, id2label) for name in objects] == list(range(80))
    assert [mask2former.class_of(name.upper(), id2label) for name in tiny.COCO] == list(range(80))


def test_mask2former_tells_labels_as_asked_and_refuses_strangers(tmp_path):
    judge = opened("Mask2FormerForUniversalSegmentation", tmp_path)
    asked = ["Computer Mouse", "mouse", *tiny.COCO]
    found = judge.detect(picture(64, 64), asked)
    assert {d.label for d in found} <= set(asked)
    pairs = [
        [(d.score, d.box) for d in found if d.label == name] for name in ("Computer Mouse", "mouse")
    ]
    assert pairs[0] == pairs[1]
    with pytest.raises(InputError, match="unknown class of the detector 'girafe'; known: giraffe"):
        judge.detect(picture(64, 64), ["dog", "girafe"])


def clipped(box, size):
    (x1, y1, x2, y2), (height, width) = box, size
    return (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))


def assert_same_boxes(found, wanted):
    """wanted: (score, label, box) of all that is in the picture, in any order."""
    wanted = sorted((w for w in wanted if w[2][0] < w[2][2] and w[2][1] < w[2][3]), reverse=True)
    assert [d.label for d in found] == [label for _, label, _ in wanted] and found
    np.testing.assert_allclose([d.score for d in found], [w[0] for w in wanted], rtol=0, atol=1e-6)
    np.testing.assert_allclose([d.box for d in found], [w[2] for w in wanted], rtol=0, atol=1e-3)
    assert all(d.mask is None for d in found)


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (90, 50)])
def test_owlv2_is_transformers_own_post_processing(tmp_path, size):
    judge = opened("Owlv2ForObjectDetection", tmp_path)
    model = transformers.Owlv2ForObjectDetection.from_pretrained(tmp_path).eval()
    process = transformers.Owlv2ImageProcessorPil.from_pretrained(tmp_path)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    words = tokenizer(LABELS, padding="max_length", max_length=16, truncation=True)
    assert len(words["input_ids"][2]) == 16  # one label is cut off
    pixels = process(picture(*size), return_tensors="pt")
    with torch.no_grad():
        seen = model(**words.convert_to_tensors("pt"), **pixels)
    (told,) = process.post_process_object_detection(seen, threshold=-1, target_sizes=[size])
    boxes = [clipped(box, size) for box in told["boxes"].tolist()]
    wanted = zip(told["scores"].tolist(), [LABELS[k] for k in told["labels"]], boxes)
    assert_same_boxes(judge.detect(picture(*size), LABELS), wanted)


@pytest.mark.parametrize("size", [(64, 64), (50, 90)])
def test_grounding_dino_scores_a_label_by_its_best_token(tmp_path, size):
    judge = opened("GroundingDinoForObjectDetection", tmp_path)
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(tmp_path).eval()
    process = transformers.GroundingDinoImageProcessorPil.from_pretrained(tmp_path)
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    words = tokenizer("dog. tv. computer mouse.", return_tensors="pt")
    # the tokens are characters: [CLS] d o g . t v . c o m p u t e r m o u s e . [SEP]
    tokens = {"dog": range(1, 4), "tv": range(5, 7), "computer mouse": range(8, 21)}
    assert words.input_ids[0, [4, 7, 21]].tolist() == tokenizer.convert_tokens_to_ids(["."] * 3)
    with torch.no_grad():
        seen = model(**words, **process(picture(*size), return_tensors="pt"))
    scores = sigmoid(seen.logits[0].numpy().astype(float))
    wanted = []
    for query, (x, y, w, h) in enumerate(seen.pred_boxes[0].tolist()):
        score, label = max((scores[query, of].max(), name) for name, of in tokens.items())
        box = [(x - w / 2), (y - h / 2), (x + w / 2), (y + h / 2)]
        wanted.append((score, label, clipped(box * np.tile(size[::-1], 2), size)))
    found = judge.detect(picture(*size), ["Dog", *LABELS[1:]])
    assert {d.label for d in found} == {"Dog", *LABELS[1:]}
    assert_same_boxes(found, [(s, {"dog": "Dog"}.get(n, n), b) for s, n, b in wanted])


def test_grounding_dino_refuses_what_it_cannot_read(tmp_path):
    judge = opened("GroundingDinoForObjectDetection", tmp_path)
    with pytest.raises(InputError, match="80 labels are .* tokens for Grounding DINO, which reads"):
        judge.detect(picture(64, 64), tiny.COCO)
    with pytest.raises(InputError, match="label ' ' has no words"):
        judge.detect(picture(64, 64), ["dog", " "])


def test_a_benchmark_of_any_words_gets_a_detector_that_reads_them(tmp_path):
    """Tiny ones too; one of fixed classes is refused before it is loaded."""
    image = np.zeros((40, 60, 3), np.uint8)
    found = open_judges({"detector": "tiny"}, any_words=True).detector
    assert found.identity.startswith("Owlv2") and found.detect(image, ["bag"]) is not None
    assert open_judges({"detector": "tiny"}).detector.identity.startswith("Mask2Former")
    tiny.write("Mask2FormerForUniversalSegmentation", tmp_path)
    with pytest.raises(
        InputError, match="want, as detector, the folder of a Owlv2.* or a Grounding"
    ):
        open_judges({"detector": str(tmp_path)}, any_words=True)
