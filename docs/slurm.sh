#!/usr/bin/env bash
# Several machines under Slurm: sbatch --nodes=2 docs/slurm.sh task=grounding strategy=fsdp
# What stands behind the script are overrides of vcr1.train. Set GPUS to those of one machine, and
# --ntasks-per-node to the same number: every GPU has a rank, and srun starts it.
#SBATCH --job-name=vcr1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=runs/slurm-%j.out
set -euo pipefail

GPUS=${GPUS:-8}
# srun ends all ranks when one has failed; what the ranks say goes to the job's output, by their number.
exec srun --kill-on-bad-exit=1 --label --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" \
    python -m vcr1.train trainer.num_nodes="$SLURM_JOB_NUM_NODES" trainer.devices="$GPUS" "$@"
