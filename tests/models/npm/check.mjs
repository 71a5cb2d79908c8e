// SPDX-License-Identifier: Apache-2.0
// Holds tests/support/model_server.py to the protocols, by the clients that everybody uses:
//   node check.mjs http://127.0.0.1:PORT
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import OpenAI from "openai";

const base = process.argv[2];
const ollama = new Ollama({ host: base });
const openai = new OpenAI({ baseURL: base + "/v1", apiKey: "the-key", maxRetries: 0 });

async function script(value) {
  const key = { ...value, key: undefined };
  const answer = await fetch(base + "/script", { method: "POST", body: JSON.stringify(key) });
  assert.equal(answer.status, 200, await answer.text());
}

async function requests() {
  return (await fetch(base + "/requests")).json();
}

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const asked = [{ role: "user", content: "Grüße from Ulm" }];
const checks = {};

checks["ollama: a whole answer"] = async () => {
  await script({ rules: [{ reply: { text: "you said {{last}}", usage: { input: 7, output: 3 } } }] });
  const answer = await ollama.chat({ model: "m", messages: asked, options: { num_ctx: 2048 } });
  assert.equal(answer.message.content, "you said Grüße from Ulm");
  assert.equal(answer.done, true);
  assert.equal(answer.done_reason, "stop");
  assert.equal(answer.prompt_eval_count, 7);
  assert.equal(answer.eval_count, 3);
};

checks["ollama: pieces, cut anywhere"] = async () => {
  await script({ rules: [{ reply: { text: "äöü {{last}}", pieces: 2, write_bytes: 3 } }] });
  const stream = await ollama.chat({ model: "m", messages: asked, stream: true });
  const pieces = [];
  for await (const part of stream) pieces.push(part.message.content);
  assert.equal(pieces.join(""), "äöü Grüße from Ulm");
  assert.ok(pieces.length > 5);
};

checks["ollama: tools and their results"] = async () => {
  await script({
    rules: [
      { when: { round: 1 }, reply: { tool_calls: [{ name: "get_weather", arguments: { city: "Ulm" } }] } },
      { when: { tool: "get_weather" }, reply: { text: "It is {{tool}}" } },
    ],
  });
  const first = await ollama.chat({ model: "m", messages: asked, tools: [weather] });
  assert.deepEqual(first.message.tool_calls[0].function.arguments, { city: "Ulm" });
  const messages = [...asked, first.message,
    { role: "tool", content: "sunny", tool_name: "get_weather" }];
  const second = await ollama.chat({ model: "m", messages, tools: [weather] });
  assert.equal(second.message.content, "It is sunny");
};

checks["ollama: generate, show, list, version"] = async () => {
  await script({ models: ["llama3.2:3b"], rules: [{ reply: { text: "once upon" } }] });
  const answer = await ollama.generate({ model: "llama3.2:3b", prompt: "tell" });
  assert.equal(answer.response, "once upon");
  const list = await ollama.list();
  assert.deepEqual(list.models.map((m) => m.name), ["llama3.2:3b"]);
  const shown = await ollama.show({ model: "llama3.2:3b" });
  assert.ok(shown.capabilities.includes("tools"));
  await assert.rejects(ollama.chat({ model: "none", messages: asked }), /model 'none' not found/);
};

checks["ollama: what it refuses"] = async () => {
  await script({ no_tools: ["gemma"], rules: [{ reply: { text: "x" } }] });
  await assert.rejects(ollama.chat({ model: "gemma3:270m", messages: asked, tools: [weather] }),
    /does not support tools/);
  await assert.rejects(ollama.chat({ model: "m", messages: [{ role: "robot", content: "x" }] }),
    /invalid role/);
  await assert.rejects(
    ollama.chat({ model: "m", messages: [...asked, { role: "tool", content: "x" }] }), /answers no/);
  const refused = (await requests()).filter((one) => one.refused !== null);
  assert.ok(refused.length >= 3);
};

checks["ollama: an error in the middle, and a cut"] = async () => {
  await script({
    rules: [
      { times: 1, reply: { text: "one two three", error_after: 1, error: "out of memory" } },
      { times: 1, reply: { text: "one two three", cut_after: 1 } },
    ],
  });
  const read = async () => {
    for await (const part of await ollama.chat({ model: "m", messages: asked, stream: true })) part;
  };
  await assert.rejects(read(), /out of memory/);
  await assert.rejects(read());
};

checks["openai: a whole answer"] = async () => {
  await script({ rules: [{ reply: { text: "you said {{last}}", usage: { input: 7, output: 3 } } }] });
  const answer = await openai.chat.completions.create({ model: "m", messages: asked, temperature: 0.5 });
  assert.equal(answer.choices[0].message.content, "you said Grüße from Ulm");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.deepEqual(answer.usage, { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 });
};

checks["openai: pieces, with usage at the end"] = async () => {
  await script({ rules: [{ reply: { text: "äöü {{last}}", pieces: 2, write_bytes: 3 } }] });
  const stream = await openai.chat.completions.create({
    model: "m", messages: asked, stream: true, stream_options: { include_usage: true } });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "äöü Grüße from Ulm");
  assert.ok(usage.total_tokens > 0);
};

checks["openai: the client's own reader of streams puts tool calls together"] = async () => {
  await script({
    rules: [
      {
        when: { round: 1 },
        reply: {
          argument_bytes: 3,
          tool_calls: [
            { name: "get_weather", arguments: { city: "Ulm" } },
            { name: "get_weather", arguments: '{"city": "broken', id: "call_b" },
          ],
        },
      },
      { when: { tool: "get_weather" }, reply: { text: "It is {{tool}}" } },
    ],
  });
  const stream = openai.chat.completions.stream({ model: "m", messages: asked, tools: [weather] });
  const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(message.tool_calls.map((c) => c.function.arguments),
    ['{"city": "Ulm"}', '{"city": "broken']);
  const results = message.tool_calls.map((c) => (
    { role: "tool", content: "sunny", tool_call_id: c.id }));
  const calls = message.tool_calls.map(({ id, type, function: f }) => (
    { id, type, function: { name: f.name, arguments: f.arguments } }));
  const second = await openai.chat.completions.create({
    model: "m", tools: [weather],
    messages: [...asked, { role: "assistant", content: null, tool_calls: calls }, ...results] });
  assert.equal(second.choices[0].message.content, "It is sunny");
};

checks["openai: models"] = async () => {
  await script({ models: ["a", "b"] });
  const names = [];
  for await (const model of openai.models.list()) names.push(model.id);
  assert.deepEqual(names, ["a", "b"]);
};

checks["openai: what it refuses"] = async () => {
  await script({ rules: [{ reply: { text: "x" } }] });
  const ask = (more) => openai.chat.completions.create({ model: "m", messages: asked, ...more });
  await assert.rejects(ask({ temperature: 3 }), OpenAI.BadRequestError);
  await assert.rejects(ask({ messages: [] }), OpenAI.BadRequestError);
  await assert.rejects(ask({ robot: true }), /is no member/);
  await assert.rejects(ask({ response_format: { type: "json_object" } }), /word 'json'/);
  await assert.rejects(
    ask({ messages: [...asked, { role: "tool", content: "x", tool_call_id: "1" }] }), /preceding/);
  const call = { id: "1", type: "function", function: { name: "f", arguments: "{}" } };
  await assert.rejects(
    ask({ messages: [...asked, { role: "assistant", tool_calls: [call] }, ...asked] }),
    /must be followed by tool messages/);
};

checks["openai: failures as the client knows them"] = async () => {
  await script({
    rules: [
      { times: 1, reply: { status: 429, retry_after: 1, error: "slow down" } },
      { times: 1, reply: { status: 500 } },
      { times: 1, reply: { text: "one two three", error_after: 1, error: "gone wrong" } },
    ],
  });
  const ask = (more) => openai.chat.completions.create({ model: "m", messages: asked, ...more });
  await assert.rejects(ask({}), (why) => {
    assert.ok(why instanceof OpenAI.RateLimitError);
    assert.equal(why.headers.get("retry-after"), "1");
    return true;
  });
  await assert.rejects(ask({}), OpenAI.InternalServerError);
  await assert.rejects(async () => {
    for await (const chunk of await ask({ stream: true })) chunk;
  }, /gone wrong/);
};

checks["keys"] = async () => {
  const set = { key: "the-key", rules: [{ reply: { text: "in" } }] };
  await fetch(base + "/script", { method: "POST", body: JSON.stringify(set) });
  await assert.rejects(ollama.chat({ model: "m", messages: asked }), /API key/);
  const stranger = new OpenAI({ baseURL: base + "/v1", apiKey: "other", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  const answer = await openai.chat.completions.create({ model: "m", messages: asked });
  assert.equal(answer.choices[0].message.content, "in");
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log("ok   " + name);
  } catch (why) {
    console.log("FAIL " + name + "\n" + why.stack);
    process.exitCode = 1;
  }
}
