"""Which bin each training step draws from: the same for every process, without communication."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Spreads the batches of every bin evenly over the steps, in proportion to its pictures.

    counts: pictures per bin, none of them 0. With N pictures in all and n in a bin, the bin's k-th
    batch is due at step (k + 1/2) N / n; steps follow the due times, and ties the order of bins.
    After any number of steps a bin has had its share of them to within two.
    """

    counts: tuple[int, ...]

    def among(self, first: int, last: int) -> list[int]:
        """Returns the bins that steps first to last - 1 draw from, and perhaps some near ones."""
        total, bins = sum(self.counts), len(self.counts)
        before, after = max(first - bins, 0), last + bins  # steps are this close to due times

        def due(n: int, time: int) -> int:
            return (2 * n * time + total) // (2 * total)

        def drawn(n: int, time: int) -> int:
            return (2 * n * time + total - 1) // (2 * total)

        return [b for b, n in enumerate(self.counts) if due(n, after) > drawn(n, before)]

    def __call__(self, step: int) -> tuple[int, int]:
        """Returns the bin of a step, and the index k of its batch among the bin's since step 0."""
        total, bins = sum(self.counts), len(self.counts)
        time = max(step - bins, 0)  # by now at most `step` batches were due
        drawn = [(2 * n * time + total - 1) // (2 * total) for n in self.counts]
        due = sorted(
            ((2 * k + 1) / n, b, k)
            for b, n in enumerate(self.counts)
            for k in range(drawn[b], drawn[b] + 1 + -(-2 * bins * n // total))
        )
        _, bin, k = due[step - sum(drawn)]
        return bin, k
