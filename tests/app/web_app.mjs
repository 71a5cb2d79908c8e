// SPDX-License-Identifier: Apache-2.0
// Does what the web applications made for the Terraphim server do: finds a server, reads and edits
// a role, chats, runs every workflow by POST with the members they send, and waits on its WebSocket
// for what the server tells of each. Usage: node web_app.mjs URL
const url = process.argv[2];
const limit = 90_000;

function expect(is, what, seen) {
  if (!is) throw new Error(`${what}: ${JSON.stringify(seen)?.slice(0, 2000)}`);
}

// Three more tries after a 5xx or a broken connection, each after a longer pause; other statuses
// are errors with the text of `message`.
async function request(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    let answer;
    try {
      answer = await fetch(url + path, {
        headers: { "Content-Type": "application/json" },
        signal: AbortSignal.timeout(limit),
        ...options,
      });
    } catch (error) {
      if (attempt > 3 || error.name === "TimeoutError") throw error;
      await new Promise((go) => setTimeout(go, 20 * attempt));
      continue;
    }
    if (answer.ok) {
      const is_json = answer.headers.get("content-type")?.includes("application/json");
      return is_json ? answer.json() : answer.text();
    }
    const told = await answer.json().catch(() => ({}));
    if (answer.status < 500 || attempt > 3)
      throw new Error(told.message || `HTTP ${answer.status}`);
    await new Promise((go) => setTimeout(go, 20 * attempt));
  }
}

const post = (path, body) => request(path, { method: "POST", body: JSON.stringify(body) });

// Messages by response_type, with the ids in camelCase, as the client reads them.
class Channel {
  constructor() {
    this.listeners = [];
    this.ws = new WebSocket(url.replace("http", "ws") + "/ws");
    this.ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      expect(message.response_type && message.type === message.response_type, "envelope", message);
      this.listeners = this.listeners.filter((hear) => !hear(message));
    };
  }

  // The next message that fits. Only what comes from now on is looked at.
  next(fits) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`nothing came: ${fits}`)), limit);
      this.listeners.push((message) => {
        if (!fits(message)) return false;
        clearTimeout(late);
        resolve(message);
        return true;
      });
    });
  }

  send(command_type, workflow, data = {}) {
    this.ws.send(JSON.stringify({
      command_type, session_id: workflow ?? null, workflow_id: workflow ?? null,
      data: { timestamp: new Date().toISOString(), ...data },
    }));
  }
}

async function discover() {
  const health = await fetch(`${url}/health`, { headers: { Accept: "application/json" } });
  const told = await health.json();
  expect(health.ok && told.version && told.capabilities.length && told.status, "health", told);
  for (const name of ["prompt-chain", "route", "parallel", "orchestrate", "optimize"]) {
    const answer = await fetch(`${url}/workflows/${name}`, { method: "OPTIONS" });
    expect(answer.ok, "OPTIONS", answer.status);
  }
}

async function edit_role() {
  const { config } = await request("/config");
  const name = Object.keys(config.roles).find((each) => config.roles[each].name === "QAEngineer");
  expect(config.roles[name].extra.llm_system_prompt, "prompt of a role", config.roles[name]);
  const role = { ...config.roles[name],
    extra: { ...config.roles[name].extra, system_prompt: "Look twice." } };
  await post("/config", { ...config, roles: { ...config.roles, [name]: role } });
  const again = await request("/config");
  expect(again.config.roles[name].extra.system_prompt === "Look twice.", "edited role", again);
}

const steps = [
  { id: "specification", name: "Specification", prompt: "Specify it.", role: "BusinessAnalyst" },
  { id: "implementation", name: "Implementation", prompt: "Write it.", role: "DevelopmentAgent" },
];

// Pattern, where it is posted, what is posted with it, and what the application shows of it.
const workflows = [
  ["prompt-chain", { steps }, (r) => r.steps.length === 2
    && r.steps.every((s) => s.output && s.duration_ms >= 0)
    && r.execution_summary.total_steps === 2],
  ["prompt_chain", { steps, context: "small" }, (r) => r.execution_summary.specialized_agents],
  ["route", {}, (r) => r.title && r.body && r.selected_route.route_id],
  ["parallel", {}, (r) => r.parallel_tasks.length && r.parallel_tasks[0].perspective
    && r.parallel_tasks[0].result && r.aggregated_result],
  ["orchestrate", {}, (r) => r.worker_results.length && r.final_synthesis],
  ["optimize", { llm_config: { provider: "ollama", model: "not-here:1b",
    base_url: "http://127.0.0.1:9", max_iterations: 5, quality_threshold: 85 } },
    (r) => r.initial_content && r.quality_metrics.overall >= 0],
  ["optimize", { config: { qualityThreshold: 85, iteration: 1, previousContent: "draft" } },
    (r) => r.optimized_content && r.final_result && r.quality_metrics.overall >= 0],
];

async function run_workflows(channel) {
  for (const [name, more, shown] of workflows) {
    const progress = channel.next((m) => m.response_type === "workflow_progress");
    const answer = await post(`/workflows/${name}`, {
      prompt: "Make a list of tasks", role: "DevelopmentAgent", overall_role: "engineering_agent",
      ...more,
    });
    // Only now, as the client does: it has no id before.
    const ended = channel.next((m) => m.sessionId === answer.workflow_id
      && ["workflow_completed", "workflow_error"].includes(m.response_type));
    expect(answer.success && shown(answer.result), name, answer);
    expect(answer.metadata.pattern && answer.metadata.execution_time_ms >= 0, name, answer);
    // A client with a WebSocket takes the whole answer for the result of a chain.
    if (name.startsWith("prompt"))
      expect(answer.steps.every((s) => s.output) && answer.execution_summary.total_tokens > 0,
        "a chain's answer", answer);
    const told = await progress;
    expect(told.workflowId && told.data.progress >= 0 && "currentStep" in told.data, name, told);
    const last = await ended;
    expect(last.response_type === "workflow_completed" && last.data.result
      && last.data.steps.length, name, last);
    const status = await request(`/workflows/${answer.workflow_id}/status`);
    expect(status.status === "completed" && status.progress === 100, name, status);
    await request(`/workflows/${answer.workflow_id}/trace`);
  }
}

// What is told of a step that ended: its name, and that it counts.
async function see_a_step_end(channel) {
  const ended = channel.next((m) => m.response_type === "workflow_progress"
    && m.data.event === "step_ended" && m.data.stepId === "specification");
  await post("/workflows/prompt_chain", { prompt: "Make a list of tasks", steps });
  const { data } = await ended;
  expect(data.currentTask === "Specification" && data.progress > 0 && data.stepsEnded === 1
    && data.output, "a step that ended", data);
}

async function steer(channel) {
  const { workflow_id } = await post("/workflows/prompt_chain",
    { prompt: "Hold on", role: "DevelopmentAgent", async: true });
  for (const [command, told] of [["pause_workflow", "workflow_paused"],
    ["resume_workflow", "workflow_resumed"], ["stop_workflow", "workflow_stopped"]]) {
    const answer = channel.next((m) => [told, "error"].includes(m.response_type));
    channel.send(command, workflow_id);
    expect((await answer).response_type === told, command, await answer);
  }
  const sessions = await request("/workflows/sessions");
  expect(Array.isArray(sessions.sessions), "sessions", sessions);
}

await discover();
await edit_role();
const channel = new Channel();
await channel.next((m) => m.response_type === "connection_established");
const pong = channel.next((m) => m.response_type === "pong");
channel.send("ping");
await pong;
const chat = await post("/chat", { messages: [{ role: "user", content: "hello" }] });
expect(chat.status === "success" && chat.message, "chat", chat);
await run_workflows(channel);
await see_a_step_end(channel);
await steer(channel);
const failed = await post("/workflows/parallel",
  { prompt: "test", role: "test_role", overall_role: "test" });
expect(typeof failed.success === "boolean", "a role that nobody has", failed);
let refused = "";
await post("/workflows/parallel", {}).catch((error) => { refused = error.message; });
expect(refused.includes("prompt"), "an error's text", refused);
channel.ws.close();
console.log("all done");
