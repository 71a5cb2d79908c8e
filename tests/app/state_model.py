# SPDX-License-Identifier: Apache-2.0
"""A model of sessions: what every variable and every file must be after jobs, snapshots, rollbacks
and forks. `Model` plays a random sequence and checks the server after every step."""
import copy
import random

from client import Refused, ask

FILES = [f"f{i}" for i in range(6)]
NAMES = [f"v{i}" for i in range(4)]


class State:
    """One session: files by name, and variables of its live interpreters (None: it is not alive)."""

    def __init__(self):
        self.files = {}
        self.variables = {"python": None, "bash": None}

    def without_memory(self):
        state = copy.deepcopy(self)
        state.variables = {"python": None, "bash": None}
        return state


class Model:
    def __init__(self, seed, say=lambda *_: None):
        self.random = random.Random(seed)
        self.say = say
        self.states = {}     # session -> State
        self.snapshots = {}  # snapshot -> (session, State)
        self.counter = 0
        self.open()

    def open(self):
        session = ask("open_session")["session"]
        self.states[session] = State()
        return session

    def pick(self):
        return self.random.choice(sorted(self.states))

    # --- steps -------------------------------------------------------------------------------------

    def step(self):
        steps = [self.write, self.write, self.remove, self.set, self.set, self.snapshot,
                 self.snapshot, self.roll_back, self.roll_back, self.fork, self.pause,
                 self.delete_snapshot]
        chosen = self.random.choice(steps)
        session = self.pick()
        self.say(chosen.__name__, session)
        chosen(session)

    def write(self, session):
        self.counter += 1
        name, text = self.random.choice(FILES), f"text {self.counter}"
        append = self.random.random() < 0.5
        answer = ask("run", session=session, language="bash",
                     code=f"mkdir -p d; printf '%s' '{text}' {'>>' if append else '>'} d/{name}")
        assert answer["exit_code"] == 0, answer
        before = self.states[session].files.get(name, "") if append else ""
        self.states[session].files[name] = before + text

    def remove(self, session):
        name = self.random.choice(FILES)
        assert ask("run", session=session, language="bash", code=f"rm -f d/{name}")["exit_code"] == 0
        self.states[session].files.pop(name, None)

    def set(self, session):
        self.counter += 1
        name = self.random.choice(NAMES)
        language = self.random.choice(["python", "bash"])
        answer = ask("run", session=session, language=language, kernel=True,
                     code=f"{name}={self.counter}")
        assert answer["exit_code"] == 0, answer
        state = self.states[session]
        if state.variables[language] is None:
            state.variables[language] = {}
        state.variables[language][name] = self.counter

    def snapshot(self, session):
        info = ask("snapshot", session=session, name=f"s{self.counter}",
                   wait_durable=self.random.random() < 0.5)
        self.snapshots[info["snapshot"]] = (session, copy.deepcopy(self.states[session]))

    def roll_back(self, session):
        own = sorted(s for s, (of, _) in self.snapshots.items() if of == session)
        if not own:
            return
        target = self.random.choice(own)
        answer = ask("rollback", session=session, snapshot=target,
                     snapshot_first=self.random.random() < 0.2)
        assert answer["session"] == session and answer["snapshot"] == target, answer
        self.came_back(session, self.snapshots[target][1], answer["content"], answer["contexts"])

    def came_back(self, session, state, content, contexts):
        """The answer says what came back; it must not say more than is true."""
        new = copy.deepcopy(state)
        for language in new.variables:
            if language not in contexts:
                new.variables[language] = None
        assert content == ("files+memory" if contexts else "files"), (content, contexts)
        for context in contexts:
            assert state.variables[context] is not None, (context, "was never alive")
        self.states[session] = new

    def fork(self, session):
        if len(self.states) >= 5:
            return
        answer = ask("fork", session=session, count=self.random.randint(1, 2))
        for child in answer["sessions"]:
            assert child["parent"] == session, child
            state = copy.deepcopy(self.states[session])
            for language in state.variables:
                if language not in answer["contexts"]:
                    state.variables[language] = None
            self.states[child["session"]] = state

    def pause(self, session):
        assert ask("pause_session", session=session)["state"] == "paused"
        self.states[session] = self.states[session].without_memory()

    def delete_snapshot(self, session):
        own = sorted(s for s, (of, _) in self.snapshots.items() if of == session)
        if own and self.random.random() < 0.5:
            ask("delete_snapshot", snapshot=own[0])
            del self.snapshots[own[0]]

    # --- checks ------------------------------------------------------------------------------------

    def check(self):
        for session, state in self.states.items():
            check_files(session, state.files)
            for language, variables in state.variables.items():
                if variables is not None:
                    check_variables(session, language, variables)

    def check_list(self):
        listed = {s["snapshot"]: s for s in ask("snapshots")["snapshots"]}
        for snapshot in self.snapshots:
            assert snapshot in listed, (snapshot, "is not listed")
            assert not listed[snapshot].get("damage"), listed[snapshot]


def read_files(session):
    answer = ask("run", session=session, language="bash",
                 code='cd d 2>/dev/null || exit 0; for f in *; do [ -e "$f" ] && printf "%s=%s\\n" '
                      '"$f" "$(cat "$f")"; done; true')
    assert answer["exit_code"] == 0, answer
    return dict(line.split("=", 1) for line in answer["stdout"].decode().splitlines())


def check_files(session, wanted):
    got = read_files(session)
    assert got == wanted, (session, "has", got, "instead of", wanted)


def check_variables(session, language, wanted):
    if language == "python":
        code = f"print({{n: globals().get(n) for n in {NAMES!r}}})"
    else:
        code = "for n in %s; do printf '%%s=%%s ' $n \"${!n}\"; done" % " ".join(NAMES)
    answer = ask("run", session=session, language=language, kernel=True, code=code)
    assert answer["exit_code"] == 0, answer
    out = answer["stdout"].decode()
    if language == "python":
        got = {n: v for n, v in eval(out).items() if v is not None}
    else:
        got = {n: int(v) for n, v in (p.split("=") for p in out.split()) if v}
    assert got == wanted, (session, language, "has", got, "instead of", wanted)
