"""The state of one partition of the stream: attribution, sessions and features composed; no I/O.

`partition.UserPartition` is stage 1 (topic `events`, by user), `items.ItemPartition` stage 2
(topics `feature-updates` and `items`). The service folds the live log through them, batch jobs
replay it through the same.
"""
