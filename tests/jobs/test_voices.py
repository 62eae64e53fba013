"""A voice is named as it was when it was made, by its job, or by an id from anywhere."""

from __future__ import annotations

import pytest

from kling_mcp.errors import InputRefused
from kling_mcp.jobs.job import NewVoice
from kling_mcp.jobs.voices import voice_meant
from tests.jobs.support import intent, job

ANNA = job(
    "kj_anna",
    state="completed",
    intent=intent("kj_anna", voice=NewVoice("Anna Maria", "s1", "voice_id")),
    result={"voice_id": "8301"},
)
OLDER = job(
    "kj_older",
    state="completed",
    intent=intent("kj_older", voice=NewVoice("Anna Maria", "s1", "voice_id")),
    result={"voice_id": "8300"},
)
BERT = job("kj_bert", state="running", intent=intent("kj_bert", voice=NewVoice("Bert", "s2", "voice_id")))
VOICES = (BERT, ANNA, OLDER)


@pytest.mark.parametrize(
    ("value", "meant", "warns"),
    [
        ("Anna Maria", "8301", False),
        (" `anna  MARIA` ", "8301", False),
        ("kj_anna", "8301", False),
        ("kling://jobs/kj_older", "8300", False),
        ("8300", "8300", False),
        ("829826751244537879", "829826751244537879", False),
        ("genshin_vindi2", "genshin_vindi2", False),
        ("rachel", "rachel", True),
    ],
)
def test_a_name_a_job_and_an_id_all_lead_to_an_id(value: str, meant: str, warns: bool) -> None:
    found, warning = voice_meant(value, VOICES, "voice_ids[0]")

    assert found == meant
    assert (warning is not None) is warns


@pytest.mark.parametrize(
    ("value", "said", "way_out"),
    [
        ("Ana Maria", "is no voice that was made here", "The nearest is Anna Maria."),
        ("the old man", "is no voice that was made here", "Voices made here: Bert, Anna Maria."),
        ("bert", "job kj_bert is still making (it is running)", "get_job with job_id kj_bert"),
    ],
)
def test_what_can_only_be_a_name_and_is_none_is_refused_with_those_that_are_there(
    value: str, said: str, way_out: str
) -> None:
    with pytest.raises(InputRefused) as refused:
        voice_meant(value, VOICES, "voice_ids[0]")

    assert said in refused.value.what.replace("a voice that ", "")
    assert way_out in refused.value.next_step
