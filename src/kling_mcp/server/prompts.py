"""
Prompts: a plain idea becomes a prompt in the order that Kling follows best.

That order is scene, motion of the subject, camera, details, sound and
constraints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import mcp_types as t
from mcp.shared.exceptions import MCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server.context import ServerRequestContext

__all__ = ["PROMPTS", "get_prompt", "list_prompts"]

_PARTS: Final = (
    "Scene: what the picture already shows, where it goes on, and the style\n"
    "Subject motion: who or what moves, and how\n"
    "Camera: one movement, such as slow push in, pan left, handheld, static\n"
    "Important details: light, lens, colours, pace\n"
    "Audio: speech in quotation marks, sounds, music; only if sound is wanted\n"
    "Constraints: what has to stay the same, and what must not appear"
)

_PICTURE: Final = t.PromptArgument(name="image", description="The picture: URL or path.", required=True)
_MODEL: Final = t.PromptArgument(name="model", description="Kling model, such as o3-standard.", required=False)


def _single_shot(given: Mapping[str, str]) -> str:
    return (
        f"The user wants a Kling video from the picture {given['image']}. The idea: {given['idea']}\n\n"
        f"A prompt for Kling has these parts, each a sentence or two, together under 2,500 characters:\n{_PARTS}\n\n"
        f"The tool is image_to_video with image {given['image']}{_with_model(given)}; estimate_cost with the same "
        "arguments gives the price for the user first."
    )


def _storyboard(given: Mapping[str, str]) -> str:
    return (
        f"The user wants a story in several shots from the picture {given['image']}. The idea: {given['idea']}\n\n"
        "A storyboard is two to six shots, together 3 to 15 seconds, each one action and one camera movement that "
        f"connects to the shot before. Each shot's prompt has these parts, under 512 characters:\n{_PARTS}\n\n"
        f"The tool is multi_shot_video with image {given['image']}{_with_model(given)} and shots "
        "[{prompt, duration}]; estimate_cost with the same arguments gives the price for the user first."
    )


def _transition(given: Mapping[str, str]) -> str:
    return (
        f"The user wants one clip that leads from the picture {given['image']} to the picture {given['end_image']}. "
        f"The idea: {given.get('idea') or 'a natural transition'}\n\n"
        "The prompt tells what happens between the two pictures and not what they show, with these parts:\n"
        f"{_PARTS}\n\n"
        f"The tool is image_to_video with image {given['image']} and end_image {given['end_image']}"
        f"{_with_model(given)}; estimate_cost with the same arguments gives the price for the user first."
    )


def _with_model(given: Mapping[str, str]) -> str:
    return f", model {given['model']}" if given.get("model") else ""


_IDEA: Final = t.PromptArgument(name="idea", description="What should happen, in plain words.", required=True)

PROMPTS: Final[dict[str, tuple[t.Prompt, Callable[[Mapping[str, str]], str]]]] = {
    "single_shot": (
        t.Prompt(
            name="single_shot",
            title="One shot",
            description="One picture and an idea become one clip.",
            arguments=[_PICTURE, _IDEA, _MODEL],
        ),
        _single_shot,
    ),
    "storyboard": (
        t.Prompt(
            name="storyboard",
            title="Storyboard",
            description="One picture and a story become a clip of several shots.",
            arguments=[_PICTURE, _IDEA, _MODEL],
        ),
        _storyboard,
    ),
    "transition": (
        t.Prompt(
            name="transition",
            title="Transition",
            description="Two pictures become a clip that leads from one to the other.",
            arguments=[
                _PICTURE,
                t.PromptArgument(name="end_image", description="The last picture: URL or path.", required=True),
                t.PromptArgument(name="idea", description="How to get there, in plain words.", required=False),
                _MODEL,
            ],
        ),
        _transition,
    ),
}


async def list_prompts(ctx: ServerRequestContext[Any], params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
    """All prompts."""
    return t.ListPromptsResult(prompts=[prompt for prompt, _ in PROMPTS.values()])


async def get_prompt(ctx: ServerRequestContext[Any], params: t.GetPromptRequestParams) -> t.GetPromptResult:
    """
    One prompt, filled in.

    Raises:
        MCPError: There is no such prompt, or an argument is missing.
    """
    found = PROMPTS.get(params.name)
    if found is None:
        raise MCPError(code=t.INVALID_PARAMS, message=f"There is no prompt {params.name[:60]!r}")
    prompt, write = found
    given = {name: value for name, value in (params.arguments or {}).items() if value}
    missing = [argument.name for argument in prompt.arguments or [] if argument.required and argument.name not in given]
    if missing:
        raise MCPError(code=t.INVALID_PARAMS, message=f"{prompt.name} needs {', '.join(missing)}")
    text = t.TextContent(type="text", text=write(given))
    return t.GetPromptResult(description=prompt.description, messages=[t.PromptMessage(role="user", content=text)])
