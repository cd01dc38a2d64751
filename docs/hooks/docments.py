"""A griffe extension: comments behind or above a parameter describe it, as in fastcore's docments.

`size: int = 64,  # Side in pixels` becomes a row of the parameters' table, a comment behind the annotation of
what is returned the row of the result, and one behind a value of a module or a class its docstring.
"""
import io
import tokenize
from functools import cache

import griffe


@cache
def comments_of(path):
    "({line: comment behind code}, {line: comment that has the line for itself}) of a file."
    behind, alone = {}, {}
    with open(path, encoding='utf-8') as stream: source = stream.read()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT: continue
        has_code = token.line[:token.start[1]].strip()
        (behind if has_code else alone)[token.start[0]] = token.string.lstrip('# ').rstrip()
    return behind, alone


def description(path, first, last):
    "The comments that belong to code from line `first` to line `last`: right above it, and behind its end."
    behind, alone = comments_of(path)
    above, line = [], first - 1
    while line in alone:
        above.insert(0, alone[line])
        line -= 1
    return ' '.join([*above, *([behind[last]] if last in behind else [])])


def described_parameters(node, function):
    "The parameters that have a comment, of a function whose head has one parameter a line."
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(positional, defaults, strict=True),
             *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    pairs += [(each, None) for each in (arguments.vararg, arguments.kwarg) if each]
    for argument, default in pairs:
        if argument.lineno == node.lineno: continue
        last = (default or argument).end_lineno
        text = description(str(function.filepath), argument.lineno, last)
        parameter = function.parameters[argument.arg]
        if text: yield griffe.DocstringParameter(argument.arg, description=text, value=parameter.default,
                                                 annotation=parameter.annotation)


class Docments(griffe.Extension):
    "Reads comments into docstrings."

    def on_function_instance(self, *, node, func, **kwargs):
        sections = []
        if parameters := list(described_parameters(node, func)):
            sections.append(griffe.DocstringSectionParameters(parameters))
        # behind the head alone: a comment behind a body on the same line speaks of the body
        if node.returns and node.returns.end_lineno < node.body[0].lineno:
            if text := comments_of(str(func.filepath))[0].get(node.returns.end_lineno):
                result = griffe.DocstringReturn('', annotation=func.returns, description=text)
                sections.append(griffe.DocstringSectionReturns([result]))
        if not sections: return
        if func.docstring is None: func.docstring = griffe.Docstring('', parent=func)
        func.docstring.parsed.extend(sections)

    def on_attribute_instance(self, *, node, attr, **kwargs):
        if attr.docstring is not None: return
        text = description(str(attr.filepath), node.lineno, node.end_lineno)
        if text: attr.docstring = griffe.Docstring(text, parent=attr)
