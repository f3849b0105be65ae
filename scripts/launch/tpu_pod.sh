#!/usr/bin/env bash
# diffjax on all hosts of a TPU pod slice, from a machine with gcloud:
#
#   TPU=my-tpu ZONE=us-west4-a scripts/launch/tpu_pod.sh \
#       evaluate imagenet --model dit-256 --dtype bfloat16 --data-dir /mnt/data --out /mnt/runs/dit
#   TPU=my-tpu ZONE=us-west4-a scripts/launch/tpu_pod.sh \
#       classify /mnt/cat.jpg --prompts /mnt/prompts.csv --model sd-2-base --dtype bfloat16
#
# "evaluate": each host does its part of the images, and none needs another.
# "classify": all chips of the slice work on one image, which needs all of the hosts.
#
# Before: pip install 'diffjax[tpu]' on all hosts (gcloud ... ssh --worker=all). Paths
# are the hosts'; --out must be on a file system that they share, such as Filestore (NFS),
# where renaming a file is atomic and flock works. A mounted bucket does neither: give
# each host an --out of its own there, copy all their parts/ into one, and repeat the
# command once in one process, which then writes the summary.
#
# Not yet run on a TPU: the tests run it with stand-ins for gcloud and the metadata.
set -euo pipefail

: "${TPU:?the name of the TPU}"
: "${ZONE:?its zone}"
# Which hosts: "all", or one number, to repeat what a lost host left undone (then CHIPS
# is needed, as a slice starts only when all of its hosts do).
WORKER=${WORKER:-all}
# The chips of a host: 2,2,1 for four, 2,4,1 for eight. If given, an evaluation makes each
# host a TPU of its own: it starts, and dies, without the others.
CHIPS=${CHIPS:-}

command=${1:?evaluate or classify, and its arguments}
diffjax=$(printf '%q ' diffjax "$@")
case $command in
evaluate)
    attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
    alone=
    if [ -n "$CHIPS" ]; then
        # TPU_SKIP_MDS_QUERY: libtpu is not to look up the slice, but to take what follows
        alone="TPU_SKIP_MDS_QUERY=1 TPU_PROCESS_BOUNDS=1,1,1"
        alone+=" TPU_CHIPS_PER_PROCESS_BOUNDS=$CHIPS"
        alone+=" TPU_WORKER_ID=0 TPU_WORKER_HOSTNAMES=localhost"
    fi
    # as --distributed would find them, but for TPU_WORKER_ID above
    remote="ask() { curl -sf -H 'Metadata-Flavor: Google' $attributes/\$1; }
k=\$(ask agent-worker-number) && hosts=\$(ask worker-network-endpoints | tr ',' '\n' | wc -l) &&
env $alone $diffjax --process-index \$k --process-count \$hosts"
    ;;
classify)
    # JAX finds the hosts and the coordinator by itself
    remote="$diffjax --global-mesh"
    ;;
*)
    echo "evaluate or classify, not $command" >&2
    exit 2
    ;;
esac

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$WORKER" \
    --command="$remote"
