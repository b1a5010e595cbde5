from pathlib import Path

import pytest
from video_files import stripes

from vcr1.video.writing import write_mp4


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames at 10 fps, H.264, 160x96."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_mp4(path, stripes(40), 10)
    return path


@pytest.fixture(scope="session")
def av1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in AV1, which decord cannot read."""
    path = tmp_path_factory.mktemp("clips") / "av1.mp4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "1")  # errors only
        write_mp4(path, stripes(40), 10, codec="libsvtav1")
    return path
