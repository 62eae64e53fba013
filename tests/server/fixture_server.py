"""
Our server with what the conformance suites want to find on one, over HTTP.

The suites speak HTTP and name the tools, resources and prompts that they call.
So they are served by `KlingServer` itself, with its handlers for tasks,
subscriptions, sealed confirmations and errors, and with these beside its own.

    python -m tests.server.fixture_server FOLDER

prints the URL, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

from kling_mcp.server.app import build
from kling_mcp.server.notifier import ChangeNotifier
from kling_mcp.server.tasks import JobTasks, Task, declared, offered, undeclared
from kling_mcp.server.tools import TOOLS, Tool
from kling_mcp.settings import Settings
from tests.server.serving import http

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mcp.server.context import ServerRequestContext
    from mcp.server.streamable_http import EventCallback

    from kling_mcp.server.app import KlingServer
    from kling_mcp.server.context import AppContext, Call

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SOUND = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

Answer = t.CallToolResult | t.InputRequiredResult | dict[str, Any]


def served(settings: Settings) -> KlingServer:
    """The server of *settings* with the suites' tools, resources, prompts and tasks beside its own."""
    tools = {
        name: Tool(
            name=name,
            title=name,
            description=f"Fixture {name}.",
            annotations=_PLAIN,
            takes=schema,
            gives=None,
            run=run,
        )
        for name, (schema, run) in FIXTURES.items()
    }
    server = build(settings, tools={**TOOLS, **tools}, task_source=_MADE_UP, notifier=_NOTIFIER)
    _beside(server)
    return server


# ---- tools: contents


async def _text(_: Call) -> Answer:
    return text("This is a simple text response for testing.")


async def _image(_: Call) -> Answer:
    return t.CallToolResult(content=[_picture()])


async def _audio(_: Call) -> Answer:
    return t.CallToolResult(content=[t.AudioContent(type="audio", data=SOUND, mime_type="audio/wav")])


async def _embedded(_: Call) -> Answer:
    return t.CallToolResult(content=[_resource("test://embedded-resource", "text/plain", "This is embedded.")])


async def _mixed(_: Call) -> Answer:
    json_text = '{"test": "data", "value": 123}'
    first = t.TextContent(type="text", text="Multiple content types test:")
    return t.CallToolResult(content=[first, _picture(), _resource("test://mixed", "application/json", json_text)])


async def _fails(_: Call) -> Answer:
    raise RuntimeError("This tool intentionally returns an error for testing")


async def _progress(call: Call) -> Answer:
    for step in (0, 50, 100):
        await call.ctx.session.report_progress(step, 100, f"Completed step {step} of 100")
        await anyio.sleep(0.02)
    return text("done")


async def _logs(call: Call) -> Answer:
    for step in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        with warnings.catch_warnings():
            # Logging is deprecated; the session sends it to the newer era only where the request asked for it.
            warnings.simplefilter("ignore")
            await call.ctx.session.send_log_message("info", step, related_request_id=call.ctx.request_id)
        await anyio.sleep(0.02)
    return text("Tool with logging executed successfully")


async def _reconnects(call: Call) -> Answer:
    if call.ctx.close_sse_stream is not None:
        await call.ctx.close_sse_stream()
    await anyio.sleep(0.2)
    return text("Reconnection test completed")


async def _region(call: Call) -> Answer:
    return text(f"region={call.arguments.get('region')}")


async def _tools_change(call: Call) -> Answer:
    await _NOTIFIER.publish(ToolsListChanged())
    return text("tool list changed")


async def _prompts_change(call: Call) -> Answer:
    await _NOTIFIER.publish(PromptsListChanged())
    return text("prompt list changed")


async def _needs_sampling(call: Call) -> Answer:
    capabilities = call.ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(
            code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="This tool requires the client 'sampling' capability",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return text("Client declared sampling capability; proceeding.")


# ---- tools: questions of the older era


async def _samples(call: Call) -> Answer:
    with warnings.catch_warnings():
        # Sampling is deprecated; a server may still have to speak with those who know it.
        warnings.simplefilter("ignore")
        answer = await call.ctx.session.create_message(
            messages=[_said(str(call.arguments["prompt"]))], max_tokens=100, related_request_id=call.ctx.request_id
        )
    return text(f"LLM response: {getattr(answer.content, 'text', 'none')}")


def _elicits(properties: dict[str, Any], required: list[str] | None = None) -> Callable[[Call], Awaitable[Answer]]:
    async def run(call: Call) -> Answer:
        schema = {"type": "object", "properties": properties, "required": required or []}
        message = str(call.arguments.get("message") or "Please answer")
        answer = await call.ctx.session.elicit_form(message, schema, related_request_id=call.ctx.request_id)
        return text(f"Elicitation: action={answer.action}, content={json.dumps(answer.content or {})}")

    return run


_DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}


def _titled(**titles: str) -> list[dict[str, str]]:
    return [{"const": name, "title": title} for name, title in titles.items()]


_ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": _titled(value1="First", value2="Second", value3="Third")},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": _titled(value1="First Choice", value2="Second Choice")}},
}


# ---- tools: questions of the newer era


def _form(message: str, name: str, kind: str = "string") -> t.ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def _name(message: str = "What is your name?") -> t.ElicitRequest:
    return _form(message, "name")


def _said(words: str) -> t.SamplingMessage:
    return t.SamplingMessage(role="user", content=t.TextContent(type="text", text=words))


def _sampling(words: str) -> t.CreateMessageRequest:
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[_said(words)], max_tokens=50))


def _answers(call: Call) -> Mapping[str, Any]:
    return call.params.input_responses or {}


def _value(answer: object, name: str) -> str:
    return str((answer.content or {}).get(name)) if isinstance(answer, t.ElicitResult) else "?"


def _asks(
    reply: Callable[[Mapping[str, Any]], str], state: str | None = None, **questions: Any
) -> Callable[[Call], Awaitable[Answer]]:
    """A tool that asks *questions* once and answers with what *reply* makes of the answers."""

    async def run(call: Call) -> Answer:
        answers = _answers(call)
        if set(questions) <= set(answers) and (state is None or call.params.request_state == state):
            return text(reply(answers))
        return t.InputRequiredResult(input_requests=dict(questions), request_state=state)

    return run


async def _rounds(call: Call) -> Answer:
    state = json.loads(call.params.request_state) if call.params.request_state else {"round": 0}
    answers = _answers(call)
    if state["round"] == 1 and "step1" in answers:
        following = {"round": 2, "name": _value(answers["step1"], "name")}
        question = _form("Step 2: What is your favorite color?", "color")
        return t.InputRequiredResult(input_requests={"step2": question}, request_state=json.dumps(following))
    if state["round"] == 2 and "step2" in answers:
        return text(f"{state['name']} likes {_value(answers['step2'], 'color')}.")
    question = _name("Step 1: What is your name?")
    return t.InputRequiredResult(input_requests={"step1": question}, request_state=json.dumps({"round": 1}))


async def _sealed(call: Call) -> Answer:
    if call.params.request_state is None:
        return t.InputRequiredResult(
            input_requests={"confirm": _form("Please confirm", "ok", "boolean")}, request_state="1"
        )
    return text(f"state-ok: {call.params.request_state}")


async def _capable(call: Call) -> Answer:
    capabilities = call.ctx.session.client_capabilities
    questions: dict[str, Any] = {}
    if capabilities is not None and capabilities.sampling is not None:
        questions["sample"] = _sampling("Say hello")
    if capabilities is not None and capabilities.elicitation is not None:
        questions["ask"] = _name()
    return t.InputRequiredResult(input_requests=questions, request_state="capability-gated")


# ---- tasks


@dataclass
class _Work:
    """A made-up task: done after a while and once its questions are answered."""

    ready: float
    result: t.CallToolResult | None = None
    error: t.ErrorData | None = None
    questions: dict[str, Any] = field(default_factory=dict)
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    cancelled: bool = False


class _MadeUp:
    """Made-up tasks by id; any other id is a job's."""

    def __init__(self) -> None:
        self._jobs = JobTasks()
        self.works: dict[str, _Work] = {}

    async def look(self, app: AppContext, task_id: str) -> Task:
        work = self.works.get(task_id)
        if work is None:
            return await self._jobs.look(app, task_id)
        at = work.created_ms
        if work.cancelled:
            return Task(task_id, "cancelled", "cancelled", at, at)
        if work.questions:
            return Task(task_id, "input_required", "asking", at, at, questions=work.questions)
        if time.monotonic() < work.ready:
            return Task(task_id, "working", "working", at, at)
        if work.error is not None:
            return Task(task_id, "failed", "failed", at, at, error=work.error)
        return Task(task_id, "completed", "done", at, at, work.result)

    async def answer(self, app: AppContext, task_id: str, responses: Mapping[str, Any]) -> None:
        if (work := self.works.get(task_id)) is not None:
            work.questions = {key: asked for key, asked in work.questions.items() if key not in responses}

    async def cancel(self, app: AppContext, task_id: str) -> None:
        if (work := self.works.get(task_id)) is None:
            await self._jobs.cancel(app, task_id)
        else:
            work.cancelled = True


# One server in this process.
_MADE_UP = _MadeUp()
_NOTIFIER = ChangeNotifier()


async def _as_task(call: Call, work: _Work) -> Answer:
    if not declared(call.ctx):
        raise undeclared()
    task_id = f"made-up-{secrets.token_hex(8)}"
    _MADE_UP.works[task_id] = work
    return offered(await _MADE_UP.look(call.app, task_id))


async def _slow(call: Call) -> Answer:
    seconds = float(str(call.arguments.get("seconds", 0)))
    done = text(f"computed {call.arguments.get('label')}")
    if declared(call.ctx):
        return await _as_task(call, _Work(time.monotonic() + seconds, done))
    await anyio.sleep(seconds)
    return done


async def _failing(call: Call) -> Answer:
    failed = t.CallToolResult(content=[t.TextContent(type="text", text="it failed")], is_error=True)
    return await _as_task(call, _Work(time.monotonic() + 0.3, failed))


async def _protocol_error(call: Call) -> Answer:
    return await _as_task(call, _Work(0, error=t.ErrorData(code=t.INTERNAL_ERROR, message="it broke")))


def _asking(*names: str) -> Callable[[Call], Awaitable[Answer]]:
    async def run(call: Call) -> Answer:
        questions = {
            f"{name}-{secrets.token_hex(4)}": _form(f"{name}?", "confirm", "boolean").model_dump(
                by_alias=True, mode="json", exclude_none=True
            )
            for name in names
        }
        return await _as_task(call, _Work(0, text("deleted"), questions=questions))

    return run


async def _asks_then_task(call: Call) -> Answer:
    answers = _answers(call)
    if not declared(call.ctx):
        raise undeclared()
    if "user_name" not in answers:
        return t.InputRequiredResult(input_requests={"user_name": _name()}, request_state="asked")
    return await _as_task(call, _Work(0, text(f"Hello, {_value(answers['user_name'], 'name')}!")))


async def _greets(call: Call) -> Answer:
    return text(f"Hello, {call.arguments.get('name')}!")


def text(words: str) -> t.CallToolResult:
    """*words* as a result."""
    return t.CallToolResult(content=[t.TextContent(type="text", text=words)])


def _picture() -> t.ImageContent:
    return t.ImageContent(type="image", data=PICTURE, mime_type="image/png")


def _resource(uri: str, mime_type: str, words: str) -> t.EmbeddedResource:
    return t.EmbeddedResource(
        type="resource", resource=t.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    )


# ---- the list

_PLAIN = t.ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

_SCHEMA_2020: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _with(schema: dict[str, Any] | None = None, **kinds: str) -> Callable[[Any], dict[str, Any]]:
    whole = schema or {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    return lambda _: whole


_REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
_ASKED = "test_input_required_result"

FIXTURES: dict[str, tuple[Callable[[Any], dict[str, Any]], Callable[[Call], Awaitable[Answer]]]] = {
    "test_simple_text": (_with(), _text),
    "test_image_content": (_with(), _image),
    "test_audio_content": (_with(), _audio),
    "test_embedded_resource": (_with(), _embedded),
    "test_multiple_content_types": (_with(), _mixed),
    "test_error_handling": (_with(), _fails),
    "test_tool_with_progress": (_with(), _progress),
    "test_tool_with_logging": (_with(), _logs),
    "test_logging_tool": (_with(), _logs),
    "test_streaming_elicitation": (_with(), _asks(lambda _: "done", user_name=_name())),
    "test_reconnection": (_with(), _reconnects),
    "test_x_mcp_header": (_with(_REGION), _region),
    "json_schema_2020_12_tool": (_with(_SCHEMA_2020), _text),
    "test_trigger_tool_change": (_with(), _tools_change),
    "test_trigger_prompt_change": (_with(), _prompts_change),
    "test_missing_capability": (_with(), _needs_sampling),
    "test_sampling": (_with(prompt="string"), _samples),
    "test_elicitation": (_with(message="string"), _elicits({"response": {"type": "string"}}, ["response"])),
    "test_elicitation_sep1034_defaults": (_with(), _elicits(_DEFAULTS)),
    "test_elicitation_sep1330_enums": (_with(), _elicits(_ENUMS)),
    f"{_ASKED}_elicitation": (_with(), _asks(lambda a: f"Hello, {_value(a['user_name'], 'name')}!", user_name=_name())),
    f"{_ASKED}_sampling": (_with(), _asks(lambda _: "Model said: Paris", capital_question=_sampling("Capital?"))),
    f"{_ASKED}_list_roots": (_with(), _asks(lambda _: "Client exposed roots.", client_roots=t.ListRootsRequest())),
    f"{_ASKED}_request_state": (
        _with(),
        _asks(lambda _: "state-ok: confirmation received", "nonce", confirm=_form("Please confirm", "ok", "boolean")),
    ),
    f"{_ASKED}_multiple_inputs": (
        _with(),
        _asks(
            lambda _: "All inputs received.",
            "several",
            user_name=_name(),
            greeting=_sampling("Generate a greeting"),
            client_roots=t.ListRootsRequest(),
        ),
    ),
    f"{_ASKED}_multi_round": (_with(), _rounds),
    f"{_ASKED}_tampered_state": (_with(), _sealed),
    f"{_ASKED}_capabilities": (_with(), _capable),
    "greet": (_with(name="string"), _greets),
    "slow_compute": (_with(seconds="number", label="string"), _slow),
    "failing_job": (_with(), _failing),
    "protocol_error_job": (_with(), _protocol_error),
    "confirm_delete": (_with(filename="string"), _asking("confirm")),
    "multi_input": (_with(), _asking("first", "second")),
    "test_tool_with_task": (_with(), _asks_then_task),
}


# ---- resources, prompts, completion

_WORDS = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "Watched resource content",
}


def _beside(server: KlingServer) -> None:
    """Answer for what the suites name, and leave everything else to the server's own handlers."""

    def around(method: str, own: Callable[[Any, Any], Any], after: Callable[[Any], None] | None = None) -> None:
        entry = server.get_request_handler(method)
        assert entry is not None

        async def handle(ctx: ServerRequestContext[Any], params: Any) -> Any:
            answer = own(ctx, params)
            if answer is None:
                answer = await entry.handler(ctx, params)
                if after is not None:
                    after(answer)
            return answer

        server.add_request_handler(method, entry.params_type, handle)

    def list_more(result: t.ListResourcesResult) -> None:
        result.resources += [t.Resource(uri=uri, name=uri, mime_type="text/plain") for uri in _WORDS]
        result.resources.append(t.Resource(uri="test://static-binary", name="binary", mime_type="image/png"))

    def more_templates(result: t.ListResourceTemplatesResult) -> None:
        result.resource_templates.append(t.ResourceTemplate(uri_template="test://template/{id}/data", name="template"))

    def more_prompts(result: t.ListPromptsResult) -> None:
        result.prompts += [prompt for prompt, _ in _PROMPTS.values()]

    around("resources/list", lambda *_: None, list_more)
    around("resources/templates/list", lambda *_: None, more_templates)
    around("prompts/list", lambda *_: None, more_prompts)
    around("resources/read", lambda _, params: _read(str(params.uri)))
    around("prompts/get", lambda _, params: _prompt(params))
    around("completion/complete", lambda _, params: _completed(params))


def _read(uri: str) -> t.ReadResourceResult | None:
    if uri in _WORDS:
        return t.ReadResourceResult(
            contents=[t.TextResourceContents(uri=uri, mime_type="text/plain", text=_WORDS[uri])]
        )
    if uri == "test://static-binary":
        return t.ReadResourceResult(contents=[t.BlobResourceContents(uri=uri, mime_type="image/png", blob=PICTURE)])
    if uri.startswith("test://template/") and uri.endswith("/data"):
        name = uri.split("/")[3]
        data = json.dumps({"id": name, "templateTest": True, "data": f"Data for ID: {name}"})
        return t.ReadResourceResult(contents=[t.TextResourceContents(uri=uri, mime_type="application/json", text=data)])
    return None


def _completed(params: t.CompleteRequestParams) -> t.CompleteResult | None:
    if getattr(params.ref, "name", "") not in _PROMPTS:
        return None
    return t.CompleteResult(completion=t.Completion(values=["paris", "park"], total=2, has_more=False))


def _message(content: Any) -> t.PromptMessage:
    return t.PromptMessage(role="user", content=content)


def _words(words: str) -> t.TextContent:
    return t.TextContent(type="text", text=words)


def _prompt(params: t.GetPromptRequestParams) -> t.GetPromptResult | t.InputRequiredResult | None:
    if params.name not in _PROMPTS:
        return None
    given = params.arguments or {}
    if params.name == "test_input_required_result_prompt":
        answer = (params.input_responses or {}).get("user_context")
        if answer is None:
            question = _form("What context should the prompt use?", "context")
            return t.InputRequiredResult(input_requests={"user_context": question})
        return t.GetPromptResult(messages=[_message(_words(f"Use the following context: {_value(answer, 'context')}"))])
    return t.GetPromptResult(messages=_PROMPTS[params.name][1](given))


_PROMPTS: dict[str, tuple[t.Prompt, Callable[[Mapping[str, str]], list[t.PromptMessage]]]] = {
    name: (
        t.Prompt(
            name=name,
            description=f"Fixture {name}.",
            arguments=[t.PromptArgument(name=argument, required=True) for argument in arguments],
        ),
        messages,
    )
    for name, arguments, messages in (
        ("test_simple_prompt", (), lambda _: [_message(_words("This is a simple prompt for testing."))]),
        (
            "test_prompt_with_arguments",
            ("arg1", "arg2"),
            lambda given: [_message(_words(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))],
        ),
        (
            "test_prompt_with_embedded_resource",
            ("resourceUri",),
            lambda given: [
                _message(_resource(given["resourceUri"], "text/plain", "Embedded resource content for testing.")),
                _message(_words("Please process the embedded resource above.")),
            ],
        ),
        (
            "test_prompt_with_image",
            (),
            lambda _: [_message(_picture()), _message(_words("Please analyze the image above."))],
        ),
        ("test_input_required_result_prompt", (), lambda _: []),
    )
}


# ---- the process


class _Events(EventStore):
    """What was sent, so that a client of the older era can fetch what it missed."""

    def __init__(self) -> None:
        self._events: list[tuple[str, t.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: t.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream_id = self._events[last - 1][0]
        for number, (stream, message) in enumerate(self._events[last:], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


async def _main(folder: Path) -> None:
    settings = Settings.from_environment(
        {
            "KLING_MCP_BACKEND": "simulator",
            "KLING_MCP_DATA_DIR": str(folder / "state"),
            "KLING_MCP_OUTPUT_DIR": str(folder / "videos"),
            "KLING_MCP_LOG_LEVEL": "ERROR",
        }
    )
    async with http(served(settings), event_store=_Events(), retry_interval=100) as url:
        print(url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(_main, Path(sys.argv[1]))
