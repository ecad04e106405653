// The replicas of one environment program: their life, their log lines, and what is told about them.
import { fork } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const RUNNER = fileURLToPath(new URL("./runner.mjs", import.meta.url));
const EVENTS_KEPT_MAX = 1024;
const LINES_KEPT_MAX = 1000;
const LINE_CHARS_MAX = 1000;
const EXIT_LINES_MAX = 20;
const RETRY_MS = 20;
const HEALTH = { path: null, interval_s: 5, timeout_s: 2, start_period_s: 10, failures_max: 3 };

export class Refusal extends Error {
  constructor(code, message, { hint = "", status = 400, retryable = false } = {}) {
    super(message);
    Object.assign(this, { code, hint, status, retryable });
  }
}

/** The newest events, numbered from 1 within this program's life. */
export class Events {
  instance = crypto.randomBytes(8).toString("hex");
  kept = [];
  #number = 0;
  #listeners = new Set();

  tell(type, replica, facts = {}) {
    const event = { type, replica, instance: this.instance, number: ++this.#number, at: now(), ...facts };
    this.kept.push(event);
    if (this.kept.length > EVENTS_KEPT_MAX) this.kept.shift();
    for (const listener of this.#listeners) listener(event);
  }

  /** Calls `listener` for every event after `number`, past ones first. Returns how to stop. */
  follow(number, listener) {
    for (const event of this.kept) if (event.number > number) listener(event);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export class Replica {
  lines = [];
  followers = new Set();
  #lineNumber = 0;
  #child = null;
  #stopping = false;
  #unhealthy = "";
  #because = null;
  #timer = null;

  constructor(record, folder, endpoint, events) {
    Object.assign(this, { record, folder, endpoint, events });
    this.ended = new Promise((resolve) => (this.tellEnd = resolve));
    if (record.exit) this.tellEnd();
  }

  launch() {
    const { spec } = this.record;
    fs.rmSync(this.endpoint, { force: true });
    this.#child = fork(RUNNER, [spec.artifact, this.endpoint], {
      cwd: spec.artifact,
      env: { PATH: process.env.PATH, LANG: "C.UTF-8", ...spec.env, COLLA_SERVICE: spec.service, COLLA_REPLICA: spec.replica },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    for (const stream of ["stdout", "stderr"]) this.#keepLines(stream);
    this.#child.on("close", (code, signal) => this.#end(code, signal));
    this.remember();
    this.events.tell("started", spec.replica);
    this.#awaitReady({ ...HEALTH, ...spec.health });
  }

  get status() {
    const { spec, handle, started_at, ready_at, exit } = this.record;
    let phase = ready_at === null ? "starting" : this.#unhealthy ? "unhealthy" : "ready";
    if (this.#stopping) phase = "stopping";
    if (exit) phase = "exited";
    return {
      replica: spec.replica, service: spec.service, phase, handle, started_at, ready_at, exit,
      endpoint: { type: "unix", path: this.endpoint }, unhealthy_because: this.#unhealthy,
    };
  }

  remember() {
    const file = path.join(this.folder, "record.json");
    fs.writeFileSync(`${file}.new`, JSON.stringify(this.record));
    fs.renameSync(`${file}.new`, file);
  }

  signal(name) {
    this.#child?.kill(name);
  }

  /** Signal, grace, then force. Resolves when nothing of it runs. */
  async stop(signal, graceS) {
    if (this.record.exit) return;
    this.#stopping = true;
    this.#because ??= { reason: "stopped" };
    this.signal(signal);
    const force = setTimeout(() => this.signal("SIGKILL"), graceS * 1000);
    await this.ended;
    clearTimeout(force);
  }

  #keepLines(stream) {
    let rest = "";
    this.#child[stream].setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop().slice(-LINE_CHARS_MAX);
      for (const line of lines) {
        const kept = { number: ++this.#lineNumber, at: now(), stream, text: line.slice(0, LINE_CHARS_MAX) };
        this.lines.push(kept);
        if (this.lines.length > LINES_KEPT_MAX) this.lines.shift();
        for (const follower of this.followers) follower(kept);
      }
    });
  }

  #end(code, signal) {
    clearTimeout(this.#timer);
    const number = signal ? os.constants.signals[signal] : null;
    const told = signal ? `It was ended by ${signal}.` : `It ended with code ${code}.`;
    const because = this.#because ?? { reason: signal ? "killed" : "exited", message: told };
    const last_lines = this.lines.slice(-EXIT_LINES_MAX).map((line) => line.text);
    this.record.exit = { code, signal: number, message: "", ...because, last_lines };
    fs.rmSync(this.endpoint, { force: true });
    this.remember();
    this.events.tell("exited", this.record.spec.replica, { exit: this.record.exit });
    this.tellEnd();
  }

  async #awaitReady(check) {
    const until = now() + check.start_period_s;
    let problem = "";
    while (!this.record.exit) {
      problem = await this.#problem(check.path ?? "/", check.timeout_s, check.path === null);
      if (!problem) break;
      if (now() > until) {
        this.#because = { reason: "never_listened", message: `It was not ready within ${check.start_period_s} s: ${problem}.` };
        this.signal("SIGKILL");
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    if (this.record.exit) return;
    this.record.ready_at = now();
    this.remember();
    this.#tellReady();
    if (check.path !== null) this.#keepChecking(check, 0);
  }

  #keepChecking(check, failures) {
    this.#timer = setTimeout(async () => {
      const problem = await this.#problem(check.path, check.timeout_s);
      if (this.record.exit) return;
      failures = problem ? failures + 1 : 0;
      if (failures === check.failures_max) {
        this.#unhealthy = problem;
        this.events.tell("unhealthy", this.record.spec.replica, { message: problem });
      } else if (!problem && this.#unhealthy) {
        this.#unhealthy = "";
        this.#tellReady();
      }
      this.#keepChecking(check, failures);
    }, check.interval_s * 1000);
  }

  #tellReady() {
    const start_to_ready_s = this.record.ready_at - this.record.started_at;
    this.events.tell("ready", this.record.spec.replica, { start_to_ready_s });
  }

  /** Empty when it is healthy, otherwise what is wrong. With `any`, every answer is good. */
  #problem(path, timeoutS, any = false) {
    return new Promise((resolve) => {
      const options = { socketPath: this.endpoint, path, agent: false, signal: AbortSignal.timeout(timeoutS * 1000) };
      const request = http.get(options, (response) => {
        response.resume();
        const bad = !any && response.statusCode >= 400;
        resolve(bad ? `GET ${path} was answered with ${response.statusCode}` : "");
      });
      request.on("error", (error) => resolve(`GET ${path} failed: ${error.message}`));
    });
  }
}

export function now() {
  return Date.now() / 1000;
}
