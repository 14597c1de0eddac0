"""A source of captioned pictures -> a data set on disk.

python -m lidit_jax.prepare --config=configs/quickstart.py --data=out/quickstart/data
"""

import math

from absl import flags

from lidit_jax import doors, errors, files
from lidit_jax.preparation import estimate, merge, prepare, prepare_plan, report, verify

_data = doors.define_folder("data", "folder of the data set to make")
_share = doors.define_share("make only every n-th piece, from the i-th; others make the rest")
_MERGE = flags.DEFINE_bool("merge", False, "finish a data set whose pieces all exist; make none")
_ESTIMATE = flags.DEFINE_bool(
    "estimate", False, "measure a sample; print bytes, time and cost of the whole"
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 0, "with --estimate: assume that the source has so many", lower_bound=0
)
_PRICE = flags.DEFINE_float(
    "price", 0.0, "with --estimate: the price of one hour of this machine", lower_bound=0
)
_VERIFY = flags.DEFINE_bool("verify", False, "read a whole data set and report every problem")
_REPORT = flags.DEFINE_bool(
    "report", False, "write report.html, a page about the data set, into it"
)


def main():
    mode = doors.chosen("merge", "estimate", "verify", "report", "share")
    doors.check_read(mode, {"estimate": (_PICTURES, _PRICE)})
    if not math.isfinite(_PRICE.value):
        raise errors.InputError(f"--price={_PRICE.value}: want the price of one hour, such as 2.5")
    if _MERGE.value:
        merge(doors.config(), _data())
    elif _ESTIMATE.value:
        plan, source = prepare_plan(doors.config(), _writable())
        lines = estimate.estimate(doors.config(), plan, source, _PICTURES.value)
        print(estimate.table(lines, _PRICE.value))
    elif _VERIFY.value:
        _verify()
    elif _REPORT.value:
        print(f"report: {report.write(_data())}")
    else:
        prepare(
            doors.config(),
            _writable(),
            _share(),
        )


def _writable():
    """Returns the data set's folder.

    Raises InputError, before an LLM is read, if the folder is not writable.
    """
    files.check_folder(_data(), "data")
    return _data()


def _verify():
    problems = verify.verify(_data())
    for problem in problems:
        print(problem)
    if problems:
        raise errors.InputError(f"{_data()} has {len(problems)} problems, listed above")
    print(f"{_data()} is sound")


if __name__ == "__main__":
    doors.run(main, reads=True)
