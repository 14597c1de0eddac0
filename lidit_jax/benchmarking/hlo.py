"""The collectives of a compiled program, read from its HLO text: kind, element type, count, bytes.

Collectives in a loop count as often as the loop runs. A compiler may split a collective: into a
start and an end, or (on TPUs) into a chain of steps within other work; it counts once, where it
starts.
"""

import collections
import dataclasses
import math
import re

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "token": 0}  # others end in their number of bits: f32, s8

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(rf"({'|'.join(KINDS)})(-start)?")
# The computations that an instruction calls.
_CALLS = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: name, text of its type, opcode, its operands' names, and what follows them."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Count:
    """How often a program runs one kind of collective, and the bytes that each device moves.

    Bytes are of the larger side on one device: the output of an all-gather, the input of a
    reduce-scatter.
    """

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Collectives:
    """by_kind: (kind, element type) -> Count. unknown_loops: loops counted as if they ran once."""

    by_kind: dict[tuple[str, str], Count]
    unknown_loops: int

    @property
    def bytes(self) -> int:
        return sum(c.bytes for c in self.by_kind.values())


def collectives(text: str) -> Collectives:
    """Returns the collectives of a compiled module, from `compiled.as_text()`.

    All branches of a conditional count, as if each were taken. Raises ValueError for text without
    an entry.
    """
    computations, entry = parse(text)
    counter = _Counter(computations)
    found = counter.of(entry)
    merged = {key: Count(n, size) for key, (n, size) in sorted(found.items())}
    return Collectives(merged, len(counter.unknown))


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Returns every computation of a module by name, and the entry's name."""
    computations, entry, current = {}, None, None
    for line in _lines(text):
        if head := _HEAD.match(line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _instruction(line)):
            current[found.name] = found
    if entry is None:
        raise ValueError("not an HLO module: it has no ENTRY computation")
    return computations, entry


def _lines(text: str) -> list[str]:
    """Returns the module's lines, joining those that a kernel's own metadata (Pallas) splits."""
    lines = []
    for line in text.splitlines():
        if line[:1].isspace() or not lines or not lines[-1][:1].isspace() or line == "}":
            lines.append(line)
        else:
            lines[-1] += line
    return lines


def _instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    root, name, text = found.groups()
    end = _closing(text, 0) if text.startswith("(") else text.find(" ") - 1
    kind, rest = text[: end + 1], text[end + 1 :].lstrip()
    opcode = rest[: rest.find("(")]
    close = _closing(rest, len(opcode))
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[len(opcode) : close + 1]))
    if opcode == "constant":
        operands = (rest[len(opcode) + 1 : close],)
    return Instruction(name, kind, opcode, operands, rest[close + 1 :], bool(root))


def _closing(text: str, start: int) -> int:
    """Returns where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text) - 1


def sizes(kind: str) -> collections.Counter:
    """Returns the bytes of each element type in the text of a type, tuples included."""
    found = collections.Counter()
    for dtype, dims in _ARRAY.findall(re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", kind)):
        found[dtype] += math.prod(int(d) for d in dims.split(",") if d) * _bits(dtype) // 8
    return found


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.match(r"[a-z]+(\d+)", dtype)  # f8e4m3fn has 8
    return int(found[1]) if found else 0


class _Counter:
    """Sums collectives over a module's computations, each counted as often as it runs."""

    def __init__(self, computations: dict[str, Computation]):
        self.computations, self.known, self.unknown = computations, {}, set()

    def of(self, name: str) -> dict[tuple[str, str], tuple[int, int]]:
        """Returns (count, bytes) of each (kind, element type) in one run of a computation."""
        if name not in self.known:
            self.known[name] = self._of(name)
        return self.known[name]

    def _of(self, name):
        computation, total = self.computations.get(name, {}), {}
        later = _is_later_step(computation)
        scatters = name.startswith("all-reduce-scatter")  # a TPU's reduce-scatter
        for instruction in computation.values():
            found = _COLLECTIVE.fullmatch(instruction.opcode)
            if found and not later:
                kind = "reduce-scatter" if scatters else found[1]
                for dtype, size in _payload(computation, instruction, found[1]).items():
                    _add(total, (kind, dtype), 0, size)
                _add(total, (kind, _widest(instruction)), 1, 0)
            times = 1
            called = (
                [] if instruction.opcode.endswith(("-done", "-update")) else _called(instruction)
            )
            inner = [(key, *value) for c in called for key, value in self.of(c).items()]
            if instruction.opcode == "while" and inner:
                times = trip_count(self.computations, computation, instruction)
                if times is None:
                    self.unknown.add(instruction.name)
                    times = 1
            for key, count, size in inner:
                _add(total, key, times * count, times * size)
        return total


def _add(total, key, count, size):
    had = total.get(key, (0, 0))
    total[key] = (had[0] + count, had[1] + size)


def _is_later_step(computation: Computation) -> bool:
    """Whether a fused computation is a later step of a collective that another one starts (TPU)."""
    chained = any("chain_id=" in i.rest for i in computation.values())
    starts = any('"AsyncCollectiveStart"' in i.rest for i in computation.values())
    return chained and not starts


def _called(instruction: Instruction) -> list[str]:
    branches = _BRANCHES.search(instruction.rest)
    listed = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
    return _CALLS.findall(instruction.rest) + listed


def _payload(computation, instruction, kind) -> collections.Counter:
    given = sum((sizes(computation[o].type) for o in instruction.operands), collections.Counter())
    if kind != "all-gather":
        return given
    returned = sizes(instruction.type)
    if instruction.opcode.endswith("-start"):  # it returns its operands too
        returned.subtract(given)
    return +returned


def _widest(instruction) -> str:
    """Returns the element type with the most bytes in an instruction's result."""
    found = sizes(instruction.type).most_common(1)
    return found[0][0]


def trip_count(
    computations: dict[str, Computation], around: Computation, loop: Instruction
) -> int | None:
    """Returns the trip count of a `while`, or None if its text does not determine it.

    XLA notes it on most loops; otherwise it follows from a counter that starts at a constant, grows
    by a constant, and is compared with a constant.
    """
    noted = re.search(r'"?known_trip_count"?[^}]*?"?n"?:\s*"?(\d+)', loop.rest)
    if noted:
        return int(noted[1])
    names = {k: re.search(rf"\b{k}=%?([\w.\-]+)", loop.rest) for k in ("condition", "body")}
    condition, body = (computations[names[k][1]] for k in ("condition", "body"))
    test = next(i for i in condition.values() if i.is_root)
    if test.opcode != "compare" or "direction=LT" not in test.rest:
        return None
    counter, limit = condition[test.operands[0]], _constant(condition, test.operands[1])
    index = re.search(r"\bindex=(\d+)", counter.rest)
    if counter.opcode != "get-tuple-element" or limit is None:
        return None
    start = _start(around, loop, int(index[1]))
    step = _step(body, int(index[1]))
    if start is None or not step:
        return None
    return max(math.ceil((limit - start) / step), 0)


def _start(around, loop, index) -> int | None:
    """Returns the constant that a loop's counter starts at."""
    given = around[loop.operands[0]]
    return _constant(around, given.operands[index]) if given.opcode == "tuple" else None


def _step(body, index) -> int | None:
    """Returns the constant that a loop's body adds to its counter."""
    root = next(i for i in body.values() if i.is_root)
    grown = body.get(root.operands[index]) if root.opcode == "tuple" else None
    while grown is not None and grown.opcode == "copy":
        grown = body.get(grown.operands[0])
    if grown is None or grown.opcode != "add":
        return None
    constants = [_constant(body, o) for o in grown.operands]
    return next((c for c in constants if c is not None), None)


def _constant(computation, name) -> int | None:
    """Returns the integer constant that a name refers to, through copies."""
    found = computation.get(name)
    while found is not None and found.opcode in ("copy", "bitcast", "convert"):
        found = computation.get(found.operands[0])
    if found is None or found.opcode != "constant":
        return None
    return int(found.operands[0]) if re.fullmatch(r"-?\d+", found.operands[0]) else None
