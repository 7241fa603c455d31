"""Recipes as TOML: what `recipes` holds, readable and writable by people, every field checked.

The schema is made of the dataclasses themselves, so that a new format or pass needs nothing here but its
name. A format says which it is by ``format`` ("int", "progressive", "float"), a pass by ``pass``.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..errors import QuantError, did_you_mean
from .formats import FloatFormat, IntFormat, ProgressiveFormat, WeightFormat
from .passes import ORDER
from .recipes import SITES, Recipe

_FORMATS: dict[str, type] = {"int": IntFormat, "progressive": ProgressiveFormat, "float": FloatFormat}
_PASSES: dict[str, type] = {
    "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("_"): kind
    for kinds in ORDER
    for kind in kinds
}
_TAGS = {
    kind: (key, tag)
    for key, kinds in (("format", _FORMATS), ("pass", _PASSES))
    for tag, kind in kinds.items()
}
_KINDS = {tag: kind for kind, (_, tag) in _TAGS.items()}
_MADE_FROM: dict[type[BaseModel], type] = {}  # filled by `_schema`
_WEIGHTS = ("per_tensor", "per_channel", "per_group")


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a TOML file; its name is the file's unless it gives one.

    Raises:
        QuantError: FX604, the file cannot be read, or the list of all fields that are unknown or wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise QuantError("FX604", f"cannot read the recipe {path}: {reason}") from error
    return parse_recipe(text, str(path), path.stem)


def parse_recipe(text: str, source: str = "the text", name: str = "") -> Recipe:
    """The recipe in a TOML text. `source` is its name in messages, `name` the recipe's if it gives none."""
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise QuantError("FX604", f"{source} is not TOML: {message[0].lower()}{message[1:]}") from error
    return recipe_from_dict({"name": name, **fields} if name else fields, source)


def recipe_from_dict(fields: Mapping[str, Any], source: str = "the dictionary") -> Recipe:
    """The recipe of a dictionary as `recipe_to_dict` makes it.

    Raises:
        QuantError: FX604, as `read_recipe`.
    """
    schema = _schema(Recipe)
    try:
        # By way of JSON, whose only sequence is the list: strict checks then let a list be a tuple.
        checked = schema.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(dict(found)) for found in error.errors()))
    else:
        recipe = cast(Recipe, _built(checked))
        problems = list(_contradictions(recipe))
        if not problems:
            return recipe
    listing = "".join(f"\n  - {problem}" for problem in problems)
    raise QuantError(
        "FX604",
        f"{source} does not describe a recipe:{listing}",
        hint="flexllm recipes NAME prints one of those that come with the package, every field in it",
    )


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """All fields of a recipe in plain types; what is None is left out."""
    return cast("dict[str, Any]", _plain(recipe))


def format_to_dict(fmt: WeightFormat) -> dict[str, Any]:
    """All fields of a weight format in plain types, and ``format``, which says which it is."""
    return cast("dict[str, Any]", _plain(fmt))


def format_from_dict(fields: Mapping[str, Any], source: str) -> WeightFormat:
    """The weight format of a dictionary as `format_to_dict` makes it.

    Raises:
        QuantError: FX604, as `read_recipe`.
    """
    recipe = recipe_from_dict({"name": source, "weight": fields}, source)
    assert recipe.weight is not None
    return recipe.weight


def recipe_to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; `parse_recipe` of it is the recipe again."""
    return "\n".join(_toml(recipe_to_dict(recipe), "")).strip() + "\n"


def recipe_changes(before: Recipe, after: Recipe) -> str:
    """The TOML lines that make one recipe of another: what they say replaces what was there.

    Fields that are off, and numbers that are the default, are left out. A field that has to go is a comment.
    """
    lines: list[str] = []
    for field in dataclasses.fields(Recipe):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        if isinstance(new, Mapping):
            old, new = cast("Mapping[Any, Any]", old), cast("Mapping[Any, Any]", new)
            changed = [key for key in new if key not in old or old[key] != new[key]]
            lines += [f"{field.name}.{key} = {_inline(new[key])}" for key in changed]
            lines += [f"# without {field.name}.{key}" for key in old if key not in new]
        elif new is None:
            lines.append(f"# without {field.name}")
        else:
            lines.append(f"{field.name} = {_inline(new)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """A value on one line, a tuple with a line for each of its items."""
    if isinstance(value, tuple):
        return "[\n" + "".join(f"  {_inline(item)},\n" for item in cast("tuple[Any, ...]", value)) + "]"
    if not dataclasses.is_dataclass(value):
        return json.dumps(value, ensure_ascii=False)
    tag = _TAGS.get(cast(type, type(value)))
    parts = [f'{tag[0]} = "{tag[1]}"'] if tag else []
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item is None or (item == field.default and item is not True and not isinstance(item, str)):
            continue
        parts.append(f"{field.name} = {_inline(item)}")
    return "{ " + ", ".join(parts) + " }"


@cache
def _schema(kind: type) -> type[BaseModel]:
    """The pydantic model of a dataclass: its fields, types and defaults, and its tag."""
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default: Any = ... if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = Field(default_factory=field.default_factory)
        optional = type(None) in get_args(hints[field.name])  # TOML says None by leaving the field out
        fields[field.name] = (
            _annotation(hints[field.name]),
            None if default is ... and optional else default,
        )
    if kind in _TAGS:
        key, tag = _TAGS[kind]
        fields[key] = (Literal[tag], tag)  # pyright: ignore[reportInvalidTypeForm]
    schema = create_model(kind.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)
    _MADE_FROM[schema] = kind
    return schema


def _annotation(hint: Any) -> Any:
    """A type hint with dataclasses replaced by their schemas."""
    if dataclasses.is_dataclass(hint):
        return _schema(cast(type, hint))
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        options = [_annotation(part) for part in parts if part is not type(None)]
        union: Any = Union[tuple(options)]  # noqa: UP007
        keys = {_TAGS[part][0] for part in parts if part in _TAGS}
        if len(options) > 1 and keys:
            union = Annotated[union, Field(discriminator=keys.pop())]
        return union | None if type(None) in parts else union
    if origin is tuple:
        return tuple[_annotation(parts[0]), ...]
    if origin is Mapping:
        return dict[parts[0], _annotation(parts[1])]
    return hint


def _built(value: Any) -> Any:
    """Checked values as the dataclasses they stand for."""
    if isinstance(value, BaseModel):
        kind: Any = _MADE_FROM[type(value)]
        return kind(**{field.name: _built(getattr(value, field.name)) for field in dataclasses.fields(kind)})
    if isinstance(value, tuple):
        return tuple(_built(part) for part in cast("tuple[Any, ...]", value))
    if isinstance(value, dict):
        return {key: _built(part) for key, part in cast("dict[Any, Any]", value).items()}
    return value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        key, tag = _TAGS.get(cast(type, type(value)), ("", ""))
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return ({key: tag} if key else {}) | {k: v for k, v in fields.items() if v is not None}
    if isinstance(value, tuple):
        return [_plain(part) for part in cast("tuple[Any, ...]", value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    return value


def _problem(error: Mapping[str, Any]) -> str:
    """One line on what pydantic found."""
    loc: tuple[int | str, ...] = error["loc"]
    kind, given, message = error["type"], error["input"], error["msg"]
    *path, last = (part for part in loc if part not in _KINDS and part != "[key]")
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*path, last)).lstrip(".")
    if kind == "extra_forbidden":
        known = [field.name for field in dataclasses.fields(_dataclass_at(loc[:-1]))]
        return f"{at} is unknown: {did_you_mean(str(last), known)}"
    if kind.startswith("union_tag"):
        key = "pass" if "passes" in loc else "format"
        known = [tag for tag in _KINDS if f"'{tag}'" in error.get("ctx", {}).get("expected_tags", "")]
        known = known or [tag for name, tag in _TAGS.values() if name == key]
        tag = cast("dict[str, Any]", given).get(key) if isinstance(given, dict) else None
        if tag is None:
            return f"{at} does not say which {key} it is: {', '.join(known)}"
        return f"{at}.{key} is {tag!r}: {did_you_mean(str(tag), known)}"
    if kind == "missing":
        return f"{at} is missing"
    return f"{at} is {given!r}: {message[0].lower()}{message[1:]}"


def _dataclass_at(loc: tuple[int | str, ...]) -> Any:
    """The dataclass whose field a location names, found along the path and its tags."""
    here: Any = Recipe
    for part in loc:
        if part in _KINDS:
            here = _KINDS[str(part)]
        elif isinstance(part, str) and dataclasses.is_dataclass(here):
            hint = get_type_hints(here).get(part)
            inner = [option for option in (hint, *get_args(hint)) if dataclasses.is_dataclass(option)]
            here = inner[0] if len(inner) == 1 else here
    return here


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """What no schema can say: fields that are right by themselves but not together."""
    weights = {"weight": recipe.weight, "head": recipe.head}
    weights |= {f"kinds.{kind}": fmt for kind, fmt in recipe.kinds.items()}
    known = [kind for kinds in SITES.values() for kind in kinds if kind != "w_head"]
    for kind in recipe.kinds:
        if kind not in known:
            yield f"kinds.{kind} is unknown: {did_you_mean(kind, known)}"
    for at, fmt in weights.items():
        if isinstance(fmt, IntFormat):
            yield from _integer_problems(at, fmt, _WEIGHTS)
            if fmt.zero == "float":
                yield f'{at}.zero is "float": weights have "none" or "integer"'
        elif fmt is not None and fmt.group < 1:
            yield f"{at}.group is {fmt.group}: a group has at least one weight"
    if isinstance(recipe.activation, IntFormat):
        yield from _integer_problems("activation", recipe.activation, ("per_token",))
    if recipe.kv:
        yield from _integer_problems("kv", recipe.kv, ("per_head", "per_token_and_head"))
    for layer, bits in recipe.layer_bits.items():
        most = min((fmt.bits for fmt in (recipe.weight, *recipe.kinds.values()) if fmt), default=0)
        if layer < 0 or not 2 <= bits <= most:
            yield (
                f"layer_bits.{layer} is {bits}: layers count from 0 and have 2 to {most} bits, no more than "
                "any of their weights"
            )


def _integer_problems(at: str, fmt: IntFormat, granularities: tuple[str, ...]) -> Iterator[str]:
    if not 2 <= fmt.bits <= 8:
        yield f"{at}.bits is {fmt.bits}: 2 to 8 are supported"
    if fmt.granularity not in granularities:
        yield f'{at}.granularity is "{fmt.granularity}": it can be {" or ".join(granularities)}'
    if (fmt.granularity == "per_group") != (fmt.group > 0):
        yield f"{at}.group is {fmt.group}: weights that share a scale, for per_group and nothing else"


def _toml(fields: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Lines of a table: its values, then its tables, then its arrays of tables."""
    tables: dict[str, dict[str, Any]] = {k: v for k, v in fields.items() if isinstance(v, dict)}
    arrays = {key: value for key, value in fields.items() if _is_array_of_tables(value)}
    for key, value in fields.items():
        if key not in tables and key not in arrays:
            # JSON's strings (but for DEL), numbers, booleans and lists of them are TOML's too.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            yield f"{key} = {text}"
    for key, value in tables.items():
        if value:
            yield from ("", f"[{prefix}{key}]", *_toml(value, f"{prefix}{key}."))
    for key, value in arrays.items():
        for item in value:
            yield from ("", f"[[{prefix}{key}]]", *_toml(item, f"{prefix}{key}."))


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in cast("list[Any]", value))
