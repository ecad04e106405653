"""What settings and notices mean to people: the words of the reference that no code says.

`reference.py` joins them with the program's own names, types and defaults, and refuses a name without a meaning and a
meaning without a name.
"""

from __future__ import annotations

SETTINGS = {
    "group": "The group's id: the hash of its founding record.",
    "group_name": "The group's name.",
    "node_name": "This computer's name in the group. Records carry it: changing it here does not rename a member's computer.",
    "member_name": "The member's name in the group, used when the node founds or joins.",
    "port": "UDP port for links to other nodes. 0 takes a free one at the first start and keeps it here.",
    "gateway_port": "TCP port of this computer's gateway, on 127.0.0.1 only.",
    "gateway_port_fixed": "Whether the node refuses to start when that port is taken; otherwise it takes another one and says so in its log.",
    "lan_discovery": "Find the group's other computers on the local network by multicast DNS.",
    "ticket": "The ticket while this computer has not been let in yet; empty afterwards.",
    "peers": "Whom to ask first, until the group has let this computer in.",
    "contribution": "What this computer gives: `colla contribute` writes it.",
    "programs": "Execution environments that were attached: `colla environment add` writes it.",
}

PEER = {
    "node": "The node's id.",
    "addresses": "Where it was last seen, each as `ADDRESS:PORT`.",
}

CONTRIBUTION = {
    "agents": "Which of the five agents this node carries: `user`, `repository`, `group`, `dispatcher`, `executor`.",
    "cpus": "Cores for replicas.",
    "memory_bytes": "Memory for replicas.",
    "disk_bytes": "Disk for objects and replicas of the group; what the member stores themselves may take 4 GiB beside it.",
    "environments": "What may run: `static`, `process`.",
    "members": "Whose services may run here: names or ids of members; empty means everybody's.",
    "own_only": "Only the member's own services run here.",
    "unsandboxed": "Let `process` run programs without a sandbox where neither bubblewrap nor Landlock works. Dangerous.",
    "replicas_max": "At most so many replicas.",
    "labels": "Pairs such as `site=home`: replicas spread over sites, and services can ask for labels.",
    "gateway": "`ADDRESS:PORT` where everybody reaches public services; empty means that there is no such door.",
    "address": "Where others reach this computer, as `NAME` or `NAME:PORT`, if it cannot find out itself, as behind a router with a forwarded port.",
    "relay": "The URL of the relay that this node runs for members who cannot meet, as `http://203.0.113.7:3340`; empty means none.",
    "denied_members": "Whose services never run here, whoever else may: names or ids.",
    "only_labels": "Pairs such as `gpu=yes`: only services that ask for one of them run here; empty means all.",
    "denied_labels": "Services that ask for one of these labels do not run here.",
    "strangers": "The weakest isolation for services of others than the owner and `members`: `landlock`, `bubblewrap`, `container`, `webassembly` or `nothing-executed`; empty means any.",
    "outgoing": "Services that ask for `network:internet` reach the Internet from here, by a proxy. Left out: no.",
    "exec": "A service's owner and administrators may run commands beside its replicas here. Left out: no.",
    "draining": "Takes no new replicas, and lets those here move (`colla drain`).",
    "paused": "Runs nothing for the group (`colla pause`).",
}

PROGRAM = {
    "kind": "The kind of services that it runs.",
    "command": "The command that starts it, with whole paths.",
}

FOLDER = {
    "name": "The service's name; else the folder's. A DNS label: small letters, digits, single hyphens.",
    "environment": "`static` or `process`; else recognised.",
    "command": "What starts the program: a line (run by `/bin/sh -c` where it needs a shell) or a list of words.",
    "replicas": "How many replicas, 1 to 64. Left out: 3 for a new service, unchanged for one that exists.",
    "secrets": "The names of secrets without which it must not start. Their values never stand here: `colla secret set`.",
    "env": "Variables for the program. Every member can read them: no place for secrets.",
    "uses": "Names of services that its program may reach, at the address in `COLLA_USES_NAME`; `network:internet` is a proxy to the Internet.",
    "public": "Whether contributed gateways may show it to everybody.",
    "domains": "Domains under which contributed gateways serve it.",
    "stop_grace_s": "Seconds between SIGTERM and the end of the whole process tree.",
    "labels": 'Labels that a computer must have to run it, as `site = "home"`.',
    "limits": "See `[limits]`.",
    "health": "See `[health]`.",
    "python": "See `[python]`.",
}

PYTHON = {
    "versions": "Versions of Python (`3.12`) for which the packages of `requirements.txt` are bundled. Left out: this computer's.",
    "platforms": "Platforms likewise: `linux-x86_64`, `linux-aarch64`, `darwin-aarch64`, `darwin-x86_64`.",
}

LIMITS = {
    "cpus": "Cores that placement reserves for one replica; from 1 on also the most that it may use. A share below 1 is reserved only.",
    "memory_bytes": "Memory that placement reserves, and the most that it may use.",
    "processes": "Processes and threads at most.",
}

HEALTH = {
    "path": "An HTTP path that answers below 400 when the program is well. Left out: it must accept connections.",
    "start_period_s": "Seconds that the program may take until it answers.",
    "tcp": "Instead of a path: connections must be taken and kept.",
    "command": "Instead of a path: a list of words, run beside the program in its sandbox (`process`); 0 is well.",
    "interval_s": "Seconds between two checks.",
    "timeout_s": "Seconds that a check may take.",
    "failures_max": "So many failed checks in a row make a replica unhealthy: no requests come to it until it is well.",
}

NOTICES = {
    "addresses_damaged": "The last address of a computer could not be read from the disk.",
    "admitted": "A computer joined the group.",
    "agents_restarted": "The agents of this node began anew from the disk, after a fault or when the disk refused a write.",
    "copies_remade": "An object had too few copies; more are being made.",
    "database_corrupt": "The database was damaged and put aside; the group fills it again.",
    "inherited": "No administrator was left: this computer's member is one now.",
    "log_forked": "An old disk came back: both branches of a log are kept.",
    "missing_replicas": "A service has fewer replicas than wanted, and no willing computer is free.",
    "missing_secrets": "A service cannot start: secrets that it needs are not set.",
    "node_absent": "A computer is gone.",
    "node_left": "A computer said goodbye.",
    "node_present": "A computer is here.",
    "node_suspected": "A computer is silent; others are being asked.",
    "peer_misbehaved": "Something that a computer sent was wrong and was dropped.",
    "quota_exceeded": "A computer wrote more than one member's may; what was too much is not kept.",
    "record_quarantined": "Colla failed to read records about one matter, and goes on without it.",
    "records_damaged": "Records on this disk were damaged; the group sends them again.",
    "records_rejected": "Records that a computer sent were not valid.",
    "refused": "This computer refused a replica, as its owner decided.",
    "refused_by_peer": "A computer of the group refused this one.",
    "repaired": "A service has all its replicas again.",
    "replica_exited": "A replica on this computer ended by itself.",
    "replica_reported": "A service's program, or its environment, told something that people should know.",
    "replica_ready": "A replica on this computer answers.",
    "replica_stopped": "A replica on this computer was stopped.",
    "spare_started": "A computer fell silent: one replica more was offered to another, to be safe.",
    "stepped_down": "This node masters a service no more.",
    "stop_failed": "A replica on this computer could not be stopped.",
    "took_over": "This node masters a service from now on.",
    "trimmed": "A replica more than wanted is stopped.",
}
