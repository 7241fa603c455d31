"""``allo.template``: the context managers of compile-time selection and repetition, under Allo's path.

The attribute ``template`` of the package is the decorator of that name; it carries these names too,
so that ``allo.template.meta_if`` means the same in both spellings.
"""

from typing import Any, cast

from .dsl import meta_elif, meta_else, meta_for, meta_if, template

_decorator = cast(Any, template)
_decorator.meta_if, _decorator.meta_elif = meta_if, meta_elif
_decorator.meta_else, _decorator.meta_for = meta_else, meta_for

__all__ = ["meta_elif", "meta_else", "meta_for", "meta_if", "template"]
