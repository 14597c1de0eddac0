"""DPG-Bench: is what a dense prompt says true of the picture, question by question?"""

import csv
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges

COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
_REMEDY = f"get the published one from {prompt_files.DPG_QUESTIONS_URL}"
_TABLE = {
    "SD v1.5": 63.18,
    "SD v2": 68.09,
    "SDXL": 74.65,
    "PixArt-α": 71.11,
    "LI-DiT-1B": 81.65,
    "DALL-E 3": 83.50,
    "LI-DiT-10B": 84.60,
}


@dataclasses.dataclass(frozen=True)
class Question:
    """A proposition of a prompt.

    id: its number within the prompt. parents: those without which it means nothing. category: as in
    "attribute - color". first: whether it is the first row of the file.
    """

    id: int
    text: str
    parents: tuple[int, ...]
    category: str
    first: bool = False

    def metrics(self) -> tuple[str, ...]:
        """Returns the names of its categories: "attribute" and "attribute - color"; one if it has one."""
        return tuple(dict.fromkeys((self.category.split("-")[0].strip(), self.category)))


class DPG:
    """DPG-Bench (ELLA, arXiv 2403.05135). Metrics are shares, printed times 100:

    dpg                  the mean over prompts of the mean over pictures of the questions answered yes
    entity, attribute, relation, global, other    the questions of a broad category
    attribute - color and so on                   those of a detailed one

    A question whose parent is answered no counts as answered no. "yes" alone is yes, whatever P(yes).

    The published judge is mPLUG-large, which is not here. The number is called DPG-blip, DPG-qwen or
    DPG-vilt, by the class that begins the VQA judge's identity, and is not comparable with published ones.

    `reference` computes as the published code: the first row of the questions is skipped, and with it a
    prompt that has no other question, or one that looks it up; categories are of a prompt's last
    picture, and of answers before parents count. Pictures that cannot be read are skipped there; here
    none is missing. `fixed` counts every row and picture, and parents in categories too.

    Of a proposition that the file has twice the last row counts. Where one depends on what its prompt lacks,
    `fixed` takes its own answer, and `reference` drops the prompt if that is looked up for one of its
    pictures: parents are, in their order, until one is no. Both say so in a note.
    """

    official = True
    version = 1
    per_prompt = 4
    judges = ("vqa",)
    modes = True
    any_words = False
    paper = {row: {"dpg": value} for row, value in _TABLE.items()}

    def items(self, folder: Path) -> list[Item]:
        """Returns the 1,065 prompts, with the questions of dpg_bench.csv in the same folder.

        An item's group is where its prompt is from, the letters that its id begins with; meta is the
        fields of its questions.
        Raises InputError if the prompts or the questions are missing, or are not what they should be.
        """
        texts = prompt_files.read_texts(folder)
        questions = read_questions(folder / prompt_files.DPG_QUESTIONS, texts)
        meta = {name: [dataclasses.asdict(q) for q in of] for name, of in questions.items()}
        return [
            Item(name, text, name.rstrip("0123456789") or "dpg", {"questions": meta[name]})
            for name, text in texts.items()
        ]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"answers": {proposition id: [P(yes), answer]}}, of all questions of the prompt."""
        questions = _questions(item)
        answers = judges.vqa.ask(image, [q.text for q in questions])
        told = {str(q.id): [a.p_yes, a.answer] for q, a in zip(questions, answers, strict=True)}
        return {"answers": told}

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class, of those categories that there are questions of."""
        told = [_prompt(_questions(i), of, mode) for i, of in zip(items, records, strict=True)]
        names = list(dict.fromkeys(name for values in told for name in values))
        sums = {n: np.array([sum(values.get(n, ())) for values in told], float) for n in names}
        counts = {n: np.array([len(values.get(n, ())) for values in told], float) for n in names}
        tallies = {n: Tally(sums[n], counts[n]) for n in names}
        notes = []
        if dropped := sum(not values for values in told):
            notes.append(
                f"{dropped} of {len(items)} prompts are dropped, as the published code does"
            )
        if mode == "fixed" and (alone := sum(bool(_lacking(_questions(i))) for i in items)):
            notes.append(
                f"{alone} of {len(items)} prompts lack a proposition that a question depends on: it counts by itself"
            )
        return Tallies(tallies, {}, scale=100, notes=notes)


def _questions(item: Item) -> list[Question]:
    return [Question(**fields) for fields in item.meta["questions"]]


def _lacking(questions: Sequence[Question]) -> set[int]:
    """Returns the propositions that questions depend on, and that are not among them."""
    return {parent for q in questions for parent in q.parents} - {q.id for q in questions}


def _prompt(
    questions: Sequence[Question], records: Sequence[Record], mode: str
) -> dict[str, list[float]]:
    """Returns metric -> the values that a prompt adds to it; none if the published code drops it."""
    if mode == "reference":
        questions = [q for q in questions if not q.first]
    said = [{q.id: r["answers"][str(q.id)][1] == "yes" for q in questions} for r in records]
    if not questions:
        return {}
    alone = {} if mode == "reference" else dict.fromkeys(_lacking(questions), True)
    try:
        true = [dependent(questions, alone | of_picture) for of_picture in said]
    except KeyError:  # where the published code ends, too
        return {}
    values = {"dpg": [fmean(fmean(of_picture.values()) for of_picture in true)]}
    for of_picture in said[-1:] if mode == "reference" else true:
        for q in questions:
            for name in q.metrics():
                values.setdefault(name, []).append(of_picture[q.id])
    return values


def dependent(questions: Sequence[Question], said: Mapping[int, bool]) -> dict[int, bool]:
    """Returns what is true of a picture: no where a parent is no, in the order of the questions.

    So it is handed on from parents to their children's children, but not to a question before its parent.
    Raises KeyError for a parent of which nothing is said, unless one before it is no: it is not looked at.
    """
    true = dict(said)
    for q in questions:
        follows = all(true[parent] for parent in q.parents)
        true[q.id] = true[q.id] and follows
    return {q.id: true[q.id] for q in questions}


def read_questions(path: Path, prompts: Collection[str]) -> dict[str, tuple[Question, ...]]:
    """Returns prompt -> its questions, in the file's order.

    path: the published dpg_bench.csv, whose "dependency" is proposition ids with commas, 0 = none.
    Raises InputError, with the line, for a column that is missing, a number that is none, an unknown
    prompt; and for a prompt without any.
    """
    found: dict[str, dict[int, Question]] = {name: {} for name in prompts}
    for k, (line, row) in enumerate(_rows(path)):
        where = f"{path}, line {line}"
        question = _question(row, where, first=k == 0)
        if row["item_id"] not in found:
            raise InputError(f"{where} asks of {row['item_id']!r}, which is no prompt; {_REMEDY}")
        found[row["item_id"]][question.id] = question
    for name, of_prompt in found.items():
        if not of_prompt:
            raise InputError(f"{path} asks nothing of the prompt {name!r}; {_REMEDY}")
    return {name: tuple(of_prompt.values()) for name, of_prompt in found.items()}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows, each with the number of the line that it ends in."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}, line 1 has no column {', '.join(missing)}; {_REMEDY}")
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError:
        raise InputError(f"no {path.name} in {path.parent}; {_REMEDY}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV in UTF-8 ({error}); {_REMEDY}") from error


def _question(row: dict[str, str], where: str, first: bool) -> Question:
    lacking = [name for name in COLUMNS if not row[name]]
    if lacking:
        raise InputError(f"{where} has no {', '.join(lacking)}; {_REMEDY}")
    try:
        number = int(row["proposition_id"])
        parents = tuple(p for p in map(int, row["dependency"].split(",")) if p)
    except ValueError as error:
        wanted = "wanted whole numbers as proposition_id and dependency"
        raise InputError(f"{where}: {error}; {wanted}; {_REMEDY}") from error
    category = row["tuple"].split("(")[0].strip()
    return Question(number, row["question_natural_language"], parents, category, first)
