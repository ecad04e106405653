"""What every execution environment has to do, as checks that any author can run on a program of their own.

    python -m colla.environments.conformance PROGRAM [ARGUMENT ...]      (or: colla environment check PROGRAM ...)

The program is started as a node starts it, asked through the environment protocol alone, killed and started again.
Each check states the rule that it holds; what an environment does not claim to do (`capabilities`) is not asked of it.
"""

from colla.environments.conformance.checks import Check, NotHere, Outcome
from colla.environments.conformance.running import CHECKS, run_check, run_checks
from colla.environments.conformance.subject import Sample, Subject

__all__ = ["CHECKS", "Check", "NotHere", "Outcome", "Sample", "Subject", "run_check", "run_checks"]
