"""Formulas that people type: arithmetic over a few names, read once and computed often.

simpleeval walks the syntax tree instead of running it as Python: nothing can be reached but what
is listed here. Whatever is computed is a float at every step: whole numbers of Python grow
without end, and so does the time that they take.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import local
from typing import TYPE_CHECKING, Any

from streamdream.errors import near

if TYPE_CHECKING:
    from simpleeval import SimpleEval

LONGEST = 1000  # characters


def _floating(function: Callable[..., Any], least: int, most: int | None) -> Callable[..., float]:
    """A function of that many floats whose value is one, too."""

    def found(*given: object) -> float:
        if len(given) < least or (most is not None and len(given) > most):
            count = str(least) if least == most else f"{least} or more"
            raise TypeError(f"{function.__name__} takes {count} number{'s' * (count != '1')}")
        return float(function(*(float(value) for value in given)))  # type: ignore[arg-type]

    return found


ONE = (
    math.sin, math.cos, math.tan, math.asin, math.acos, math.atan, math.exp, math.log, math.sqrt,
    abs, math.floor, math.ceil, round,
)  # fmt: skip
FUNCTIONS: dict[str, Callable[..., float]] = {
    **{function.__name__: _floating(function, 1, 1) for function in ONE},
    **{function.__name__: _floating(function, 2, None) for function in (min, max)},
}
CONSTANTS = {"pi": math.pi, "tau": math.tau, "e": math.e}
VARIABLES = ("t", "f", "p")
NAMES = (*VARIABLES, *CONSTANTS, *FUNCTIONS)

OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: _floating(operator.add, 2, 2), ast.Sub: _floating(operator.sub, 2, 2),
    ast.Mult: _floating(operator.mul, 2, 2), ast.Div: _floating(operator.truediv, 2, 2),
    ast.FloorDiv: _floating(operator.floordiv, 2, 2), ast.Mod: _floating(operator.mod, 2, 2),
    ast.Pow: _floating(math.pow, 2, 2), ast.USub: _floating(operator.neg, 1, 1),
    ast.UAdd: _floating(operator.pos, 1, 1), ast.Not: _floating(operator.not_, 1, 1),
    ast.Eq: _floating(operator.eq, 2, 2), ast.NotEq: _floating(operator.ne, 2, 2),
    ast.Lt: _floating(operator.lt, 2, 2), ast.LtE: _floating(operator.le, 2, 2),
    ast.Gt: _floating(operator.gt, 2, 2), ast.GtE: _floating(operator.ge, 2, 2),
}  # fmt: skip
NODES = (ast.Constant, ast.Name, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp,
         ast.Call)  # fmt: skip
ALSO = (ast.expr_context, ast.And, ast.Or, *OPERATORS)

_EVALUATORS = local()  # one keeps the names of what it computes: each thread has its own


class Mistake(ValueError):
    """What is wrong with a text: its `piece` from the character `place` on, counted from 0."""

    def __init__(self, piece: str, place: int, reason: str, cure: str = "") -> None:
        """Say what is wrong with this piece, and what mends it."""
        super().__init__(reason)
        self.piece, self.place, self.reason, self.cure = piece, place, reason, cure


@dataclass(frozen=True)
class Formula:
    """Arithmetic as it was typed. `names` are those of VARIABLES that it depends on."""

    text: str
    names: frozenset[str]
    _tree: ast.expr = field(compare=False, repr=False)

    @staticmethod
    def read(text: str, place: int = 0) -> Formula:
        """From a text without line ends, at a `place` in a longer one; raises Mistake."""
        begin = place + len(text) - len(text.lstrip())
        text = text.strip()
        if len(text) > LONGEST:
            raise Mistake(text[:20] + "...", begin, f"is longer than {LONGEST} characters")
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(text, mode="eval").body
        except SyntaxError as fault:
            at = min(max((fault.offset or 1) - 1, 0), max(len(text) - 1, 0))
            piece = text if fault.offset is None else text[at:]
            at = 0 if fault.offset is None else at
            raise Mistake(piece, begin + at, "cannot be read as a formula") from None
        except (RecursionError, MemoryError, ValueError):
            raise Mistake(text, begin, "cannot be read as a formula") from None
        found = Formula(text, _checked(tree, text, begin), tree)
        _try(found, begin)
        if found.names:
            return found
        return Formula(text, found.names, ast.Constant(found.at(0.0, 0, 0.0)))

    def at(self, seconds: float, frame: float, progress: float) -> float:
        """Its value, infinite where it is too large, nan where it has none (as 1/t at 0)."""
        try:
            return self._value(seconds, frame, progress)
        except OverflowError:
            return math.inf
        except (ArithmeticError, ValueError, TypeError, RecursionError):
            return math.nan

    def _value(self, seconds: float, frame: float, progress: float) -> float:
        if isinstance(self._tree, ast.Constant):
            return float(self._tree.value)  # type: ignore[arg-type]
        moving = {"t": seconds, "f": float(frame), "p": progress}
        evaluator = _evaluator()
        evaluator.names = {**CONSTANTS, **moving}
        return float(evaluator.eval(self.text, previously_parsed=self._tree))


def _evaluator() -> SimpleEval:
    known_one: SimpleEval | None = getattr(_EVALUATORS, "one", None)
    if known_one is not None:
        return known_one
    from simpleeval import SimpleEval

    evaluator = SimpleEval(operators=dict(OPERATORS), functions=dict(FUNCTIONS), names={})
    known: Any = evaluator.nodes
    evaluator.nodes = {kind: known[kind] for kind in NODES}
    _EVALUATORS.one = evaluator
    return evaluator


def _checked(tree: ast.expr, text: str, begin: int) -> frozenset[str]:
    """The variables of a formula; all its numbers become floats."""
    names, coded = set(), text.encode()
    for node in ast.walk(tree):
        start, end = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", 0)
        piece, place = coded[start:end].decode(), begin + len(coded[:start].decode())
        if not isinstance(node, (*NODES, *ALSO)):
            raise Mistake(piece or text, place, "is not arithmetic")
        if isinstance(node, ast.Constant):
            if type(node.value) not in (int, float):
                raise Mistake(piece, place, "is not a number")
            try:
                node.value = float(node.value)  # type: ignore[arg-type]
            except OverflowError:
                raise Mistake(piece[:20] + "...", place, "is too large") from None
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.keywords:
                raise Mistake(piece, place, "is not arithmetic")
            if node.func.id not in FUNCTIONS:
                cure = near(node.func.id, tuple(FUNCTIONS), "functions")
                raise Mistake(node.func.id, place, "is no function", cure)
        elif isinstance(node, ast.Name):
            if node.id not in NAMES:
                raise Mistake(piece, place, "is not a number, nor a name", _known(node.id))
            names.add(node.id)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in FUNCTIONS and id(node) not in called:
            raise Mistake(node.id, begin + node.col_offset, f"is a function: {node.id}(...)")
    return frozenset(names & set(VARIABLES))


def _known(name: str) -> str:
    cure = near(name, NAMES, "names")
    if cure.startswith("did you mean"):
        return cure
    return "names are t (seconds), f (frame), p (0 to 1), pi, e, sin, cos, exp, min, max ..."


def _try(formula: Formula, begin: int) -> None:
    """Find a function with too few or many values, or a formula that is nested too deeply."""
    try:
        formula._value(0.37, 9, 0.37)
    except RecursionError:
        raise Mistake(formula.text, begin, "is nested too deeply") from None
    except TypeError as fault:
        reason = f"cannot be computed ({str(fault)[:80]})"
        raise Mistake(formula.text, begin, reason) from None
    except (ArithmeticError, ValueError):
        return  # it may have values at other moments
