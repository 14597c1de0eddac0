"""The processes of a run meet before JAX starts and before anything is written.

Each tells process 0 what it is about to do, over a TCP connection to the coordinator's port, which
JAX takes over afterwards. Process 0 waits for all of them and sends them all the same verdict.
JAX's own start would abort each process without saying which one is missing.
"""

import contextlib
import errno
import json
import select
import socket
import time
from typing import Any

from lidit_jax import errors, files
from lidit_jax.processes.place import Place

SHOWN = 5  # differences in one message
_LONGEST = 1 << 24  # bytes of one message: a config is a few kilobytes


def meet(place: Place, facts: dict[str, Any], problem: Exception | None, timeout: float):
    """Returns once every process has arrived with the same facts.

    Args:
      place: this process's place.
      facts: what must be equal everywhere, by name, as plain JSON values.
      problem: why this process cannot take part, described by `errors.told`; None if it can.
      timeout: seconds to wait for the others.

    Raises, on every process alike, InputError if one has a problem or differs, and `errors.Passing`
    if one is missing or its problem may be temporary.
    """
    card = {"process_id": place.process_id, "host": socket.gethostname()}
    card |= {"problem": "", "passing": False}
    if problem:
        card |= {"problem": errors.told(problem), "passing": errors.is_passing(problem)}
    card["facts"] = {"processes": place.processes} | facts
    found = (
        _preside(place, card, timeout) if place.process_id == 0 else _attend(place, card, timeout)
    )
    if found["problem"]:
        raise (errors.Passing if found["passing"] else errors.InputError)(found["problem"])


def judge(cards: list[dict], processes: int, timeout: float) -> dict[str, Any]:
    """Returns the "problem" that prevents training together, or "", and whether it is "passing"."""
    cards = sorted(cards, key=lambda card: card["process_id"])
    if twice := _twice(cards):
        return {"problem": twice, "passing": False}
    if absent := _absence(cards, processes, timeout):
        return {"problem": absent, "passing": True}
    if problems := _problems(cards):
        return {"problem": problems, "passing": any(card["passing"] for card in cards)}
    return {"problem": _differences(cards), "passing": False}


def _twice(cards: list[dict]) -> str:
    came = [card["process_id"] for card in cards]
    twice = sorted({i for i in came if came.count(i) > 1})
    if not twice:
        return ""
    hosts = _join([card["host"] for card in cards if card["process_id"] == twice[0]])
    return (
        f"process {twice[0]} was started {came.count(twice[0])} times, on {hosts}; "
        "give each its own process_id"
    )


def _absence(cards: list[dict], processes: int, timeout: float) -> str:
    came = [card["process_id"] for card in cards]
    missing = [i for i in range(processes) if i not in came]
    if not missing or max(came) >= processes:  # the latter: their counts of processes differ
        return ""
    here = _join([f"{card['process_id']} ({card['host']})" for card in cards])
    return (
        f"{_join(missing)} of {processes} processes did not connect within {timeout:g} s; {here} "
        f"did. Start all of them with the same --coordinator, or raise --start_timeout"
    )


def _problems(cards: list[dict]) -> str:
    told = {card["problem"] for card in cards if card["problem"]}
    if len(told) == 1 and all(card["problem"] for card in cards):
        return told.pop()
    found = [
        f"process {c['process_id']} ({c['host']}): {c['problem']}" for c in cards if c["problem"]
    ]
    return "; ".join(found[:SHOWN])


def _differences(cards: list[dict]) -> str:
    """Describes which facts differ, with their value on each process."""
    found = []
    for name in sorted({name for card in cards for name in card["facts"]}):
        who: dict[str, list[int]] = {}
        for card in cards:
            who.setdefault(repr(card["facts"].get(name)), []).append(card["process_id"])
        if len(who) > 1:
            found.append(
                f"{name} is " + ", ".join(f"{v} on process {_join(ids)}" for v, ids in who.items())
            )
    if not found:
        return ""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"the processes differ: {'; '.join(found[:SHOWN])}{more}. Start all with the same config, "
        f"code and data set"
    )


def _join(items: list) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def _preside(place: Place, card: dict, timeout: float) -> dict[str, Any]:
    """The part of process 0."""
    deadline = time.monotonic() + timeout
    files.allow_open()  # one for each process, here and in JAX's coordinator
    guests: list[tuple[socket.socket, dict]] = []
    with contextlib.ExitStack() as lines:
        listener = lines.enter_context(_listen(place))
        while len({c["process_id"] for _, c in guests}) < place.processes - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                line, _ = listener.accept()
            except TimeoutError:
                break
            except OSError as e:
                if e.errno not in (errno.EMFILE, errno.ENFILE):
                    if time.monotonic() > deadline:
                        break
                    continue  # a connection broke before it was accepted
                raise errors.InputError(
                    f"process 0 cannot accept all {place.processes} processes ({e.strerror}); "
                    f"raise its limit of open files (`ulimit -n`)"
                ) from e
            lines.enter_context(line)
            guest = _read(line, 5.0)
            if guest and "facts" in guest:  # else another program: a health check, a port scan
                guests.append((line, guest))
            guests = [(line, card) for line, card in guests if _is_open(line)]
        guests = [(line, card) for line, card in guests if _is_open(line)]
        found = judge([card] + [guest for _, guest in guests], place.processes, timeout)
        for line, _ in guests:
            with contextlib.suppress(OSError):  # it has left; JAX's start will miss it
                _write(line, {"verdict": found})
    return found


def _attend(place: Place, card: dict, timeout: float) -> dict[str, Any]:
    """The part of every other process."""
    deadline, why = time.monotonic() + timeout, ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(place.address, min(left, 10.0)) as line:
                _write(line, card)
                # Process 0 started before this connection, so it decides within `timeout` of it.
                answer = _read(line, timeout + 5)
        except OSError as e:  # process 0 is not there yet, or its name does not resolve yet
            answer, why = None, f" ({e.strerror or e})"
        if answer and "verdict" in answer:
            return answer["verdict"]
        time.sleep(min(0.3, max(left, 0)))
    return {
        "passing": True,
        "problem": f"process 0 did not answer at {place.coordinator} within {timeout:g} s{why}; "
        "start it, give its address as --coordinator, or raise --start_timeout",
    }


def _listen(place: Place) -> socket.socket:
    family = (
        {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    )
    try:
        return socket.create_server(("", place.address[1]), backlog=1024, **family)
    except OSError as e:
        raise errors.InputError(
            f"process 0 cannot listen on port {place.address[1]} ({e.strerror}); stop the program "
            f"that uses it, or give every process another port, in --coordinator or, in a cluster, "
            f"as JAX_COORDINATOR_PORT"
        ) from e


def _write(line: socket.socket, message: dict):
    line.sendall(json.dumps(message).encode() + b"\n")


def _read(line: socket.socket, timeout: float) -> dict | None:
    """Returns the one message received; None if it is not one of ours."""
    line.settimeout(timeout)
    try:
        with line.makefile("rb") as file:
            message = json.loads(file.readline(_LONGEST))
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _is_open(line: socket.socket) -> bool:
    """Returns whether the other side, which now only listens, is still there."""
    news = select.poll()  # unlike `select`, takes any file descriptor number
    news.register(line, select.POLLIN)
    return not news.poll(0)
