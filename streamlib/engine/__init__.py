"""What happens to a record: plan, compiled operators, tasks. Pure: no event loop, no clock, no client.

`plan.py` topology + partition counts -> tasks, internal topics, changelogs
`compile.py`, `operators/` nodes -> plain closures that call each other
`task.py` batches in; outputs, offsets and store writes out; `inputs.py`, `outbox.py` its two ends
`assignment/` members + tasks -> who runs what
"""
