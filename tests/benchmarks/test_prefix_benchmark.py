"""The two forms that are compared compute the same thing, and what is measured comes into the file."""

from pathlib import Path
from typing import Any

import pytest
import torch

import prefix
from learner import TOY, EndlessEncoder, make_model, make_processor, video_prompt
from measuring import Meter, Spread
from prefix import Setting
from repeated import repeat, repeated_learner, repeated_logprobs, repeated_step
from shared import shared_learner, shared_reference, shared_step
from trl_step import as_video, groups_of, noise
from vcr1.errors import UserError
from vcr1.policy import Sampling
from vcr1.records import PromptInputs

GROUP, LENGTH = 3, 5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def processor() -> Any:
    return make_processor(TOY.vocabulary)


@pytest.fixture
def model(processor: Any) -> Any:
    return make_model(processor, TOY)


@pytest.fixture
def inputs(model: Any) -> PromptInputs:
    return video_prompt(model, (2, 4, 6), words=7)


def never(processor: Any) -> list[int]:
    return EndlessEncoder(processor).never_sampled(TOY.vocabulary)


def test_both_forms_give_the_same_log_probs(processor: Any, model: Any, inputs: PromptInputs) -> None:
    learner = shared_learner(model, processor, GROUP, LENGTH)
    groups = shared_step(learner, inputs, Meter())
    ids = groups.completion_ids[0]
    plain = repeated_logprobs(learner.reference.model, repeat(inputs, GROUP), ids)
    assert ids.shape == (GROUP, LENGTH)
    assert torch.allclose(shared_reference(learner, groups), plain, atol=1e-4)
    # The weights have moved by 1e-6 since the completions were sampled.
    assert torch.allclose(groups.logprobs[0], plain, atol=1e-3)


def test_both_forms_move_the_weights_alike(processor: Any, inputs: PromptInputs) -> None:
    one, two = (make_model(processor, TOY) for _ in range(2))
    shared, repeated = shared_learner(one, processor, GROUP, LENGTH), repeated_learner(two, GROUP, LENGTH)
    groups = shared.model.rollout(
        [inputs], shared.model.vision([inputs]), GROUP, Sampling(max_new_tokens=LENGTH)
    )
    reference = shared_reference(shared, groups)
    shared.backward(shared.model.logprobs(groups, shared.model.vision([inputs])).logprobs[0], reference)
    ids = groups.completion_ids[0]
    repeated.backward(repeated_logprobs(two, repeat(inputs, GROUP), ids), reference)
    expected = dict(two.named_parameters())
    for name, parameter in one.named_parameters():
        wanted = expected[name].grad
        assert (parameter.grad - wanted).norm() <= 1e-4 * wanted.norm(), name


def test_a_repeated_step_samples_to_the_limit_and_updates(
    model: Any, processor: Any, inputs: PromptInputs
) -> None:
    before = [parameter.detach().clone() for parameter in model.parameters()]
    meter = Meter()
    ids = repeated_step(repeated_learner(model, GROUP, LENGTH), inputs, never(processor), meter)
    assert ids.shape == (GROUP, LENGTH)
    assert not torch.isin(ids, torch.tensor(never(processor))).any()
    assert list(meter.cpu) == ["rollout", "reference", "policy", "optimizer"]
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_image_is_a_video_of_two_equal_frames(model: Any, processor: Any) -> None:
    image = noise((2, 3))
    inputs = as_video(processor, image)
    ids = torch.randint(20, 250, (GROUP, LENGTH), generator=torch.Generator().manual_seed(0))
    learner = shared_learner(model, processor, GROUP, LENGTH)
    found = shared_reference(learner, groups_of(inputs, ids))
    as_image = {
        "input_ids": inputs["input_ids"].masked_fill(
            inputs["input_ids"] == processor.video_token_id, processor.image_token_id
        ),
        "attention_mask": inputs["attention_mask"],
        "mm_token_type_ids": inputs["mm_token_type_ids"] // 2,
        "pixel_values": inputs["pixel_values_videos"],
        "image_grid_thw": inputs["video_grid_thw"],
    }
    plain = repeated_logprobs(learner.reference.model, repeat(as_image, GROUP), ids)
    assert inputs["mm_token_type_ids"].sum() == 2 * 6
    assert torch.allclose(found, plain, atol=1e-4)


@pytest.mark.slow  # two fresh processes import what they need
def test_the_section_is_written_between_its_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text("# R\n<!-- prefix: begin -->\nold\n<!-- prefix: end -->\nby hand\n")
    prefix.main(["--toy", "--repeats", "1", "--out", str(file)])
    text = file.read_text()
    assert text.startswith("# R\n<!-- prefix: begin -->\n")
    assert text.endswith("\n<!-- prefix: end -->\nby hand\n")
    assert "old" not in text
    assert text.count("| 16 | whole step |") == 2  # seconds, and memory
    assert capsys.readouterr().out.strip() in text


def test_a_table_states_ratio_limit_and_target() -> None:
    def meter(factor: float, **more: float) -> Meter:
        seconds = {"rollout": 2.0, "reference": 1.0, "policy": 4.0, "optimizer": 1.0}
        cpu = {name: factor * value for name, value in seconds.items()} | more
        return Meter(cpu, dict.fromkeys(cpu, 10 * factor))

    runs = {
        "repeated": [meter(4.0), meter(6.0), meter(8.0)],
        "shared": [meter(1.0, vision=0.0), meter(1.0, vision=2.0), meter(2.0, vision=0.0)],
    }
    text = prefix.report(Setting(group=8, length=128), {534: runs})
    # 4 x 8 s against 8, 6 x 8 against 8 + 2, 8 x 8 against 2 x 8; (534 + 128) / (534 / 8 + 128) = 3.40
    row = "| 534 | whole step | 48.00 (32.00–64.00) | 10.00 (8.00–16.00) | 4.00 (4.00–4.80) | 3.40 |"
    assert f"{row} ≥ 3.3 |" in text
    # The vision pass counts in each part that needs it: 2 + 2 of the second run.
    assert "| 534 | rollout | 12.00 (8.00–16.00) | 4.00 (2.00–4.00) | 4.00 (3.00–4.00) | 3.40 |  |" in text


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert f"{Spread.of([3.0, 1.0, 2.5]):.1f}" == "2.5 (1.0–3.0)"
    assert f"{Spread.of([2.0]):.1f}" == "2.0"


def test_the_peak_is_what_was_resident_and_is_not_any_more() -> None:
    meter = Meter()
    with meter.phase("large"):
        torch.ones(32 * 2**18)  # 32 MiB
    with meter.phase("small"):
        pass
    assert 30 < meter.peak["large"] < 60
    assert meter.peak["small"] < 15


def test_a_file_without_the_section_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "other.md"
    file.write_text("nothing\n")
    with pytest.raises(UserError, match=r"other\.md: needs the lines <!-- trl: begin -->"):
        prefix.publish("trl", "text", file)
    assert file.read_text() == "nothing\n"
