"""How processes find their place and meet: all are there, and are about to do the same."""

import errno
import fcntl
import http.server
import json
import os
import resource
import socket
import threading
import time

import jax
import pytest

from lidit_jax import errors, files
from lidit_jax.processes import Place, clusters, meeting, place
from lidit_jax.training import agreement
from tests import several

# The meeting, without JAX.


def meet(*cards, count=None, timeout=10.0, passing=False, places=None):
    """Processes of these (facts, problem) meet; returns what each is told, which may be `passing`.

    places: of each, how many it was told that they are, and which it is of them.
    """
    address, told = f"localhost:{several.free_port()}", [""] * len(cards)
    wanted = errors.Passing if passing else errors.InputError
    places = places or [(count or len(cards), i) for i in range(len(cards))]

    def come(i, facts, problem=None):
        try:
            meeting.meet(Place(address, *places[i]), facts, problem, timeout)
        except wanted as e:
            told[i] = str(e)

    threads = [threading.Thread(target=come, args=(i, *card)) for i, card in enumerate(cards)]
    for thread in reversed(threads):  # process 0 last
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_equal_processes_meet():
    assert meet(*[({"a": 1, "b": [1, 2]},)] * 5) == [""] * 5


def test_what_differs_is_told_with_every_value():
    told = meet(({"a": 1, "b": 2},), ({"a": 1, "b": 3},), ({"a": 1, "b": 2},))
    assert set(told) == {told[0]}
    assert told[0].startswith("the processes differ: b is 2 on process 0 and 2, 3 on process 1. ")


def test_many_differences_are_counted():
    told = meet(*[({f"k{i}": value for i in range(9)},) for value in range(2)])
    assert told[0].count(" is 0 on process 0") == 5 and "; and 4 more" in told[0]


def test_a_problem_of_one_is_told_to_all():
    missing = errors.InputError("no data")
    told = meet(({"a": 1},), ({}, missing), ({"a": 1},))
    assert set(told) == {told[0]} and told[0].endswith("): no data")
    assert meet(*[({}, missing)] * 2) == ["no data"] * 2


def test_a_filesystem_that_does_not_answer_one_may_answer_all_later():
    stale = OSError(errno.ESTALE, "Stale file handle", "/mnt/a")
    told = meet(({"a": 1},), ({}, stale), ({}, errors.InputError("no data")), passing=True)
    assert set(told) == {told[0]} and "): cannot use /mnt/a: Stale file handle; " in told[0]


def test_who_is_missing_is_told():
    told = meet(({},), ({},), count=4, timeout=1, passing=True)
    assert told[0].startswith("2 and 3 of 4 processes did not connect within 1 s; 0 (")


@pytest.mark.parametrize("other", [1, 2])
def test_processes_that_count_themselves_differently_are_told(other):
    """Whether or not the others' number is one that process 0 waits for."""
    told = meet(({},), ({},), places=[(2, 0), (3, other)])
    assert (
        set(told) == {told[0]} and f"processes is 2 on process 0, 3 on process {other}" in told[0]
    )


def test_process_0_takes_as_many_lines_as_the_system_allows():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [n for n in range(len(taken) + 100) if n not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[12], hard))  # the least not allowed
    try:
        assert meet(*[({},)] * 10, timeout=3) == [""] * 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_process_0_the_others_say_so():
    with pytest.raises(
        errors.Passing, match=r"process 0 did not answer at localhost:\d+ within 1 s"
    ):
        meeting.meet(Place(f"localhost:{several.free_port()}", 2, 1), {}, None, 1)


def test_a_process_that_comes_twice_is_told():
    def card(i):
        return {"process_id": i, "host": f"h{i}", "problem": "", "passing": False, "facts": {}}

    told = meeting.judge([card(0), card(1), card(1)], 3, 9)
    assert told["problem"].startswith("process 1 was started 2 times, on h1 and h1")


def test_strangers_and_the_dead_do_not_count():
    """A program that scans ports, and a process that was killed and started again while others wait."""
    port, told = several.free_port(), {}
    here = [Place(f"localhost:{port}", 3, i) for i in range(3)]

    def card(i):
        return {"process_id": i, "host": "h", "problem": "", "passing": False, "facts": {}}

    def come(i):
        come_in = meeting._preside if i == 0 else meeting._attend
        told[i] = come_in(here[i], card(i), 20)

    threads = [threading.Thread(target=come, args=(i,)) for i in range(3)]
    threads[0].start()
    stranger = connect(port, b'{"a": 1}\n')
    for line in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"", json.dumps(card(1)).encode() + b"\n"):
        connect(port, line).close()
    for thread in threads[:0:-1]:  # 2, which must wait for the 1 that lives, and then that
        time.sleep(0.3)
        thread.start()
    for thread in threads:
        thread.join()
    stranger.close()
    assert [told[i] for i in range(3)] == [{"problem": "", "passing": False}] * 3


def connect(port, line):
    deadline = time.monotonic() + 10
    while True:
        try:
            made = socket.create_connection(("localhost", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            made.sendall(line)
            return made


def test_a_port_in_use_is_told():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            errors.InputError, match=f"cannot listen on port {port} .Address already"
        ):
            meeting.meet(Place(f"localhost:{port}", 1, 0), {}, None, 1)


# Whose place it is.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", None, None), "--processes and --process_id missing: give --coordinator=HOST:PORT"),
        ((None, 2, 0), "--coordinator missing"),
        (("a:1", 2, None), "--process_id missing"),
        (("a:1", 2, 2), "process_id 2 of 2 processes; process ids are 0 to processes - 1"),
        (("a:1", 2, -1), "process_id -1 of 2"),
        (("a:1", 0, 0), "process_id 0 of 0"),
        (("a", 1, 0), "coordinator 'a': want HOST:PORT"),
        (("a:x", 1, 0), "coordinator 'a:x': want HOST:PORT"),
        ((":1", 1, 0), "coordinator ':1': want HOST:PORT"),
    ],
)
def test_flags_that_name_no_place_are_refused(given, message):
    with pytest.raises(errors.InputError) as told:
        place.from_flags(*given)
    assert str(told.value).startswith(message)


def test_flags_name_a_place():
    assert place.from_flags(None, None, None) is None
    assert place.from_flags("[::1]:90", 2, 1).address == ("::1", 90)


SLURM = {
    "SLURM_JOB_ID": "4098", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[012-013]",
}  # fmt: skip
GKE = {"TPU_WORKER_HOSTNAMES": "run-0-0.run,run-0-1.run", "TPU_WORKER_ID": "1"}
OMPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_MCA_orte_hnp_uri": "81920.0;tcp://10.0.0.7,10.1.0.7:3",
}  # fmt: skip
OMPI5 = {k: v for k, v in OMPI.items() if "orte" not in k} | {
    "PMIX_NAMESPACE": "prterun-node-7-3245@1"
}


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, None),
        (SLURM, Place("gpu012:24098", 8, 5, 1, "SLURM")),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x8)"}, Place("gpu012:24098", 8, 5, None, "SLURM")),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "5,3"}, Place("gpu012:24098", 8, 5, 1, "SLURM")),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0"}, Place("gpu012:24098", 8, 5, None, "SLURM")),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, Place("gpu012:24098", 8, 5, 1, "SLURM")),
        (SLURM | {"SLURM_STEP_NODELIST": "a7,b[1-2]", "SLURM_STEP_ID": "1"}, Place("a7:25095", 8, 5, 1, "SLURM")),
        (SLURM | {"SLURM_STEP_NODELIST": "r[1-2]n[04,07-9]-ib"}, Place("r1n04-ib:24098", 8, 5, 1, "SLURM")),
        # one task is alone, and a batch script is no task
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({k: v for k, v in SLURM.items() if "STEP" not in k} | {"SLURM_NTASKS": "8"}, None),
        (OMPI, Place("localhost:20020", 4, 3, 3, "Open MPI")),
        (OMPI5, Place("localhost:23245", 4, 3, 3, "Open MPI")),
        (OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, Place("10.0.0.7:20020", 4, 3, None, "Open MPI")),
        # mpirun's daemon on another node of a SLURM job is a task of a step of its own
        (SLURM | OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, Place("10.0.0.7:20020", 4, 3, None, "Open MPI")),
        (GKE, Place("run-0-0.run:8476", 2, 1, None, "GKE")),
        (GKE | {"JAX_COORDINATOR_PORT": "99"}, Place("run-0-0.run:99", 2, 1, None, "GKE")),
        (GKE | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (
            GKE | {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "run-0-0.run:8080"},
            Place("run-0-0.run:8476", 4, 3, None, "GKE"),
        ),
    ],
)  # fmt: skip
def test_a_cluster_names_the_place(env, wanted, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in {"CUDA_VISIBLE_DEVICES"} & env.keys():
        monkeypatch.setenv(name, env[name])
    assert clusters.from_cluster({"TPU_SKIP_MDS_QUERY": "1"} | env) == wanted


def test_the_workers_of_a_slice_are_neighbours():
    """As are TPUs in JAX's order, so that what a mesh keeps within a slice is within one."""
    names = {"TPU_WORKER_HOSTNAMES": "a,b,c", "MEGASCALE_NUM_SLICES": "2"}
    found = [
        clusters.from_cluster(names | {"MEGASCALE_SLICE_ID": s, "TPU_WORKER_ID": worker})
        for s in "01"
        for worker in "012"
    ]
    assert [(place.process_id, place.processes) for place in found] == [(i, 6) for i in range(6)]


def test_gpus_that_no_process_uses_are_told(monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    env = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x4)", "TPU_SKIP_MDS_QUERY": "1"}
    for local_id, told in (("1", 0), ("0", 1)):
        assert clusters.from_cluster(env | {"SLURM_LOCALID": local_id}).device == int(local_id)
        assert caplog.text.count("each of 2 processes on this machine sees 4 GPUs") == told


def test_a_line_of_any_number_is_known_to_be_open_or_not():
    """`select` refuses those from 1024 on, which process 0 of so many has."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files.allow_open()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2000:
        pytest.skip("the system allows fewer files than process 0 of a thousand has open")
    here, there = socket.socketpair()
    far = socket.socket(fileno=fcntl.fcntl(here.fileno(), fcntl.F_DUPFD, 1500))
    try:
        with here, far:
            assert meeting._is_open(far)
            there.close()
            assert not meeting._is_open(far)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    "env",
    [
        SLURM | {"SLURM_PROCID": "x"},
        SLURM | {"SLURM_PROCID": ""},
        SLURM | {"SLURM_STEP_NUM_TASKS": "two"},
        SLURM | {"SLURM_NODEID": "-7"},
        OMPI | {"OMPI_COMM_WORLD_RANK": "x"},
        {"OMPI_COMM_WORLD_RANK": "1", "unset": "OMPI_COMM_WORLD_SIZE"},
        GKE | {"TPU_WORKER_ID": "x"},
        GKE | {"MEGASCALE_NUM_SLICES": "x"},
    ],
)
def test_a_variable_that_is_no_number_is_named(env):
    with pytest.raises(
        errors.InputError, match=r"the environment's \w+ is '.*'; want a number: set it"
    ):
        clusters.from_cluster({"TPU_SKIP_MDS_QUERY": "1"} | env)


@pytest.mark.parametrize("per_node", ["", "abc"])
def test_a_node_whose_tasks_are_not_told_has_one(per_node):
    env = SLURM | {"SLURM_STEP_TASKS_PER_NODE": per_node}
    assert clusters.from_cluster({"TPU_SKIP_MDS_QUERY": "1"} | env).device is None


def test_open_mpi_of_several_machines_wants_to_know_the_first():
    env = OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_MCA_orte_hnp_uri": ""}
    with pytest.raises(errors.InputError, match="give --coordinator=HOST:PORT --processes="):
        clusters.from_cluster(env)


@pytest.fixture
def metadata(monkeypatch):
    """A metadata server, which has these attributes, and is too busy to tell one that is None.

    Yields them, and the environment that names it.
    """
    attributes = {}

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers["Metadata-Flavor"] == "Google"
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            text = attributes.get(name)
            self.send_response(404 if name not in attributes else 503 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("localhost", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield attributes, {"GCE_METADATA_HOST": f"localhost:{server.server_port}"}
        server.shutdown()


def test_a_tpu_vms_metadata_name_the_place(metadata):
    attributes, env = metadata
    assert clusters.from_cluster(env) is None  # a machine of Google's without a TPU
    attributes |= {
        "worker-network-endpoints": "unused:unused:10.0.0.5,unused:unused:10.0.0.6",
        "agent-worker-number": "1",
        "tpu-env": "ACCELERATOR_TYPE: 'v6e-8'\nZONE: 'a'\n",
    }
    assert clusters.from_cluster(env) == Place("10.0.0.5:8476", 2, 1, None, "Cloud TPU")
    attributes["tpu-env"] += "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
    attributes["tpu-env"] += "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"
    assert clusters.from_cluster(env) == Place("10.0.0.1:8476", 4, 3, None, "Cloud TPU")
    first = clusters.from_cluster(env | {"MEGASCALE_SLICE_ID": "0"})  # the user's own word
    assert first == Place("10.0.0.1:8476", 4, 1, None, "Cloud TPU")
    assert clusters.from_cluster(env | {"TPU_SKIP_MDS_QUERY": "1"}) is None


def test_a_metadata_server_that_does_not_answer_is_asked_again_and_told(metadata, monkeypatch):
    attributes, env = metadata
    waited, attributes["worker-network-endpoints"] = [], None
    monkeypatch.setattr(clusters.time, "sleep", waited.append)
    with pytest.raises(errors.Passing, match="does not give this TPU host's place .*--nocluster"):
        clusters.from_cluster(env)
    assert 20 < sum(waited) < 60
    attributes |= {"agent-worker-number": "0", "tpu-env": ""}
    later = {"worker-network-endpoints": "10.0.0.5"}
    monkeypatch.setattr(clusters.time, "sleep", lambda seconds: attributes.update(later))
    assert clusters.cloud_tpu_vm(env) == Place("10.0.0.5:8476", 1, 0, None, "Cloud TPU")


def test_another_makers_accelerator_is_no_tpu(tmp_path):
    card = tmp_path / "sys/bus/pci/devices/0000:00:0b.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x8086\n")
    (tmp_path / "dev/accel").mkdir(parents=True)
    (tmp_path / "dev/accel/accel0").touch()
    assert not clusters.has_tpu(tmp_path)
    (card / "vendor").write_text("0x1ae0\n")
    assert clusters.has_tpu(tmp_path)
    (tmp_path / "dev/accel").rename(tmp_path / "dev/other")  # a network card of Google's alone
    assert not clusters.has_tpu(tmp_path)


def test_facts_are_plain_and_of_config_code_and_data(config, data, tmp_path):
    found = agreement.facts(config, data)
    assert json.loads(json.dumps(found)) == found
    assert found["config.train.steps"] == 4 and found["config.encoders.0.name"] == "tiny0"
    assert found["version of jax"] == jax.__version__ and len(found["code of lidit_jax"]) == 16
    assert sum(name.startswith("data set's ") for name in found) == 2
    judged = agreement.facts(config, data, held_out=data)
    differ = {name for name in found if judged[name] != found[name]}
    assert len(differ) == 2 and all(name.startswith("held-out set's ") for name in differ)
    with pytest.raises(
        errors.InputError, match="no finished data set at .*none .run `prepare` first"
    ):
        agreement.facts(config, tmp_path / "none")
