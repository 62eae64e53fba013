"""Lines that no client should send: each with an id is answered, each without one is not, and it goes on."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as t
import pytest

from kling_mcp.server.frames import read_frame, too_long
from tests.server.hosts import ERAS, NEWER, OLDER
from tests.server.pipes import greeting, modern, piped

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = '{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}'
PARSE, INVALID = -32700, -32600
DEEP = "[" * 5000 + "]" * 5000

REFUSED = [
    (WHOLE[:-1], PARSE, 7),
    (WHOLE[:30], PARSE, 7),
    (WHOLE.replace("list", "li\x01st"), PARSE, 7),
    (WHOLE.replace("list", "li\tst"), PARSE, 7),
    (WHOLE.replace("{}}", '{"a":NaN}}'), PARSE, 7),
    (WHOLE.replace("{}}", '{"a":-Infinity}}'), PARSE, 7),
    (WHOLE.replace("{}}", '{"a":' + DEEP + "}}"), PARSE, 7),
    (WHOLE.replace("{}}", '{"a":' + "[" * 150 + "]" * 150 + "}}"), PARSE, 7),
    (WHOLE.replace("{}}", "{'a':1}}"), PARSE, 7),
    (WHOLE.replace("{}}", "{},}"), PARSE, 7),
    (WHOLE + "}", PARSE, 7),
    (WHOLE + WHOLE, PARSE, 7),
    ('{"method":"tools/list","params":{"id":9},"id":"b",}', PARSE, "b"),
    ('a raw line break cut here"}},"id":12}', PARSE, 12),
    (WHOLE.replace('"jsonrpc":"2.0",', ""), INVALID, 7),
    (WHOLE.replace('"2.0"', '"1.0"'), INVALID, 7),
    (WHOLE.replace('"2.0"', "2.0"), INVALID, 7),
    (WHOLE.replace("{}}", "[]}"), INVALID, 7),
    (WHOLE.replace("{}}", '"x"}'), INVALID, 7),
    (WHOLE.replace("{}}", "7}"), INVALID, 7),
    (WHOLE.replace('"tools/list"', "null"), INVALID, 7),
    (WHOLE.replace('"method":"tools/list",', ""), INVALID, 7),
    (WHOLE.replace("{}}", '{"a":1,"a":2}}'), INVALID, 7),
    (WHOLE.replace("{}}", '{},"id":8}'), INVALID, 8),
    (WHOLE.replace("{}}", '{"name":"\\ud83d"}}'), INVALID, 7),
    (WHOLE.replace("{}}", '{"\\ud83d":1}}'), INVALID, 7),
    (WHOLE.replace("7", "1.5"), INVALID, 1.5),
    (WHOLE.replace("7", "null"), INVALID, None),
    (WHOLE.replace("7", "true"), INVALID, None),
    (WHOLE.replace("7", "[1]"), INVALID, None),
    (WHOLE.replace("7", '"\\ud83d"'), INVALID, "\ud83d"),
    (WHOLE.replace("7", "1e400"), INVALID, None),
    (f"[{WHOLE}]", INVALID, 7),
]


@pytest.mark.parametrize(("line", "code", "which"), REFUSED, ids=range(len(REFUSED)))
def test_a_line_with_an_id_is_refused_with_that_id(line: str, code: int, which: object) -> None:
    """
    As far as one can be read; what it says is one JSON line of ASCII.
    """
    (fault,) = read_frame(line.encode()).faults
    answer = fault.line()
    assert answer is not None
    assert answer.isascii()
    said = json.loads(answer)
    assert (said["error"]["code"], said["id"]) == (code, which)
    assert said["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "{",
            "x",
            "[]",
            "[1]",
            "7",
            '"x"',
            "null",
            '{"jsonrpc":"2.0"}',
            '{"jsonrpc":"2.0","method":7}',
            DEEP,
            '{"id":12',
        ),
        *('{"jsonrpc":"2.0","method":"m","params":[]}', '{"method":"m","params":{"id":5}', "\x00\x01", '"id": 7,'),
    ],
)
def test_a_line_without_an_id_is_not_answered(line: str) -> None:
    """
    There is nobody who could know what the answer is about.
    """
    frame = read_frame(line.encode())
    assert frame.message is None
    assert [fault.line() for fault in frame.faults] == [None]


@pytest.mark.parametrize("end", ["", "\r", " ", "\n"])
@pytest.mark.parametrize("begin", ["", "\ufeff", " "])
@pytest.mark.parametrize(("number", "which"), [("7", 7), ("1.0", 1), ('"7"', "7"), ("-3", -3), (str(2**200), 2**200)])
def test_what_can_be_understood_is_served(begin: str, end: str, number: str, which: object) -> None:
    """
    A byte order mark, blanks, the line ends of Windows; to the schema of MCP 1.0 is an integer.
    """
    frame = read_frame((begin + WHOLE.replace("7", number) + end).encode())
    assert frame.faults == ()
    assert isinstance(frame.message, t.JSONRPCRequest)
    assert frame.message.id == which


def test_a_number_of_more_digits_than_python_reads_keeps_its_id() -> None:
    """
    As an argument, and as the id itself.
    """
    digits = "9" * 5000
    (fault,) = read_frame(WHOLE.replace("{}}", f'{{"a":{digits}}}}}').encode()).faults
    assert (fault.code, fault.id) == (PARSE, "7")
    (fault,) = read_frame(WHOLE.replace("7", digits).encode()).faults
    assert (fault.code, fault.id) == (PARSE, digits)
    read_frame(f'{{"id":{digits},"result":{{}},}}'.encode())


@pytest.mark.parametrize("content", ["[]", "{}", '"yes"', "null", '{"a":{"b":1}}'])
def test_what_comes_beside_the_answer_to_a_form_without_fields_is_left_out(content: str) -> None:
    answer = f'{{"jsonrpc":"2.0","id":1,"result":{{"action":"accept","content":{content}}}}}'
    frame = read_frame(answer.encode())
    assert frame.faults == ()
    assert isinstance(frame.message, t.JSONRPCResponse)
    assert frame.message.result == {"action": "accept"}


def test_a_batch_is_refused_once_for_each_request_in_it() -> None:
    """
    Also where the batch is not JSON.
    """
    batch = "[" + ",".join([WHOLE, WHOLE.replace("7", "8"), WHOLE.replace('"id":7,', "")]) + "]"
    for line in (batch, batch[:-1]):
        assert [fault.id for fault in read_frame(line.encode()).faults] == ["7", "8"]


@pytest.mark.parametrize("text", [b'"half an emoji \\ud83d"', b'"caf\xe9"', b'{"deep": [{"er": "\\udc00"}]}'])
def test_a_bad_text_in_arguments_is_left_to_the_tool(text: bytes) -> None:
    """
    Its refusal is read by the model, which can send the text again; a protocol error is not.
    """
    line = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"prompt":%s}}}' % text
    frame = read_frame(line)
    assert frame.faults == ()
    assert isinstance(frame.message, t.JSONRPCRequest)
    assert frame.remark is not None
    assert "params.arguments.prompt" in frame.remark


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc":"2.0","id":3,"result":[]}',
        '{"jsonrpc":"2.0","id":3,"result":{"a":NaN}}',
        '{"jsonrpc":"2.0","id":3,"error":"no"}',
        '{"id":3,"result":{}}',
        '{"jsonrpc":"2.0","id":3,"result":{"a":"',
    ],
)
def test_an_answer_that_cannot_be_read_is_not_answered_and_ends_our_waiting(line: str) -> None:
    """
    The same id may be a request of the client's own; the code that asked for a form is told that nothing came.
    """
    frame = read_frame(line.encode())
    assert [fault.line() for fault in frame.faults] == [None]
    assert isinstance(frame.message, t.JSONRPCError)
    assert frame.message.id == 3


def test_half_an_emoji_in_an_answer_costs_only_itself() -> None:
    """
    What the user typed into a form.
    """
    frame = read_frame(b'{"jsonrpc":"2.0","id":3,"result":{"action":"accept","content":{"note":"\\ud83d"}}}')
    assert isinstance(frame.message, t.JSONRPCResponse)
    assert frame.message.result["action"] == "accept"


@pytest.mark.parametrize(
    ("start", "end", "which"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"x":"aaaa', b'aaaa"}}\n', "7"),
        (b'{"method":"tools/call","params":{"x":"aaaa', b'aaaa"},"jsonrpc":"2.0","id":"z"}\n', '"z"'),
        (b'{"method":"tools/call","params":{"x":"aaaa', b'aaaa"},"id":7,"jsonrpc":"2.0"}\r\n', "7"),
        (b"aaaaaa", b"aaaaaa", None),
    ],
)
def test_a_line_that_is_too_long_is_refused_with_the_id_at_either_end(
    start: bytes, end: bytes, which: str | None
) -> None:
    """
    Only its ends are kept.
    """
    (fault,) = too_long(start, end, 2**27).faults
    assert (fault.code, fault.id) == (INVALID, which)
    assert "128 MiB" in fault.why


# ---- with the real program

FRAMES = 200


def malformed(chance: random.Random, which: int | None, params: dict[str, Any]) -> bytes:
    """A frame that is not right, with the id *which* or without one."""
    named = {} if which is None else {"id": which}
    members = [*{"jsonrpc": "2.0", **named, "method": "tools/list", "params": params}.items()]
    chance.shuffle(members)
    message = dict(members)
    bad = [None, 7, "x", [], [1], True]
    whole = json.dumps(message).encode()
    kinds = [
        lambda: json.dumps({**message, "params": chance.choice(bad[1:])}).encode(),
        lambda: json.dumps({**message, "method": chance.choice([None, 7, [], {}])}).encode(),
        lambda: json.dumps({**message, "jsonrpc": chance.choice([*bad, "1.0", 2.0])}).encode(),
        lambda: json.dumps({name: value for name, value in message.items() if name != "jsonrpc"}).encode(),
        lambda: whole.replace(b"tools/list", b"tools" + bytes([chance.choice([0, 1, 8, 9, 13, 27, 31])]) + b"list"),
        lambda: whole.replace(b"tools/list", chance.choice([b"\\ud83d", b"\\udc00x", b"caf\xe9", b"\xff\xfe"])),
        lambda: whole[:-1] + chance.choice([b"", b",}", b"]", b"}}", b', "x": }', b', "x": NaN}', b", 'x': 1}"]),
        lambda: whole[:-1] + b', "method": "twice"}',
        lambda: whole[:-1] + b', "deep": ' + b"[" * chance.randrange(101, 9000),
        lambda: whole[:-1] + b', "number": ' + b"9" * 5000 + b"}",
        lambda: b"[" + whole + b"]",
    ]
    return chance.choice(kinds)()


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_two_hundred_malformed_frames_are_answered_where_they_have_an_id(era: str, tmp_path: Path) -> None:
    """
    After each the connection works; the log has a line for each.
    """
    chance = random.Random(20261125)
    envelope = modern if era == NEWER else dict
    refused: dict[int, int] = {}
    async with piped(tmp_path, KLING_MCP_BACKEND="simulator") as pipe:
        if era == OLDER:
            await pipe.ask("initialize", greeting(), "hello")
            await pipe.send("notifications/initialized")
        for number in range(FRAMES):
            which = number if chance.random() < 0.7 else None
            await pipe.write(malformed(chance, which, envelope()))
            if which is not None:
                refused[which] = (await pipe.answer(which))["error"]["code"]
            heard = len(pipe.heard)
            assert (await pipe.ask("prompts/list", envelope(), f"after {number}"))["result"]["prompts"]
            assert len(pipe.heard) == heard + 1, "a frame without an id was answered"
        assert await pipe.end() == 0

    assert len(refused) > FRAMES / 2
    assert set(refused.values()) == {PARSE, INVALID}
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len([line for line in lines if line["message"] == "a line was refused"]) == FRAMES


MODELS: dict[str, Any] = {"name": "list_models"}
SERVED = [
    {**MODELS, "arguments": []},
    {**MODELS, "arguments": ""},
    {**MODELS, "arguments": "null"},
    {**MODELS, "arguments": '{"model": "o3-pro"}'},
]
MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("tools/call", {**MODELS, "arguments": [1]}, "params.arguments is not an object."),
    ("tools/call", {"name": 5, "arguments": {}}, "params.name is not a text."),
    ("prompts/get", {"name": "single_shot", "arguments": []}, "params.arguments is not an object. An empty one is {}"),
    ("resources/read", {}, "params.uri is missing."),
    ("completion/complete", {"ref": 1, "argument": {"name": "x", "value": ""}}, "params.ref is not an object."),
]


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_params_that_are_malformed_are_read_where_they_can_be_and_else_named(era: str, tmp_path: Path) -> None:
    """
    Arguments as JSON text, PHP's empty list; the SDK would say "Invalid request parameters" and nothing else.
    """
    envelope = modern if era == NEWER else dict
    async with piped(tmp_path, KLING_MCP_BACKEND="simulator") as pipe:
        if era == OLDER:
            begun = await pipe.ask("initialize", {**greeting(), "capabilities": []}, "php")
            assert begun["error"]["message"].startswith("params.capabilities is not an object. An empty one is {}")
            await pipe.ask("initialize", greeting(), "hello")
            await pipe.send("notifications/initialized")
        for number, params in enumerate(SERVED):
            answer = await pipe.ask("tools/call", envelope(**params), f"served {number}")
            assert not answer["result"].get("isError")
        for number, (method, params, words) in enumerate(MALFORMED):
            error = (await pipe.ask(method, envelope(**params), f"malformed {number}"))["error"]
            assert error["code"] == -32602
            assert error["message"].startswith(words)
        assert await pipe.end() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_half_an_emoji_in_a_prompt_is_refused_in_words(era: str, tmp_path: Path) -> None:
    """
    Nothing is charged, the argument is named, and the next call works.
    """
    envelope = modern if era == NEWER else dict
    arguments = {"image": "https://pictures.example.com/fox.png", "prompt": "a fox \ud83d", "duration": 3}
    async with piped(tmp_path, KLING_MCP_BACKEND="simulator") as pipe:
        if era == OLDER:
            await pipe.ask("initialize", greeting(), "hello")
            await pipe.send("notifications/initialized")
        with anyio.fail_after(30):
            answer = await pipe.ask("tools/call", envelope(name="image_to_video", arguments=arguments), 2)
            unknown = await pipe.ask("tools/call", envelope(name="no_such_tool", arguments={}), 3)
            listed = await pipe.ask("tools/list", envelope(), 4)
        assert await pipe.end() == 0

    said = answer["result"]["content"][0]["text"]
    assert answer["result"]["isError"]
    assert said.startswith("invalid_arguments: The text of prompt ")
    assert "Nothing was charged." in said
    assert unknown["error"]["code"] == -32602
    assert listed["result"]["tools"]
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["message"] for line in log].count("a message holds a bad text") == 1
