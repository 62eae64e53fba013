"""What a caller may get wrong, and the words that put it right. One row is one mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kling_mcp.catalog.models import load
from kling_mcp.catalog.plan import plan
from kling_mcp.errors import InvalidArguments, KlingError, UnknownModel

if TYPE_CHECKING:
    from kling_mcp.catalog.models import Tool

IMAGE = "https://example.com/first.png"
ONE: dict[str, Any] = {"image": IMAGE, "prompt": "The camera circles the vase."}
TWO: dict[str, Any] = {
    "image": IMAGE,
    "shots": [{"prompt": "Wide.", "duration": 5}, {"prompt": "Close.", "duration": 3}],
}
FACE = {"frontal_image": IMAGE}
CLIP = {"video": "https://example.com/element.mp4"}
SINGLE, MULTI, ESTIMATE = "image_to_video", "multi_shot_video", "estimate_cost"
TEXT, REFERENCE = "text_to_video", "reference_to_video"
BASES: dict[Tool, dict[str, Any]] = {
    SINGLE: ONE,
    MULTI: TWO,
    TEXT: {"prompt": "A vase."},
    REFERENCE: {"prompt": "A vase."},
    ESTIMATE: {},
}
TAKE_NEGATIVE = "v3-standard, v3-pro, v3-4k"
TAKE_SHOTS = "o3-standard, o3-pro, o3-4k, v3-standard, v3-pro, v3-4k, v3-turbo-standard, v3-turbo-pro"
ANY_TEXT = "Nothing was charged."


def shots(*seconds: object) -> dict[str, Any]:
    return {"shots": [{"prompt": f"Shot {index}.", "duration": length} for index, length in enumerate(seconds)]}


CASES: list[tuple[Tool, dict[str, Any], str, tuple[str, ...]]] = [
    # Lengths
    (SINGLE, {"duration": 16}, "duration", ("16", "3 to 15 seconds")),
    (SINGLE, {"duration": 2}, "duration", ("2", "3 to 15 seconds")),
    (SINGLE, {"duration": 0}, "duration", ("3 to 15 seconds",)),
    (SINGLE, {"duration": -5}, "duration", ("-5", "3 to 15 seconds")),
    (SINGLE, {"duration": "16"}, "duration", ('"16"', "3 to 15 seconds")),
    (SINGLE, {"duration": "5s"}, "duration", ('"5s"', "whole number of seconds", "3 to 15 seconds")),
    (SINGLE, {"duration": "five"}, "duration", ("whole number of seconds",)),
    (SINGLE, {"duration": 5.5}, "duration", ("5.5", "whole number of seconds")),
    (SINGLE, {"duration": True}, "duration", ("true", "whole number of seconds")),
    (SINGLE, {"duration": [5]}, "duration", ("[5]", "whole number of seconds")),
    (SINGLE, {"duration": {"seconds": 5}}, "duration", ("whole number of seconds",)),
    (SINGLE, {"duration": float("inf")}, "duration", ("whole number of seconds",)),
    (SINGLE, {"duration": "\N{ARABIC-INDIC DIGIT FIVE}"}, "duration", ("whole number of seconds",)),
    (SINGLE, {"duration": 10**30}, "duration", ("3 to 15 seconds",)),
    (SINGLE, {"duration": 10**5000}, "duration", ("of type int", "3 to 15 seconds")),
    (SINGLE, {"model": "o1-standard", "duration": 12}, "duration", ("3 to 10 seconds", f"take it: {TAKE_SHOTS}")),
    (SINGLE, {"model": "v2.6-pro", "duration": 7}, "duration", ("5 or 10 seconds", "o3-standard")),
    (SINGLE, {"model": "o1-pro", "duration": "11"}, "duration", ("3 to 10 seconds", "o3-standard")),
    (SINGLE, {"model": "o1-standard", "duration": 16}, "duration", ("3 to 10 seconds",)),
    (ESTIMATE, {"duration": 99}, "duration", ("3 to 15 seconds",)),
    (ESTIMATE, {"model": "o1-pro", "duration": 15}, "duration", ("3 to 10 seconds", "o3-pro")),
    # Texts
    (SINGLE, {"prompt": ""}, "prompt", ("prompt is empty", "image_to_video needs it")),
    (SINGLE, {"prompt": "  \n"}, "prompt", ("prompt is empty",)),
    (SINGLE, {"prompt": None}, "prompt", ("prompt is empty",)),
    (SINGLE, {"prompt": "x" * 2501}, "prompt", ("2,501 characters", "up to 2,500")),
    (SINGLE, {"prompt": ["pan left"]}, "prompt", ("a text is expected",)),
    (SINGLE, {"prompt": "half a character \ud800"}, "prompt", ("valid Unicode",)),
    (SINGLE, {"model": "o1-standard", "prompt": "x" * 2501}, "prompt", ("2,501 characters",)),
    (SINGLE, {"model": "v3-pro", "negative_prompt": "x" * 2501}, "negative_prompt", ("2,501 characters",)),
    (ESTIMATE, {"prompt": "x" * 2501}, "prompt", ("2,501 characters",)),
    # Pictures
    (SINGLE, {"image": ""}, "image", ("image is empty", "First frame")),
    (SINGLE, {"image": None}, "image", ("image is empty",)),
    (SINGLE, {"image": 1}, "image", ("https URL", "path on this machine", "data: URI", "last-frame")),
    (SINGLE, {"image": {"url": IMAGE}}, "image", ("https URL",)),
    (SINGLE, {"image": [IMAGE]}, "image", ("https URL",)),
    (SINGLE, {"end_image": False}, "end_image", ("https URL",)),
    # Switches, numbers, choices
    (SINGLE, {"generate_audio": "yes"}, "generate_audio", ('"yes"', "true or false")),
    (SINGLE, {"generate_audio": 1}, "generate_audio", ("true or false",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": 1.5}, "cfg_scale", ("1.5", "at least 0 and at most 1")),
    (SINGLE, {"model": "v3-pro", "cfg_scale": -0.1}, "cfg_scale", ("at least 0 and at most 1",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": "2"}, "cfg_scale", ("at least 0 and at most 1",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": "half"}, "cfg_scale", ("a number is expected",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": True}, "cfg_scale", ("a number is expected",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": [0.5]}, "cfg_scale", ("a number is expected",)),
    (SINGLE, {"model": "v3-pro", "cfg_scale": 10**400}, "cfg_scale", ("out of range",)),
    (SINGLE, {"model": "v3-standard", "aspect_ratio": "4:3"}, "aspect_ratio", ("16:9, 9:16, 1:1",)),
    (SINGLE, {"model": "v3-standard", "aspect_ratio": "16x9"}, "aspect_ratio", ("The nearest is 16:9",)),
    (SINGLE, {"model": "v3-standard", "aspect_ratio": 1.78}, "aspect_ratio", ("16:9, 9:16, 1:1",)),
    (MULTI, {"shot_type": "inteligent"}, "shot_type", ("The nearest is intelligent", "customize, intelligent")),
    (MULTI, {"shot_type": "auto"}, "shot_type", ("customize, intelligent",)),
    (MULTI, {"shot_type": True}, "shot_type", ("customize, intelligent",)),
    # Shots
    (MULTI, shots(1), "shots", ("add up to 1 s", "3 to 15 seconds")),
    (MULTI, shots(1, 1), "shots", ("add up to 2 s", "3 to 15 seconds")),
    (MULTI, shots(8, 8), "shots", ("add up to 16 s", "3 to 15 seconds")),
    (MULTI, shots(3, 3, 3, 3, 3, 3), "shots", ("add up to 18 s",)),
    (MULTI, shots(1, 1, 1, 1, 1, 1, 1), "shots", ("7 entries", "one to six shots", "at most 6")),
    (MULTI, shots(5, 16), "shots[1].duration", ("16", "1 to 15 seconds")),
    (MULTI, shots(0, 5), "shots[0].duration", ("1 to 15 seconds",)),
    (MULTI, shots(5, "3s"), "shots[1].duration", ('"3s"', "whole number of seconds")),
    (MULTI, shots(5, 2.5), "shots[1].duration", ("2.5",)),
    (MULTI, shots(5, False), "shots[1].duration", ("false",)),
    (MULTI, {"shots": []}, "shots", ("shots is empty", "multi_shot_video needs it")),
    (MULTI, {"shots": None}, "shots", ("shots is empty",)),
    (MULTI, {"shots": "[]"}, "shots", ("shots is empty",)),
    (MULTI, {"shots": "Wide, then close."}, "shots", ("a list is expected", "1 to 6 shots")),
    (MULTI, {"shots": '[{"prompt": "Wide."'}, "shots", ("a list is expected",)),
    (MULTI, {"shots": "[" * 100_000}, "shots", ("a list is expected",)),
    (MULTI, {"shots": {"prompt": "Wide."}}, "shots", ("a list is expected",)),
    (MULTI, {"shots": 3}, "shots", ("a list is expected",)),
    (MULTI, {"shots": ["Wide."]}, "shots[0]", ("an object is expected", "prompt, duration")),
    (MULTI, {"shots": [["Wide."]]}, "shots[0]", ("an object is expected",)),
    (MULTI, {"shots": [None]}, "shots", ('which programs write for "nothing"',)),
    (MULTI, {"shots": [{"duration": 5}]}, "shots[0].prompt", ("shots[0].prompt is missing",)),
    (MULTI, {"shots": [{"prompt": " ", "duration": 5}]}, "shots[0].prompt", ("shots[0].prompt is missing",)),
    (MULTI, {"shots": [{"promt": "Wide."}]}, "shots[0].promt", ("The nearest is prompt",)),
    (MULTI, {"shots": [{"prompt": "Wide.", "durration": 5}]}, "shots[0].durration", ("The nearest is duration",)),
    (MULTI, {"shots": [{"prompt": "Wide.", "image": IMAGE}]}, "shots[0].image", ("Allowed: prompt, duration",)),
    (MULTI, {"duration": 9}, "duration", ("duration is 9", "it is the sum of the shots")),
    (MULTI, {"prompt": "Both."}, "prompt", ("multi_shot_video does not take prompt", "image_to_video does")),
    (MULTI, {"model": "o1-standard"}, "model", ("single shots only", TAKE_SHOTS)),
    (MULTI, {"model": "o1-pro", "shots": None}, "model", ("single shots only", TAKE_SHOTS)),
    (SINGLE, shots(5), "shots", ("image_to_video does not take shots", "multi_shot_video does")),
    (SINGLE, {"shot_type": "intelligent"}, "shot_type", ("multi_shot_video does",)),
    (SINGLE, {"model": "o1-pro", **shots(5)}, "shots", ("multi_shot_video does",)),
    (ESTIMATE, {"prompt": "Both.", **shots(5)}, "shots", ("prompt and shots are both given", "prompt or shots")),
    (ESTIMATE, {"duration": 9, **shots(5, 3)}, "duration", ("duration is 9", "add up to 8 s")),
    (ESTIMATE, {"model": "o1-standard", **shots(5)}, "shots", ("o1-standard does not take shots", TAKE_SHOTS)),
    (ESTIMATE, shots(15, 1), "shots", ("add up to 16 s",)),
    # Arguments of other models
    (SINGLE, {"negative_prompt": "blur"}, "negative_prompt", ("o3-standard does not take", TAKE_NEGATIVE)),
    (SINGLE, {"elements": [FACE]}, "elements", (TAKE_NEGATIVE,)),
    (
        SINGLE,
        {"aspect_ratio": "9:16"},
        "aspect_ratio",
        ("use a model that takes it: v3-standard, v1.6-pro.", "The picture sets"),
    ),
    *(
        (SINGLE, {"model": model, "end_image": IMAGE}, "end_image", (f"{model} does not take end_image", "v2.1-pro"))
        for model in ("v2.5-turbo-standard", "v2.1-standard", "v2.1-master", "v1.6-standard")
    ),
    (SINGLE, {"model": "v2.1-pro", "generate_audio": True}, "generate_audio", ("makes no sound", "v2.6-pro")),
    (SINGLE, {"model": "v2.6-pro", "cfg_scale": 0.4}, "cfg_scale", ("v2.6-pro does not take", "v2.5-turbo-pro")),
    (SINGLE, {"model": "v3-pro", "aspect_ratio": "1:1"}, "aspect_ratio", ("takes it: v3-standard, v1.6-pro.",)),
    (SINGLE, {"model": "v3-pro", "voice_ids": ["v"]}, "voice_ids", ("takes it: v3-standard, v2.6-pro.",)),
    (SINGLE, {"model": "o3-pro", "voice_ids": ["v"]}, "voice_ids", ("takes it: v3-standard, v2.6-pro.",)),
    (SINGLE, {"model": "v3-turbo-pro", "end_image": IMAGE}, "end_image", ("o3-standard, o3-pro, o3-4k", "o1-pro")),
    (
        SINGLE,
        {"model": "v3-turbo-pro", "generate_audio": False},
        "generate_audio",
        ("always makes sound", "o3-standard", "v3-4k"),
    ),
    (SINGLE, {"model": "o1-standard", "generate_audio": True}, "generate_audio", ("makes no sound", "o3-standard")),
    (SINGLE, {"model": "o1-pro", "elements": [FACE]}, "elements", (TAKE_NEGATIVE,)),
    (MULTI, {"model": "v3-turbo-standard", "shot_type": "intelligent"}, "shot_type", ("o3-standard",)),
    (MULTI, {"negative_prompt": "blur"}, "negative_prompt", (TAKE_NEGATIVE,)),
    (ESTIMATE, {"cfg_scale": 0.4}, "cfg_scale", (TAKE_NEGATIVE,)),
    # Misspelt, and fal.ai's own names
    (SINGLE, {"promt": "x"}, "promt", ("The nearest is prompt", "Arguments of image_to_video with o3-standard")),
    (SINGLE, {"durration": 5}, "durration", ("The nearest is duration",)),
    (SINGLE, {"Duration": 5}, "Duration", ("The nearest is duration",)),
    (SINGLE, {"endImage": IMAGE}, "endImage", ("The nearest is end_image",)),
    (SINGLE, {"generateAudio": True}, "generateAudio", ("The nearest is generate_audio",)),
    (SINGLE, {"image_url": IMAGE}, "image_url", ("The nearest is image.",)),
    (SINGLE, {"start_image_url": IMAGE}, "start_image_url", ("The nearest is image.",)),
    (SINGLE, {"start_image": IMAGE}, "start_image", ("The nearest is image.",)),
    (SINGLE, {"end_image_url": IMAGE}, "end_image_url", ("The nearest is end_image.",)),
    (SINGLE, {"multi_prompt": []}, "multi_prompt", ("The nearest is shots, which multi_shot_video takes",)),
    (SINGLE, {"negative_promt": "x"}, "negative_promt", ("The nearest is negative_prompt", TAKE_NEGATIVE)),
    (SINGLE, {"maxcost": 1}, "maxcost", ("The nearest is max_cost_usd",)),
    (SINGLE, {"promt": None}, "promt", ("The nearest is prompt",)),
    (SINGLE, {"zzzz": 1}, "zzzz", ("Arguments of image_to_video",)),
    (SINGLE, {"x" * 500: "y" * 500}, "x" * 40, ("…",)),
    (MULTI, {"shot": 1}, "shot", ("The nearest is shots.",)),
    (MULTI, {"shottype": "customize"}, "shottype", ("The nearest is shot_type",)),
    (ESTIMATE, {"modell": "o3-pro"}, "modell", ("The nearest is model",)),
    # Models
    (SINGLE, {"model": "o3-standart"}, "model", ("The nearest is o3-standard", "o1-pro")),
    (SINGLE, {"model": "O3 Pro"}, "model", ("The nearest is o3-pro",)),
    (SINGLE, {"model": "v3_turbo_pro"}, "model", ("The nearest is v3-turbo-pro",)),
    (SINGLE, {"model": "fal-ai/kling-video/o1/image-to-video"}, "model", ("The nearest is o1-pro",)),
    (SINGLE, {"model": "sora"}, "model", ("'sora'", "Models: o3-standard")),
    (SINGLE, {"model": 3}, "model", ("the name of a model", "o3-standard")),
    (ESTIMATE, {"model": ["o3-pro"]}, "model", ("the name of a model",)),
    # Elements and voices
    (SINGLE, {"model": "v3-pro", "elements": FACE}, "elements", ("a list is expected",)),
    (SINGLE, {"model": "v3-pro", "elements": "a cat"}, "elements", ("a list is expected",)),
    (SINGLE, {"model": "v3-pro", "elements": ["a cat"]}, "elements[0]", ("an object is expected", "frontal_image")),
    (SINGLE, {"model": "v3-pro", "elements": [{"voice_id": "v"}]}, "elements[0]", ("none of frontal_image",)),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{"frontal_image_url": IMAGE}]},
        "elements[0].frontal_image_url",
        ("The nearest is frontal_image",),
    ),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [FACE, {"frontal_image": 5}]},
        "elements[1].frontal_image",
        ("https URL",),
    ),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{"reference_images": IMAGE}]},
        "elements[0].reference_images",
        ("a list is expected",),
    ),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{"reference_images": [IMAGE] * 4}]},
        "elements[0].reference_images",
        ("4 entries", "one to three reference images"),
    ),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{"video": "data:image/png;base64,iVBORw0KGgo="}]},
        "elements[0].video",
        ("this is a picture, and a video is expected",),
    ),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{"video": "kling://jobs/kj_1/last-frame"}]},
        "elements[0].video",
        ("this is a picture", "kling://jobs/kj_1/video"),
    ),
    (SINGLE, {"model": "v3-pro", "elements": [CLIP, CLIP]}, "elements[1].video", ("given 2 times", "At most one")),
    (
        SINGLE,
        {"model": "v3-pro", "elements": [{**FACE, "voice_id": "v"}], "generate_audio": False},
        "generate_audio",
        ("elements[0].voice_id needs generate_audio to be true",),
    ),
    (
        SINGLE,
        {"model": "v3-standard", "voice_ids": ["v"], "generate_audio": False},
        "generate_audio",
        ("voice_ids[0] needs generate_audio to be true",),
    ),
    (SINGLE, {"model": "v3-standard", "voice_ids": ["a", "b", "c"]}, "voice_ids", ("3 entries", "at most two voices")),
    (SINGLE, {"model": "v3-standard", "voice_ids": "a"}, "voice_ids", ("a list is expected",)),
    (SINGLE, {"model": "v3-standard", "voice_ids": '"a"'}, "voice_ids", ("a list is expected",)),
    # References
    (
        SINGLE,
        {"model": "v3-pro", "prompt": "@Element3 waves.", "elements": [FACE, FACE]},
        "prompt",
        ("refers to @Element3", "the call has 2 in elements", "@Element1, @Element2"),
    ),
    (SINGLE, {"model": "v3-pro", "prompt": "@Element1 waves."}, "prompt", ("the call has 0 in elements",)),
    (SINGLE, {"model": "v3-pro", "prompt": "@Element0", "elements": [FACE]}, "prompt", ("Numbers start at 1",)),
    (SINGLE, {"model": "v3-pro", "prompt": f"@Element{'9' * 5000}", "elements": [FACE]}, "prompt", ("@Element999",)),
    (SINGLE, {"prompt": "@Element1 waves."}, "prompt", ("o3-standard takes nothing", f"takes it: {TAKE_NEGATIVE}")),
    (SINGLE, {"prompt": "<<<voice_1>>> speaks."}, "prompt", ("<<<voice_1>>>", "takes it: v3-standard, v2.6-pro.")),
    (SINGLE, {"model": "v3-pro", "prompt": "<<<voice_1>>> speaks."}, "prompt", ("takes it: v3-standard, v2.6-pro.",)),
    (
        SINGLE,
        {"model": "v3-standard", "prompt": "<<<voice_2>>> speaks.", "voice_ids": ["a"]},
        "prompt",
        ("<<<voice_2>>>", "the call has 1 in voice_ids"),
    ),
    (SINGLE, {"model": "o1-pro", "prompt": "From @Image1 to @Image2."}, "prompt", ("@Image2", "Allowed here: @Image1")),
    (SINGLE, {"model": "o1-pro", "prompt": "@Image3", "end_image": IMAGE}, "prompt", ("@Image1, @Image2",)),
    (SINGLE, {"model": "o1-standard", "prompt": "@Element1"}, "prompt", (f"takes it: {TAKE_NEGATIVE}",)),
    (
        MULTI,
        {"model": "v3-pro", "shots": [{"prompt": "Wide."}, {"prompt": "@Element2"}], "elements": [FACE]},
        "shots[1].prompt",
        ("@Element2",),
    ),
    # Words for nothing where something is needed, and where others would get another number
    (SINGLE, {"prompt": "undefined"}, "prompt", ('prompt is "undefined", which programs write for "nothing"',)),
    (SINGLE, {"prompt": "[object Object]"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": " `Null` "}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "{}"}, "prompt", ("prompt is empty",)),
    (SINGLE, {"prompt": float("nan")}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "[object Promise]"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "undefined undefined"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "None\x00"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "null;"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "\u2060\x00"}, "prompt", ("prompt is empty",)),
    (SINGLE, {"prompt": "\u2014"}, "prompt", ("prompt is empty",)),
    (SINGLE, {"prompt": "${prompt}"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"prompt": "{{ prompt }}"}, "prompt", ('for "nothing"',)),
    (SINGLE, {"image": "<image-path>"}, "image", ('for "nothing"',)),
    (SINGLE, {"image": "N/A"}, "image", ('image is "N/A"', "text_to_video makes a video from text alone")),
    (MULTI, {"shots": '[{"prompt": "null"}]'}, "shots", ('for "nothing"',)),
    (MULTI, shots(5) | {"shots": [{"prompt": "None", "duration": 5}]}, "shots[0].prompt", ('for "nothing"',)),
    (MULTI, {"shots": [{"prompt": "Wide."}, {"prompt": "null"}]}, "shots[1].prompt", ('for "nothing"',)),
    (MULTI, {"shots": ["null", {"prompt": "Wide."}]}, "shots[0]", ("shots[0] is empty", "Leave it out of the list")),
    (SINGLE, {"model": "v3-pro", "elements": [{}, FACE]}, "elements[0]", ("elements[0] is empty",)),
    (SINGLE, {"model": "v3-standard", "voice_ids": ["null", "a"]}, "voice_ids[0]", ("voice_ids[0] is empty",)),
    # The nearest that there is
    (SINGLE, {"resolution": "4K"}, "resolution", ("The model decides this; the nearest are o3-4k, v3-4k.",)),
    (SINGLE, {"resolution": "3840x2160"}, "resolution", ("o3-4k, v3-4k",)),
    (SINGLE, {"quality": "pro"}, "quality", ("o3-pro, v3-pro",)),
    (SINGLE, {"mode": "std"}, "mode", ("the nearest are o3-standard, v3-standard",)),
    (SINGLE, {"model_name": "kling-v3-pro"}, "model_name", ("the nearest are v3-pro, v3-turbo-pro.",)),
    (SINGLE, {"resolution": "1080p"}, "resolution", ("The nearest is model.",)),
    (SINGLE, {"length": "3"}, "length", ("The nearest is duration",)),
    (SINGLE, {"api_key": "x"}, "api_key", ('(given as "x"). Nothing was charged. Arguments',)),
    (SINGLE, {"voice": "female"}, "voice", ("The nearest is voice_ids", "Speech needs no voice id", "create-voice")),
    (SINGLE, {"narration": "Hello."}, "narration", ("Speech needs no voice id",)),
    (SINGLE, {"model": "v3-standard", "voice": "female"}, "voice", ("nearest is voice_ids. Speech needs no voice id",)),
    (SINGLE, {"ratio": "9:16"}, "ratio", ("The nearest is aspect_ratio", "The picture sets the shape")),
    (SINGLE, {"4k": True}, "4k", ("o3-4k, v3-4k",)),
    (SINGLE, {"seconds": 5}, "seconds", ("The nearest is duration",)),
    (SINGLE, {"audio": True}, "audio", ("The nearest is generate_audio",)),
    (SINGLE, {"last_frame": IMAGE}, "last_frame", ("The nearest is end_image",)),
    (SINGLE, {"seed": 4}, "seed", ("The nearest is take",)),
    (SINGLE, {"duration": 20}, "duration", ("another job continues", "kling://jobs/{job_id}/last-frame")),
    (MULTI, shots(10, 10), "shots", ("another job continues", "kling://jobs/{job_id}/last-frame")),
    (SINGLE, {"voice_ids": ["a"]}, "voice_ids", ("Speech needs no voice id", "create-voice")),
    (SINGLE, {"image": "data:video/mp4;base64,AAAA"}, "image", ("this is a video", "data:video/mp4 (1 kB)")),
    (SINGLE, {"image": "kling://jobs/kj_abc/video"}, "image", ("kling://jobs/kj_abc/last-frame is the last frame",)),
    (SINGLE, {"image": "kling://jobs/kj_abc"}, "image", ("kling://jobs/kj_abc/last-frame is the last frame",)),
    (SINGLE, {"model": "kling 3.0 pro"}, "model", ("The nearest is v3-pro.",)),
    (SINGLE, {"model": "Kling 3 Turbo Standard"}, "model", ("The nearest is v3-turbo-standard.",)),
    *(
        (SINGLE, {"model": name}, "model", (f"The nearest is {meant}.",))
        for name, meant in (
            ("Kling 2.6 Pro", "v2.6-pro"),
            ("kling-v2-6-pro", "v2.6-pro"),
            ("2.6", "v2.6-pro"),
            ("2.5-turbo-pro", "v2.5-turbo-pro"),
            ("kling-video/v2.1/master", "v2.1-master"),
            ("v1_6_standard", "v1.6-standard"),
            ("v2.6-standard", "v2.6-pro"),
            ("Kling O1 4K", "o1-standard"),
            ("v2.1", "v2.1-standard"),
            ("kling 2.5", "v2.5-turbo-standard"),
        )
    ),
    (SINGLE, {"model": "kling-v3-4k"}, "model", ("The nearest is v3-4k.",)),
    (SINGLE, {"model": "kling-video/v3.0/pro"}, "model", ("The nearest is v3-pro.",)),
    (SINGLE, {"model": "Kling 3.0 Omni Pro"}, "model", ("The nearest is o3-pro.",)),
    (SINGLE, {"model": "kling o1"}, "model", ("The nearest is o1-standard.",)),
    (SINGLE, {"model": "Kling 3.0"}, "model", ("The nearest is v3-standard.",)),
    (SINGLE, {"model": "o3"}, "model", ("The nearest is o3-standard.",)),
    (SINGLE, {"model": "KlingV3Std"}, "model", ("The nearest is v3-standard.",)),
    (SINGLE, {"model": "half \ud83e"}, "model", ("Models: o3-standard",)),
    (SINGLE, {"half \ud83e": 1}, "half \\ud83e", ("Arguments of image_to_video",)),
    # What is dropped when it asks for nothing special is refused when it does
    (SINGLE, {"cfg_scale": 0.7}, "cfg_scale", (TAKE_NEGATIVE,)),
    (SINGLE, {"model": "v3-turbo-pro", "generate_audio": "yes"}, "generate_audio", ("always makes sound",)),
    (ESTIMATE, {"tool": "paint_video"}, "tool", ("image_to_video, multi_shot_video",)),
    (SINGLE, {"tool": "image_to_video"}, "tool", ("has no argument 'tool'",)),
    # From text alone
    (TEXT, {"prompt": " "}, "prompt", ("prompt is empty; text_to_video needs it",)),
    (TEXT, {"image": IMAGE}, "image", ("image_to_video and multi_shot_video do.", "call image_to_video")),
    (TEXT, {"elements": [FACE]}, "elements", ("text_to_video does not take elements",)),
    (TEXT, {"aspect_ratio": "4:3"}, "aspect_ratio", ('"4:3"', "Allowed: 16:9, 9:16, 1:1")),
    (TEXT, {"negative_prompt": "blur"}, "negative_prompt", (f"{TAKE_NEGATIVE}, v2.6-pro",)),
    (TEXT, {"model": "v2.1-master", "duration": 6}, "duration", ("5 or 10 seconds", "o3-standard")),
    (TEXT, {"model": "v3-turbo-pro", "generate_audio": False}, "generate_audio", ("always makes sound",)),
    (TEXT, {"model": "o1-pro"}, "model", ("which text_to_video cannot use", "o1-pro is for image_to_video")),
    (TEXT, {"model": "v3-pro", "prompt": "@Element1"}, "prompt", ("a tool that takes it: image_to_video, multi_shot",)),
    (TEXT, {"prompt": "@Image1"}, "prompt", ("o3-standard takes nothing", "reference_to_video")),
    (MULTI, {"image": None, "model": "v2.6-pro"}, "model", ("single shots only", TAKE_SHOTS)),
    (MULTI, {"image": None, "end_image": IMAGE}, "image", ("image is empty; multi_shot_video needs it",)),
    # With references
    (REFERENCE, {"prompt": None}, "prompt", ("Neither prompt nor shots is given",)),
    (REFERENCE, shots(5), "shots", ("prompt and shots are both given",)),
    (REFERENCE, {"images": [IMAGE] * 8}, "images", ("images and elements have 8 entries", "at most seven")),
    (REFERENCE, {"images": [IMAGE] * 4, "elements": [FACE] * 4}, "images", ("8 entries", "Give at most 7")),
    (REFERENCE, {"images": [IMAGE] * 4, "elements": [CLIP]}, "images", ("5 entries", "With a video", "at most 4")),
    (REFERENCE, {"elements": [CLIP, CLIP]}, "elements[1].video", ("given 2 times", "At most one element")),
    (REFERENCE, {"elements": [{}, FACE]}, "elements[0]", ("elements[0] is empty",)),
    (REFERENCE, {"elements": [{"reference_images": [IMAGE] * 4}]}, "elements[0].reference_images", ("4 entries",)),
    (REFERENCE, {"elements": [{**FACE, "voice_id": "v"}]}, "generate_audio", ("Voices are only heard",)),
    (REFERENCE, {"prompt": "@Image2", "images": [IMAGE]}, "prompt", ("the call has 1 in images", "@Image1")),
    (REFERENCE, {"prompt": "@Element1", "images": [IMAGE]}, "prompt", ("the call has 0 in elements",)),
    (REFERENCE, {"model": "o1-pro", "image": IMAGE}, "image", ("o1-pro does not take image", "o3-standard")),
    (REFERENCE, {"model": "o1-pro", "images": [IMAGE] * 8}, "images", ("8 entries in all", "at most seven")),
    (REFERENCE, {"model": "o1-pro", "elements": [CLIP]}, "elements[0].video", ("frontal_image, reference_images",)),
    (
        REFERENCE,
        {"model": "o1-standard", "elements": [{"reference_images": [IMAGE]}]},
        "elements[0].frontal_image",
        ("elements[0].frontal_image is missing",),
    ),
    (REFERENCE, {"model": "v3-pro"}, "model", ("which reference_to_video cannot use", "o3-standard, o3-pro")),
    # This program's own arguments
    (SINGLE, {"take": 0}, "take", ("1 to 99",)),
    (SINGLE, {"take": 100}, "take", ("1 to 99",)),
    (SINGLE, {"take": 1.5}, "take", ("1 to 99",)),
    (SINGLE, {"take": True}, "take", ("1 to 99",)),
    (SINGLE, {"take": "second"}, "take", ("1 to 99",)),
    (SINGLE, {"wait_seconds": "long"}, "wait_seconds", ("0 to 45",)),
    (SINGLE, {"max_cost_usd": 0}, "max_cost_usd", ("above 0",)),
    (SINGLE, {"max_cost_usd": -1}, "max_cost_usd", ("above 0",)),
    (SINGLE, {"max_cost_usd": "$5"}, "max_cost_usd", ("without a currency sign",)),
    (SINGLE, {"max_cost_usd": True}, "max_cost_usd", ("above 0",)),
    (SINGLE, {"max_cost_usd": float("inf")}, "max_cost_usd", ("above 0",)),
    (SINGLE, {"max_cost_usd": [1]}, "max_cost_usd", ("above 0",)),
    (ESTIMATE, {"max_cost_usd": "free"}, "max_cost_usd", ("above 0",)),
]


def test_the_table_has_at_least_120_mistakes() -> None:
    assert len(CASES) >= 120


@pytest.mark.parametrize(
    ("tool", "change", "field", "words"), CASES, ids=[f"{index}-{case[2][:30]}" for index, case in enumerate(CASES)]
)
def test_a_mistake_is_refused_with_its_place_and_what_would_work(
    tool: Tool, change: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(KlingError) as caught:
        plan(load(), tool, {**BASES[tool], **change})

    error = caught.value
    assert isinstance(error, InvalidArguments | UnknownModel)
    assert error.field == field
    assert error.billed == "no"
    for word in (*words, ANY_TEXT):
        assert word in str(error)
    str(error).encode()
    assert len(str(error)) < 1200


@pytest.mark.parametrize(("tool", "name"), [(SINGLE, "image"), (SINGLE, "prompt"), (MULTI, "shots")])
def test_what_a_tool_needs_is_asked_for_by_name(tool: Tool, name: str) -> None:
    arguments = dict(ONE if tool == SINGLE else TWO)
    del arguments[name]

    with pytest.raises(InvalidArguments, match=f"{name} is missing; {tool} needs it") as caught:
        plan(load(), tool, arguments)

    assert caught.value.field == name


def test_a_refused_length_lists_each_allowed_value_as_data() -> None:
    with pytest.raises(InvalidArguments) as caught:
        plan(load(), "image_to_video", {**ONE, "model": "o1-standard", "duration": 11})

    assert caught.value.allowed == ("3", "4", "5", "6", "7", "8", "9", "10")


def test_an_unknown_name_lists_what_the_tool_takes_with_this_model_as_data() -> None:
    with pytest.raises(InvalidArguments) as caught:
        plan(load(), "image_to_video", {**ONE, "model": "o1-standard", "length": 5})

    assert caught.value.allowed == (
        *("image", "prompt", "end_image", "duration"),
        *("model", "max_cost_usd", "take", "wait_seconds"),
    )


def test_everything_that_is_wrong_is_said_in_one_refusal() -> None:
    call = {
        "prompt": "null",
        "model": "v3-pro",
        "duration": 20,
        "cfg_scale": "half",
        "resolution": "4K",
        "elements": [{"frontal_image": 5, "vidoe": "x"}, {"video": 7}],
        "take": 0,
    }

    with pytest.raises(InvalidArguments) as caught:
        plan(load(), "image_to_video", call)

    faults = {fault.path: fault for fault in caught.value.faults}
    assert set(faults) == {
        *("image", "prompt", "duration", "cfg_scale", "resolution", "take"),
        *("elements[0].frontal_image", "elements[0].vidoe", "elements[1].video"),
    }
    assert faults["resolution"].models == ("o3-4k", "v3-4k")
    assert (faults["duration"].value, faults["duration"].nearest) == (20, "15")
    assert faults["elements[0].vidoe"].nearest == "video"
    for fault in faults.values():
        assert fault.what in str(caught.value)
    assert "(9)" in str(caught.value)
    assert str(caught.value).count("Nothing was charged.") == 1


def test_a_reference_that_the_model_cannot_read_is_one_fault() -> None:
    with pytest.raises(InvalidArguments) as caught:
        plan(load(), SINGLE, {**ONE, "prompt": "@Element1 waves."})

    assert len(caught.value.faults) == 1
    assert "add to ." not in str(caught.value)


def test_what_else_is_wrong_is_said_beside_a_model_that_does_not_exist() -> None:
    with pytest.raises(UnknownModel) as caught:
        plan(load(), "image_to_video", {**ONE, "model": "kling 3.0 pro", "duration": 99, "elements": [FACE]})

    assert [fault.path for fault in caught.value.faults] == ["model", "duration"]
    assert caught.value.faults[0].nearest == "v3-pro"


def test_a_rule_is_not_held_against_what_is_refused_already() -> None:
    """
    A reference to an element that could not be read is no second fault.
    """
    call = {**ONE, "model": "v3-pro", "prompt": "@Element1 waves.", "elements": [{"frontal_image": 5}]}

    with pytest.raises(InvalidArguments) as caught:
        plan(load(), "image_to_video", call)

    assert [fault.path for fault in caught.value.faults] == ["elements[0].frontal_image"]
