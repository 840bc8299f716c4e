"""Engines and learner ranks as processes of a Ray cluster, behind the protocols of those of one process.

The only room that imports ray, and nothing imports the room before a config has a [cluster].
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
# Ray would run its workers at the lowest priority: fine beside its own processes, not beside those of others.
os.environ.setdefault("RAY_worker_niceness", "0")
