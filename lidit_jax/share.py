"""How a job is divided: into shares, for processes that do not communicate, and into pieces."""

import dataclasses

from lidit_jax import errors


@dataclasses.dataclass(frozen=True)
class Share:
    """The `index`-th of `count` shares; by default the whole."""

    index: int = 0
    count: int = 1

    def of(self, pieces: int) -> range:
        """Returns every count-th of `pieces` pieces, from the index-th on."""
        return range(self.index, pieces, self.count)


WHOLE = Share()


def bounds(count: int, i: int, n: int) -> range:
    """Returns the i-th of `n` consecutive pieces of range(count), of equal length to within one."""
    return range(i * count // n, (i + 1) * count // n)


def parse(text: str) -> Share:
    """Returns the share of "i/n", such as "0/4". Raises InputError for anything else."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise errors.InputError(f"--share={text}: want i/n with i from 0 to n - 1, such as 0/4")
    return Share(int(index), int(count))
