"""
A model whose turns are written beforehand, behind the two interfaces that assistants speak to one.

It asks for one tool after the other and then says a word; what it was given is kept.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

__all__ = ["Model", "answering"]

END = "That is all."


class Model:
    """
    Calls of tools, by the last part of their names, and the arguments of each.

    Attributes:
        told: What came back for each call, as the model is told it.
        offered: The names of all tools as the assistant shows them.
        turns_without: How often it was asked before the assistant had the tool: some start before their servers do.
    """

    def __init__(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._calls = list(calls)
        self.told: list[str] = []
        self.offered: set[str] = set()
        self.turns_without = 0

    def messages(self, body: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Anthropic's Messages interface, streamed."""
        self.offered |= {tool["name"] for tool in body.get("tools", [])}
        blocks = [
            block
            for message in body["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
            if block["type"] == "tool_result"
        ]
        self.told = [json.dumps(block.get("content"), ensure_ascii=False) for block in blocks]
        call = self._next(len(blocks), {tool["name"]: tool["name"] for tool in body.get("tools", [])})
        usage = {"input_tokens": 1, "output_tokens": 1}
        started = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
        yield {"type": "message_start", "message": {**started, "content": [], "stop_reason": None, "usage": usage}}
        if call is None:
            block, delta, reason = (
                {"type": "text", "text": ""},
                {"type": "text_delta", "text": self._word()},
                "end_turn",
            )
        else:
            block = {"type": "tool_use", "id": f"toolu_{len(blocks)}", "name": call[0], "input": {}}
            delta, reason = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}, "tool_use"
        yield {"type": "content_block_start", "index": 0, "content_block": block}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
        yield {"type": "message_stop"}

    def responses(self, body: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """OpenAI's Responses interface, streamed."""
        spaces: dict[str, tuple[str | None, str]] = {}
        for tool in body.get("tools", []):
            if tool["type"] == "namespace":
                spaces |= {f"{tool['name']}__{inner['name']}": (tool["name"], inner["name"]) for inner in tool["tools"]}
            elif "name" in tool:
                spaces[tool["name"]] = (None, tool["name"])
        self.offered |= set(spaces)
        outputs = [item for item in body["input"] if item["type"] == "function_call_output"]
        self.told = [json.dumps(item["output"], ensure_ascii=False) for item in outputs]
        call = self._next(len(outputs), {name: name for name in spaces})
        response: dict[str, Any] = {"id": "resp_1", "object": "response", "status": "in_progress"}
        yield {"type": "response.created", "response": response}
        item: dict[str, Any]
        if call is None:
            content = [{"type": "output_text", "text": self._word(), "annotations": []}]
            item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
        else:
            space, name = spaces[call[0]]
            item = {"type": "function_call", "id": f"fc_{len(outputs)}", "call_id": f"call_{len(outputs)}"}
            item |= {"name": name, "arguments": json.dumps(call[1]), "status": "completed"}
            item |= {} if space is None else {"namespace": space}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        yield {
            "type": "response.completed",
            "response": {**response, "status": "completed", "output": [item], "usage": usage},
        }

    def _word(self) -> str:
        return END if len(self.told) >= len(self._calls) else f"There is no such tool, time {self.turns_without}."

    def _next(self, answered: int, names: dict[str, str]) -> tuple[str, dict[str, Any]] | None:
        """The call that is next, under the name that this assistant gave the tool."""
        if answered >= len(self._calls):
            return None
        tool, arguments = self._calls[answered]
        found = [name for name in names if name.endswith(tool)]
        self.turns_without += not found
        return (found[0], arguments) if found else None


@contextmanager
def answering(model: Model) -> Generator[str]:
    """*model* on this machine, and its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(b"", "text/plain")

        def do_GET(self) -> None:
            self._answer(b'{"data": [], "models": []}', "application/json")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0]
            work = {"/v1/messages": model.messages, "/v1/responses": model.responses}.get(path)
            if work is None:
                return self._answer(b"{}", "application/json")
            body = json.loads(raw)
            events = list(work(body))
            text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
            return self._answer(text.encode(), "text/event-stream")

        def _answer(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
