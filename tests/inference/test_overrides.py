"""Texts of the command line reach the config as they were written."""

import pytest
from hydra import compose, initialize_config_dir

from vcr1.config.choices import conf_dir
from vcr1.inference import as_text

TEXTS = [
    "the door opens",
    "what is this, and where?",
    "isn't it (really) {red}: 50%?",
    'he says "no"',
    "a=b;c#d",
    "costs ${money} or $5",
    "back\\slash \\' end\\",
    "\\${x}",
    "Öffnet sich die Tür? 门开了吗",
    "two\nlines",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_question_may_hold_anything(text: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("predict", overrides=as_text([f"query={text}", "video=a b,c.mp4", "run_dir=x"]))
    assert (cfg.query, cfg.video) == (text, "a b,c.mp4")


def test_lists_quotes_and_other_settings_are_left_to_hydra() -> None:
    kept = ['query=["one","two"]', "query='a, b'", "checkpoint=null", "seed=1,2", "model=tiny", "-m"]
    assert as_text(kept) == kept


def test_shorthands() -> None:
    assert as_text(["task=null", "task=qa"]) == ["task=free", "task=qa"]
