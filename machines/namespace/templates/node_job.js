// SPDX-License-Identifier: Apache-2.0
'use strict';
// Runs one JavaScript job so that it looks, in every way a program can tell, like `node main.js`.
//
// Used in two ways: by node_template.js (a warm interpreter), and started cold as
// `/usr/bin/node node_job.js FD`, with the job's description in the file FD: a JSON object of code,
// args, env, cwd, name (main.js, or main.mjs for an ES module; needs not exist). Cold, and only
// then, ES modules and worker threads work.

const fs = require('node:fs');
const Module = require('node:module');
const path = require('node:path');
const v8 = require('node:v8');

function replaceEnvironment(env) {
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const [name, value] of Object.entries(env)) process.env[name] = value;
}

/** Forgets the modules that run the job, so that it finds a fresh cache. */
function forgetOurselves() {
  for (const name of Object.keys(Module._cache)) delete Module._cache[name];
  for (const name of Object.keys(Module._pathCache)) delete Module._pathCache[name];
}

/** A fork keeps what Node read once at its start; this puts it right. */
function becomeProcess(native) {
  Object.defineProperty(process, 'pid',
    {value: native.getpid(), writable: false, enumerable: true, configurable: true});
  // One seed a process, before the first Math.random() of it.
  const bytes = Buffer.alloc(4);
  const source = fs.openSync('/dev/urandom', 'r');
  fs.readSync(source, bytes);
  fs.closeSync(source);
  v8.setFlagsFromString(`--random-seed=${bytes.readInt32LE() || 1}`);
}

/** Node's way out waits for threads that a forked process does not have: ours comes before it, but
 * not before every exit listener has run and an uncaught exception is displayed. */
function leaveEarly(native) {
  let uncaught = false;
  function last(code) {
    if (uncaught) return native.leaveLater(Number(process.exitCode ?? code));
    process.removeListener('exit', last);
    if (process.listenerCount('exit') > 0) process.emit('exit', code);
    native.leave(Number(process.exitCode ?? code));
  }
  process.on('exit', last);
  process.on('uncaughtExceptionMonitor', () => {
    if (process.listenerCount('uncaughtException') > 0) return;
    uncaught = true;
    process.removeListener('exit', last);
    process.on('exit', last);
  });
  process.reallyExit = (code) => native.leave(Number(code ?? 0));
}

/** Lets what was printed reach a slow reader even when process.exit() follows: a pipe is written to
 * until it has taken all. Plain Node loses what is beyond the pipe's capacity. */
function printWholly() {
  for (const name of ['stdout', 'stderr']) {
    const property = Object.getOwnPropertyDescriptor(process, name);
    let ready = false;
    Object.defineProperty(process, name, {...property, get() {
      const stream = property.get.call(process);
      if (!ready) stream._handle?.setBlocking?.(true);
      ready = true;
      return stream;
    }});
  }
}

/** Compiles and runs the code as the main module, below no frame of ours: as the first tick. */
function runInMemory(file, code) {
  const main = new Module(file, undefined);
  main.id = '.';
  main.filename = file;
  main.paths = Module._nodeModulePaths(path.dirname(file));
  process.mainModule = main;
  Module._cache[file] = main;
  if (code.charCodeAt(0) === 0xFEFF) code = code.slice(1);
  process.nextTick(main._compile.bind(main), code, file);
  process.nextTick(() => { main.loaded = true; });
}

/** Puts the source where it says it is and starts it there, as `node FILE` does. */
function runFromFile(file, code) {
  try {
    fs.writeFileSync(file, code, {flag: 'wx'});
  } catch (error) {
    if (path.extname(file) !== '.mjs') return runInMemory(file, code);
    const {dir, name, ext} = path.parse(file);
    file = path.join(error.code === 'EEXIST' ? dir : require('node:os').tmpdir(),
      `${name}-${process.pid}${ext}`);
    fs.writeFileSync(file, code);
  }
  process.argv[1] = file;
  process.on('exit', () => {
    try { fs.unlinkSync(file); } catch { /* The job removed it itself. */ }
  });
  process.nextTick(Module.runMain, file);
}

/** Puts the source where it says it is, for as long as the program runs. A file of the user's that
 * has this name stays what it is. */
function placeSource(file, code) {
  try {
    fs.writeFileSync(file, code, {flag: 'wx'});
  } catch { /* It runs without. */ return; }
  process.on('exit', () => {
    try { fs.unlinkSync(file); } catch { /* The job removed it itself. */ }
  });
}

/** Whether the program, or one that it starts, may look for its source. */
function looksForSource(code) {
  return /__filename|__dirname|cluster|process\.argv|require\.main/.test(code);
}

/** A machine's /proc tells nothing about processors; how many there are is known all the same. */
function countProcessors() {
  const os = require('node:os');
  const told = os.cpus;
  os.cpus = () => {
    const found = told();
    if (found.length > 0) return found;
    const count = os.availableParallelism?.() ?? 1;
    const times = {user: 0, nice: 0, sys: 0, idle: 0, irq: 0};
    return Array.from({length: count}, () => ({model: 'unknown', speed: 0, times: {...times}}));
  };
  Module.syncBuiltinESMExports();
}

/** Makes this process look like one that was started for the job. Returns the source's path. */
function setUp(job, native) {
  replaceEnvironment(job.env ?? {});
  try {
    process.chdir(job.cwd ?? '/');
  } catch (error) {
    fs.writeSync(2, `cannot enter ${job.cwd}: ${error.code}\n`);
    process.exit(126);
  }
  const file = path.join(process.cwd(), job.name || 'main.js');
  process.argv = [process.execPath, file, ...(job.args ?? [])];
  process.execArgv = [];
  forgetOurselves();
  printWholly();
  if (native !== undefined) {
    becomeProcess(native);
    if (looksForSource(job.code)) placeSource(file, job.code);
    leaveEarly(native);
  }
  return file;
}

function run(job, native) {
  if (job.kernel) return runKernel(job, native);
  const file = setUp(job, native);
  (native === undefined ? runFromFile : runInMemory)(file, job.code);
}

/** Becomes a live interpreter, see node_kernel.js. */
function runKernel(job, native) {
  const kernel = require(path.join(__dirname, 'node_kernel.js'));
  replaceEnvironment(job.env ?? {});
  process.chdir(job.cwd ?? '/');
  process.execArgv = [];
  forgetOurselves();
  if (native !== undefined) {
    becomeProcess(native);
    leaveEarly(native);
  }
  kernel.run(job, native);
}

/** Notes what a job changes of this process. Returns what puts it back. */
function remember() {
  const names = ['pid', 'argv', 'execArgv', 'stdout', 'stderr', 'reallyExit', 'mainModule'];
  const properties = names.map((name) => [name, Object.getOwnPropertyDescriptor(process, name)]);
  const listeners = ['exit', 'uncaughtExceptionMonitor']
    .map((name) => [name, process.rawListeners(name)]);
  const env = {...process.env};
  const cwd = process.cwd();
  const modules = {...Module._cache};
  return () => {
    for (const [name, property] of properties) {
      if (property === undefined) delete process[name];
      else Object.defineProperty(process, name, property);
    }
    for (const [name, before] of listeners)
      for (const listener of process.rawListeners(name))
        if (!before.includes(listener)) process.removeListener(name, listener);
    replaceEnvironment(env);
    process.chdir(cwd);
    forgetOurselves();
    Object.assign(Module._cache, modules);
  };
}

/** Does what a job does, to a pipe of its own, so that pages and code are ready before it comes. */
function rehearse(native) {
  const {Socket} = require('node:net');
  const {Console} = require('node:console');
  const putBack = remember();
  const [reading, writing] = native.pipe();
  const stream = new Socket({fd: writing, readable: false, writable: true});
  stream._type = 'pipe';
  const job = JSON.parse('{"code": "const fs = require(\\"fs\\");'
    + 'exports.say = (out) => out.log(\\"x\\", {a: [1]});",'
    + '"args": [], "env": {"PATH": "/usr/bin:/bin", "HOME": "/home/agent"}}');
  const file = setUp(job, native);
  runInMemory(file, job.code);
  process._tickCallback?.();
  Module._cache[file].exports.say?.(new Console({stdout: stream, stderr: stream}));
  stream.destroy();
  fs.closeSync(reading);
  putBack();
}

countProcessors();
module.exports = {run, rehearse};

if (require.main === module) {
  const description = fs.readFileSync(Number(process.argv[2]), 'utf8');
  run(JSON.parse(description));
}
