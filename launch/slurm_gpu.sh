#!/usr/bin/env bash
# Trains on the GPUs of several nodes, one process per GPU.
#
#   sbatch launch/slurm_gpu.sh [--config.KEY=VALUE ...]        from the repository's root
#
# Every node must see the repository, DATA, RUN and the VAE (--config.data.codec) under the same paths.
# Five minutes before the time limit, and when it is preempted, the run saves a checkpoint and the job is
# requeued.
#
#SBATCH --job-name=lidit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lidit-%j.log
# The training itself picks one GPU per task (SLURM_LOCALID): with --gpus-per-task the GPUs of a node
# would not see one another, and NCCL could not copy between them directly.
set -uo pipefail
CONFIG=${CONFIG:-configs/lidit_1b.py:webdataset}
DATA=${DATA:-/shared/lidit/data}
RUN=${RUN:-/shared/lidit/run}
PYTHON=${PYTHON:-.venv/bin/python}
# What `benchmark --plan` assumes; JAX's default of 0.75 is for a GPU that is shared.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

# A failed run is not restarted in the last six minutes: the signal, which may come a minute early, may
# already have been sent while no run was there. The next job continues.
if ((${SLURM_JOB_END_TIME:-0} - 360 > $(date +%s))); then export UNTIL=$((SLURM_JOB_END_TIME - 360)); fi
# When a process fails the others end too, by JAX's heartbeat at the latest, or two minutes later by srun, and
# keep_running.sh restarts all of them. srun does not end them at once: its status would be 143, for the
# signal that it sends them, instead of 2 for a user error.
# srun no longer inherits --cpus-per-task from sbatch.
launch/keep_running.sh "$RUN" srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "$PYTHON" -m lidit_jax.train --config="$CONFIG" --data="$DATA" --workdir="$RUN" "$@"
status=$?
if ((status == 75 || status == 143)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
