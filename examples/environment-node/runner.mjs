// One replica: loads the service's handler.mjs and serves it on a Unix socket until its environment goes away.
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [artifact, socket] = process.argv.slice(2);
const { default: handler } = await import(pathToFileURL(path.join(artifact, "handler.mjs")));
const server = http.createServer(handler);
process.umask(0o077);
server.listen(socket);
// The channel to the environment closes when that ends, however it ends: a replica never outlives it.
process.on("disconnect", () => process.exit(0));
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
