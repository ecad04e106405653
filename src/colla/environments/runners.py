"""How one of our own programs is started for a replica: outside of every sandbox, since it is the one that makes it.

Invariant: nothing that a service's author wrote reaches the process environment but through the runner's configuration, which
the runner understands as data. What is taken over is named here; what specifications may say one day is not.
"""

from __future__ import annotations

import sys

from colla.environments.protocol import HealthCheck, Limits, ReplicaSpec


def runner_spec(spec: ReplicaSpec, module: str, env: dict[str, str], limits: Limits) -> ReplicaSpec:
    """The specification of the runner `module` for the replica. No command of the author's, no door, no way out."""
    return ReplicaSpec(
        replica=spec.replica,
        service=spec.service,
        artifact=spec.artifact,
        command=(sys.executable, "-P", "-m", module),
        env=env,
        listen="fds",
        limits=limits,
        health=HealthCheck(start_period_s=spec.health.start_period_s),
    )
