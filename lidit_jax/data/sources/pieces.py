"""How a source of known length is divided."""


def bounds(count: int, i: int, n: int) -> range:
    """Returns the i-th of `n` consecutive ranges that cover range(count), equal to within one."""
    return range(i * count // n, (i + 1) * count // n)
