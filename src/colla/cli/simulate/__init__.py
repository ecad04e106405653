"""`colla simulate`: the simulator's experiments. `app` joins the commands; each has a module of its own.

The simulator is imported when a command runs, so that `colla --help` stays quick.
"""
