#!/usr/bin/env bash
# Restarts a training command until it succeeds.
#
#   launch/keep_running.sh RUN .venv/bin/python -m lidit_jax.train --config=... --data=DATA --workdir=RUN
#
# RUN is the run's workdir. If several processes train one run, each has its own keep_running.sh: when
# one fails, all end and are restarted together. It gives up
#   with status 2      on a user error: the same command would fail again;
#   with status 75     when the scheduler stopped the run, which saved first; or after UNTIL;
#   with status 143    when the scheduler stops the run and nothing could be saved;
#   with the last status, after TRIES failures in a row without a newer checkpoint.
set -uo pipefail
DELAY=${DELAY:-30} # seconds between a failure and the next start
TRIES=${TRIES:-3}  # failures without progress
UNTIL=${UNTIL:-}   # if set, nothing is started after this time, in seconds since 1970

if (($# < 2)) || [[ $1 == -* ]]; then
  echo "usage: $0 WORKDIR COMMAND..." >&2
  exit 2
fi
workdir=$1
shift

newest() { # the last step saved, or -1; names of unfinished checkpoints are not bare numbers
  local path step last=-1
  for path in "$workdir"/checkpoints/*/; do
    step=$(basename "$path")
    if [[ $step =~ ^[0-9]+$ ]] && ((step > last)); then last=$step; fi
  done
  echo "$last"
}

child=0 stopped=0
stop() {
  stopped=1
  if ((child)); then kill -TERM "$child" 2>/dev/null; fi
}
trap stop TERM INT

failures=0
while true; do
  before=$(newest)
  if ((stopped)); then exit 75; fi
  if [[ -n $UNTIL && $(date +%s) -ge $UNTIL ]]; then
    echo "keep_running: it is too late to start (UNTIL)" >&2
    exit 75
  fi
  "$@" &
  child=$!
  if ((stopped)); then kill -TERM "$child" 2>/dev/null; fi # the signal came before `child` was set
  wait "$child"
  status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
    wait "$child"
    status=$?
  done
  child=0
  if ((status == 0 || status == 2 || status == 75 || status == 143)); then exit "$status"; fi
  if ((stopped)); then exit "$status"; fi
  after=$(newest)
  if ((after > before)); then failures=0; else failures=$((failures + 1)); fi
  if ((failures >= TRIES)); then
    echo "keep_running: status $status, and $failures failures since step $after; giving up" >&2
    exit "$status"
  fi
  echo "keep_running: status $status after step $after; retrying in $DELAY s" >&2
  sleep "$DELAY" &
  wait $!
  if ((stopped)); then exit 75; fi
done
