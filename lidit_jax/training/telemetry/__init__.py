"""What a run reports. The logbook feeds these modules; they know nothing else about training.

metrics      means, to the console, TensorBoard (events) and JSON lines (step_lines)
ledger       incidents                       bad_records  counts samples that were replaced
clock        where the time goes             pulse        heartbeat and watchdog
"""
