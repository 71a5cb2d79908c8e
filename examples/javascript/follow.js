// SPDX-License-Identifier: Apache-2.0
// Follows a job's output live over SUB, and fills every gap with `read`.
const zmq = require('zeromq');
const { encode, decode } = require('@msgpack/msgpack');
const requests = new zmq.Request();
const events = new zmq.Subscriber({ receiveTimeout: 1000 });
requests.connect(process.env.BERTH_ENDPOINT || 'tcp://127.0.0.1:5555');
events.connect(process.env.BERTH_EVENTS || 'tcp://127.0.0.1:5556');
const ask = async (op, body) => {
  await requests.send(['BERTH/1', encode({ id: op, op, body })]);
  const { ok, body: answer, error } = decode((await requests.receive())[1]);
  return ok ? answer : Promise.reject(new Error(error.detail));
};
(async () => {
  const code = 'let i = 0; const t = setInterval(() => { console.log(i); if (++i == 5) clearInterval(t); }, 300)';
  const { job } = await ask('submit', { code, language: 'javascript' });
  events.subscribe(`job.${job}.`);
  for (let seen = 0, part = {}; !part.ended;) {
    part = await ask('read', { job, stdout_offset: seen }); // what was missed, or the end
    process.stdout.write(part.stdout);
    for (seen += part.stdout.length; !part.ended;) {
      const [topic, body] = await events.receive().catch(() => ['']);
      const event = String(topic).endsWith('.stdout') ? decode(body) : null;
      if (!event || event.offset > seen) break; // a state, or a gap
      process.stdout.write(event.data.subarray(seen - event.offset));
      seen = Math.max(seen, event.offset + event.data.length);
    }
  }
})();
