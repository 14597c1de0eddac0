"""What a run tells of itself. The logbook beside it feeds it; it knows nothing else of training.

metrics      to the console, TensorBoard (events) and JSON lines (step_lines), of means
ledger       what went otherwise than planned          bad_records  samples that were replaced, counted
clock        where the time goes                       pulse        heartbeat and watchdog
"""
