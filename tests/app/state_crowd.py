# SPDX-License-Identifier: Apache-2.0
"""Many clients that do everything at once to the same sessions: each request must be answered, with
a refusal at worst."""
import random
import threading
import time

import zmq
from client import Client, Refused, ask


class Crowd:
    def __init__(self, seed, seconds, clients=6):
        self.sessions = [ask("open_session")["session"] for _ in range(3)]
        self.until = time.monotonic() + seconds
        self.unanswered = []
        self.answered = 0
        threads = [threading.Thread(target=self.play, args=(random.Random(seed * 100 + i),))
                   for i in range(clients)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def play(self, rng):
        client = Client()
        steps = [self.run, self.run, self.cell, self.fail, self.snapshot, self.snapshot, self.roll_back,
                 self.back_to_entry, self.fork, self.pause, self.resume, self.delete, self.close,
                 self.read, self.write]
        while time.monotonic() < self.until and not self.unanswered:
            step, session = rng.choice(steps), rng.choice(self.sessions)
            try:
                step(client, rng, session)
            except Refused:
                pass
            except zmq.Again:
                self.unanswered.append((step.__name__, session))
            self.answered += 1

    def run(self, client, rng, session):
        client.ask("run", session=session, language="bash", code="echo $RANDOM >> f")

    def cell(self, client, rng, session):
        client.ask("run", session=session, language=rng.choice(["python", "bash"]), kernel=True,
                   code="x=1")

    def fail(self, client, rng, session):
        client.ask("run", session=session, language="bash", code="echo no >> f; exit 1")

    def snapshot(self, client, rng, session):
        client.ask("snapshot", session=session, wait_durable=rng.random() < 0.5)

    def roll_back(self, client, rng, session):
        known = client.ask("snapshots", session=session)["snapshots"]
        if known:
            client.ask("rollback", session=session, snapshot=rng.choice(known)["snapshot"],
                       snapshot_first=rng.random() < 0.3)

    def back_to_entry(self, client, rng, session):
        known = client.ask("history", session=session, limit=5)["entries"]
        if known:
            side = rng.choice(["before_entry", "after_entry"])
            client.ask("rollback", session=session, **{side: rng.choice(known)["number"]})

    def fork(self, client, rng, session):
        if len(self.sessions) < 6:
            made = client.ask("fork", session=session, count=rng.randint(1, 2))["sessions"]
            self.sessions.extend(each["session"] for each in made)

    def pause(self, client, rng, session):
        client.ask("pause_session", session=session)

    def resume(self, client, rng, session):
        client.ask("resume_session", session=session)

    def delete(self, client, rng, session):
        known = client.ask("snapshots", session=session)["snapshots"]
        if known:
            client.ask("delete_snapshot", snapshot=rng.choice(known)["snapshot"])

    def close(self, client, rng, session):
        if len(self.sessions) > 3 and rng.random() < 0.5:
            try:
                self.sessions.remove(session)
            except ValueError:
                return
            client.ask("close_session", session=session)

    def read(self, client, rng, session):
        client.ask("files.read", session=session, path="/work/f")

    def write(self, client, rng, session):
        client.ask("files.write", session=session, path="/work/g", data=b"hi")
