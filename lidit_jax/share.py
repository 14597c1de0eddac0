"""Which part of a job this process does, where several do it without talking to one another."""

import dataclasses

from lidit_jax import errors


@dataclasses.dataclass(frozen=True)
class Share:
    """The `index`-th of `count` shares. The whole, unless said."""

    index: int = 0
    count: int = 1

    def of(self, pieces: int) -> range:
        """Returns every count-th of so many pieces, from the index-th."""
        return range(self.index, pieces, self.count)


WHOLE = Share()


def parse(text: str) -> Share:
    """Returns the share of "i/n", such as "0/4". Raises InputError for anything else."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise errors.InputError(f"--share={text}: want i/n with i from 0 to n - 1, such as 0/4")
    return Share(int(index), int(count))
