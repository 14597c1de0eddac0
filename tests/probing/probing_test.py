"""The probe finds what is there and nothing else; a causal LLM's early tokens know nothing of later ones."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation import figures
from lidit_jax.evaluation.intervals import Score
from lidit_jax.models.conditioners.infused import Infused
from lidit_jax.probing import linear, prompts, report, states
from lidit_jax.scenes.things import COLOURS, SHAPES
from lidit_jax.text.instruct import EncoderConfig

CLASSES = 4


def data(count, strength, seed=0, width=20):
    """Inputs in whose first CLASSES channels the class stands out by so much."""
    rng = np.random.default_rng(seed)
    y_P = rng.integers(CLASSES, size=count)
    x_PxD = rng.normal(size=(count, width))
    x_PxD[:, :CLASSES] += strength * np.eye(CLASSES)[y_P]
    return x_PxD, y_P


def test_what_is_there_is_found_however_the_channels_are_scaled():
    x_PxD, y_P = data(800, 8)
    scaled = x_PxD * np.logspace(-3, 3, x_PxD.shape[1]) + 100
    (found,), (rescaled,) = (linear.probe(x, y_P[:, None], CLASSES) for x in (x_PxD, scaled))
    assert found.value > 0.98 and abs(rescaled.value - found.value) < 0.01


def test_where_nothing_is_there_chance_is_covered():
    """Also with more channels than prompts, which can be fitted perfectly."""
    covered = 0
    for seed in range(40):
        x_PxD, y_P = data(400, 0, seed, width=300)
        (found,) = linear.probe(x_PxD, y_P[:, None], CLASSES)
        covered += found.low <= 1 / CLASSES <= found.high
    assert covered >= 34


def test_what_is_told_is_of_the_last_quarter_alone():
    x_PxD, y_P = data(400, 8)
    y_P[300:] = np.roll(y_P[300:], 1)  # nothing of them is in their inputs
    (found,) = linear.probe(x_PxD, y_P[:, None], CLASSES)
    assert found.low < 1 / CLASSES < found.high


def test_the_third_quarter_chooses_the_penalty_and_the_last_is_told_of(monkeypatch):
    """A penalty's score in a quarter is what is told where both are the only choice."""
    differ = 0
    for seed in range(3):
        x_PxD, y_P = data(400, 1, seed, width=60)

        def with_one(penalty, quarter, x_PxD=x_PxD, y_P=y_P):
            rows = np.r_[:300, quarter]
            with monkeypatch.context() as patch:
                patch.setattr(linear, "PENALTIES", (penalty,))
                return linear.probe(x_PxD[rows], y_P[rows, None], CLASSES)[0].value

        third, last = (
            [with_one(penalty, np.r_[quarter]) for penalty in linear.PENALTIES]
            for quarter in (slice(200, 300), slice(300, 400))
        )
        (found,) = linear.probe(x_PxD, y_P[:, None], CLASSES)
        assert found.value == last[np.argmax(third)]
        differ += found.value < max(last) and found.value != max(third)
    assert differ


def test_a_class_is_told_as_if_it_were_the_only_one():
    """Each has a penalty of its own: the first wants a small one, the second, which is noise, a large one."""
    x_PxD, first_P = data(400, 2, width=100)
    second_P = np.random.default_rng(9).integers(CLASSES, size=400)
    y_PxJ = np.stack([first_P, second_P, first_P[::-1]], axis=1)
    alone = [linear.probe(x_PxD, y_PxJ[:, [j]], CLASSES)[0] for j in range(3)]
    assert linear.probe(x_PxD, y_PxJ, CLASSES) == alone


def test_wilsons_interval():
    found = linear.wilson(8, 10)
    np.testing.assert_allclose([found.low, found.high], [0.4902, 0.9433], atol=1e-4)
    assert linear.wilson(0, 50).low == 0 and linear.wilson(50, 50).high == pytest.approx(1)


def test_each_place_is_read_for_each():
    rng = np.random.default_rng(0)
    y_PxK = rng.integers(CLASSES, size=(400, 2))
    told = np.eye(CLASSES)[y_PxK]
    pooled = np.stack(
        [told[:, 0], told.sum(axis=1)], axis=1
    )  # the second place knows both a little
    pooled += rng.normal(scale=0.05, size=pooled.shape)
    (own, other), (back, _) = linear.between(pooled, y_PxK, CLASSES)
    assert own.value == 1 and other.low < 1 / CLASSES < other.high and back.low > 0.4


def test_prompts_have_independent_colours_where_they_say():
    drawn = prompts.draw(2_000)
    assert drawn[:10] == prompts.draw(10) and drawn[0] != prompts.draw(1, seed=1)[0]
    for p in drawn[:200]:
        for (first, last), colour in zip(p.spans, p.colours):
            assert p.text[first:last].startswith(list(COLOURS)[colour] + " ")
        shapes = {p.text[first:last].partition(" ")[2] for first, last in p.spans}
        assert len(shapes) == len(p.colours) == 4 and shapes <= SHAPES.keys()
    colours = np.array([p.colours for p in drawn])
    together = np.mean(colours[:, 0] == colours[:, 1])
    assert abs(together - 1 / len(COLOURS)) < 0.02


def test_tokens_are_those_of_the_thing(chat_tokenizer):
    (prompt,) = prompts.draw(1)
    for (first, last), tokens in zip(prompt.spans, states._tokens(chat_tokenizer, prompt)):
        ids = np.array(chat_tokenizer(prompt.text, add_special_tokens=False).input_ids)[tokens]
        assert chat_tokenizer.decode(ids) == prompt.text[first:last]


@pytest.mark.parametrize(("family", "template"), [("llama", "chat"), ("bert", "encoder")])
def test_a_causal_llms_tokens_know_what_is_before_them(tiny_llm, family, template):
    """Random weights: the pooled states of a thing change with later things in an encoder alone."""
    first = prompts.MarkedPrompt("a red star, a blue cross", ((2, 10), (14, 24)), (0, 5))
    second = prompts.MarkedPrompt("a red star, a grey heart", ((2, 10), (14, 24)), (0, 7))
    pooled = []
    for prompt in (first, second):
        reading = states.Reading(
            EncoderConfig("x", tiny_llm(family), False, template, -1), [prompt]
        )
        pooled.append(reading.pooled(reading.features)[0])
    assert np.allclose(pooled[0][0], pooled[1][0], atol=1e-5) == (template == "chat")
    assert not np.allclose(pooled[0][1], pooled[1][1], atol=1e-3)


def test_prompts_that_the_llm_would_cut_are_refused_before_any_is_read(tiny_llm, monkeypatch):
    short, long = "a red star, a blue cross", "a yellow star, a purple triangle"
    drawn = [
        prompts.MarkedPrompt(short, ((2, 10), (14, 24)), (0, 5)),
        prompts.MarkedPrompt(long, ((2, 13), (17, 32)), (2, 6)),
    ]
    encoder = EncoderConfig("x", tiny_llm("llama"), False, max_prompt_tokens=len(long))
    assert len(states.Reading(encoder, drawn).features) == 2  # a token is a character
    monkeypatch.setattr(states, "encode_captions", lambda *_: pytest.fail("prompts were read"))
    with pytest.raises(InputError, match="'x' has max_prompt_tokens=31, .* with 32 or more"):
        states.Reading(dataclasses.replace(encoder, max_prompt_tokens=31), drawn)


def test_a_run_whose_tokens_are_not_the_prompts_is_refused(workdir, monkeypatch):
    assert states.only_encoder(workdir).width
    monkeypatch.setattr(Infused, "keeps_tokens", False)
    with pytest.raises(InputError, match="conditioner 'infused', whose tokens are not those of"):
        states.only_encoder(workdir)


def test_the_report_shows_every_table(tmp_path):
    table = [[linear.wilson(9, 10), linear.wilson(1, 10)]] * 2
    path = report.write({"one": table, "two": table}, 8, 40, tmp_path, "python -m x")
    text = path.read_text()
    assert "## one" in text and "## two" in text and "Chance is 12.5%" in text
    assert text.count("| 90.0 (") == 4
    assert min(Image.open(tmp_path / "probe.png").size) > 200
    assert json.loads((tmp_path / "probe.json").read_text())["found"]["one"][0][0]["value"] == 0.9


FOUR = [
    [Score(0.11, 0.01, 0.21), Score(0.12, 0.02, 0.22)],
    [Score(0.93, 0.83, 0.97), Score(0.94, 0.84, 0.98)],
]


def test_a_row_of_the_table_is_of_the_place_that_is_read(tmp_path):
    path = report.write({"one": FOUR}, 8, 40, tmp_path, "python -m x")
    assert (
        "| tokens of | colour of thing 1 | colour of thing 2 |\n| --- | --- | --- |\n"
        "| thing 1 | 11.0 (1.0 to 21.0) | 12.0 (2.0 to 22.0) |\n"
        "| thing 2 | 93.0 (83.0 to 97.0) | 94.0 (84.0 to 98.0) |\n"
    ) in path.read_text()


def test_the_figures_rows_are_the_places_that_are_read(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, _: saved.append(figure))
    report.plot({"one": FOUR}, 8, tmp_path / "x.png")
    square = saved[0].axes[0]
    wanted = {(0, 0): "11", (1, 0): "12", (0, 1): "93", (1, 1): "94"}  # (x, y)
    assert {text.get_position(): text.get_text() for text in square.texts} == wanted
    np.testing.assert_allclose(square.images[0].get_array(), [[11, 12], [93, 94]])
    assert square.yaxis_inverted()  # the first row is on top
    assert "read" in square.get_ylabel() and "colour" in square.get_xlabel()
    figures.pyplot().close(saved[0])


def test_a_report_whose_figure_fails_leaves_none_of_before(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    report.write({"one": FOUR}, 8, 40, tmp_path, "python -m x")
    monkeypatch.setattr(figures, "save", full)
    with pytest.raises(OSError, match="No space left"):
        report.write({"one": FOUR[::-1]}, 8, 40, tmp_path, "python -m x")
    assert not (tmp_path / "probe.md").exists()
