#!/usr/bin/env bash
# Runs a training command again and again until it succeeds.
#
#   launch/keep_running.sh RUN .venv/bin/python -m lidit_jax.train --config=... --data=DATA --workdir=RUN
#
# RUN is the run's workdir. Where several processes train as one, each has its own keep_running.sh: when
# one fails all end, and all meet again. It gives up
#   with status 2      on the user's mistake: the same command would fail again;
#   with status 75     when the scheduler stops the run, and what is done is saved; or when UNTIL is over;
#   with status 143    when it does so and nothing could be saved;
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

newest() { # the last step saved, -1 without one; what is being written has no bare number as its name
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
  if ((stopped)); then kill -TERM "$child" 2>/dev/null; fi # it came before `child` was known
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
  echo "keep_running: status $status after step $after; again in $DELAY s" >&2
  sleep "$DELAY" &
  wait $!
  if ((stopped)); then exit 75; fi
done
