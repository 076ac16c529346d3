"""Doctests stand in the text of our docstrings; Markdown would read their prompts as nested quotations."""

from __future__ import annotations

import inspect
import re

import griffe

# A prompt and what follows it up to the next empty line.
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_LITERAL = re.compile(r"^::\n\n(?P<code>(?:    .*\n?|\n)+)", re.MULTILINE)


class Fenced(griffe.Extension):
    """Puts doctests, and drawings after a double colon, into code fences."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrites the docstring of every object that is collected."""
        if obj.docstring is None:
            return
        text = inspect.cleandoc(obj.docstring.value)
        text = _LITERAL.sub(lambda match: f"```text\n{inspect.cleandoc(match['code'])}\n```\n\n", text)
        obj.docstring.value = _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
