"""Reading single records in random order, compared with array_record's own data source.

python -m benchmarks.records [--counts=1000,200000]

Prints microseconds per read, from files with this many short records in the page cache, and the
ratio of the data source's time to ours. Medians of reads in turn.
"""

import argparse
import pathlib
import tempfile

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from lidit_jax.benchmarking.timing import take
from lidit_jax.data import records

READS = 500


def timed(path: pathlib.Path, count: int) -> dict[str, float]:
    """Returns the microseconds per read of each method."""
    records.write_records(path, (b"%d" % i for i in range(count)))
    rows = np.random.default_rng(0).integers(0, count, READS).tolist()
    ways = {"here": records.Shards([path]), "data source": ArrayRecordDataSource(str(path))}

    def read(way):
        assert all(ways[way][row] == b"%d" % row for row in rows)

    clocks = take({way: lambda way=way: read(way) for way in ways}, rounds=7)
    return {way: 1e6 * clock.median / READS for way, clock in clocks.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--counts", default="1000,10000,200000,1000000")
    counts = [int(count) for count in parser.parse_args().counts.split(",")]
    print(f"{'records':>10} {'here':>8} {'data source':>12}  ratio")
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            took = timed(pathlib.Path(folder) / f"{count}.array_record", count)
            own, other = took["here"], took["data source"]
            print(f"{count:>10} {own:>8.1f} {other:>12.1f}  {other / own:.1f}x", flush=True)


if __name__ == "__main__":
    main()
