// SPDX-License-Identifier: Apache-2.0
// Saves a machine and takes it back over one WebSocket. Usage: node rollback.js [URL]
// Needs WebSocket: node 22, or `npm install ws`.
const url = process.argv[2] ?? "http://127.0.0.1:8080";

async function main() {
  const made = await fetch(`${url}/api/vms`, { method: "POST", body: "{}" });
  const { vm_id } = await made.json();
  const Socket = globalThis.WebSocket ?? require("ws");
  const socket = new Socket(`${url.replace("http", "ws")}/ws/${vm_id}`);
  const waiting = [];
  const ask = (message_type, data) => new Promise((done) => {
    waiting.push(done);
    socket.send(JSON.stringify({ message_type, data }));
  });
  socket.onmessage = (event) => {
    const { message_type, data } = JSON.parse(event.data);
    if (message_type !== "LlmExecutionOutput") waiting.shift()(data);
  };
  await new Promise((done) => { socket.onopen = done; });
  const bash = (code) => ask("LlmExecuteCode", { language: "bash", code });
  await bash("echo precious > note.txt");
  const { snapshot_id } = await ask("CreateSnapshot", { name: "good", description: "before the mess" });
  console.log("without it:", (await bash("rm note.txt; cat note.txt")).stderr.trim());
  await ask("RollbackToSnapshot", { snapshot_id, create_pre_rollback_snapshot: false });
  console.log("back again:", (await bash("cat note.txt")).stdout.trim());
  fetch(`${url}/api/vms/${vm_id}`, { method: "DELETE" }).then(() => socket.close());
}
main();
