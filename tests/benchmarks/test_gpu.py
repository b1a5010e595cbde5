from pathlib import Path

import pytest
import torch

from flops import training_flops
from gpu import Case, chip_peak, main, phase_rows, ratio_row, report
from gpu_steps import STEPS, Clock, make_learner
from repeated import repeat, repeated_logprobs
from shapes import PADDING, SHAPES, VIDEO, Setting, noise_prompt
from vcr1.policy import Sampling

torch.set_num_threads(1)

CPU = torch.device("cpu")
SETTING = Setting(grid=(2, 8, 8), words=6, group=3, length=5)


def clock(vision: float, rollout: float, reference: float, policy: float, optimizer: float) -> Clock:
    names = ("vision", "rollout", "reference", "policy", "optimizer")
    values = (vision, rollout, reference, policy, optimizer)
    return Clock(CPU, dict(zip(names, values, strict=True)), 3 * 2**30)


def test_the_toy_run_writes_its_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\nrest\n")
    main(["--toy", "--repeats", "1", "--out", str(results)])
    text = results.read_text()
    assert "old" not in text
    assert text.endswith("<!-- gpu: end -->\nrest\n")
    for row in (
        "toy, all weights | shared",
        "toy, LoRA of rank 16 | repeated",
        "target on an H100-class GPU",
    ):
        assert text.count(f"| {row} |") == 1
    # 4 · 8 · 12 / 4 tokens of video, the two around it, and 20 words.
    assert "P = 118 prompt tokens, G = 4 completions of C = 12" in text
    assert text.split("<!-- gpu: begin -->\n")[1].split("\n<!--")[0] in capsys.readouterr().out


@pytest.mark.parametrize("rank", [None, 4])
def test_both_forms_train_the_same_model(rank: int | None) -> None:
    """The same weights, prompt and completions: equal log-probs in both forms, in both of their models."""
    learner = make_learner(SHAPES["toy"], SETTING, rank, CPU)
    policy = learner.model.float().eval()
    inputs = noise_prompt(SHAPES["toy"], SETTING, CPU, torch.float32)
    with torch.no_grad():
        features = policy.vision([inputs])
        groups = policy.rollout([inputs], features, SETTING.group, Sampling(max_new_tokens=SETTING.length))
        shared = policy.logprobs(groups, features).logprobs[0]
        again = repeated_logprobs(policy.model, repeat(inputs, SETTING.group), groups.completion_ids[0])
    torch.testing.assert_close(again, shared, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["shared", "repeated"])
@pytest.mark.parametrize("rank", [None, 4])
def test_a_step_trains_what_it_should(form: str, rank: int | None) -> None:
    learner = make_learner(SHAPES["toy"], SETTING, rank, CPU)
    learner.optimizer.param_groups[0]["lr"] = 0.1
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    spent = Clock(CPU)
    ids = STEPS[form](learner, noise_prompt(SHAPES["toy"], SETTING, CPU, torch.bfloat16), spent)
    assert ids.shape == (3, 5)
    assert ids.min() > VIDEO > PADDING  # words alone: no completion ends early
    moved = {name for name, weight in learner.model.named_parameters() if not weight.equal(before[name])}
    assert moved == {name for name in before if rank is None or "lora_" in name}
    assert all(spent.seconds[name] > 0 for name in ("rollout", "reference", "policy", "optimizer"))
    assert (spent.seconds["vision"] > 0) == (form == "shared")  # the repeated form's is in all of its phases


def test_ratios_and_utilisation_are_counted_by_hand() -> None:
    case = Case(
        SHAPES["toy"], None, {"shared": [clock(1, 2, 3, 4, 5)], "repeated": [clock(0, 20, 10, 46, 5)]}
    )
    # The training part: 8 s and 56 s; the step: 15 s and 81 s.
    assert ratio_row(case, SETTING, None) == ["toy, all weights", "7.00", "5.40", "not known"]
    needed = training_flops(SHAPES["toy"], SETTING, shared=True, rank=None)
    assert case.utilisation("shared", SETTING, peak=needed / 8 / 1e12 * 2) == pytest.approx(0.5)
    rows = phase_rows(case, SETTING, None)
    assert rows[0][2:] == [
        *("1.000", "2.000", "3.000", "4.000", "5.000"),
        *("15.000", "1", "not known", "3.0"),  # 15 tokens in 15 s
    ]


def test_what_does_not_fit_says_so() -> None:
    case = Case(SHAPES["7b"], None, {"shared": [clock(1, 2, 3, 4, 5)], "repeated": []})
    text = report([case], SETTING, "NVIDIA H100 80GB HBM3", 989)
    assert "| Qwen2.5-VL-7B, all weights | repeated | out of memory |" in text
    assert "| Qwen2.5-VL-7B, all weights | not known | not known |" in text


def test_a_chip_is_known_by_its_name() -> None:
    assert chip_peak("NVIDIA H100 80GB HBM3") == chip_peak("NVIDIA H200") == 989
    assert chip_peak("NVIDIA H100 PCIe") == 756
    assert chip_peak("CPU") is None
