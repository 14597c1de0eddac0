"""Which bin each training step draws from: the same for every process, without communication."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Spreads the batches of every bin evenly over the steps, in proportion to its pictures.

    counts: pictures per bin, none of them 0. With N pictures in all, of which a bin has n, the
    bin's k-th batch is due at step (k + 1/2) N / n; steps follow the due times, ties the bins. After
    any number of steps a bin has had its share of them to within two.
    """

    counts: tuple[int, ...]

    def __call__(self, step: int) -> tuple[int, int]:
        """Returns the bin of a step, and which of the bin's batches it is: the k-th since step 0."""
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
