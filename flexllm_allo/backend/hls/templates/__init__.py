"""Texts of project files with ``$name`` fields."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template


@cache
def template(name: str) -> Template:
    """The text of one project file."""
    return Template((files(__name__) / f"{name}.in").read_text())
