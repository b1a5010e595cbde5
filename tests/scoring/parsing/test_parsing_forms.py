"""The forms that earn the format reward are the ones that the prompts show, however much more is read."""

import pytest

from vcr1.scoring.parsing import has_boxes_format, has_glue_format


@pytest.mark.parametrize(
    ("glue", "earns"),
    [
        ("[(5.2, 10.4), (12.0, 13.5)]", True),
        ("[(5,10)]", True),
        ("\n[ (5.2, 10.4),\n (12.0, 13.5) ]\n", True),
        ("8.1 to 10.6", False),
        ("[[5.2, 10.4], [12.0, 13.5]]", False),
        ("(5.2, 10.4)", False),
        ("[(5.2s, 10.4s)]", False),
        ("[(5.2 - 10.4)]", False),
        ("[5.2, 10.4]", False),
        ("[(5.2, 10.4),]", False),
        ("[]", False),
        ("", False),
    ],
)
def test_the_form_of_glue(glue, earns):
    assert has_glue_format(f"<answer>B</answer><glue>{glue}</glue>", think=False) == earns
    assert has_glue_format(f"<think>hm</think><answer>B</answer><glue>{glue}</glue>", think=True) == earns


@pytest.mark.parametrize(
    ("boxes", "earns"),
    [
        ("[[0.1, 0.2, 0.4, 0.6], [0.2, 0.2, 0.5, 0.6]]", True),
        ("[[0,0,1,1]]", True),
        ("[[-0.01, 0, 1.0, 1.001]]", True),
        ("[0.1, 0.2, 0.4, 0.6]", False),
        ("[(0.1, 0.2, 0.4, 0.6)]", False),
        ("[0.1, 0.2, 0.4, 0.6], [0.2, 0.2, 0.5, 0.6]", False),
        ('[{"bbox_2d": [0.1, 0.2, 0.4, 0.6]}]', False),
        ("```[[0.1, 0.2, 0.4, 0.6]]```", False),
        ("[[0.1, 0.2, 0.4]]", False),
    ],
)
def test_the_form_of_boxes(boxes, earns):
    assert has_boxes_format(f"<answer>{boxes}</answer>", think=False) == earns
    assert not has_boxes_format(f"<answer>{boxes}</answer>", think=True)
