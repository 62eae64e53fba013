// fal's own JavaScript client as a program of its own: see official.py.
import { createRequire } from "node:module";

const given = JSON.parse(process.argv[2]);
const { createFalClient } = createRequire(`${given.packages}/`)("@fal-ai/client");
const fal = createFalClient({
  credentials: given.key,
  requestMiddleware: async (request) => ({ ...request, url: request.url.replace("https://queue.fal.run", given.queue) }),
});
let error = null;
try {
  if (given.what === "wait") await fal.subscribe(given.endpoint, { input: given.body, logs: true });
  else await fal.queue.submit(given.endpoint, { input: given.body });
} catch (raised) {
  error = String(raised);
}
console.log(JSON.stringify({ at: Date.now() / 1000, error }));
