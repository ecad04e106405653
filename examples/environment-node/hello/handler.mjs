// A service for the environment: a function that answers requests.
export default function hello(request, response) {
  if (new URL(request.url, "http://service").pathname !== "/") {
    response.writeHead(404).end("There is no such page.\n");
    return;
  }
  console.log(`${request.method} ${request.url}`);
  response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8" }).end("Hello from Node.js\n");
}
