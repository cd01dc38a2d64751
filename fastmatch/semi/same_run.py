"Whether a function is the one that it was: its code, its constants and the plain values that it reads."
import hashlib
import json
import sys
from functools import partial
from types import CodeType, FunctionType

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _plain(value):
    "A value as text where it is plain, or a container of such; None for anything else."
    if isinstance(value, PLAIN): return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_plain(part) for part in value]
        if None in parts: return None
        return f'{type(value).__name__}({sorted(parts) if isinstance(value, (set, frozenset)) else parts})'
    if isinstance(value, dict):
        parts = [(_plain(key), _plain(part)) for key, part in value.items()]
        return None if any(None in pair for pair in parts) else f'dict({parts})'
    return None


def _of_code(code):
    constants = [_of_code(value) if isinstance(value, CodeType) else _plain(value) or repr(value)
                 for value in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]


def _names_in(code):
    names = set(code.co_names)
    for value in code.co_consts:
        if isinstance(value, CodeType): names |= _names_in(value)
    return names


def _of_function(function, seen):
    code = getattr(function, '__code__', None)
    if isinstance(function, partial):
        return [_of_function(function.func, seen), _plain(function.args), _plain(function.keywords)]
    # an object that is called, or a function that isn't Python's
    if code is None: return [type(function).__qualname__]
    # functions may call each other in a circle
    if code in seen: return [code.co_name]
    seen.add(code)
    closure = {name: cell.cell_contents for name, cell in zip(code.co_freevars, function.__closure__ or ())}
    read = {name: value for name, value in function.__globals__.items() if name in _names_in(code)} | closure
    read |= {'__defaults__': function.__defaults__, '__kwdefaults__': function.__kwdefaults__}
    plain = sorted((name, _plain(value)) for name, value in read.items() if _plain(value) is not None)
    called = [_of_function(value, seen) for _, value in sorted(read.items())
              if isinstance(value, FunctionType) and value.__module__ == function.__module__]
    return [_of_code(code), plain, called]


def code_of(
    function,  # What is called
) -> dict:  # Plain values
    """What a function does, as a hash with the Python version, which has code of its own.

    In it are the code (not its comments), constants, defaults, numbers, texts and containers of them that it
    reads from outside (a rate in a global variable, say), and functions of the same module that it calls.
    Classes, and functions of other modules, are not.
    """
    content = json.dumps(_of_function(function, set())).encode()
    return {'python': '.'.join(map(str, sys.version_info[:2])), 'sha256': hashlib.sha256(content).hexdigest()}


def is_same_code(
    before: dict,  # From `code_of`
    now: dict,  # From `code_of`
) -> bool:
    "Whether two functions are the same as far as it can be told: code of two Python versions can't."
    return before['python'] != now['python'] or before['sha256'] == now['sha256']


def digest_of(
    *columns,  # Sequences of equal length
) -> str:
    "A hash of the rows of a table, in any order."
    rows = sorted(json.dumps([str(value) for value in row]) for row in zip(*columns))
    return hashlib.sha256('\n'.join(rows).encode()).hexdigest()


def as_json(
    content,  # Plain values, arrays and numpy's numbers among them
):
    "The content as json gives it back."
    def plain(value):
        if isinstance(value, np.ndarray): return value.tolist()
        if isinstance(value, np.generic): return value.item()
        raise TypeError(f'{type(value).__name__} is no plain value')
    return json.loads(json.dumps(content, default=plain))
