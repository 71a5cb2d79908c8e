# SPDX-License-Identifier: Apache-2.0
"""What the scripts about agents share, after the lines of client.py: chats, and the stand-in for a
model, whose script they set."""
import urllib.request
import uuid

MODELS = os.environ["BERTH_MODELS"]


def play(*rules, **more):
    """Has the model server play these rules from now on."""
    call_models("/script", {"rules": list(rules), **more})


def call_models(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(MODELS + path, data=data, method=method,
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def asked():
    """The bodies of what the model server was asked."""
    return [each["body"] for each in call_models("/requests") if each["method"] == "POST"]


def says(text, **when):
    return {"when": when, "reply": {"text": text}}


def code(language, text, **more):
    return {"name": "execute_code", "arguments": {"language": language, "code": text, **more}}


def calls(*tools, **when):
    return {"when": when, "reply": {"tool_calls": list(tools)}}


def fence(language, text):
    return f"```{language}\n{text}\n```"


class Agent:
    """One conversation."""

    def __init__(self, role="DevelopmentAgent", provider="ollama", name=None, model="scripted"):
        self.id = name or f"chat-{uuid.uuid4()}"
        self.role = role
        self.model = {"provider": provider, "base_url": MODELS, "model": model}
        self.client = Client()

    def body(self, text, **more):
        return {"conversation": self.id, "role": self.role, "model": self.model,
                "messages": [{"role": "user", "content": text}], **more}

    def say(self, text, **more):
        return self.client.ask("chat", **self.body(text, **more))

    def execute(self, *programs):
        """Runs programs as the contract's Execute command does; the answer's text."""
        text = "\n\n".join(fence(language, program) for language, program in programs)
        answer = self.say(text, execute=True)
        assert answer["error"] == "", answer
        return answer["text"]

    def events(self, after=0):
        """All events after a number, up to the end of the turn."""
        found = []
        while True:
            page = ask("progress", id=self.id, after=after, wait_ms=20_000)
            found += page["events"]
            after = page["events"][-1]["seq"] if page["events"] else after
            if page["ended"]:
                return found

    def close(self):
        self.client.ask("close_conversation", conversation=self.id)


def change_role(base, name, extra=None, **members):
    """Adds a role that is like another one, but for some members."""
    config = json.loads(ask("config")["json"])
    config = config.get("config", config)
    made = json.loads(json.dumps(config["roles"][base]))
    made["name"] = name
    made["shortname"] = name
    made.update(members)
    vm = dict(made["extra"].get("vm_execution", {}))
    for key, value in (extra or {}).items():
        if key == "vm_execution":
            history = {**vm.get("history", {}), **value.pop("history", {})}
            made["extra"][key] = {**vm, **value, "history": history}
        else:
            made["extra"][key] = value
    config["roles"][name] = made
    ask("set_config", json=json.dumps(config))
