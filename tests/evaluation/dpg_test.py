"""DPG-Bench by hand: what depends on what, the published code's quirks, and files that are not right."""

import json
from collections import Counter

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import dpg, prompt_files
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.dpg import DPG, Question, dependent, read_questions
from lidit_jax.evaluation.intervals import scores
from lidit_jax.evaluation.judges.records import Answer, Judges

BENCHMARK = DPG()
HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language"
)


def row(item, number, parents="0", category="entity - whole", question="Is it?"):
    return f'{item},"a, b",,{number},"{parents}",,,{category} (x),{question}'


@pytest.fixture
def written(tmp_path):
    """Writes rows below a header, and returns the path."""

    def write(*rows, header=HEADER):
        path = tmp_path / prompt_files.DPG_QUESTIONS
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


def item(path, name, *others):
    questions = read_questions(path, [name, *others])[name]
    return Item(name, "", "dpg", {"questions": [vars(q) for q in questions]})


def tile(*answers):
    return {"answers": {str(k + 1): [0.5, answer] for k, answer in enumerate(answers)}}


def values(items, records, mode):
    tallies = BENCHMARK.score(items, records, mode)
    return {n: (t.sum_P.sum(), t.count_P.sum()) for n, t in tallies.metrics.items()}


def test_a_no_is_handed_on_to_children_and_their_children():
    chain = [Question(1, "", (), ""), Question(2, "", (1,), ""), Question(3, "", (2,), "")]
    assert dependent(chain, {1: False, 2: True, 3: True}) == {1: False, 2: False, 3: False}
    assert dependent(chain, {1: True, 2: True, 3: False}) == {1: True, 2: True, 3: False}
    two = [*chain[:1], Question(2, "", (), ""), Question(3, "", (1, 2), "")]
    assert dependent(two, {1: True, 2: False, 3: True})[3] is False


def test_it_is_handed_on_in_the_order_of_the_file():
    """Question 3 depends on 2, which comes later: 2's own answer counts, not what it becomes."""
    questions = [Question(1, "", (), ""), Question(3, "", (2,), ""), Question(2, "", (1,), "")]
    assert dependent(questions, {1: False, 2: True, 3: True}) == {1: False, 3: True, 2: False}


def test_the_score_is_the_mean_over_prompts_of_pictures_of_questions(written):
    path = written(row("z", 1), row("p", 1), row("p", 2, "1"), row("p", 3), row("q", 1))
    items = [item(path, "p", "q", "z"), item(path, "q", "p", "z")]
    right, wrong = tile("yes", "yes", "no"), tile("no", "yes", "yes")  # 2/3 and, as 2 depends, 1/3
    records = [[right, wrong, right, right], [tile("yes")] * 4]
    for mode in ("reference", "fixed"):
        tallies = BENCHMARK.score(items, records, mode)
        found = scores(tallies.metrics, tallies.averages)["dpg"].value
        assert found == pytest.approx(((3 * 2 / 3 + 1 / 3) / 4 + 1) / 2)
        assert tallies.scale == 100


@pytest.mark.parametrize("answer", ["Yes", "yes.", "yes it is", "no", ""])
def test_yes_alone_is_yes_whatever_its_probability(written, answer):
    items = [item(written(row("z", 1), row("p", 1)), "p", "z")]
    said = [[{"answers": {"1": [0.99, answer]}}]]
    assert values(items, said, "fixed")["dpg"] == (0, 1)
    assert values(items, [[{"answers": {"1": [0.01, "yes"]}}]], "fixed")["dpg"] == (1, 1)


def test_the_published_code_skips_the_first_row(written):
    path = written(row("p", 1), row("p", 2), row("q", 1))
    items = [item(path, "p", "q"), item(path, "q", "p")]
    records = [[tile("no", "yes")], [tile("no")]]
    assert values(items, records, "reference")["dpg"] == (1, 2)
    assert values(items, records, "fixed")["dpg"] == (0.5, 2)


@pytest.mark.parametrize("rest", [[row("p", 2), row("p", 3, "2,1")], []])
def test_and_drops_the_prompt_if_a_child_refers_to_it_or_nothing_is_left(written, rest):
    path = written(row("p", 1), *rest, row("q", 1))
    items = [item(path, "p", "q"), item(path, "q", "p")]
    records = [[tile("yes", "yes", "yes")], [tile("no")]]
    assert values(items, records, "reference") == {
        "dpg": (0, 1), "entity": (0, 1), "entity - whole": (0, 1),
    }  # fmt: skip
    assert values(items, records, "fixed")["dpg"] == (1, 2)
    (note,) = DPG().score(items, records, "reference").notes
    assert (
        note.startswith("1 of 2 prompts are dropped")
        and not DPG().score(items, records, "fixed").notes
    )


def test_a_question_that_depends_on_what_its_prompt_lacks_drops_it_or_counts_by_itself(written):
    path = written(row("q", 1), row("p", 1), row("p", 2, "1,7"), row("p", 3, "7"))
    items, records = [item(path, "p", "q")], [[tile("no", "yes", "yes")]]
    assert values(items, records, "reference") == {}
    assert values(items, records, "fixed")["dpg"] == (1 / 3, 1)  # 2 has another parent, which is no
    for mode, told in (
        ("reference", "1 of 1 prompts are dropped"),
        ("fixed", "1 of 1 prompts lack"),
    ):
        (note,) = BENCHMARK.score(items, records, mode).notes
        assert note.startswith(told)


@pytest.mark.parametrize(
    ("parents", "answers", "kept"),
    [
        ("2,7", ["no"] * 4, True),  # 2 is no in every picture, so 7 is never looked up
        ("2,7", ["no", "no", "yes", "no"], False),
        ("7,2", ["no"] * 4, False),
    ],
)
def test_what_its_prompt_lacks_drops_it_where_it_is_looked_up(written, parents, answers, kept):
    path = written(row("q", 1), row("p", 1), row("p", 2), row("p", 3, parents))
    items = [item(path, "p", "q")]
    records = [[tile("yes", answer, "yes") for answer in answers]]
    found = values(items, records, "reference")
    assert found["dpg"] == pytest.approx((1 / 3, 1)) if kept else found == {}


def test_of_a_proposition_given_twice_the_last_row_counts(written):
    path = written(row("p", 1, question="Old?"), row("p", 2), row("p", 1, question="New?"))
    asked = [(q.id, q.text, q.first) for q in read_questions(path, ["p"])["p"]]
    assert asked == [(1, "New?", False), (2, "Is it?", False)]


def test_categories_are_of_the_last_picture_before_dependency_or_of_all_after_it(written):
    colour, spatial = "attribute - color", "relation - spatial"
    path = written(
        row("z", 1), row("p", 1), row("p", 2, "1", colour), row("p", 3, "2", spatial),
        row("p", 4, "0", "global"),
    )  # fmt: skip
    items = [item(path, "p", "z")]
    records = [[tile("yes", "yes", "yes", "no"), tile("no", "yes", "no", "yes")]]
    found = values(items, records, "reference")
    assert found.pop("dpg") == ((3 / 4 + 1 / 4) / 2, 1)
    assert found == {
        "entity": (0, 1), "entity - whole": (0, 1), "attribute": (1, 1), colour: (1, 1),
        "relation": (0, 1), spatial: (0, 1), "global": (1, 1),
    }  # fmt: skip
    found = values(items, records, "fixed")
    assert found.pop("dpg") == ((3 / 4 + 1 / 4) / 2, 1)
    assert found == {
        "entity": (1, 2), "entity - whole": (1, 2), "attribute": (1, 2), colour: (1, 2),
        "relation": (1, 2), spatial: (1, 2), "global": (1, 2),
    }  # fmt: skip


def test_all_questions_are_asked_in_order(written):
    path = written(row("p", 2, question="Is it red?"), row("p", 1, "2", question="Is it wet?"))

    class Judge:
        def ask(self, image, questions):
            assert list(questions) == ["Is it red?", "Is it wet?"]
            return [Answer(0.75, "yes"), Answer(0.25, "no")]

    image = np.zeros((8, 8, 3), np.uint8)
    record = BENCHMARK.judge(image, item(path, "p"), Judges(vqa=Judge()))
    assert record == {"answers": {"2": [0.75, "yes"], "1": [0.25, "no"]}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("p", 1), row("x", 1)], "line 3 is about 'x', an unknown prompt"),
        ([], "has no question about the prompt 'p'"),
        ([row("p", "one")], "line 2: .*'one'; want whole numbers"),
        ([row("p", 1, "none")], "line 2: .*'none'; want whole numbers"),
        ([row("p", 1, question="")], "line 2 has no question_natural_language"),
        (["p,text"], "line 2 has no proposition_id, dependency"),
    ],
)
def test_wrong_rows_are_told_by_line(written, rows, message):
    with pytest.raises(InputError, match=message):
        read_questions(written(*rows), ["p"])


@pytest.mark.parametrize("column", dpg.COLUMNS)
def test_a_missing_column_is_named(written, column):
    header = HEADER.replace(column, "other")
    with pytest.raises(InputError, match=f"line 1 has no column {column}"):
        read_questions(written(row("p", 1), header=header), ["p"])


def test_a_missing_or_unreadable_file_is_told_with_where_it_is_published(tmp_path):
    with pytest.raises(InputError, match="no dpg_bench.csv in .*github.com/TencentQQGYLab/ELLA"):
        read_questions(tmp_path / prompt_files.DPG_QUESTIONS, ["p"])
    (tmp_path / prompt_files.DPG_QUESTIONS).write_bytes(b"item_id,\xff\n")
    with pytest.raises(InputError, match="is not a CSV in UTF-8"):
        read_questions(tmp_path / prompt_files.DPG_QUESTIONS, ["p"])


def test_a_line_of_several_lines_counts_them(written):
    several = row("p", 1).replace("a, b", "a,\nb")
    with pytest.raises(InputError, match="line 4 is about 'x'"):
        read_questions(written(several, row("x", 1)), ["p"])


def test_the_official_prompts_with_questions_of_our_own(official, tmp_path):
    texts = prompt_files.read_texts(official / "dpg_bench")
    (tmp_path / "prompts").mkdir()
    for name, text in texts.items():
        (tmp_path / "prompts" / f"{name}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no dpg_bench.csv"):
        BENCHMARK.items(tmp_path)
    rows = "\n".join([HEADER, *(row(name, 1) for name in texts)])
    (tmp_path / prompt_files.DPG_QUESTIONS).write_text(rows)
    items = BENCHMARK.items(tmp_path)
    assert len(items) == 1065 and all(len(i.meta["questions"]) == 1 for i in items)
    groups = Counter(i.group for i in items)
    assert groups["dpg"] == 299 and groups["partiprompts"] == 324 and len(groups) == 12
    json.dumps([dict(i.meta) for i in items])
    assert sum(q["first"] for i in items for q in i.meta["questions"]) == 1
