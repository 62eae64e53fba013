// The MCP SDK for TypeScript of an older year: each call of the order, and what its own schemas make of the answer.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const order = JSON.parse(process.argv[2]);
const client = new Client({ name: "old", version: "1" });
await client.connect(new StdioClientTransport(order.server));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answers = [];
let job = "JOB";
for (const [name, given] of order.calls) {
  const answer = await client.callTool({ name, arguments: JSON.parse(JSON.stringify(given).replace("JOB", job)) });
  if (job === "JOB") job = /kj_[\w-]+/.exec(JSON.stringify(answer))?.[0] ?? job;
  answers.push(answer);
}
const found = [await client.listResources(), await client.listResourceTemplates(), await client.listPrompts()];
const lists = found.map((list, index) => list[order.lists[index]].length);
console.log(JSON.stringify({ tools, answers, lists }));
await client.close();
