"""Drives `Progress` in a terminal of its own: one step a line read from stdin.

After each step it sets the window's title, which a test can wait for and which moves no cursor.
"""

from __future__ import annotations

import sys

from pipeline.cli.progress import Progress
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from tests.unit.sample_rows import done, failed, row


def main() -> None:
    total = 200
    now = [0.0]
    with Progress(total, verbose=0, clock=lambda: now[0], eta=lambda: 754.0, estimate_usd=240.0) as progress:
        for step, line in enumerate(iter(sys.stdin.readline, "")):
            match line.split():
                case ["saved", count]:
                    for index in range(int(count)):
                        progress.on_transition(row(step * 1000 + index), done(index))
                case ["failed"]:
                    progress.on_transition(row(99), failed(99, "no \x1b[2J face found"))
                case ["throttled"]:
                    progress.on_event(Event(Topic.THROTTLED, "slower: 429", Level.INFO))
                case ["doubt"]:
                    progress.on_transition(row(98, State.SUBMITTING), row(98, State.IN_DOUBT))
                case ["say", *words]:
                    progress.on_event(Event(Topic.NOTE, " ".join(words), Level.WARNING))
                case ["end"]:
                    break
            now[0] += 20.0
            progress.tick()
            if sys.stderr.isatty():
                sys.stderr.write("\x1b]2;ok\x07")
                sys.stderr.flush()
    print("after the bars", flush=True)


if __name__ == "__main__":
    main()
