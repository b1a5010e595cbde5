# syntax=docker/dockerfile:1
# docker build -t vcr1 . && docker run --gpus all --ipc=host -v vcr1-runs:/workspace/runs vcr1 experiment=demo
# The small CUDA image is enough: the wheels of torch bring the CUDA libraries, the host brings the driver.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# A compiler and Python's headers: Triton builds its launchers with them when torch.compile runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    TOKENIZERS_PARALLELISM=false

WORKDIR /opt/vcr1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY vcr1 vcr1
RUN python3 -m venv /opt/venv \
    && python -m pip install --quiet --disable-pip-version-check -c constraints.txt .

# Runs are written below /workspace, which belongs to the user that runs them.
RUN useradd --create-home vcr1 && install --directory --owner vcr1 --group vcr1 /workspace /workspace/runs
USER vcr1
WORKDIR /workspace
ENTRYPOINT ["python", "-m", "vcr1.train"]
