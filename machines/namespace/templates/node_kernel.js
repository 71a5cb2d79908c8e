// SPDX-License-Identifier: Apache-2.0
'use strict';
// A live JavaScript interpreter: Node's own REPL engine, one cell after the other.
//
// Descriptor 0 is the control socket to the guest (kernel_link.h has the messages). Timers and servers
// of earlier cells go on between cells; what they write then is nobody's. What a cell runs is in this
// very process: nothing here is kept from it, and the guest believes nothing that it says.

const fs = require('node:fs');
const path = require('node:path');
const {PassThrough} = require('node:stream');
const repl = require('node:repl');
const util = require('node:util');
const vm = require('node:vm');

const textBytesMax = 64 << 10;
const resultBytesMax = 3 << 20;
const pause = new Int32Array(new SharedArrayBuffer(4));

let native;
let server;
let cells = 0;
/** The cell that runs: its number, and what to call with its error or value. */
let current = null;
let inEval = false;
/** Whether there was an interrupt since the cell before. */
let mayBeLate = false;
let input = null;

function text(value) {
  return Buffer.from(String(value), 'utf8').subarray(0, textBytesMax);
}

function sized(buffer) {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(buffer.length);
  return [size, buffer];
}

/** The value of a cell's last expression. */
function show(value) {
  const content = Buffer.from(util.inspect(value), 'utf8');
  if (content.length > resultBytesMax) {
    const lost = Buffer.alloc(11);
    lost.writeUInt8(1, 0);
    lost.writeUInt16LE(1, 1);
    lost.writeBigUInt64LE(BigInt(content.length), 3);
    return native.say('L', lost);
  }
  const head = Buffer.from([1, 1, 0]);
  native.say('D', Buffer.concat([head, ...sized(Buffer.from('text/plain')), ...sized(content)]));
}

/** A stack without the frames of Node's REPL and ours. */
function stackOf(error) {
  const stack = typeof error?.stack === 'string' ? error.stack : undefined;
  if (stack === undefined) return `Uncaught ${util.inspect(error)}`;
  const lines = stack.split('\n');
  const ours = lines.findIndex((line) => /\((node:(vm|internal\/vm|repl)|.*node_kernel\.js):/.test(line)
    || line.includes('ContextifyScript') || line.includes('makeContextifyScript'));
  return (ours < 0 ? lines : lines.slice(0, ours)).join('\n');
}

function describe(error) {
  if (error === interrupted || error?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED')
    return ['Interrupted', 'the cell was interrupted', 'Interrupted'];
  try {
    if (error?.err !== undefined && error.constructor?.name === 'Recoverable') error = error.err;
    const isError = util.types.isNativeError(error) || error instanceof Error;
    return [isError ? error.name : typeof error, isError ? error.message : util.inspect(error),
      stackOf(error)];
  } catch {
    return ['Error', '', ''];
  }
}

const interrupted = {};

/** Ends the cell that runs, once. */
function finish(failed, value) {
  if (current === null) return;
  const {number} = current;
  let error = null;
  if (failed) {
    error = describe(value);
    try { writeWhole(2, Buffer.from(error[2] + '\n')); } catch { /* Nobody reads it. */ }
  } else if (value !== undefined) {
    try { show(value); } catch (failure) { error = describe(failure); }
  }
  current = null;
  input?.destroy();
  input = null;
  native.disconnect();
  const head = Buffer.alloc(21);
  head.writeUInt32LE(number, 0);
  head.writeInt32LE(error ? 1 : 0, 4);
  head.writeUInt32LE(++cells, 8);
  head.writeBigUInt64LE(BigInt(process.resourceUsage().maxRSS) * 1024n, 12);
  head.writeUInt8(error ? 1 : 0, 20);
  native.say('E', Buffer.concat([head, ...(error ?? []).flatMap((part) => sized(text(part)))]));
}

function onSigint() {
  finish(true, interrupted);
}

/** The guest says by number which cell an interrupt is for. A signal that comes while no script is
 * evaluated would reach us late, in the next cell. */
function ignoreSigint() {}

/** While a script is evaluated, V8's guard against endless loops has SIGINT. */
function guardEvaluation(evaluate) {
  process.removeListener('SIGINT', ignoreSigint);
  try {
    evaluate();
  } finally {
    process.on('SIGINT', ignoreSigint);
  }
}

/** Node's guard may keep a signal that came while it went, and end the next script by it: here that
 * is one that waits for nothing else. */
function absorbLateSignal() {
  mayBeLate = false;
  try {
    vm.runInThisContext('for (const end = Date.now() + 3; Date.now() < end;);', {breakOnSigint: true});
  } catch { /* It was there. */ }
}

function runCell(number, code) {
  if (mayBeLate) guardEvaluation(absorbLateSignal);
  current = {number};
  inEval = true;
  try {
    guardEvaluation(() => server.eval(code + '\n', server.context, `cell-${cells + 1}`,
      (error, value) => {
        if (current?.number !== number) return;
        finish(error !== null && error !== undefined, error ?? value);
      }));
  } catch (error) {
    finish(true, error);
  }
  inEval = false;
}

/** An error that no cell caught: of the cell being evaluated or awaited, of which the REPL tells it so,
 * or (domainThrown) of something that a cell left behind. */
function onUncaught(error) {
  if (inEval || (current !== null && error?.domainThrown !== true)) return finish(true, error);
  onStray(error);
}

function onStray(error) {
  try { writeWhole(2, Buffer.from(`Uncaught ${stackOf(error)}\n`)); } catch { /* Nobody reads it. */ }
}

function onFrame(letter, data, fds) {
  if (letter === 'C') {
    const flags = data.readUInt8(4);
    let code = data.subarray(5);
    if (flags & 2) {
      code = Buffer.alloc(fs.fstatSync(fds[3]).size);
      fs.readSync(fds[3], code, 0, code.length, 0);
    }
    native.connect(fds);
    runCell(data.readUInt32LE(0), code.toString('utf8'));
  } else if (letter === 'I') {
    mayBeLate = true;
    if (current?.number === data.readUInt32LE(0)) finish(true, interrupted);
  } else if (letter === 'F') {
    if (native.rest(fds)) becomeOther();
  } else if (letter === 'T') {
    native.goOn();
  }
}

/** What no two copies may share. */
function becomeOther() {
  Object.defineProperty(process, 'pid',
    {value: native.getpid(), writable: false, enumerable: true, configurable: true});
}

function writeWhole(fd, data) {
  for (let at = 0; at < data.length;) {
    try {
      at += fs.writeSync(fd, data, at);
    } catch (error) {
      // A child that shares the pipe may have told it not to wait.
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

/** Has a stream write at once and by number. It keeps no state of its own: an interrupt ends a script
 * anywhere, also within a write, after which Node's streams would wait for the end of that for ever. */
function writeAtOnce(stream, fd) {
  stream.write = (chunk, encoding, done) => {
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
    const data = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk;
    if (!ArrayBuffer.isView(data))
      throw new TypeError('what is written must be a string, a Buffer or a Uint8Array');
    let error = null;
    try {
      writeWhole(fd, data);
    } catch (failure) {
      error = failure;
    }
    if (typeof done === 'function') process.nextTick(done, error);
    return true;
  };
}

/** Becomes the kernel. Streams are made while their descriptors lead to /dev/null, so that each
 * cell's can be put under them. */
function run(job, warm) {
  native = warm ?? require(path.join(__dirname, 'berth_warm.node'));
  native.begin(onFrame);
  process.argv = [process.execPath];
  writeAtOnce(process.stdout, 1);
  writeAtOnce(process.stderr, 2);
  Object.defineProperty(process, 'stdin', {configurable: true, enumerable: true, get() {
    input ??= new fs.ReadStream(null, {fd: native.openInput()});
    return input;
  }});
  server = new repl.REPLServer({prompt: '', input: new PassThrough(), output: new PassThrough(),
    terminal: false, useColors: false, useGlobal: true, breakEvalOnSigint: true});
  server._domain.removeAllListeners('error');
  server._domain.on('error', onUncaught);
  // What came just before the guard went is told by the REPL.
  server.removeAllListeners('SIGINT');
  server.on('SIGINT', onSigint);
  process.on('unhandledRejection', onStray);
  process.on('uncaughtException', onStray);
  process.on('SIGINT', ignoreSigint);
  native.sayReady();
}

module.exports = {run};
