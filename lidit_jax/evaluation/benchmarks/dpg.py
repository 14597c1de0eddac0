"""DPG-Bench: does a picture match a dense prompt, question by question?"""

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

    id: its number within the prompt. parents: propositions that it depends on. category: for
    example "attribute - color". first: whether it is the first row of the file.
    """

    id: int
    text: str
    parents: tuple[int, ...]
    category: str
    first: bool = False

    def metrics(self) -> tuple[str, ...]:
        """Returns the names of its categories: "attribute" and "attribute - color", or only one."""
        return tuple(dict.fromkeys((self.category.split("-")[0].strip(), self.category)))


class DPG:
    """DPG-Bench (ELLA, arXiv 2403.05135). Metrics are shares, printed times 100:

    dpg                  the share of questions answered yes: its mean over pictures, then prompts
    entity, attribute, relation, global, other    the questions of a broad category
    attribute - color and so on                   those of a detailed category

    A question whose parent is answered no counts as answered no. Only the answer "yes" is yes,
    whatever P(yes) is.

    The published judge is mPLUG-large, which is not available here. The number is called DPG-blip,
    DPG-qwen or DPG-vilt, after the class in the VQA judge's identity, and is not comparable with
    published ones.

    `reference` computes like the published code: the first row of the questions is skipped, and
    with it a prompt that has no other question, or has one that looks it up; categories use only a
    prompt's last picture, and answers before parents are applied. The published code skips pictures
    that cannot be read; here none is missing. `fixed` counts every row and picture, and applies
    parents in categories too.

    If the file has a proposition twice, the last row counts. If a question depends on a proposition
    that its prompt lacks, `fixed` uses the question's own answer, and `reference` drops the prompt
    if the proposition is looked up for one of its pictures: parents are looked up in order, until
    one is no. Both add a note.
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

        An item's group is its prompt's source, the letters at the beginning of its id; meta has the
        fields of its questions.
        Raises InputError if the prompts or the questions are missing or invalid.
        """
        texts = prompt_files.read_texts(folder)
        questions = read_questions(folder / prompt_files.DPG_QUESTIONS, texts)
        meta = {name: [dataclasses.asdict(q) for q in of] for name, of in questions.items()}
        return [
            Item(name, text, name.rstrip("0123456789") or "dpg", {"questions": meta[name]})
            for name, text in texts.items()
        ]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"answers": {proposition id: [P(yes), answer]}} for the prompt's questions."""
        questions = _questions(item)
        answers = judges.vqa.ask(image, [q.text for q in questions])
        told = {str(q.id): [a.p_yes, a.answer] for q, a in zip(questions, answers, strict=True)}
        return {"answers": told}

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class, for the categories that have questions."""
        told = [_prompt(_questions(i), of, mode) for i, of in zip(items, records, strict=True)]
        names = list(dict.fromkeys(name for values in told for name in values))
        sums = {n: np.array([sum(values.get(n, ())) for values in told], float) for n in names}
        counts = {n: np.array([len(values.get(n, ())) for values in told], float) for n in names}
        tallies = {n: Tally(sums[n], counts[n]) for n in names}
        notes = []
        if dropped := sum(not values for values in told):
            notes.append(f"{dropped} of {len(items)} prompts are dropped, as in the published code")
        if mode == "fixed" and (alone := sum(bool(_lacking(_questions(i))) for i in items)):
            notes.append(
                f"{alone} of {len(items)} prompts lack a proposition "
                "that a question depends on: the question counts by itself"
            )
        return Tallies(tallies, {}, scale=100, notes=notes)


def _questions(item: Item) -> list[Question]:
    return [Question(**fields) for fields in item.meta["questions"]]


def _lacking(questions: Sequence[Question]) -> set[int]:
    """Returns the propositions that questions depend on but that are not among them."""
    return {parent for q in questions for parent in q.parents} - {q.id for q in questions}


def _prompt(
    questions: Sequence[Question], records: Sequence[Record], mode: str
) -> dict[str, list[float]]:
    """Returns metric -> a prompt's values for it; {} if the published code drops the prompt."""
    if mode == "reference":
        questions = [q for q in questions if not q.first]
    said = [{q.id: r["answers"][str(q.id)][1] == "yes" for q in questions} for r in records]
    if not questions:
        return {}
    alone = {} if mode == "reference" else dict.fromkeys(_lacking(questions), True)
    try:
        true = [dependent(questions, alone | of_picture) for of_picture in said]
    except KeyError:  # where the published code fails, too
        return {}
    values = {"dpg": [fmean(fmean(of_picture.values()) for of_picture in true)]}
    for of_picture in said[-1:] if mode == "reference" else true:
        for q in questions:
            for name in q.metrics():
                values.setdefault(name, []).append(of_picture[q.id])
    return values


def dependent(questions: Sequence[Question], said: Mapping[int, bool]) -> dict[int, bool]:
    """Returns a picture's answers, set to no if a parent is no, in the order of the questions.

    So a no propagates to children's children, but not to a question that comes before its parent.
    Raises KeyError for a parent without an answer, unless an earlier parent is no: then it is not
    looked up.
    """
    true = dict(said)
    for q in questions:
        follows = all(true[parent] for parent in q.parents)
        true[q.id] = true[q.id] and follows
    return {q.id: true[q.id] for q in questions}


def read_questions(path: Path, prompts: Collection[str]) -> dict[str, tuple[Question, ...]]:
    """Returns prompt -> its questions, in the file's order.

    path: the published dpg_bench.csv; "dependency" has proposition ids, comma-separated, 0 = none.
    Raises InputError, with the line, for a missing column, an invalid number or an unknown prompt;
    and for a prompt without questions.
    """
    found: dict[str, dict[int, Question]] = {name: {} for name in prompts}
    for k, (line, row) in enumerate(_rows(path)):
        where = f"{path}, line {line}"
        question = _question(row, where, first=k == 0)
        if row["item_id"] not in found:
            raise InputError(f"{where} is about {row['item_id']!r}, an unknown prompt; {_REMEDY}")
        found[row["item_id"]][question.id] = question
    for name, of_prompt in found.items():
        if not of_prompt:
            raise InputError(f"{path} has no question about the prompt {name!r}; {_REMEDY}")
    return {name: tuple(of_prompt.values()) for name, of_prompt in found.items()}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows, each with the number of the line that it ends on."""
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
        raise InputError(f"{path} is not a CSV in UTF-8 ({error}); {_REMEDY}") from error


def _question(row: dict[str, str], where: str, first: bool) -> Question:
    lacking = [name for name in COLUMNS if not row[name]]
    if lacking:
        raise InputError(f"{where} has no {', '.join(lacking)}; {_REMEDY}")
    try:
        number = int(row["proposition_id"])
        parents = tuple(p for p in map(int, row["dependency"].split(",")) if p)
    except ValueError as error:
        wanted = "want whole numbers as proposition_id and dependency"
        raise InputError(f"{where}: {error}; {wanted}; {_REMEDY}") from error
    category = row["tuple"].split("(")[0].strip()
    return Question(number, row["question_natural_language"], parents, category, first)
