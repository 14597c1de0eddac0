"""Finds a process's place from its cluster's environment: SLURM, Open MPI, GKE, Cloud TPU VMs.

JAX reads the same variables but starts at once; here they are read first, so that the processes
can meet before JAX starts (see `meeting`).
"""

import dataclasses
import os
import pathlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

from lidit_jax import errors
from lidit_jax.processes.place import Place, own_device

PORT = "JAX_COORDINATOR_PORT"  # JAX's own variable; overrides the ports chosen here
TPU_PORT = 8476  # any port that is free on every TPU host would do
_TRIES = 5  # metadata requests, half a minute in all: every host of a slice asks at once


def from_cluster(env: Mapping[str, str] = os.environ) -> Place | None:
    """Returns this process's place in the cluster; None if no cluster names more than one process.

    Raises InputError if a cluster names several processes but not the address of the first.
    """
    # Open MPI first: in a SLURM job, mpirun starts its daemons by srun, as tasks.
    found = (find(env) for find in (open_mpi, slurm, gke_tpu, cloud_tpu_vm))
    place = next((place for place in found if place and place.processes > 1), None)
    if place is None or PORT not in env:
        return place
    return dataclasses.replace(
        place, coordinator=f"{place.coordinator.rpartition(':')[0]}:{env[PORT]}"
    )


def slurm(env: Mapping[str, str]) -> Place | None:
    """The place of a task started by srun. A batch script is no task: no SLURM_STEP_NODELIST."""
    if "SLURM_STEP_NODELIST" not in env or "SLURM_PROCID" not in env:
        return None
    # "a[01-03,07]x,b" begins with a01x: each bracket stands for its first number.
    first = re.sub(r"\[(\d+)[^]]*]", r"\1", env["SLURM_STEP_NODELIST"]).split(",")[0]
    # Steps of one job may run side by side; systems do not pick ports below 30000 by themselves.
    job, step = _number(env, "SLURM_JOB_ID", 0), _number(env, "SLURM_STEP_ID", 0)
    port = 20_000 + (job + 997 * step) % 10_000
    # "4(x2),3": four tasks on each of two nodes, three on the next.
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    per_node = [int(n) for n, times in counts for _ in range(int(times or 1))] or [1]
    local_count = per_node[min(_number(env, "SLURM_NODEID", 0), len(per_node) - 1)]
    return Place(
        f"{first}:{port}", _number(env, "SLURM_STEP_NUM_TASKS", sum(per_node)),
        _number(env, "SLURM_PROCID"), own_device(_number(env, "SLURM_LOCALID", 0), local_count),
        "SLURM",
    )  # fmt: skip


def open_mpi(env: Mapping[str, str]) -> Place | None:
    """The place of an mpirun process; process 0 is on this machine or (Open MPI 4) on mpirun's."""
    if "OMPI_COMM_WORLD_RANK" not in env:
        return None
    count, rank = _number(env, "OMPI_COMM_WORLD_SIZE"), _number(env, "OMPI_COMM_WORLD_RANK")
    local_count = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE", 1)
    uri = env.get("OMPI_MCA_orte_hnp_uri", "")
    launcher = re.search(r"tcp://([^,:]+)", uri)
    if count > local_count and not launcher:
        raise errors.InputError(
            "Open MPI names several machines but not where process 0 is: give "
            "--coordinator=HOST:PORT --processes=$OMPI_COMM_WORLD_SIZE "
            "--process_id=$OMPI_COMM_WORLD_RANK, in a shell that mpirun "
            "starts (mpirun bash -c '...'), or --nocluster"
        )
    host = "localhost" if count == local_count else launcher[1]
    # Each mpirun of a machine has its own port: by Open MPI 4's job, or Open MPI 5's process id.
    job = re.match(r"\d+", uri or env.get("PMIX_NAMESPACE", "").rpartition("-")[2])
    number = int(job[0]) // (4096 if uri else 1) if job else 0
    port = 20_000 + number % 10_000
    device = own_device(_number(env, "OMPI_COMM_WORLD_LOCAL_RANK", 0), local_count)
    return Place(f"{host}:{port}", count, rank, device, "Open MPI")


def gke_tpu(env: Mapping[str, str]) -> Place | None:
    """The place of a pod that GKE gave the hosts of its TPU slice; with JobSet, of several."""
    if "TPU_WORKER_HOSTNAMES" not in env or "TPU_WORKER_ID" not in env:
        return None
    workers = env["TPU_WORKER_HOSTNAMES"].split(",")
    return _tpu(workers, _number(env, "TPU_WORKER_ID"), env, "GKE")


def cloud_tpu_vm(env: Mapping[str, str]) -> Place | None:
    """The place of a TPU VM, from its metadata server; on other machines no server is asked.

    Raises Passing if the server does not answer.
    """
    if (
        "TPU_SKIP_MDS_QUERY" in env
        or not ("GCE_METADATA_HOST" in env or has_tpu())
        or not (endpoints := _metadata(env, "worker-network-endpoints"))
    ):
        return None
    # Each is a host, or name:id:address.
    workers = [worker.split(":")[-1] for worker in endpoints.split(",")]
    pairs = re.findall(r"^(\w+): *'?([^'\n]*)", _metadata(env, "tpu-env"), re.MULTILINE)
    told = "agent-worker-number"  # an attribute of the metadata server
    worker = _number({told: _metadata(env, told)}, told)
    return _tpu(workers, worker, dict(pairs) | env, "Cloud TPU")


def has_tpu(root: pathlib.Path = pathlib.Path("/")) -> bool:
    """Whether the machine with this file system has a TPU: a device of a TPU's kind made by Google.

    Other vendors' NPUs also use /dev/accel, and devices passed to virtual machines use /dev/vfio.
    """
    devices = [*root.glob("dev/accel*"), *root.glob("dev/vfio/[0-9]*")]
    makers = (path.read_text().strip() for path in root.glob("sys/bus/pci/devices/*/vendor"))
    return bool(devices) and "0x1ae0" in makers


def _tpu(workers: list[str], worker: int, env: Mapping[str, str], named_by: str) -> Place:
    """The place of a worker; all slices have equally many workers."""
    slices, slice_id = (
        _number(env, "MEGASCALE_NUM_SLICES", 1),
        _number(env, "MEGASCALE_SLICE_ID", 0),
    )
    host = env.get("MEGASCALE_COORDINATOR_ADDRESS", workers[0]).split(":")[0]
    count, process_id = slices * len(workers), slice_id * len(workers) + worker
    return Place(f"{host}:{TPU_PORT}", count, process_id, None, named_by)


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Returns the number in an environment variable; `default` if it is not set.

    Raises InputError unless it is a whole number, 0 or more.
    """
    text = env.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise errors.InputError(
            f"the environment's {name} is {text!r}; want a number: set it, give "
            "--coordinator, --processes and --process_id, or --nocluster to train alone"
        )
    return int(text)


def _metadata(env: Mapping[str, str], name: str) -> str:
    """Returns a metadata attribute of this machine; "" if it has none.

    Raises Passing if the metadata server does not answer in `_TRIES` attempts.
    """
    host = env.get("GCE_METADATA_HOST", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{name}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    for tried in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except OSError as e:
            if isinstance(e, urllib.error.HTTPError) and e.code == 404:
                return ""
            if tried == _TRIES:
                raise errors.Passing(
                    f"the metadata server {host} does not give this TPU host's place ({e}): give "
                    f"--coordinator, --processes and --process_id, or --nocluster to train alone"
                ) from e
        time.sleep(2**tried)
