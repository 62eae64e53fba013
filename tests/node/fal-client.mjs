// A session of fal's own JavaScript client against the simulator.
//
//   node fal-client.mjs '{"queue": …, "rest": …, "endpoint": …, "key": …, "picture": …}'
//
// The client has fal's hosts built in; its documented request middleware sends them elsewhere.
import { readFileSync } from "node:fs";
import { ApiError, ValidationError, createFalClient } from "@fal-ai/client";

const given = JSON.parse(process.argv[2]);

const elsewhere = async (request) => ({
  ...request,
  url: request.url.replace("https://queue.fal.run", given.queue).replace("https://rest.fal.ai", given.rest),
});

const client = (credentials) => createFalClient({ credentials, requestMiddleware: elsewhere });
const fal = client(given.key);
const seen = {};
const picture = (name) => new File([readFileSync(given.picture)], name, { type: "image/jpeg" });

const refused = async (call) => {
  try {
    await call();
  } catch (error) {
    const fields = error instanceof ValidationError ? error.fieldErrors.map((field) => [field.loc, field.type]) : null;
    return error instanceof ApiError ? { status: error.status, fields } : { thrown: String(error) };
  }
  return null;
};

seen.uploaded = await fal.storage.upload(picture("boat.jpg"), {
  lifecycle: { expiresIn: "1h" },
});
if (given.large) {
  const large = new File([new Uint8Array(91 * 1024 * 1024)], "big.bin", { type: "application/octet-stream" });
  seen.uploadedInParts = await fal.storage.upload(large);
}

const input = { image_url: seen.uploaded, prompt: "The boat drifts.", duration: "5" };
const first = await fal.queue.submit(given.endpoint, { input, priority: "low", hint: "a-runner", startTimeout: 3600 });
const second = await fal.queue.submit(given.endpoint, { input });
seen.submitted = first;
seen.waiting = await fal.queue.status(given.endpoint, { requestId: second.request_id, logs: true });
await fal.queue.cancel(given.endpoint, { requestId: second.request_id });
seen.cancelledAgain = await refused(() => fal.queue.cancel(given.endpoint, { requestId: second.request_id }));
seen.early = await refused(() => fal.queue.result(given.endpoint, { requestId: first.request_id }));

const stream = await fal.queue.streamStatus(given.endpoint, { requestId: first.request_id, logs: true });
seen.streamed = [];
stream.on("data", (status) => seen.streamed.push(status.status));
seen.streamEnd = (await stream.done()).status;
seen.result = await fal.queue.result(given.endpoint, { requestId: first.request_id });

for (const mode of ["polling", "streaming"]) {
  const updates = [];
  const answer = await fal.subscribe(given.endpoint, {
    input: { ...input, image_url: picture("auto.jpg") },
    logs: true,
    mode,
    pollInterval: 50,
    onQueueUpdate: (update) => updates.push(update),
  });
  seen[mode] = {
    requestId: answer.requestId,
    data: answer.data,
    states: [...new Set(updates.map((update) => update.status))],
    logs: updates.at(-1).logs.map((line) => line.message),
  };
}

seen.invalid = await refused(() =>
  fal.subscribe(given.endpoint, { input: { prompt: "no picture" }, pollInterval: 50 }),
);
seen.unknownEndpoint = await refused(() => fal.queue.submit("fal-ai/kling-video/o9/image-to-video", { input }));
seen.wrongKey = await refused(() => client("wrong").queue.submit(given.endpoint, { input }));

console.log(JSON.stringify(seen));
