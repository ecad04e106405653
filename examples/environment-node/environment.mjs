// A small execution environment for colla: services are folders with a `handler.mjs` that exports a function.
//
//     node environment.mjs --runtime DIR
//
// It prints one handshake and serves the environment protocol (docs/reference/environment-protocol.md) on a Unix
// socket. Each replica is a process of its own, without isolation: the owner of the computer has to agree.
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Events, Refusal, Replica, now } from "./replicas.mjs";

const KIND = "node-functions";
const BODY_BYTES_MAX = 1 << 20;
const SOCKET_PATH_BYTES_MAX = 100;
const QUIET_MS = 2000;
const WAIT_S_MAX = 600;
const ENDED_KEPT_MAX = 64;
const ID = /^[0-9a-f]{32}$/;

process.umask(0o077);
const runtime = path.resolve(process.argv[process.argv.indexOf("--runtime") + 1]);
const handshakeFile = path.join(runtime, "program.json");
const sockets = socketFolder();
const events = new Events();
const replicas = new Map();

const info = {
  protocol_versions: [1],
  kind: KIND,
  version: "1.0.0",
  instance: events.instance,
  artifact_kinds: ["folder"],
  config_schema: { type: "object", properties: { env: { type: "object", additionalProperties: { type: "string" } } } },
  isolation: "none",
  network_modes: ["shared"],
  limits_enforced: [],
  capabilities: ["prepare", "logs", "signal"],
  needs_consent: "functions would run with all rights of this program",
};

// --- the calls -----------------------------------------------------------------------------------------------

const routes = [
  ["GET", "/v1/info", () => info],
  ["GET", "/v1/health", () => ({ healthy: true, replicas_running: [...replicas.values()].filter((one) => !one.record.exit).length })],
  ["POST", "/v1/prepare", prepare],
  ["POST", "/v1/replicas", start],
  ["POST", "/v1/recover", recover],
  ["GET", "/v1/replicas", () => ({ replicas: [...replicas.values()].map((one) => one.status) })],
  ["GET", "/v1/replicas/{replica}", ({ replica }) => find(replica).status],
  ["POST", "/v1/replicas/{replica}/stop", stop],
  ["GET", "/v1/replicas/{replica}/wait", wait],
  ["POST", "/v1/replicas/{replica}/signal", ({ replica, body }) => (find(replica).signal(body.signal), {})],
  ["DELETE", "/v1/replicas/{replica}", remove],
  ["GET", "/v1/replicas/{replica}/logs", logs],
  ["GET", "/v1/events", follow],
  ["POST", "/v1/shut-down", shutDown],
];

function prepare({ body, lines }) {
  lines.begin();
  try {
    checkArtifact(body.artifact);
    const files = fs.readdirSync(body.artifact, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const sizes = files.map((file) => fs.lstatSync(path.join(file.path, file.name)).size);
    lines.say({ done: true, files: files.length, size_bytes: sizes.reduce((sum, size) => sum + size, 0) });
  } catch (error) {
    lines.say({ problem: problemOf(error) });
  }
  lines.end();
}

function start({ body: { spec, allow_unsandboxed } }) {
  if (typeof spec !== "object" || spec === null) throw new Refusal("body_malformed", "The body has no specification.");
  const known = replicas.get(spec.replica);
  if (known) {
    if (canonical(known.record.spec) !== canonical(spec)) {
      throw new Refusal("replica_differs", `Replica ${spec.replica} was started with another specification.`, { status: 409 });
    }
    return startedAnswer(known);
  }
  checkSpec(spec);
  if (!allow_unsandboxed) throw new Refusal("consent_needed", `The owner of this computer has not agreed that ${info.needs_consent}.`);
  forgetOldest();
  const folder = path.join(runtime, "replicas", spec.replica);
  fs.mkdirSync(folder, { recursive: true });
  const record = { spec, handle: crypto.randomBytes(8).toString("hex"), started_at: now(), ready_at: null, exit: null };
  const replica = new Replica(record, folder, endpointOf(spec.replica), events);
  replicas.set(spec.replica, replica);
  replica.launch();
  return startedAnswer(replica);
}

function recover({ body }) {
  const replica = find(body.replica);
  if (replica.record.handle !== body.handle) throw unknown(body.replica);
  return startedAnswer(replica);
}

async function stop({ replica, body }) {
  const found = find(replica);
  await found.stop(body.signal ?? "SIGTERM", body.grace_s ?? 10);
  return found.status;
}

async function wait({ replica, query }) {
  const found = find(replica);
  const over = new AbortController();
  const timeoutS = Math.min(Number(query.get("timeout_s") ?? WAIT_S_MAX), WAIT_S_MAX);
  const timer = setTimeout(() => over.abort(), timeoutS * 1000);
  await Promise.race([found.ended, new Promise((resolve) => over.signal.addEventListener("abort", resolve))]);
  clearTimeout(timer);
  return found.status;
}

async function remove({ replica }) {
  const found = find(replica);
  await found.stop("SIGKILL", 0);
  forget(replica, found);
  return {};
}

function logs({ replica, query, lines }) {
  const found = find(replica);
  lines.begin();
  for (const line of found.lines) if (line.number > Number(query.get("after") ?? 0)) lines.say(line);
  if (query.get("follow") !== "1" || found.record.exit) return lines.end();
  found.followers.add(lines.say);
  lines.onEnd(() => found.followers.delete(lines.say));
  found.ended.then(lines.end);
}

function follow({ query, lines }) {
  lines.begin();
  const mine = (query.get("instance") ?? events.instance) === events.instance;
  lines.onEnd(events.follow(mine ? Number(query.get("after") ?? 0) : 0, lines.say));
}

async function shutDown({ body }) {
  await Promise.all([...replicas.values()].map((one) => one.stop(body.signal ?? "SIGTERM", body.grace_s ?? 10)));
  setImmediate(end);
  return {};
}

// --- what they share -----------------------------------------------------------------------------------------

function find(name) {
  const replica = replicas.get(name);
  if (!replica) throw unknown(name);
  return replica;
}

function unknown(name) {
  return new Refusal("replica_unknown", `There is no replica ${name} here.`, { status: 404 });
}

function startedAnswer(replica) {
  const { replica: id, handle, endpoint } = replica.status;
  return { replica: id, handle, endpoint };
}

function forget(name, replica) {
  replicas.delete(name);
  fs.rmSync(replica.folder, { recursive: true, force: true });
}

function forgetOldest() {
  const ended = [...replicas].filter(([, one]) => one.record.exit);
  for (const [name, one] of ended.slice(0, Math.max(0, ended.length - ENDED_KEPT_MAX + 1))) forget(name, one);
}

function checkSpec(spec) {
  if (!ID.test(spec.replica)) throw new Refusal("replica_malformed", `${spec.replica} is no id of a replica.`);
  const { path: health, ...numbers } = spec.health ?? {};
  if (health != null && !/^\/[!-~]{0,2000}$/.test(health)) throw new Refusal("health_path_malformed", `${health} is no path to ask for.`);
  if (Object.values(numbers).some((number) => !(number > 0))) throw new Refusal("health_check_malformed", "The numbers of a health check are above zero.");
  if (Object.values(spec.limits ?? {}).some((limit) => limit !== null && !(limit > 0))) throw new Refusal("limits_malformed", "Limits are above zero.");
  checkArtifact(spec.artifact);
  if (!fs.existsSync(path.join(spec.artifact, "handler.mjs"))) {
    throw new Refusal("handler_missing", "The service has no handler.mjs.", { hint: "Export a function (request, response) from it." });
  }
}

function checkArtifact(artifact) {
  if (typeof artifact !== "string" || !path.isAbsolute(artifact)) throw new Refusal("artifact_relative", `${artifact} is no absolute path.`);
  if (!fs.statSync(artifact, { throwIfNoEntry: false })?.isDirectory()) throw new Refusal("artifact_missing", `There is no folder ${artifact}.`);
}

/** JSON with sorted keys, so that equal specifications are equal texts. */
function canonical(value) {
  return JSON.stringify(value, (_, part) =>
    part && typeof part === "object" && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part,
  );
}

function problemOf(error) {
  const { code, message, hint = "", retryable = false } = error instanceof Refusal ? error : { code: "internal", message: String(error) };
  return { code, message, hint, retryable };
}

// --- HTTP ----------------------------------------------------------------------------------------------------

async function answer(request, response) {
  try {
    const url = new URL(request.url, "http://environment");
    const found = routes
      .map(([method, pattern, handler]) => [method, url.pathname.match(`^${pattern.replace("{replica}", "([^/]+)")}$`), handler])
      .find(([method, match]) => match && method === request.method);
    if (!found) throw new Refusal("call_unknown", "There is no such call.", { status: 404 });
    const [, match, handler] = found;
    const call = { replica: match[1], query: url.searchParams, lines: streamOf(response) };
    if (request.method === "POST") call.body = await bodyOf(request);
    const value = await handler(call);
    if (!response.headersSent) reply(response, 200, value);
  } catch (error) {
    if (!response.headersSent) reply(response, error.status ?? (error instanceof Refusal ? 400 : 500), problemOf(error));
  }
}

function reply(response, status, value) {
  const body = JSON.stringify(value);
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) }).end(body);
}

async function bodyOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  if (size > BODY_BYTES_MAX) throw new Refusal("body_too_long", `A body has at most ${BODY_BYTES_MAX} bytes.`, { status: 413 });
  try {
    const value = JSON.parse(Buffer.concat(chunks).toString() || "{}");
    if (typeof value !== "object" || Array.isArray(value) || value === null) throw new Error("it is no object");
    return value;
  } catch (error) {
    throw new Refusal("body_malformed", `The body is no JSON object: ${error.message}.`);
  }
}

/** One value per line; an empty line when there was nothing to say for a while. A reader that is too slow is let go. */
function streamOf(response) {
  let quiet;
  const lines = {
    begin() {
      response.writeHead(200, { "Content-Type": "application/x-ndjson" });
      response.flushHeaders();
      quiet = setInterval(() => response.write("\n"), QUIET_MS);
      response.on("close", () => clearInterval(quiet));
    },
    say(value) {
      if (response.writableLength > BODY_BYTES_MAX) response.destroy();
      else response.write(`${JSON.stringify(value)}\n`);
    },
    end: () => response.end(),
    onEnd: (action) => response.on("close", action),
  };
  return lines;
}

// --- the program ---------------------------------------------------------------------------------------------

/** Sockets live in the runtime folder, or, when their paths would be too long, in a short folder of their own. */
function socketFolder() {
  const here = path.join(runtime, "sockets");
  const name = `colla-node-${crypto.createHash("sha256").update(runtime).digest("hex").slice(0, 12)}`;
  const chosen = Buffer.byteLength(here) + 22 <= SOCKET_PATH_BYTES_MAX ? here : path.join(os.tmpdir(), name);
  fs.mkdirSync(chosen, { recursive: true });
  const found = fs.lstatSync(chosen);
  if (!found.isDirectory() || found.uid !== process.getuid()) throw new Error(`${chosen} belongs to somebody else`);
  fs.chmodSync(chosen, 0o700);
  return chosen;
}

function endpointOf(replica) {
  return path.join(sockets, `${replica.slice(0, 16)}.sock`);
}

/** What an earlier program ran ended with it: its replicas are remembered as lost. */
function remember() {
  const folder = path.join(runtime, "replicas");
  fs.mkdirSync(folder, { recursive: true });
  for (const name of fs.readdirSync(folder).filter((entry) => ID.test(entry))) {
    const own = path.join(folder, name);
    let record;
    try {
      record = JSON.parse(fs.readFileSync(path.join(own, "record.json")));
    } catch {
      fs.rmSync(own, { recursive: true, force: true });
      continue;
    }
    record.exit ??= { reason: "lost", message: "Its environment ended, and it with it." };
    fs.rmSync(endpointOf(name), { force: true });
    const replica = new Replica(record, own, endpointOf(name), events);
    replica.remember();
    replicas.set(name, replica);
  }
}

function somebodyAnswers(socket) {
  return new Promise((resolve) => {
    const connection = net.connect(socket, () => (connection.destroy(), resolve(true)));
    connection.on("error", () => resolve(false));
  });
}

function end() {
  fs.rmSync(handshakeFile, { force: true });
  fs.rmSync(control, { force: true });
  if (!sockets.startsWith(runtime)) fs.rmSync(sockets, { recursive: true, force: true });
  process.exit(0);
}

const control = path.join(sockets, "control.sock");
if (await somebodyAnswers(control)) {
  console.error(`another environment program runs in ${runtime}`);
  process.exit(75);
}
remember();
fs.rmSync(control, { force: true });
const server = http.createServer({ keepAliveTimeout: 0 }, answer);
server.listen(control, () => {
  const line = JSON.stringify({ colla_environment: 1, kind: KIND, socket: control, pid: process.pid });
  fs.writeFileSync(`${handshakeFile}.new`, line);
  fs.renameSync(`${handshakeFile}.new`, handshakeFile);
  console.log(line);
});
process.on("SIGTERM", end);
process.on("SIGINT", end);
