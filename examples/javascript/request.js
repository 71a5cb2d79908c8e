// SPDX-License-Identifier: Apache-2.0
// Runs a program in a fresh machine and prints its output.
const zmq = require('zeromq');
const { encode, decode } = require('@msgpack/msgpack');

async function main() {
  const socket = new zmq.Request();
  socket.connect(process.env.BERTH_ENDPOINT || 'tcp://127.0.0.1:5555');
  const code = process.argv[2] || "console.log('hello from', require('os').hostname())";
  const body = { code, language: 'javascript', timeout_ms: 10000 };
  await socket.send(['BERTH/1', encode({ id: 1, op: 'run', body })]);
  const reply = decode((await socket.receive())[1]);
  if (!reply.ok) throw new Error(`${reply.error.name}: ${reply.error.detail}`);
  process.stdout.write(reply.body.stdout);
  process.stderr.write(reply.body.stderr);
  console.error(reply.body.state, reply.body.exit_code, `${reply.body.wall_us / 1000} ms`);
}

main().catch((error) => { console.error(error.message); process.exitCode = 1; });
