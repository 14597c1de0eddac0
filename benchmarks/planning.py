"""How fast a source is planned on one core, and in how much memory: rules, bins, caption numbers.

python -m benchmarks.planning

Times are processor times. Rows are made up: English and Chinese captions, some of which rules drop,
sizes and scores. Prints rows per second, compared with iterating over the same rows and hashing
their texts once, which no plan can beat, and the growth of the process per row: for judging alone,
which is rules and bins, and for the whole plan, which also finds duplicates, numbers the captions
and writes.
"""

import argparse
import dataclasses
import pathlib
import resource
import tempfile
import time

from lidit_jax.data import buckets, filters, planning
from lidit_jax.data.judging import Recipe, judge
from lidit_jax.data.plan import Plan, key_hash
from lidit_jax.data.sources.example import Caption, Drawing, Example
from lidit_jax.share import bounds

_THINGS = (
    "a red fox",
    "two sailing boats",
    "an old lighthouse",
    "the market square",
    "a bowl of soup",
)
_PLACES = ("under a grey sky", "beside the river", "at dawn, seen from above", "in deep snow")
_ODD = (
    "buy it at www.shop.example",
    "<b>sale</b>",
    "#sky #sea #sun",
    "IMG_0042",
    "sky, sea, sun, sand, wave",
)
_CHINESE = "第{}幅画，一只{}的猫坐在窗边，窗外下着雨。"
_SIZES = ((768, 1024), (1024, 768), (900, 900), (600, 1600), (512, 512), (120, 90))


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """`rows` made-up rows; with `classes`, each has one of that many captions, as in ImageNet."""

    rows: int
    classes: int = 0

    def __len__(self):
        return self.rows

    def piece(self, i, n):
        return map(self._example, bounds(self.rows, i, n))

    def prompts(self, count):
        return []

    def _example(self, k: int) -> Example:
        height, width = _SIZES[k % len(_SIZES)]
        metadata = {"height": height, "width": width, "aesthetic": 4.0 + k % 30 / 10}
        metadata |= {
            "url": f"https://example.org/{k}",
            "sha256": f"{k:064x}",
            "punsafe": k % 50 / 90,
        }
        return Example(f"{k:09d}", Drawing(None, ""), self._captions(k), metadata)

    def _captions(self, k: int) -> tuple[Caption, ...]:
        if self.classes:
            return (Caption(f"a photo of class {k % self.classes}"),)
        if k % 20 == 0:
            return (Caption(f"{_ODD[k // 20 % len(_ODD)]} {k}"),)
        if k % 4 == 0:
            return (Caption(_CHINESE.format(k, "黑白灰"[k % 3])),)
        text = f"{_THINGS[k % 5]} number {k} {_PLACES[k % 4]}, a photograph with soft light"
        return (Caption(text), Caption(f"{text}; the details are sharp", origin="synthetic"))


def recipe(rules: tuple[str, ...]) -> Recipe:
    return Recipe(buckets.make_bins("grid33", (256, 256)), 256, filters.expand(rules), pieces=8)


def plan(source: Synthetic, rules: tuple[str, ...], folder: pathlib.Path) -> Plan:
    return planning.make(source, recipe(rules), folder)


def megabytes() -> float:
    """Returns the peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare_seconds(source: Synthetic) -> float:
    """Returns how long it takes to iterate over the rows, hashing keys and texts once."""
    start = time.process_time()
    for example in source.piece(0, 1):
        key_hash(example.key)
        for caption in example.captions:
            key_hash(caption.text)
    return time.process_time() - start


def judging_seconds(source: Synthetic, rules: tuple[str, ...]) -> float:
    """Returns how long it takes to iterate and judge every row; verdicts are discarded."""
    start, wanted = time.process_time(), recipe(rules)
    for example in source.piece(0, 1):
        judge(example, wanted)
    return time.process_time() - start


def measure(name: str, source: Synthetic, rules: tuple[str, ...]):
    """Judges and plans `source`, after a smaller one that warms the caches; prints two lines."""
    with tempfile.TemporaryDirectory() as folder:
        plan(
            dataclasses.replace(source, rows=min(20_000, source.rows)),
            rules,
            pathlib.Path(folder, "a"),
        )
        bare, before = bare_seconds(source), megabytes()
        judging, judged = judging_seconds(source, rules), megabytes()
        start = time.process_time()
        info = plan(source, rules, pathlib.Path(folder, "b")).info
        seconds = time.process_time() - start
    kept = f"{sum(map(sum, info['counts'])):,} kept, {info['captions']:,} captions"
    for what, took, grown in (
        ("rules and bins alone", judging, judged - before),
        (f"the plan: {kept}", seconds, megabytes() - judged),
    ):
        print(
            f"{name:9} {source.rows:>9,} rows, {what:42} {source.rows / took:>7,.0f} rows/s, "
            f"{bare / took:.0%} of bare iteration, {grown * 1e6 / source.rows:.0f} bytes a row"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    measure("paper", Synthetic(rows), ("paper",))
    measure("strict", Synthetic(rows), ("strict",))
    measure("ImageNet", Synthetic(1_281_167, classes=1000), ("R3-shape",))


if __name__ == "__main__":
    main()
