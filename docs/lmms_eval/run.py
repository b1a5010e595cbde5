"""lmms-eval with the positions that a checkpoint's weights were trained with. Same arguments.

Transformers 5.3 to 5.23, which lmms-eval uses, place the text behind a video inside the video's times. Here
Qwen2-VL and Qwen2.5-VL follow the rule that the checkpoint's config.json states, else the published one.
"""

import runpy

from transformers import Qwen2_5_VLModel, Qwen2VLModel

from vcr1.policy.prompts.positions import rope_index

if __name__ == "__main__":
    for body in (Qwen2VLModel, Qwen2_5_VLModel):
        body.get_rope_index = rope_index
    runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
