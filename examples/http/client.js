// SPDX-License-Identifier: Apache-2.0
// Runs a program over HTTP, then follows one live over a WebSocket. Usage: node client.js [URL]
// The second part needs WebSocket: node 22, or `npm install ws`.
const url = process.argv[2] ?? "http://127.0.0.1:8080";

async function main() {
  const answer = await fetch(`${url}/api/llm/execute`, {
    method: "POST",
    body: JSON.stringify({ agent_id: "js", language: "javascript", code: "console.log(6 * 7)" }),
  });
  const done = await answer.json();
  if (!answer.ok) throw new Error(done.error);
  process.stdout.write(done.stdout);

  const Socket = globalThis.WebSocket ?? require("ws");
  const socket = new Socket(`${url.replace("http", "ws")}/ws/${done.vm_id}`);
  socket.onopen = () => socket.send(JSON.stringify({
    message_type: "LlmExecuteCode",
    data: { execution_id: "1", language: "bash", code: "for i in 1 2 3; do echo $i; sleep 1; done" },
  }));
  socket.onmessage = (event) => {
    const { message_type, data } = JSON.parse(event.data);
    if (message_type === "LlmExecutionOutput") process.stdout.write(data.content);
    else socket.close();
    if (message_type === "LlmExecutionError") console.error(data.error);
  };
}
main();
