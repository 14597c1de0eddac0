"""A process's place among those that train together: from flags, or from its cluster."""

import dataclasses
import os
import socket

from absl import logging

from lidit_jax import errors


@dataclasses.dataclass(frozen=True)
class Place:
    """Process `process_id` of `processes`; process 0 listens at `coordinator`, "host:port".

    device: the number of the one accelerator on this machine that this process uses; None: all.
    named_by: where the place comes from, for messages.

    Raises InputError for an impossible place.
    """

    coordinator: str
    processes: int
    process_id: int
    device: int | None = None
    named_by: str = "flags"

    def __post_init__(self):
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise errors.InputError(
                f"coordinator {self.coordinator!r}: want HOST:PORT of process 0, "
                "such as 10.0.0.1:8476"
            )
        if self.processes < 1 or not 0 <= self.process_id < self.processes:
            raise errors.InputError(
                f"process_id {self.process_id} of {self.processes} processes; process ids are "
                f"0 to processes - 1, each once"
            )

    @property
    def address(self) -> tuple[str, int]:
        """The coordinator's host, without the brackets of an IPv6 address, and port."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    def __str__(self):
        return f"process {self.process_id} of {self.processes} on {socket.gethostname()}"


def from_flags(
    coordinator: str | None, processes: int | None, process_id: int | None
) -> Place | None:
    """Returns the place given by three flags, None if none is set; InputError if only some are."""
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise errors.InputError(
            f"{' and '.join(missing)} missing: give --coordinator=HOST:PORT, --processes=N and "
            f"--process_id=I together, or none of them"
        )
    return Place(coordinator, processes, process_id)


def own_device(local_id: int, local_count: int) -> int | None:
    """Returns the accelerator of the `local_id`-th of a machine's `local_count` processes.

    None, for all that it sees, if it is alone there or if the scheduler shows it only one.
    """
    shown = [d for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    if len(shown) > local_count > 1 and local_id == 0:
        logging.warning(
            "each of %d processes on this machine sees %d GPUs and uses one of them: start one "
            "process per GPU, or one for all",
            local_count, len(shown),
        )  # fmt: skip
    return None if local_count == 1 or len(shown) == 1 else local_id
