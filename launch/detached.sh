#!/usr/bin/env bash
# Runs a command that outlives the connection it was started from; follows its log, exits with its status.
#
#   launch/detached.sh FOLDER ID COMMAND...
#
# The same call again resumes following, or reports how COMMAND ended. Another ID starts it anew, but never
# while an earlier one still runs: that one is followed instead. FOLDER, on a local disk, gets log, status
# and pid; `kill PID` asks COMMAND to stop.
set -uo pipefail
if (($# < 3)); then
  echo "usage: $0 FOLDER ID COMMAND..." >&2
  exit 2
fi
folder=$1 id=$2
shift 2
mkdir -p "$folder"

# COMMAND and its children inherit the lock: it is free once none of them runs, also after a reboot.
exec 9>"$folder/lock"
lines=20
if flock -n 9; then
  if [[ $(cat "$folder/id" 2>/dev/null) != "$id" || ! -s $folder/status ]]; then
    rm -f "$folder/status" "$folder/pid"
    echo "$id" >"$folder/id"
    lines=+1
    # shellcheck disable=SC2016  # expanded by the shell that waits for COMMAND
    setsid bash -c '
      folder=$1; shift
      trap "kill -TERM \$child" TERM HUP
      "$@" & child=$!
      echo $$ >"$folder/pid"
      wait $child; status=$?
      while kill -0 $child 2>/dev/null; do wait $child; status=$?; done  # a signal ended the wait
      echo $status >"$folder/status"' detached "$folder" "$@" </dev/null >"$folder/log" 2>&1 &
    until [[ -s $folder/pid ]]; do sleep 0.1; done
  fi
elif [[ $(cat "$folder/id") != "$id" ]]; then
  echo "detached: a command started earlier still runs; following it instead" >&2
fi
exec 9>&-
tail -n "$lines" -f --pid="$(cat "$folder/pid")" "$folder/log"
exit "$(cat "$folder/status" 2>/dev/null || echo 137)" # no status: it was killed
