#!/usr/bin/env bash
#SBATCH --job-name=diffjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1     # a process a node; it uses all devices that it sees
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue               # after a node failure the job starts again, and goes on
#SBATCH --open-mode=append
# diffjax on the nodes of a Slurm job:
#
#   sbatch scripts/launch/slurm.sh evaluate pets --model sd-2-base --dtype bfloat16 \
#       --data-dir data --out runs/pets
#   sbatch scripts/launch/slurm.sh classify cat.jpg --prompts prompts.csv --model sd-2-base
#
# "evaluate": each node does its part of the images, and none needs another.
# "classify": all devices of all nodes work on one image.
#
# Not yet run on a cluster: the tests run it with stand-ins for srun and scontrol.
set -euo pipefail

# JAX takes this share of each GPU at the start; the default is 0.75.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
# Nodes without a network: take the model from the cache, filled on the login node.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
# Compiled programs are kept in ~/.cache/diffjax/jax; JAX_COMPILATION_CACHE_DIR moves them.

command=${1:?evaluate or classify, and its arguments}
case $command in
evaluate)
    # --kill-on-bad-exit=0 --wait=0: the others go on after one has failed or finished
    exec srun --kill-on-bad-exit=0 --wait=0 diffjax "$@" --distributed
    ;;
classify)
    # Proxies keep the processes from finding each other.
    unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
    # NCCL_SOCKET_IFNAME=ib0, for one, if NCCL takes the wrong network.
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
    port=$((20000 + SLURM_JOB_ID % 20000))  # another for every job on a node
    exec srun --kill-on-bad-exit=1 diffjax "$@" \
        --global-mesh --coordinator "$head:$port"
    ;;
*)
    echo "evaluate or classify, not $command" >&2
    exit 2
    ;;
esac
