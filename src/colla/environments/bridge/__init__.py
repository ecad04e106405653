"""The bridge: runs beside one program, inside its sandbox, and joins it to the world. Standard library only.

It is started as `python -I -S -c START FOLDER CONFIG_FD REPLICA` (`launching`), starts the program as its child, and owns
what must outlive the environment's own program: the listener, the log and the notes about what happened. So a replica
goes on, and its end is known, whatever happens to the environment or the agent. It

- accepts on the inherited Unix listener and copies bytes to 127.0.0.1:$PORT or to the program's own Unix socket,
  since inside a network namespace nobody else reaches those (a program that takes LISTEN_FDS accepts itself);
- writes the program's lines to two log segments of bounded size, numbered and dated;
- passes signals on to the program's process group: as first process of a PID namespace it can be signalled
  where the program, without a handler of its own, could not;
- fences the program in where there is no sandbox around both of them (`fence`);
- runs commands beside the program for the environment (`commands`);
- measures what the program writes into its scratch folder and ends it when that is too much (`room`);
- reaps orphans and leaves no process behind when the program ends.

Notes are JSON lines in the status file: {"program": pid, "port": n}, {"listening": "unix"|"port"}, {"check": text},
{"failed": text}, {"overfull": text}, {"exited": code|null, "signal": n|null}.

Its modules import each other relatively, since they run as a package of their own, with nothing else of colla in sight.
"""
