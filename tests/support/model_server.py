#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A model server that plays a script, for tests.

It speaks both protocols of language models over real sockets and holds its clients to them: a
request with an unknown or missing member, a wrong type, a tool message that answers nothing, is
refused with 400, and /requests says why.

    model_server.py [--port N] [--script FILE] [--until-eof]

prints its port in one line and serves on 127.0.0.1 until it is killed (or its standard input
ends, with --until-eof). Python's standard library is all that it needs.

    Ollama   POST /api/chat, /api/generate, /api/show; GET /api/tags, /api/ps, /api/version, /
    OpenAI   POST /v1/chat/completions; GET /v1/models, /v1/models/NAME
    tests    POST /script        the script from now on; counts of rules start anew
             GET /script
             GET /requests       what was asked, oldest first; DELETE forgets it
             GET /state          {"open", "open_max", "connections", "connections_total", "held",
             "held_max"}
             POST /release/NAME  lets go the replies that are held under this name, now and later

A script is one JSON object; every member may be left out:

    models    names that are served; others are answered by 404. Default: any, and /api/tags and
              /v1/models list "scripted".
    no_tools  parts of names of models that cannot call tools; a request with tools is refused as
              each protocol does it.
    key       if given, only requests with "Authorization: Bearer KEY" are served, others get 401.
    openai_path   what is before /chat/completions and /models. Default: "/v1".
    api_version   if given, OpenAI's requests must end in ?api-version= and this, others get 404, and
              the key is looked for in the header "api-key", as Azure has both.
    refuses_temperature   parts of names of models that take no temperature: 400, which names it.
    rules     list of {"when": {...}, "times": N, "reply": {...}}. The first rule whose `when` holds
              and which was used less than `times` times gives the reply. Rules with "times": 1 are
              thus played in order. Instead of "reply", "replies" is a list of which each use takes
              the next; when all are used, the rule is.
    default   the reply when no rule holds. Without it the request is refused; a script without
              rules says {"text": "{{last}}"}.

`when`: every member given must hold. A text is looked for as a part; "re:PATTERN" is a regular
expression, whose groups are {{1}}, {{2}} ... in the reply.

    model, path, last (content of the last message), user (of the last user message),
    system (of all system messages), any (of all messages together), tool (name of the tool whose
    result is last): texts
    role (of the last message), protocol ("ollama" or "openai"): equal
    round (1 + assistant messages since the last user message), turn (user messages),
    messages (of the request): numbers, equal
    tools, json, stream, temperature (whether one is given): true or false

`reply`:

    text            the answer; a template
    thinking        what the model thinks first (Ollama: thinking, OpenAI: reasoning_content)
    tool_calls      list of {"name", "arguments", "id"}. Arguments that are a text are sent as they
                    are, and may be broken JSON; templates work in them. "id" is made up when left
                    out; Ollama's answers have ids only when one is given.
    finish          "stop", "length" or any word; made up when left out
    usage           {"input": N, "output": N}; false: none is told. Default: words counted.
    pieces          a number: characters of each streamed piece (default 8); or the list of pieces
    argument_bytes  characters of each streamed piece of arguments, OpenAI only (default 8)
    first_delay_ms, delay_ms   before the first and before every further piece
    hold            NAME: before the piece of number `hold_after` (default 0) it waits for
                    POST /release/NAME
    write_bytes     bytes of each write to the socket, so that pieces are cut anywhere
    status          an HTTP status instead of an answer, with `error` as its text, `body` for a body
                    that is no JSON, `headers` for more headers, `retry_after` for that one
    cut_after       the connection is cut before the piece of this number; "cut": true before
                    anything is answered
    stall_after     before the piece of this number it falls silent, until the client goes
    malformed_after before the piece of this number comes one that is no JSON; `malformed` is it
    error_after     before the piece of this number comes an error, as each protocol says it
    endless         true: pieces are repeated until the client goes
    huge_bytes      the text is this many bytes long
    empty           true: 200 and nothing else
    no_end          true: the stream ends properly for HTTP, but the protocol's own end is missing

Pieces are counted from 0 and include the pieces of tool calls. Without streaming the delays, cuts
and stalls happen before the one body.

Templates: {{last}}, {{user}}, {{system}}, {{any}}, {{model}}, {{role}}, {{tool}} (content of the
last tool message), {{tools}} (names offered), {{round}}, {{turn}}, {{n}} (number of the request, from
1), {{message:N}} (content of the message with this index, negative ones from the end), {{1}} ...,
and {{sent_ns}} in streams: the monotonic clock at the moment in which its piece is sent.

/requests: list of {"n", "protocol", "target", "method", "path", "headers" (names in small letters), "body",
"connection", "at_ms", "refused" (why, or null), "rule" (index, -1 for the default, or null),
"status", "pieces" (that were sent), "state" ("open", "done", "cut", "gone": the client went)}.
"""

import argparse
import asyncio
import json
import re
import sys
import time

HEADER_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024


class Refused(Exception):
    """A request that breaks its protocol."""

    def __init__(self, reason, status=400):
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Cut(Exception):
    """The script says that the connection is cut here."""


class Gone(Exception):
    """The client closed its side."""


# --- checking requests ---------------------------------------------------------------------------

TEXT = ("a text", lambda x: isinstance(x, str))
FLAG = ("true or false", lambda x: isinstance(x, bool))
WHOLE = ("a whole number", lambda x: isinstance(x, int) and not isinstance(x, bool))
NUMBER = ("a number", lambda x: isinstance(x, (int, float)) and not isinstance(x, bool))
OBJECT = ("an object", lambda x: isinstance(x, dict))
LIST = ("a list", lambda x: isinstance(x, list))
ANY = ("anything", lambda x: True)


def either(*kinds):
    return (" or ".join(k[0] for k in kinds), lambda x: any(k[1](x) for k in kinds))


def nullable(kind):
    return (kind[0] + " or null", lambda x: x is None or kind[1](x))


def check(value, where, needed, allowed):
    """An object with these members and no others, each of its kind."""
    if not isinstance(value, dict):
        raise Refused(f"{where}: must be an object")
    for name, kind in needed.items():
        if name not in value:
            raise Refused(f"{where}.{name}: is missing")
        if not kind[1](value[name]):
            raise Refused(f"{where}.{name}: must be {kind[0]}")
    for name, member in value.items():
        if name in needed:
            continue
        if name not in allowed:
            raise Refused(f"{where}.{name}: is no member of the protocol")
        if not allowed[name][1](member):
            raise Refused(f"{where}.{name}: must be {allowed[name][0]}")


def check_tools(tools, where):
    for i, tool in enumerate(tools):
        at = f"{where}[{i}]"
        check(tool, at, {"type": TEXT, "function": OBJECT}, {})
        if tool["type"] != "function":
            raise Refused(f"{at}.type: must be function")
        function = tool["function"]
        check(function, at + ".function", {"name": TEXT},
              {"description": TEXT, "parameters": OBJECT, "strict": nullable(FLAG)})
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
            raise Refused(f"{at}.function.name: must match ^[a-zA-Z0-9_-]{{1,64}}$")
        if function.get("parameters", {}).get("type", "object") != "object":
            raise Refused(f"{at}.function.parameters.type: must be object")


OLLAMA_OPTIONS = {
    "num_keep": WHOLE, "seed": WHOLE, "num_predict": WHOLE, "top_k": WHOLE, "top_p": NUMBER,
    "min_p": NUMBER, "typical_p": NUMBER, "repeat_last_n": WHOLE, "temperature": NUMBER,
    "repeat_penalty": NUMBER, "presence_penalty": NUMBER, "frequency_penalty": NUMBER,
    "stop": either(TEXT, LIST), "num_ctx": WHOLE, "num_batch": WHOLE, "num_gpu": WHOLE,
    "main_gpu": WHOLE, "use_mmap": FLAG, "num_thread": WHOLE,
}

OLLAMA_COMMON = {
    "stream": FLAG, "format": either(TEXT, OBJECT), "options": OBJECT,
    "keep_alive": either(TEXT, NUMBER), "think": either(FLAG, TEXT), "logprobs": FLAG,
    "top_logprobs": WHOLE, "truncate": FLAG, "shift": FLAG,
}


def check_ollama_common(body):
    check(body.get("options", {}), "options", {}, OLLAMA_OPTIONS)
    form = body.get("format")
    if isinstance(form, str) and form not in ("", "json"):
        raise Refused(f'invalid format: "{form}"; expected "json" or a valid JSON Schema object')


def check_ollama_chat(body):
    check(body, "request", {"model": TEXT},
          {**OLLAMA_COMMON, "messages": LIST, "tools": LIST})
    check_ollama_common(body)
    check_tools(body.get("tools", []), "tools")
    called = []
    for i, message in enumerate(body.get("messages", [])):
        at = f"messages[{i}]"
        check(message, at, {"role": TEXT, "content": TEXT},
              {"images": LIST, "tool_calls": LIST, "tool_name": TEXT, "tool_call_id": TEXT,
               "thinking": TEXT})
        role = message["role"]
        if role not in ("system", "user", "assistant", "tool"):
            raise Refused(f"{at}.role: invalid role {role!r}")
        if role != "tool" and ("tool_name" in message or "tool_call_id" in message):
            raise Refused(f"{at}: only a tool message names a tool")
        if role != "assistant" and "tool_calls" in message:
            raise Refused(f"{at}: only an assistant message calls tools")
        for k, call in enumerate(message.get("tool_calls", [])):
            where = f"{at}.tool_calls[{k}]"
            check(call, where, {"function": OBJECT}, {"id": TEXT, "type": TEXT})
            check(call["function"], where + ".function", {"name": TEXT, "arguments": OBJECT},
                  {"index": WHOLE, "description": TEXT})
            called.append(call["function"]["name"])
        if role == "tool":
            if not called:
                raise Refused(f"{at}: a tool message that answers no tool call")
            if "tool_name" in message and message["tool_name"] not in called:
                raise Refused(f"{at}.tool_name: {message['tool_name']!r} was not called")


def check_ollama_generate(body):
    check(body, "request", {"model": TEXT},
          {**OLLAMA_COMMON, "prompt": TEXT, "suffix": TEXT, "images": LIST, "system": TEXT,
           "template": TEXT, "raw": FLAG, "context": LIST})
    check_ollama_common(body)


OPENAI_MEMBERS = {
    "temperature": nullable(NUMBER), "top_p": nullable(NUMBER), "n": nullable(WHOLE),
    "stream": nullable(FLAG), "stream_options": nullable(OBJECT),
    "stop": nullable(either(TEXT, LIST)), "max_tokens": nullable(WHOLE),
    "max_completion_tokens": nullable(WHOLE), "presence_penalty": nullable(NUMBER),
    "frequency_penalty": nullable(NUMBER), "logit_bias": nullable(OBJECT),
    "logprobs": nullable(FLAG), "top_logprobs": nullable(WHOLE), "user": TEXT,
    "response_format": OBJECT, "seed": nullable(WHOLE), "tools": LIST,
    "tool_choice": either(TEXT, OBJECT), "parallel_tool_calls": FLAG, "metadata": OBJECT,
    "store": nullable(FLAG), "reasoning_effort": nullable(TEXT), "service_tier": nullable(TEXT),
}


def check_range(body, name, least, most):
    value = body.get(name)
    if value is not None and not least <= value <= most:
        raise Refused(f"Invalid '{name}': must be {least} to {most}")


def content_text(content):
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def check_openai_content(message, at):
    content = message.get("content")
    if isinstance(content, list):
        for k, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise Refused(f"{at}.content[{k}]: must be an object with a type")
    elif content is None and not message.get("tool_calls"):
        raise Refused(f"Invalid value for 'content' of {at}: expected a string, got null.")


def check_openai_message(message, at):
    members = {"content": nullable(either(TEXT, LIST)), "name": TEXT}
    role = message.get("role") if isinstance(message, dict) else None
    if role == "assistant":
        members |= {"tool_calls": LIST, "refusal": nullable(TEXT), "audio": ANY}
    if role == "tool":
        check(message, at, {"role": TEXT, "content": either(TEXT, LIST), "tool_call_id": TEXT}, {})
    else:
        check(message, at, {"role": TEXT}, members)
    if role not in ("developer", "system", "user", "assistant", "tool"):
        raise Refused(f"Invalid value: {role!r} for {at}.role")
    if "tool_calls" in message and not message["tool_calls"]:
        raise Refused(f"Invalid '{at}.tool_calls': empty array")
    check_openai_content(message, at)
    for k, call in enumerate(message.get("tool_calls", [])):
        where = f"{at}.tool_calls[{k}]"
        check(call, where, {"id": TEXT, "type": TEXT, "function": OBJECT}, {})
        check(call["function"], where + ".function", {"name": TEXT, "arguments": TEXT}, {})
        if call["type"] != "function" or not call["id"]:
            raise Refused(f"{where}: must have an id and the type function")


def check_openai_order(messages):
    """Each call is answered by exactly one tool message, before anything else is said."""
    waiting = None
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            if waiting is None:
                raise Refused("Invalid parameter: messages with role 'tool' must be a response to a "
                              f"preceding message with 'tool_calls'. (messages[{i}])")
            if message["tool_call_id"] not in waiting:
                raise Refused(f"messages[{i}].tool_call_id: no call {message['tool_call_id']!r} "
                              "waits for an answer")
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            break
        waiting = None
        calls = message.get("tool_calls", [])
        if calls:
            waiting = {call["id"] for call in calls}
            if len(waiting) != len(calls):
                raise Refused(f"messages[{i}].tool_calls: an id is given twice")
    if waiting:
        raise Refused("An assistant message with 'tool_calls' must be followed by tool messages "
                      "responding to each 'tool_call_id'. The following tool_call_ids did not have "
                      "response messages: " + ", ".join(sorted(waiting)))


def check_openai_chat(body):
    check(body, "request", {"model": TEXT, "messages": LIST}, OPENAI_MEMBERS)
    if not body["messages"]:
        raise Refused("Invalid 'messages': empty array. Expected an array with minimum length 1")
    check_range(body, "temperature", 0, 2)
    check_range(body, "top_p", 0, 1)
    check_range(body, "n", 1, 1)
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise Refused("max_tokens and max_completion_tokens cannot both be set")
    if body.get("stream_options") is not None:
        if not body.get("stream"):
            raise Refused("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        check(body["stream_options"], "stream_options", {},
              {"include_usage": FLAG, "include_obfuscation": FLAG})
    if "tools" in body and not body["tools"]:
        raise Refused("Invalid 'tools': empty array. Expected an array with minimum length 1")
    check_tools(body.get("tools", []), "tools")
    if "tool_choice" in body and "tools" not in body:
        raise Refused("Invalid value for 'tool_choice': only allowed when 'tools' are specified.")
    for i, message in enumerate(body["messages"]):
        check_openai_message(message, f"messages[{i}]")
    check_openai_order(body["messages"])
    form = body.get("response_format")
    if form is not None:
        if form.get("type") not in ("text", "json_object", "json_schema"):
            raise Refused("response_format.type: must be text, json_object or json_schema")
        said = " ".join(content_text(m.get("content")) for m in body["messages"])
        if form["type"] == "json_object" and "json" not in said.lower():
            raise Refused("'messages' must contain the word 'json' in some form, to use "
                          "'response_format' of type 'json_object'.")


# --- the script ----------------------------------------------------------------------------------

SCRIPT_MEMBERS = {"models": LIST, "no_tools": LIST, "key": TEXT, "rules": LIST, "default": OBJECT,
                  "openai_path": TEXT, "api_version": TEXT, "refuses_temperature": LIST}
WHEN_MEMBERS = {
    **{name: TEXT for name in ("model", "path", "last", "user", "system", "any", "tool", "role",
                               "protocol")},
    **{name: WHOLE for name in ("round", "turn", "messages")},
    **{name: FLAG for name in ("tools", "json", "stream", "temperature")},
}
REPLY_MEMBERS = {
    "text": TEXT, "thinking": TEXT, "tool_calls": LIST, "finish": TEXT,
    "usage": either(OBJECT, FLAG), "pieces": either(WHOLE, LIST), "argument_bytes": WHOLE,
    "first_delay_ms": NUMBER, "delay_ms": NUMBER, "hold": TEXT, "hold_after": WHOLE,
    "write_bytes": WHOLE, "status": WHOLE, "error": TEXT, "body": TEXT, "headers": OBJECT,
    "retry_after": either(TEXT, NUMBER), "cut": FLAG, "cut_after": WHOLE, "stall_after": WHOLE,
    "malformed_after": WHOLE, "malformed": TEXT, "error_after": WHOLE, "endless": FLAG,
    "huge_bytes": WHOLE, "empty": FLAG, "no_end": FLAG,
}


def check_reply(reply, where):
    check(reply, where, {}, REPLY_MEMBERS)
    for k, call in enumerate(reply.get("tool_calls", [])):
        check(call, f"{where}.tool_calls[{k}]", {"name": TEXT},
              {"arguments": either(TEXT, OBJECT), "id": TEXT})


def check_script(script):
    """A misspelt script must not pass as one that says nothing."""
    check(script, "script", {}, SCRIPT_MEMBERS)
    for i, rule in enumerate(script.get("rules", [])):
        at = f"rules[{i}]"
        check(rule, at, {}, {"when": OBJECT, "times": WHOLE, "reply": OBJECT, "replies": LIST})
        check(rule.get("when", {}), at + ".when", {}, WHEN_MEMBERS)
        if ("reply" in rule) == ("replies" in rule):
            raise Refused(f"{at}: must have one of reply and replies")
        for reply in rule.get("replies", [rule.get("reply")]):
            check_reply(reply, at + ".reply")
    if "default" in script:
        check_reply(script["default"], "default")


class Asked:
    """What a request of either protocol comes to."""

    def __init__(self, protocol, path, body):
        self.protocol = protocol
        self.path = path
        self.body = body
        self.model = body["model"]
        self.generate = path == "/api/generate"
        if self.generate:
            system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
            self.messages = system + [{"role": "user", "content": body.get("prompt", "")}]
        else:
            self.messages = body.get("messages", [])
        self.tools = [tool["function"]["name"] for tool in body.get("tools", [])]
        self.temperature = body.get("options", body).get("temperature")
        if protocol == "ollama":
            self.stream = body.get("stream", True)
            self.json = body.get("format", "") != ""
        else:
            self.stream = bool(body.get("stream"))
            self.json = body.get("response_format", {}).get("type", "text") != "text"

    def texts(self, *roles):
        return [content_text(m.get("content")) for m in self.messages
                if not roles or m["role"] in roles]

    def last_of(self, *roles):
        return (self.texts(*roles) or [""])[-1]

    @property
    def role(self):
        return self.messages[-1]["role"] if self.messages else ""

    @property
    def round(self):
        said = 0
        for message in reversed(self.messages):
            if message["role"] == "user":
                break
            said += message["role"] == "assistant"
        return 1 + said

    @property
    def tool(self):
        """Name of the tool whose result is the last message."""
        if self.role != "tool":
            return ""
        last = self.messages[-1]
        names = [(call.get("id"), call["function"]["name"])
                 for message in self.messages for call in message.get("tool_calls", [])]
        by_id = dict(names).get(last.get("tool_call_id"))
        return last.get("tool_name") or by_id or (names[-1][1] if names else "")

    def words(self):
        return {
            "last": self.last_of(), "user": self.last_of("user"),
            "system": "\n".join(self.texts("system", "developer")),
            "any": "\n".join(self.texts()), "model": self.model, "role": self.role,
            "tool": self.last_of("tool"), "tools": ",".join(self.tools),
            "round": str(self.round), "turn": str(len(self.texts("user"))),
        }


def found(pattern, text, groups):
    if not pattern.startswith("re:"):
        return pattern in text
    match = re.search(pattern[3:], text, re.DOTALL)
    if match:
        groups.extend(match.groups(""))
    return match is not None


def holds(when, asked, groups):
    words = asked.words()
    texts = {**words, "tool": asked.tool, "path": asked.path}
    for name, wanted in when.items():
        if name in ("model", "path", "last", "user", "system", "any", "tool"):
            if not found(wanted, texts[name], groups):
                return False
        elif name in ("role", "protocol"):
            if getattr(asked, name) != wanted:
                return False
        elif name in ("round", "turn", "messages"):
            value = {"round": asked.round, "turn": int(words["turn"]),
                     "messages": len(asked.messages)}[name]
            if value != wanted:
                return False
        elif {"tools": bool(asked.tools), "json": asked.json, "stream": asked.stream,
              "temperature": asked.temperature is not None}[name] != wanted:
            return False
    return True


class Script:
    def __init__(self, script):
        check_script(script)
        self.text = script
        self.models = script.get("models")
        self.no_tools = script.get("no_tools", [])
        self.key = script.get("key")
        self.openai_path = script.get("openai_path", "/v1")
        self.api_version = script.get("api_version")
        self.refuses_temperature = script.get("refuses_temperature", [])
        self.rules = script.get("rules", [])
        self.default = script.get("default", None if self.rules else {"text": "{{last}}"})
        self.used = [0] * len(self.rules)

    def reply_to(self, asked):
        """Index of the rule, its reply, and the groups of its patterns."""
        for i, rule in enumerate(self.rules):
            replies = rule.get("replies")
            most = rule.get("times", len(replies) if replies else None)
            if most is not None and self.used[i] >= most:
                continue
            groups = []
            if not holds(rule.get("when", {}), asked, groups):
                continue
            turn = self.used[i]
            self.used[i] += 1
            return i, (replies[turn % len(replies)] if replies else rule["reply"]), groups
        if self.default is None:
            raise Refused("the script has no rule for this request")
        return -1, self.default, []


def fill(template, words, messages):
    def one(match):
        name = match.group(1)
        if name.startswith("message:"):
            try:
                return content_text(messages[int(name[8:])].get("content"))
            except (ValueError, IndexError):
                return ""
        return words.get(name, match.group(0))
    return re.sub(r"\{\{([a-z0-9:_-]+)\}\}", one, template)


class Answer:
    """A reply of the script, its templates filled in."""

    def __init__(self, reply, asked, n, groups):
        words = {**asked.words(), "n": str(n), **{str(i + 1): g for i, g in enumerate(groups)}}
        self.reply = reply
        self.text = fill(reply.get("text", ""), words, asked.messages)
        if "huge_bytes" in reply:
            self.text = "x" * reply["huge_bytes"]
        if isinstance(reply.get("pieces"), list):
            self.pieces = [fill(piece, words, asked.messages) for piece in reply["pieces"]]
            self.text = "".join(self.pieces)
        else:
            size = max(1, reply.get("pieces", 8))
            if "huge_bytes" in reply:
                size = max(size, 4096)
            self.pieces = [self.text[i:i + size] for i in range(0, len(self.text), size)]
        self.thinking = fill(reply.get("thinking", ""), words, asked.messages)
        self.calls = []
        for k, call in enumerate(reply.get("tool_calls", [])):
            arguments = call.get("arguments", {})
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            self.calls.append({"id": call.get("id"), "made": f"call_{n}_{k}", "name": call["name"],
                               "arguments": fill(arguments, words, asked.messages)})
        self.finish = reply.get("finish")
        usage = reply.get("usage")
        self.usage = None
        if usage is not False:
            usage = usage if isinstance(usage, dict) else {}
            self.usage = (usage.get("input", sum(len(t.split()) for t in asked.texts())),
                          usage.get("output", len(self.text.split()) + len(self.calls)))


# --- saying it -----------------------------------------------------------------------------------

def now_text():
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000000Z"


class OllamaVoice:
    """How Ollama says an answer: one JSON object a line."""
    content_type = "application/x-ndjson"

    def __init__(self, asked, n):
        self.asked = asked

    def _line(self, **members):
        return {"model": self.asked.model, "created_at": now_text(), **members}

    def _said(self, text, thinking="", calls=None):
        if self.asked.generate:
            return {"response": text, **({"thinking": thinking} if thinking else {})}
        message = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}

    @staticmethod
    def _calls(answer):
        calls = []
        for k, call in enumerate(answer.calls):
            try:
                arguments = json.loads(call["arguments"])
            except ValueError:
                arguments = call["arguments"]  # as servers before a parser of their own do it
            calls.append({**({"id": call["id"]} if call["id"] else {}),
                          "function": {"index": k, "name": call["name"], "arguments": arguments}})
        return calls

    def _end(self, answer):
        end = {"done": True, "done_reason": answer.finish or "stop", "total_duration": 5_000_000,
               "load_duration": 1_000_000, "prompt_eval_duration": 1_000_000,
               "eval_duration": 2_000_000}
        if answer.usage:
            end["prompt_eval_count"], end["eval_count"] = answer.usage
        return end

    def whole(self, answer):
        return self._line(**self._said(answer.text, answer.thinking, self._calls(answer)),
                          **self._end(answer))

    def pieces(self, answer):
        if answer.thinking:
            yield self._line(**self._said("", answer.thinking), done=False)
        for piece in answer.pieces:
            yield self._line(**self._said(piece), done=False)
        for call in self._calls(answer):
            yield self._line(**self._said("", "", [call]), done=False)

    def end(self, answer):
        yield self._line(**self._said(""), **self._end(answer))

    @staticmethod
    def pack(piece):
        return (piece if isinstance(piece, str) else json.dumps(piece)) + "\n"

    @staticmethod
    def error(text, status=500):
        return {"error": text}


class OpenAiVoice:
    """How OpenAI says an answer: events with chunks."""
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, asked, n):
        self.asked = asked
        self.id = f"chatcmpl-{n}"
        self.with_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))

    def _finish(self, answer):
        return answer.finish or ("tool_calls" if answer.calls else "stop")

    @staticmethod
    def _usage(answer):
        if not answer.usage:
            return {}
        into, out = answer.usage
        return {"usage": {"prompt_tokens": into, "completion_tokens": out,
                          "total_tokens": into + out}}

    def whole(self, answer):
        message = {"role": "assistant", "content": answer.text or (None if answer.calls else ""),
                   "refusal": None}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [
                {"id": call["id"] or call["made"], "type": "function",
                 "function": {"name": call["name"], "arguments": call["arguments"]}}
                for call in answer.calls]
        return {"id": self.id, "object": "chat.completion", "created": int(time.time()),
                "model": self.asked.model, "system_fingerprint": None, "service_tier": "default",
                "choices": [{"index": 0, "message": message, "logprobs": None,
                             "finish_reason": self._finish(answer)}], **self._usage(answer)}

    def _chunk(self, delta, finish=None):
        chunk = {"id": self.id, "object": "chat.completion.chunk", "created": int(time.time()),
                 "model": self.asked.model, "system_fingerprint": None,
                 "choices": [{"index": 0, "delta": delta, "logprobs": None,
                              "finish_reason": finish}]}
        if self.with_usage:
            chunk["usage"] = None
        return chunk

    def pieces(self, answer):
        first = {"role": "assistant", "content": "" if not answer.calls else None}
        if answer.thinking:
            yield self._chunk({**first, "reasoning_content": answer.thinking})
            first = {}
        for piece in answer.pieces:
            yield self._chunk({**first, "content": piece})
            first = {}
        size = max(1, answer.reply.get("argument_bytes", 8))
        for k, call in enumerate(answer.calls):
            yield self._chunk({**first, "tool_calls": [
                {"index": k, "id": call["id"] or call["made"], "type": "function",
                 "function": {"name": call["name"], "arguments": ""}}]})
            first = {}
            for i in range(0, len(call["arguments"]), size):
                yield self._chunk({"tool_calls": [
                    {"index": k, "function": {"arguments": call["arguments"][i:i + size]}}]})

    def end(self, answer):
        yield self._chunk({}, self._finish(answer))
        if self.with_usage and answer.usage:
            yield {**self._chunk({}), "choices": [], **self._usage(answer)}
        yield "[DONE]"

    @staticmethod
    def pack(piece):
        return "data: " + (piece if isinstance(piece, str) else json.dumps(piece)) + "\n\n"

    @staticmethod
    def error(text, status=500):
        kind = {400: "invalid_request_error", 401: "authentication_error",
                404: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
        return {"error": {"message": text, "type": kind, "param": None, "code": None}}


# --- the server ----------------------------------------------------------------------------------

REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           405: "Method Not Allowed", 415: "Unsupported Media Type", 429: "Too Many Requests",
           500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}


class Connection:
    """One client. Reads requests, notices when the client goes, writes answers."""

    def __init__(self, reader, writer, number):
        self.reader = reader
        self.writer = writer
        self.number = number
        self.write_bytes = 0
        self.ahead = b""

    async def read_request(self):
        head = self.ahead
        self.ahead = b""
        while b"\r\n\r\n" not in head:
            more = await self.reader.read(65536)
            if not more or len(head) > HEADER_BYTES_MAX:
                return None
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self._read_chunked(rest)
        else:
            size = int(headers.get("content-length", "0"))
            if size > BODY_BYTES_MAX:
                return None
            body = rest[:size]
            self.ahead = rest[size:]
            if len(body) < size:
                body += await self.reader.readexactly(size - len(body))
        return method, target, headers, body

    async def _read_chunked(self, rest):
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += await self.reader.read(65536)
            line, _, rest = rest.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            while len(rest) < size + 2:
                rest += await self.reader.read(65536)
            body, rest = body + rest[:size], rest[size + 2:]
            if size == 0:
                self.ahead = rest
                return body

    async def send(self, data):
        size = self.write_bytes or len(data)
        for i in range(0, len(data), size or 1):
            self.writer.write(data[i:i + size])
            await self.writer.drain()
            if self.write_bytes:
                await asyncio.sleep(0)

    def cut(self):
        self.writer.transport.abort()

    async def or_gone(self, work):
        """Waits for the work, unless the client goes first."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self.reader.read(65536))
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                if watch.exception() or not watch.result():
                    raise Gone()
                self.ahead += watch.result()
            await task
        finally:
            for one in (task, watch):
                if not one.done():
                    one.cancel()
                    await asyncio.gather(one, return_exceptions=True)


def body_of(value):
    return (value if isinstance(value, str) else json.dumps(value)).encode()


class Server:
    def __init__(self, script):
        self.script = Script(script)
        self.requests = []
        self.count = 0
        self.connections = 0
        self.connections_total = 0
        self.open = 0
        self.open_max = 0
        self.held = 0
        self.held_max = 0
        self.gates = {}
        self.started = time.monotonic()

    # --- HTTP

    async def serve(self, reader, writer):
        self.connections += 1
        self.connections_total += 1
        connection = Connection(reader, writer, self.connections_total)
        try:
            while True:
                request = await connection.read_request()
                if request is None or not await self.answer(connection, *request):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ValueError, Gone, Cut):
            pass
        finally:
            self.connections -= 1
            connection.cut()

    async def respond(self, connection, status, value, headers=None,
                      content_type="application/json; charset=utf-8"):
        data = body_of(value)
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}\r\n"
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        for name, text in (headers or {}).items():
            head += f"{name}: {text}\r\n"
        await connection.send(head.encode() + b"\r\n" + data)

    async def answer(self, connection, method, target, headers, body):
        """Answers one request. False when the connection ends with it."""
        path = target.split("?")[0]
        keep = headers.get("connection", "").lower() != "close"
        if await self.control(connection, method, path, body):
            return keep
        n = self.count = self.count + 1
        is_openai = path.startswith(self.script.openai_path + "/")
        record = {"n": n, "protocol": "openai" if is_openai else "ollama", "target": target,
                  "method": method, "path": path, "headers": headers, "body": None,
                  "connection": connection.number, "refused": None, "rule": None, "status": None,
                  "pieces": 0, "state": "open",
                  "at_ms": round((time.monotonic() - self.started) * 1000, 3)}
        self.requests.append(record)
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            await self.play(connection, record, method, path, headers, body)
            record["state"] = "done"
        except Refused as why:
            record.update(refused=why.reason, state="done", status=why.status)
            voice = OpenAiVoice if record["protocol"] == "openai" else OllamaVoice
            await self.respond(connection, why.status, voice.error(why.reason, why.status))
        except Cut:
            record["state"] = "cut"
            return False
        except (Gone, ConnectionError):
            record["state"] = "gone"
            return False
        finally:
            connection.write_bytes = 0
            self.open -= 1
        return keep

    # --- for tests

    async def control(self, connection, method, path, body):
        if path == "/requests" and method == "GET":
            await self.respond(connection, 200, self.requests)
        elif path == "/requests" and method == "DELETE":
            self.requests = [one for one in self.requests if one["state"] == "open"]
            self.open_max = self.open
            await self.respond(connection, 200, {})
        elif path == "/script" and method == "POST":
            try:
                self.script = Script(json.loads(body))
                await self.respond(connection, 200, {})
            except (ValueError, Refused) as why:
                await self.respond(connection, 400, {"error": str(why)})
        elif path == "/script" and method == "GET":
            await self.respond(connection, 200, self.script.text)
        elif path == "/state" and method == "GET":
            await self.respond(connection, 200, {
                "open": self.open, "open_max": self.open_max, "connections": self.connections,
                "connections_total": self.connections_total, "held": self.held,
                "held_max": self.held_max})
        elif path.startswith("/release/") and method == "POST":
            self.gate(path[len("/release/"):]).set()
            await self.respond(connection, 200, {})
        else:
            return False
        return True

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    # --- the protocols

    async def play(self, connection, record, method, path, headers, body):
        is_azure = self.script.api_version and record["protocol"] == "openai"
        if is_azure and not record["target"].endswith("?api-version=" + self.script.api_version):
            raise Refused("Resource not found", 404)
        given, wanted = headers.get("authorization"), f"Bearer {self.script.key}"
        if is_azure:
            given, wanted = headers.get("api-key"), self.script.key
        if self.script.key and given != wanted:
            raise Refused("Incorrect API key provided.", 401)
        openai = self.script.openai_path
        if method in ("GET", "HEAD"):
            return await self.play_get(connection, record, path)
        checks = {"/api/chat": check_ollama_chat, "/api/generate": check_ollama_generate,
                  openai + "/chat/completions": check_openai_chat, "/api/show": None}
        if path not in checks:
            raise Refused(f"{method} {path} is no part of the protocol", 404)
        if method != "POST":
            raise Refused(f"{method} {path}: must be POST", 405)
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise Refused("Content-Type must be application/json")
        try:
            value = json.loads(body.decode())
        except ValueError as why:
            raise Refused(f"the body is not JSON: {why}") from None
        record["body"] = value
        if path == "/api/show":
            check(value, "request", {}, {"model": TEXT, "name": TEXT, "verbose": FLAG})
            return await self.show(connection, record, value.get("model") or value.get("name", ""))
        checks[path](value)
        await self.play_model(connection, record, Asked(record["protocol"], path, value))

    def names(self):
        return self.script.models if self.script.models is not None else ["scripted"]

    async def play_get(self, connection, record, path):
        details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                   "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        record["status"] = 200
        if path == "/":
            return await self.respond(connection, 200, "Ollama is running",
                                      content_type="text/plain")
        if path == "/api/version":
            return await self.respond(connection, 200, {"version": "0.12.0"})
        if path == "/api/ps":
            return await self.respond(connection, 200, {"models": []})
        if path == "/api/tags":
            return await self.respond(connection, 200, {"models": [
                {"name": name, "model": name, "modified_at": now_text(), "size": 2019393189,
                 "digest": "a80c4f17acd5", "details": details} for name in self.names()]})
        models = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "library"}
                  for name in self.names()]
        if path == self.script.openai_path + "/models":
            return await self.respond(connection, 200, {"object": "list", "data": models})
        for model in models:
            if path == self.script.openai_path + "/models/" + model["id"]:
                return await self.respond(connection, 200, model)
        raise Refused(f"GET {path} is no part of the protocol", 404)

    async def show(self, connection, record, model):
        self.must_serve(model)
        record["status"] = 200
        tools = [] if self.lacks_tools(model) else ["tools"]
        await self.respond(connection, 200, {
            "modelfile": "", "parameters": "", "template": "", "details": {"family": "llama"},
            "model_info": {"llama.context_length": 131072}, "modified_at": now_text(),
            "capabilities": ["completion", *tools]})

    def must_serve(self, model):
        if self.script.models is not None and model not in self.script.models:
            raise Refused(f"model '{model}' not found", 404)

    def lacks_tools(self, model):
        return any(part in model for part in self.script.no_tools)

    async def play_model(self, connection, record, asked):
        self.must_serve(asked.model)
        if asked.temperature is not None and any(
                part in asked.model for part in self.script.refuses_temperature):
            raise Refused("Unsupported value: 'temperature' does not support 0.2 with this model.")
        if asked.tools and self.lacks_tools(asked.model):
            raise Refused(f"registry.ollama.ai/library/{asked.model} does not support tools")
        record["rule"], reply, groups = self.script.reply_to(asked)
        answer = Answer(reply, asked, record["n"], groups)
        voice = (OllamaVoice if asked.protocol == "ollama" else OpenAiVoice)(asked, record["n"])
        connection.write_bytes = reply.get("write_bytes", 0)
        if reply.get("cut"):
            connection.cut()
            raise Cut()
        if "status" in reply:
            return await self.fail(connection, record, reply, voice)
        record["status"] = 200
        if reply.get("empty"):
            return await self.respond(connection, 200, "")
        if asked.stream:
            await self.stream(connection, record, answer, voice)
        else:
            await self.say_whole(connection, record, answer, voice)

    async def fail(self, connection, record, reply, voice):
        status = record["status"] = reply["status"]
        headers = dict(reply.get("headers", {}))
        if "retry_after" in reply:
            headers["Retry-After"] = str(reply["retry_after"])
        await self.before_piece(connection, reply, 0)
        body = reply.get("body", voice.error(reply.get("error", "scripted failure"), status))
        await self.respond(connection, status, body, headers)

    async def before_piece(self, connection, reply, number):
        """Everything that the script wants to happen before the piece of this number."""
        delay = reply.get("first_delay_ms" if number == 0 else "delay_ms", 0)
        if delay:
            await connection.or_gone(asyncio.sleep(delay / 1000))
        if "hold" in reply and number == reply.get("hold_after", 0):
            self.held += 1
            self.held_max = max(self.held_max, self.held)
            try:
                await connection.or_gone(self.gate(reply["hold"]).wait())
            finally:
                self.held -= 1
        if number == reply.get("cut_after"):
            connection.cut()
            raise Cut()
        if number == reply.get("stall_after"):
            await connection.or_gone(asyncio.Event().wait())

    async def say_whole(self, connection, record, answer, voice):
        reply = answer.reply
        await self.before_piece(connection, {
            **reply, **({"cut_after": 0} if "cut_after" in reply else {}),
            **({"stall_after": 0} if "stall_after" in reply else {}), "hold_after": 0}, 0)
        if "malformed_after" in reply:
            body = reply.get("malformed", '{"broken')
        elif "error_after" in reply:
            body = voice.error(reply.get("error", "scripted failure"))
        else:
            body = voice.whole(answer)
        record["pieces"] = 1
        await self.respond(connection, 200, body)

    async def stream(self, connection, record, answer, voice):
        reply = answer.reply
        head = (f"HTTP/1.1 200 OK\r\nContent-Type: {voice.content_type}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n")
        # What must happen before the first piece happens before the status, as a model that loads.
        await self.before_piece(connection, {k: v for k, v in reply.items()
                                             if k not in ("cut_after", "stall_after")}, 0)
        await connection.send(head.encode())
        reply = {k: v for k, v in reply.items() if k != "first_delay_ms"}
        if reply.get("hold_after", 0) == 0:
            reply.pop("hold", None)

        async def say(piece):
            data = voice.pack(piece).encode()
            data = data.replace(b"{{sent_ns}}", b"%d" % time.monotonic_ns())
            await connection.send(b"%x\r\n%s\r\n" % (len(data), data))

        number = 0
        while True:
            for piece in voice.pieces(answer):
                await self.before_piece(connection, reply, number)
                if number == reply.get("malformed_after"):
                    await say(reply.get("malformed", '{"broken'))
                if number == reply.get("error_after"):
                    await say(voice.error(reply.get("error", "scripted failure")))
                    await connection.send(b"0\r\n\r\n")
                    return
                await say(piece)
                number += 1
                record["pieces"] = number
            if not reply.get("endless"):
                break
            if not reply.get("delay_ms"):
                await asyncio.sleep(0)
            if connection.reader.at_eof() or connection.writer.is_closing():
                raise Gone()
        await self.before_piece(connection, reply, number)
        if number == reply.get("malformed_after"):
            await say(reply.get("malformed", '{"broken'))
        if number == reply.get("error_after"):
            await say(voice.error(reply.get("error", "scripted failure")))
        elif not reply.get("no_end"):
            for piece in voice.end(answer):
                await say(piece)
        await connection.send(b"0\r\n\r\n")


async def until_eof():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass


async def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--script")
    options.add_argument("--until-eof", action="store_true")
    given = options.parse_args()
    script = {}
    if given.script:
        with open(given.script, encoding="utf-8") as file:
            script = json.load(file)
    serving = Server(script)
    listener = await asyncio.start_server(serving.serve, "127.0.0.1", given.port, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    if given.until_eof:
        await until_eof()
    else:
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except Refused as refusal:
        sys.exit(f"model_server.py: {refusal.reason}")
