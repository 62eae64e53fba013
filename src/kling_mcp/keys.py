"""Reads a pasted key: strips what surrounds it, and refuses a text in which the key is not clear."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from kling_mcp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plain_key"]


def plain_key(pasted: str) -> str | None:
    """
    The key in *pasted*, or None where there is nothing but what usually surrounds one.

    Raises:
        SettingsError: It is not clear which key is meant, or it is not one of fal.ai; the message does not show it.
    """
    visible = "".join(character for character in pasted if unicodedata.category(character) != "Cf")
    if _EXAMPLE.fullmatch(visible.strip(_QUOTES + " ")):
        raise _wrong("still has the words of an example", "The key itself belongs there.")
    if _VARIABLE.fullmatch(visible.strip(_QUOTES + " ")):
        raise _wrong("is the name of a variable that nothing has filled in", "The key itself belongs there.")
    parts = list(dict.fromkeys(_once(part) for part in _AROUND.sub(" ", visible).split()))
    if len(parts) > 1:
        shaped = [part for part in parts if _SHAPE.fullmatch(part)]
        whole = "".join(parts)
        certain = len(shaped) == 1 and [part for part in parts if _PAIR.fullmatch(part)] == shaped
        parts = shaped if certain else [whole] if _SHAPE.fullmatch(whole) else parts
    if not parts:
        return None
    if len(parts) > 1 and all(_is_key(part) for part in parts):
        raise _wrong(f"holds {len(parts)} different keys", "One of them belongs there.")
    key = " ".join(parts)
    if "://" in key:
        raise _wrong("is a web address and not a key", _MAKE_ONE)
    if "***" in key:
        raise _wrong("holds a key that is hidden in part", _MAKE_ONE)
    if any(not 33 <= ord(character) <= 126 for character in key):
        raise _wrong("has a character that no fal.ai key has (a space, a line break or a non-ASCII letter)", "")
    vendor = _vendor(key)
    if vendor is not None:
        raise _wrong(f"holds a key of {vendor}, not one of fal.ai", _MAKE_ONE)
    return key


def _once(part: str) -> str:
    """*part*, or its half where it is the same key twice without anything between."""
    half = part[: len(part) // 2]
    return half if ":" in half and half + half == part else part


def _is_key(part: str) -> bool:
    return bool(_PAIR.fullmatch(part)) or _vendor(part) is not None


def _vendor(key: str) -> str | None:
    """Whose key it is by its beginning; a fal.ai key has a colon inside, and theirs do not."""
    return None if ":" in key else next((name for start, name in _VENDORS.items() if key.startswith(start)), None)


def _wrong(what: str, next_step: str) -> SettingsError:
    return SettingsError(f"FAL_KEY {what}. {next_step}".rstrip())


_MAKE_ONE: Final = "A fal.ai key is made at https://fal.ai/dashboard/keys."
_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d\u201e\u201a\u00ab\u00bb\u2039\u203a"
_PAIR: Final = re.compile(r"(?!\S*://)[!-~]+:[!-~]{6,}")
_SHAPE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9a-f]{32}", re.IGNORECASE)
"""A key as fal.ai makes them, which shows where one ends; others are taken as they are."""
_AROUND: Final = re.compile(
    rf"""
    \\[nrt](?=[\\\s{_QUOTES}]|$)                                  # a line break as programs write it
    | [{_QUOTES}<>{{}}\[\](),;\\]                                   # quotes and brackets
    | (?<!\S) \#.*                                               # a comment
    | (?<!\S) (?: export | setx? | env | -e | --env | --header | -H ) (?=\s)
    | (?: \$env: | (?<![^\s{_QUOTES}{{,;]) ) (?: FAL[_-]?(?:API[_-]?)?KEY | AUTHORIZATION | X-API-KEY )
      [{_QUOTES}]* \s* (?: [=:] | (?=\s|$) )
    | (?<![^\s{_QUOTES}{{,;=]) [A-Z][\w.-]* [{_QUOTES}]* \s* = (?!=) (?=\s*[^\s=])   # any other name
    | (?<![^\s{_QUOTES}{{,;=]) [\w.-]* (?:Key|Token|Credentials|Bearer) [{_QUOTES}]* : (?=\s*[{_QUOTES}]*[^\s:]+:\S)
    | (?<![^\s{_QUOTES}=:]) (?: Key | Bearer | Token ) :? (?=\s|$)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What people copy along with a key: from a shell, a .env file, a JSON or YAML file, or a header."""
_EXAMPLE: Final = re.compile(
    r"<?((your|my)[-_. ]*)?(fal([-_.]?ai)?[-_. ]*)?(api[-_. ]*)?key([-_. ]*here)?>?"
    r"|(?=.*(?:your|paste|insert|enter|replace|here|>:<))"
    r"(?:[-_. :<>]*(?:your|my|the|paste|insert|put|enter|add|replace|with|fal|ai|api|key|id|secret|token|here))+"
    r"[-_. :<>]*"
    r"|(?:fal[-_]|key[-_ ])?[x*.:\u2026\u2022-]{3,}|change[-_ ]?me|todo|null|none|undefined",
    re.IGNORECASE,
)
_VARIABLE: Final = re.compile(r"\$\w+|%\w+%|\$\{[^}]*\}|\{\{.*\}\}")
_VENDORS: Final[Mapping[str, str]] = {
    "sk-ant-": "Anthropic",
    "sk-or-": "OpenRouter",
    "sk-": "OpenAI or a service like it",
    "sk_": "another service",
    "AIza": "Google",
    "ya29.": "Google",
    "r8_": "Replicate",
    "hf_": "Hugging Face",
    "gsk_": "Groq",
    "xai-": "xAI",
    "pplx-": "Perplexity",
    "nvapi-": "NVIDIA",
    "key_": "Runway",
    "luma-": "Luma",
    "ghp_": "GitHub",
    "gho_": "GitHub",
    "github_pat_": "GitHub",
    "glpat-": "GitLab",
    "AKIA": "Amazon",
    "xox": "Slack",
    "eyJ": "another service (a signed token)",
}
