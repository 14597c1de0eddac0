"""Inequalities between runs, such as "ltr - base > t5_ltr - t5" or "concat > max(one, other)"."""

import ast
import dataclasses
from collections.abc import Mapping

import numpy as np

from lidit_jax import errors


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that one expression is greater than another. Made by `parse`."""

    text: str
    _left: ast.expr = dataclasses.field(repr=False, compare=False)
    _right: ast.expr = dataclasses.field(repr=False, compare=False)

    @property
    def runs(self) -> set[str]:
        """Returns the runs that the claim names."""
        return _names(self._left) | _names(self._right)

    def margin(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns left - right, given each run's values; any shape, the same for all runs."""
        return _value(self._left, values) - _value(self._right, values)


def parse(text: str) -> Claim:
    """Returns the claim. Raises InputError unless it is A > B, of names, +, -, max() and min()."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        tree = None
    if (
        isinstance(tree, ast.Compare)
        and [type(op) for op in tree.ops] == [ast.Gt]
        and _is_known(tree.left)
        and _is_known(tree.comparators[0])
    ):
        return Claim(text, tree.left, tree.comparators[0])
    raise errors.InputError(
        f"{text!r} is not a claim; want A > B, with names of runs, +, -, max(...) and min(...)"
    )


_OPERATORS = {ast.Add: np.add, ast.Sub: np.subtract}
_FUNCTIONS = {"max": np.maximum, "min": np.minimum}


def _is_known(node: ast.expr) -> bool:
    match node:
        case ast.Name():
            return True
        case ast.BinOp(left, op, right):
            return type(op) in _OPERATORS and _is_known(left) and _is_known(right)
        case ast.Call(ast.Name(name), [_, *_] as args, []):
            return name in _FUNCTIONS and all(map(_is_known, args))
    return False


def _names(node: ast.expr) -> set[str]:
    match node:
        case ast.Name(name):
            return {name}
        case ast.BinOp(left, _, right):
            return _names(left) | _names(right)
    return set().union(*map(_names, node.args))


def _value(node: ast.expr, values: Mapping[str, np.ndarray]) -> np.ndarray:
    match node:
        case ast.Name(name):
            return np.asarray(values[name])
        case ast.BinOp(left, op, right):
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
    found = [_value(arg, values) for arg in node.args]
    return _FUNCTIONS[node.func.id].reduce(found)
