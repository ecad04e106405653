"""Commands on services: deploy, look, change, understand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
import typer

from colla.cli.command import SERVICES_PANEL, Here, command
from colla.cli.composing import deploy_compose
from colla.cli.formats import count_text, list_text, parse_pairs, short_id, size_text
from colla.cli.output import Progress
from colla.cli.secret import read_values
from colla.cli.waiting import wait_for_replicas
from colla.client.client import Client
from colla.client.compose import is_compose_file
from colla.client.deploying import DeployPlan, Said, plan_deploy
from colla.client.staging import staged
from colla.client.types import DeployRequest, PutAnswer, ServiceReport, WhyReport, WrittenAnswer
from colla.model.errors import CollaError
from colla.model.service import REPLICAS_MAX

WAIT_S = 60.0
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
ServiceArgument = Annotated[str, typer.Argument(metavar="NAME", help="The service.")]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until the replicas answer (the default) or not.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.0, help="How many seconds to wait at most.")]
ReplicasOption = Annotated[
    int | None,
    typer.Option("--replicas", "-r", min=1, max=REPLICAS_MAX, help="How many: 3, or as many as it has now."),
]
SecretsOption = Annotated[
    Path | None,
    typer.Option("--secrets", help="A file with lines NAME=VALUE: secrets, set before it starts."),
]
DeployedArgument = Annotated[
    Path,
    typer.Argument(help="The folder of the service, a .wasm module, an image archive, or a Compose file."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


async def deploy(
    here: Here,
    path: DeployedArgument,
    name: Annotated[str | None, typer.Option("--name", help="Its name; else the folder's.")] = None,
    replicas: ReplicasOption = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment", help="static, process, wasm, container or one that was added; else recognised."
        ),
    ] = None,
    run: Annotated[str | None, typer.Option("--command", help="What starts the program.")] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="KEY=VALUE for the program; repeat it.")
    ] = None,
    secrets: SecretsOption = None,
    inactive: Annotated[
        bool, typer.Option("--inactive", help="Create or change it, but do not activate it.")
    ] = False,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="Contributed gateways may show it to everybody.")
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="A domain it answers to; repeat it.")
    ] = None,
    health: Annotated[
        str | None, typer.Option("--health", help="A path that answers when the program is well.")
    ] = None,
    wait: WaitOption = True,
    timeout: TimeoutOption = WAIT_S,
) -> None:
    """Deploy a folder: create the service, or change the one of this name that is yours, and activate it.

    A folder with an index.html is a web site; one with a Procfile, an app.py or a package.json with a start command is a
    program; a .wasm file is a WebAssembly module (WASI, answering by CGI); an archive of `podman save` or `docker save`
    is a container; a Compose file is each of its services. A colla.toml in the folder says the rest: name, environment,
    command, replicas, env, secrets, uses, public, domains, limits, health.
    """
    values = read_values([], None, secrets) if secrets is not None else {}
    try:
        pairs = parse_pairs(env or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--env") from None
    said = Said(
        name=name,
        environment=environment,
        command=run,
        replicas=replicas,
        activate=not inactive,
        public=public,
        domains=tuple(domain or ()),
        env=pairs,
        health_path=health,
    )
    wait_s = timeout if wait and not inactive else None
    if is_compose_file(path):
        if values:
            hint = "Deploy it without, then: colla secret set SERVICE --env-file FILE"
            raise CollaError("bad_option", "A Compose file may have several services.", hint)
        async with here.client() as client:
            await deploy_compose(here, client, path, said, wait_s, _deploy)
        return
    plan = plan_deploy(path, said)
    for text in plan.warnings:
        here.out.warn(text)
    async with here.client() as client:
        await _deploy(here, client, plan, wait_s, values)


async def _deploy(
    here: Here,
    client: Client,
    plan: DeployPlan,
    wait_s: float | None,
    secrets: Mapping[str, str] = NO_SECRETS,
) -> None:
    began = time.monotonic()
    out = here.out
    with out.progress(f"{plan.request.name}: {plan.recognised}; storing its files") as progress:
        before = await _existing(client, plan.request.name)
        # Unpacking an archive takes a while, and nobody else waits for this loop.

        def tell(text: str) -> None:
            progress.update(f"{plan.request.name}: {text}")

        with staged(plan.path, plan.packages, tell, plan.files) as ready:
            if ready.note:
                out.note(ready.note)
            if ready.warning:
                out.warn(ready.warning)
            stored = await client.put(ready.folder)
        progress.update(f"{plan.request.name}: telling the group")
        held = before.replicas_wanted if before is not None else None
        request = plan.request_for(stored.object, stored.size_bytes, held)
        written = await _tell_group(client, request, secrets)
        report = await client.service(written.name)
        if report.secrets_missing:
            wait_s = None
        if wait_s is not None:
            changed = before is not None and report.version != before.version
            old = {each.replica for each in before.locations} if before is not None and changed else set()
            report = await _wait(here, client, report, progress, wait_s, old)
    if out.json:
        out.answer(report)
        return
    for reason in stored.reasons if stored.copies < stored.wanted else ():
        out.warn(f"{stored.copies} of {stored.wanted} copies of its files are stored: {reason}")
    _say_deployed(here, written, stored, report, None if wait_s is None else time.monotonic() - began)


async def _tell_group(client: Client, request: DeployRequest, secrets: Mapping[str, str]) -> WrittenAnswer:
    """Create or change the service; one that is new starts once its secrets are set."""
    if not secrets:
        return await client.deploy(request)
    written = await client.deploy(msgspec.structs.replace(request, activate=False))
    await client.set_secrets(written.name, secrets)
    if request.activate:
        await client.activate(written.name)
    return written


async def _existing(client: Client, name: str) -> ServiceReport | None:
    try:
        return await client.service(name)
    except CollaError as error:
        if error.code != "not_found":
            raise
        return None


def _say_deployed(
    here: Here, written: WrittenAnswer, stored: PutAnswer, report: ServiceReport, took_s: float | None
) -> None:
    what = "created" if written.created else "changed"
    here.out.note(
        f"{written.name} is {what}: {size_text(stored.size_bytes)}, {count_text(stored.copies, 'copy', 'copies')} of "
        f"its files, known to {count_text(written.copies, 'computer')}."
    )
    if took_s is not None:
        running = count_text(len(report.locations), "replica")
        verb = "answers" if len(report.locations) == 1 else "answer"
        here.out.note(f"{running} {verb} after {took_s:.1f} s, on {_places(report)}.")
    if report.secrets_missing:
        missing = " ".join(report.secrets_missing)
        here.out.warn(f"It starts when its secrets are set: colla secret set {report.name} {missing}")
    if report.active:
        here.out.say(report.url)


def _places(report: ServiceReport) -> str:
    return list_text(sorted(each.node_name for each in report.locations))


async def _wait(
    here: Here, client: Client, report: ServiceReport, progress: Progress, wait_s: float, old: set[str]
) -> ServiceReport:
    """Wait for the replicas; say what is missing when fewer than wanted can run."""

    def show(running: int) -> None:
        progress.update(f"{report.name}: {running} of {report.replicas_wanted} replicas answer")

    show(0)
    found = await wait_for_replicas(client, report.name, report.replicas_wanted, wait_s, show, old)
    running = len(found.locations)
    if running == 0:
        raise CollaError(
            "timeout",
            f"No replica of {report.name} answers after {wait_s:.0f} s.",
            f"`colla why {report.name}` and `colla logs {report.name}` say why. The group goes on trying.",
        )
    if running < found.replicas_wanted:
        here.out.warn(
            f"{running} of {found.replicas_wanted} replicas of {report.name} answer. "
            f"`colla why {report.name}` says what is missing; the group goes on trying."
        )
    return found


async def services(here: Here) -> None:
    """List the services of the group."""
    async with here.client() as client:
        found = await client.services()
    if here.out.json:
        here.out.answer(found)
        return
    here.out.table(
        ("SERVICE", "OWNER", "IS", "REPLICAS", "KIND", "VERSION", "SIZE", "URL"),
        [
            (
                each.name,
                each.owner,
                "active" if each.active else "inactive",
                _replicas_text(each),
                each.environment,
                str(each.version),
                size_text(each.object_bytes),
                each.url,
            )
            for each in found
        ],
    )


def _replicas_text(report: ServiceReport) -> str:
    return f"{len(report.locations)}/{report.replicas_wanted}" if report.active else "–"


async def show(here: Here, name: ServiceArgument) -> None:
    """Show one service: what it is, where its replicas run, who masters it."""
    async with here.client() as client:
        report = await client.service(name)
    if here.out.json:
        here.out.answer(report)
        return
    here.out.pairs(
        (
            ("service", report.name),
            ("id", report.id),
            ("owner", report.owner),
            ("is", "active" if report.active else "inactive"),
            ("kind", report.environment),
            ("version", str(report.version)),
            ("object", f"{short_id(report.object)} ({size_text(report.object_bytes)})"),
            ("public", "yes" if report.public else "no"),
            ("domains", list_text(report.domains)),
            *((("lacks secrets", list_text(report.secrets_missing)),) if report.secrets_missing else ()),
            ("master", report.master or "–"),
            ("replicas", _replicas_text(report)),
            *((f"on {each.node_name}", short_id(each.replica)) for each in report.locations),
            ("url", report.url),
        )
    )
    for kind in report.conflicts:
        here.out.warn(f"Two changes of its {kind} met; the later one holds.")


async def activate(
    here: Here, name: ServiceArgument, wait: WaitOption = True, timeout: TimeoutOption = WAIT_S
) -> None:
    """Activate a service: the group keeps its replicas running from now on."""
    async with here.client() as client:
        written = await client.activate(name)
        await _report_change(here, client, written, f"{written.name} is active", timeout if wait else None)


async def deactivate(here: Here, name: ServiceArgument) -> None:
    """Deactivate a service: its replicas stop, the service stays and can be activated again."""
    async with here.client() as client:
        written = await client.deactivate(name)
    if here.out.json:
        here.out.answer(written)
        return
    here.out.say(f"{written.name} is inactive; its replicas stop.")


async def scale(
    here: Here,
    name: ServiceArgument,
    replicas: Annotated[int, typer.Argument(min=1, max=REPLICAS_MAX, help="How many replicas.")],
    wait: WaitOption = True,
    timeout: TimeoutOption = WAIT_S,
) -> None:
    """Ask for another number of replicas."""
    async with here.client() as client:
        written = await client.scale(name, replicas)
        text = f"{written.name} shall have {count_text(replicas, 'replica')}"
        await _report_change(here, client, written, text, timeout if wait else None)


async def _report_change(
    here: Here, client: Client, written: WrittenAnswer, text: str, wait_s: float | None
) -> None:
    report = await client.service(written.name)
    if wait_s is not None and report.active:
        with here.out.progress(f"{text}; waiting for its replicas") as progress:
            report = await _wait(here, client, report, progress, wait_s, set())
    if here.out.json:
        here.out.answer(report)
        return
    here.out.say(
        f"{text}; it runs on {_places(report)}." if wait_s is not None and report.active else f"{text}."
    )


async def eliminate(here: Here, name: ServiceArgument, yes: YesOption = False) -> None:
    """Remove a service for good: its replicas stop, and it cannot be brought back."""
    async with here.client() as client:
        report = await client.service(name)
        question = f"Remove {report.name} of {report.owner} for good?"
        if not yes and not here.out.ask(question, default=False):
            raise CollaError("not_confirmed", f"{report.name} was not removed.", "Confirm it, or give --yes.")
        written = await client.eliminate(name)
    if here.out.json:
        here.out.answer(written)
        return
    here.out.say(f"{written.name} is removed, known to {count_text(written.copies, 'computer')}.")


async def logs(
    here: Here,
    name: ServiceArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=1000, help="The newest so many.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is written.")] = False,
) -> None:
    """Show what the service's replicas wrote, wherever they run, in the order of time.

    Its owner and administrators see all of it, others what the replica on their own computer wrote.
    """
    seen = False
    async with here.client() as client:
        async for line in client.logs(name, lines, follow=follow):
            if here.out.json:
                here.out.answer(line)
            elif line.stream == "note":
                here.out.note(f"{line.node}: {line.text}")
                continue
            else:
                clock = time.strftime("%H:%M:%S", time.localtime(line.at_s))
                here.out.row((clock, line.node, line.text))
            seen = True
        report = await client.service(name) if not seen else None
    if report is not None and not here.out.json:
        runs = f"Its replicas run on {_places(report)}." if report.locations else "No replica runs."
        here.out.note(f"Nothing was written. {runs}")


async def stats(here: Here, name: ServiceArgument) -> None:
    """Show what each replica of the service uses, wherever it runs."""
    async with here.client() as client:
        reports = await client.stats(name)
    if here.out.json:
        here.out.answer(reports)
        return
    here.out.table(
        ("COMPUTER", "REPLICA", "CPU", "MEMORY", "PROCESSES"),
        [
            (
                report.node,
                short_id(report.replica),
                "–" if report.cpu_s is None else f"{report.cpu_s:.1f} s",
                "–" if report.memory_bytes is None else size_text(report.memory_bytes),
                "–" if report.processes is None else str(report.processes),
            )
            for report in reports
        ],
    )


async def why(here: Here, name: ServiceArgument) -> None:
    """Explain why the replicas run where they run, what is missing, and what happened."""
    async with here.client() as client:
        report = await client.why(name)
    if here.out.json:
        here.out.answer(report)
        return
    _show_why(here, report)


def _show_why(here: Here, report: WhyReport) -> None:
    out = here.out
    if out.terminal:
        missing = "" if report.running >= report.wanted else f"; {report.wanted - report.running} missing"
        out.say(
            f"{report.service}: {report.running} of {count_text(report.wanted, 'replica')} running{missing}. "
            f"Master: {report.master or 'none known'} (term {report.term})."
        )
    out.table(
        ("COMPUTER", "VERDICT", "REASON", "SCORE"),
        [(line.node, line.verdict, line.reason, f"{line.score:.2f}") for line in report.lines],
    )
    if out.terminal and report.history:
        out.say("")
        for text in report.history:
            out.say(f"  {text}", "dim")


def add(app: typer.Typer) -> None:
    """Declare these commands."""

    def declare(body: object, *examples: str, name: str | None = None, hidden: bool = False) -> None:
        command(app, SERVICES_PANEL, examples=examples, name=name, hidden=hidden)(body)  # type: ignore[arg-type]

    declare(
        deploy,
        "colla deploy ./site",
        "colla deploy ./shop --name shop --replicas 5 --env MODE=live",
        "colla deploy . --command 'python3 app.py' --health /up",
        "colla deploy ./draft --inactive",
    )
    declare(services, "colla services", "colla services --json | jq '.[].url'")
    declare(show, "colla show blog")
    declare(activate, "colla activate blog")
    declare(deactivate, "colla deactivate blog")
    declare(scale, "colla scale blog 5")
    declare(eliminate, "colla eliminate blog", "colla eliminate blog --yes")
    declare(eliminate, "colla rm blog", name="rm", hidden=True)
    declare(logs, "colla logs shop -n 20", "colla logs shop --follow")
    declare(stats, "colla stats shop")
    declare(why, "colla why blog")
