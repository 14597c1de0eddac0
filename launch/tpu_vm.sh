#!/usr/bin/env bash
# A Cloud TPU VM slice, from the request to the run, on all of its workers.
#
#   launch/tpu_vm.sh create       requests the slice; waits until it is ready
#   launch/tpu_vm.sh install      installs this commit, Python and JAX, and mounts the share, on every worker
#   launch/tpu_vm.sh run [--config.KEY=VALUE ...]       trains; started again, it continues
#   launch/tpu_vm.sh keep [--config.KEY=VALUE ...]      the same, through preemptions, until it is done
#   launch/tpu_vm.sh stop         stops the training, which saves first
#   launch/tpu_vm.sh delete       releases the slice; the shared folder stays
#
# Set the variables below, or in the environment. gcloud must be logged in, with a project set.
set -euo pipefail
NAME=${NAME:-lidit}
ZONE=${ZONE:-us-east5-b}
TYPE=${TYPE:-v6e-16}                 # gcloud compute tpus accelerator-types list --zone=$ZONE
RUNTIME=${RUNTIME:-v2-alpha-tpuv6e}  # gcloud compute tpus versions list --zone=$ZONE
SPOT=${SPOT---spot}                  # SPOT= for a slice that is not preempted
SHARE=${SHARE:-10.0.0.2:/lidit}      # an NFS export, such as Filestore's, in the slice's network
CONFIG=${CONFIG:-configs/lidit_1b.py:webdataset}
DATA=${DATA:-/mnt/lidit/data}
RUN=${RUN:-/mnt/lidit/run}
MOUNT="{ mountpoint -q /mnt/lidit || sudo mount -t nfs $SHARE /mnt/lidit; }"  # again after each boot
TRIES=${TRIES:-10}                   # consecutive failures of `keep` to get a slice, or to install on it

tpu() { gcloud compute tpus "$@" --zone="$ZONE"; }
everywhere() { tpu tpu-vm ssh "$NAME" --worker=all --command="$1"; }
state() { # prints nothing if there is no request; retries while gcloud fails, as it does offline
  until tpu queued-resources list --format="value(name.basename(), state.state)" |
    awk -v name="$NAME" '$1 == name {print $2}'; do sleep 30; done
}

create() {
  # shellcheck disable=SC2086  # SPOT is a flag or nothing
  tpu queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" $SPOT && granted
}

granted() { # waits until the request is granted
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    if [[ $now =~ FAILED|SUSPEND|DELETING ]]; then
      echo "error: the request ended as $now; run $0 delete, and try again" >&2
      return 1
    fi
    sleep 30
  done
}

install() { # the runtimes' own Python may be older than 3.11: uv installs one
  local archive sent=0
  archive=$(mktemp --suffix=.tar.gz) && git archive --format=tar.gz -o "$archive" HEAD &&
    tpu tpu-vm scp "$archive" "$NAME:lidit_jax.tar.gz" --worker=all && sent=1
  rm -f "$archive"
  if ((!sent)); then return 1; fi
  # A machine that has just booted upgrades itself, and holds apt's lock.
  everywhere "set -eu
    sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q nfs-common
    sudo mkdir -p /mnt/lidit && $MOUNT
    rm -rf lidit_jax && mkdir lidit_jax && tar -xzf lidit_jax.tar.gz -C lidit_jax && cd lidit_jax
    python3 -m pip install -q --user uv
    ~/.local/bin/uv venv -q --python 3.11 .venv
    ~/.local/bin/uv pip install -q -c constraints.txt -e '.[tpu]'
    touch installed"
}

run() { # every worker gets its rank from the TPU's metadata
  local more="" id status
  id=$(date +%s)-$$
  if (($#)); then more=$(printf ' %q' "$@"); fi
  while true; do # a lost connection ends nothing: the same id is followed again
    status=0
    everywhere "$MOUNT && cd lidit_jax &&
      launch/detached.sh ~/lidit_run $id launch/keep_running.sh $RUN \
      .venv/bin/python -m lidit_jax.train --config=$CONFIG --data=$DATA --workdir=$RUN$more" || status=$?
    if ((status != 255)) || [[ $(state) != ACTIVE ]]; then return "$status"; fi
    echo "the connection was lost; connecting again" >&2
    sleep 10
  done
}

# shellcheck disable=SC2016  # each worker's own process
stop() { everywhere 'kill "$(cat ~/lidit_run/pid)"'; }

delete() { tpu queued-resources delete "$NAME" --force --quiet; }

renew() { # gets a slice and installs on it; waits for a pending request instead of making another
  local now
  now=$(state)
  if [[ $now =~ FAILED|SUSPEND ]]; then
    if ! delete; then return 1; fi
    now=""
  fi
  if [[ -z $now ]]; then create; else granted; fi && install
}

gone() { # whether the slice is gone, or goes within five minutes: its machines get notice before its request does
  local i
  echo "the training ended with status $1; waiting up to five minutes to see if its slice is preempted" >&2
  for ((i = 0; i < 10; i++)); do
    if [[ $(state) != ACTIVE ]]; then return 0; fi
    sleep 30
  done
  return 1
}

keep() { # replaces a preempted slice by another, which continues from the last checkpoint
  local status failures=0
  while true; do
    status=1
    if [[ $(state) == ACTIVE ]]; then
      status=0
      everywhere 'test -e lidit_jax/installed' || status=$? # 255: no connection
    fi
    if ((status == 1)); then
      status=0
      renew || status=255
    fi
    if ((status)); then
      failures=$((failures + 1))
      if ((failures >= TRIES)); then echo "error: no slice after $TRIES tries" >&2 && return 1; fi
      sleep 60
      continue
    fi
    failures=0
    run "$@" || status=$?
    if ((status == 0 || status == 2)) || ! gone "$status"; then return "$status"; fi
  done
}

case ${1:-} in
  create | install | run | keep | stop | delete) "$@" ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
