"""`colla demo`: six computers lose each other one by one, and two services stay alive.

Every computer is a tree of real processes with its own data folder (`computer`), everything is done through the real
commands and the real API, a separate process asks the services all the time (`asker`), and what is shown was measured
(`watching`, `requests`). Nothing here imports the node.
"""
