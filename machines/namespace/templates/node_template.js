// SPDX-License-Identifier: Apache-2.0
'use strict';
// The Node template: a trusted interpreter outside all machines, which forks warm ones into them.
// Started by the spawner as
//   LD_PRELOAD=keepfork.so node --single-threaded --v8-pool-size=0 node_template.js
// with an environment that has nothing else in it. Never reads anything that comes out of a machine.

const path = require('node:path');
const native = require(path.join(__dirname, 'berth_warm.node'));
const job = require(path.join(__dirname, 'node_job.js'));

// What programs ask for most, loaded once. Nothing here may draw a random number: the state of the
// generator would be the same in every job.
for (const name of ['assert', 'buffer', 'child_process', 'events', 'fs', 'fs/promises', 'net', 'os',
  'path', 'querystring', 'readline', 'stream', 'string_decoder', 'timers', 'tty', 'url', 'util'])
  require(name);

// What is compiled here, and kept, no interpreter has to compile for itself.
require('node:v8').setFlagsFromString('--no-flush-bytecode');
for (let i = 0; i < 2; ++i) job.rehearse(native);

job.run(JSON.parse(native.serve(() => job.rehearse(native))), native);
